"""Pictures whose bytes are in the page, as many as it may hold."""

from __future__ import annotations

import base64
from pathlib import Path

MOST = 3_600_000  # bytes of all pictures in the page, in base64: with its tables it is to stay below 5 MB
KINDS = {".png": "image/png", ".jpg": "image/jpeg"}


class Inside:
    """Gives pictures as addresses, in the order asked for, until the page is full."""

    def __init__(self, most: int = MOST):
        self.left = most

    def __call__(self, path: Path) -> str:
        """`data:image/png;base64,...`, or nothing where it does not fit any more."""
        data = base64.b64encode(path.read_bytes()).decode()
        if len(data) > self.left:
            return ""
        self.left -= len(data)
        return f"data:{KINDS[path.suffix]};base64,{data}"


def beside_page(path: Path) -> str:
    """Where a picture lies, seen from the page: figures/<data set>/<protocol>/<name>."""
    return "/".join(path.parts[-4:])
