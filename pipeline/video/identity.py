"""Telling one video file from another, cheaply.

The identity of a video is its size and a hash of its content: of all of it up to 4 MiB, of 64 blocks spread evenly
over a larger file. It does not depend on where the file lies or when it was copied, so a colleague's copy is the same
video. Size and modification time are only a short cut: where both are as recorded, the content is not read again.
`ingest --hash` notes the sha256 of the whole file, for data sets whose owner wants certainty.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pipeline.files.hashing import sha256_file
from pipeline.files.plain_file import open_plain

WHOLE = 4 << 20
BLOCKS, BLOCK = 64, 16 << 10


@dataclass(frozen=True)
class VideoRecord:
    """A file as it was when its frames were read; an empty identity means that it was not there or not readable."""

    identity: str
    size: int
    mtime_ns: int


GONE = VideoRecord("", 0, 0)
UNREADABLE = VideoRecord("", -1, 0)  # it may be there, but the system does not let it be read


def identify(path: Path, known: VideoRecord | None = None) -> VideoRecord:
    """The record of the file at `path`, or `GONE`, or `UNREADABLE`. `known` saves reading a file that looks untouched.

    Raises nothing: what is wrong with one file is told where that file is opened, and concerns no other.
    """
    try:
        status = path.stat()
        size, mtime_ns = status.st_size, status.st_mtime_ns
        if known is not None and known.identity and (known.size, known.mtime_ns) == (size, mtime_ns):
            return known
        return VideoRecord(_content_identity(path, size), size, mtime_ns)
    except (FileNotFoundError, NotADirectoryError):
        return GONE
    except (OSError, ValueError):  # ValueError: no name that the system takes
        return UNREADABLE


def _content_identity(path: Path, size: int) -> str:
    if size <= WHOLE:
        return f"{size}-{sha256_file(path)[:32]}"
    digest = hashlib.sha256()
    with open_plain(path) as file:
        for block in range(BLOCKS):
            file.seek((size - BLOCK) * block // (BLOCKS - 1))
            digest.update(file.read(BLOCK))
    return f"{size}-{digest.hexdigest()[:32]}"
