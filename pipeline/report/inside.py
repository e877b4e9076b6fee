"""Pictures whose bytes are in the page, as many as it may hold."""

from __future__ import annotations

import base64
from pathlib import Path

MOST = 4_000_000  # bytes of all pictures in the page, in base64: with its tables it is to stay below 5 MB
SHOWN = 0.66  # of a chart's dots
KINDS = {".png": "image/png", ".jpg": "image/jpeg"}


class Inside:
    """Gives pictures as addresses, in the order asked for, until the page is full."""

    def __init__(self, most: int = MOST):
        self.left = self.here = most

    def part(self, parts: int) -> str:
        """Begin the next of so many parts that are left: each may have as much as any other, and what that leaves."""
        self.here = self.left // max(parts, 1)
        return ""

    def __call__(self, path: Path) -> str:
        """`data:image/png;base64,...`, or nothing where it does not fit any more."""
        data = base64.b64encode(path.read_bytes()).decode()
        if len(data) > self.here:
            return ""
        self.left -= len(data)
        self.here -= len(data)
        return f"data:{KINDS[path.suffix]};base64,{data}"


def shown_width(path: Path) -> int:
    """How wide a chart is shown, in pixels of a page: its letters are then as large as those of the page."""
    with path.open("rb") as file:
        head = file.read(24)
    return round(int.from_bytes(head[16:20]) * SHOWN)  # of a PNG


def beside_page(path: Path) -> str:
    """Where a picture lies, seen from the page: figures/<data set>/<protocol>/<name>."""
    return "/".join(path.parts[-4:])
