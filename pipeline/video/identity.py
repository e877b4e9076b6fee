"""Telling one video from another, cheaply.

The identity of a video is its size and a hash of its content: of all of it up to 4 MiB, of 64 blocks spread evenly
over a larger file. It does not depend on where the file lies or when it was copied, so a colleague's copy is the same
video. Size and modification time are only a short cut: where both are as recorded, the content is not read again.
`ingest --hash` notes the sha256 of the whole file, for data sets whose owner wants certainty.

A folder of images is told by their number, their sizes in order, and the first 64 KiB of at most 64 images spread
evenly, whatever they are called; the short cut looks at name, size and modification time of every image.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.files.hashing import fingerprint, sha256_file
from pipeline.files.plain_file import open_plain
from pipeline.video.names import images_of

WHOLE = 4 << 20
BLOCKS, BLOCK = 64, 16 << 10


@dataclass(frozen=True)
class VideoRecord:
    """A video as it was when its frames were read; an empty identity means that it was not there or not readable."""

    identity: str
    size: int  # bytes, of a folder those of its images
    mtime_ns: int  # of a folder a number that changes with the name, size or time of any image


GONE = VideoRecord("", 0, 0)
UNREADABLE = VideoRecord("", -1, 0)  # it may be there, but the system does not let it be read


def identify(path: Path, known: VideoRecord | None = None) -> VideoRecord:
    """The record of the video at `path`, or `GONE`, or `UNREADABLE`. `known` saves reading one that looks untouched.

    Raises nothing: what is wrong with one file is told where that file is opened, and concerns no other.
    """
    try:
        names = images_of(path) if path.is_dir() else []
        statuses = [(path / name).stat() for name in names] or [path.stat()]
        size, mtime_ns = sum(status.st_size for status in statuses), _mtime_of(names, statuses)
        if known is not None and known.identity and (known.size, known.mtime_ns) == (size, mtime_ns):
            return known
        identity = _folder_identity(path, names, statuses) if names else _content_identity(path, size)
        return VideoRecord(identity, size, mtime_ns)
    except (FileNotFoundError, NotADirectoryError):
        return GONE
    except (OSError, ValueError):  # ValueError: no name that the system takes
        return UNREADABLE


def sha256_video(path: Path) -> str:
    """sha256 of a whole file, or of the images of a folder in order. Raises OSError."""
    if not path.is_dir():
        return sha256_file(path)
    return fingerprint([sha256_file(path / name) for name in images_of(path)])


def _mtime_of(images: list[str], statuses: list[os.stat_result]) -> int:
    """`mtime_ns` of a record."""
    if not images:
        return statuses[0].st_mtime_ns
    found = [(name, status.st_size, status.st_mtime_ns) for name, status in zip(images, statuses, strict=True)]
    return int(fingerprint(found)[:15], 16)


def _folder_identity(path: Path, images: list[str], statuses: list[os.stat_result]) -> str:
    digest = hashlib.sha256(str([status.st_size for status in statuses]).encode())
    for place in sorted({(len(images) - 1) * block // (BLOCKS - 1) for block in range(BLOCKS)}):
        with open_plain(path / images[place]) as file:
            digest.update(file.read(WHOLE // BLOCKS))
    return f"{len(images)}-images-{digest.hexdigest()[:32]}"


def _content_identity(path: Path, size: int) -> str:
    if size <= WHOLE:
        return f"{size}-{sha256_file(path)[:32]}"
    digest = hashlib.sha256()
    with open_plain(path) as file:
        for block in range(BLOCKS):
            file.seek((size - BLOCK) * block // (BLOCKS - 1))
            digest.update(file.read(BLOCK))
    return f"{size}-{digest.hexdigest()[:32]}"
