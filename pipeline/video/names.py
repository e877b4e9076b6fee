"""What is a video by its name: a file with a suffix of videos, or a folder with images, one for each frame."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

VIDEO_SUFFIXES = {
    ".264", ".265", ".3gp", ".avi", ".flv", ".h264", ".h265", ".hevc", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4",
    ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv",
}  # fmt: skip
IMAGE_SUFFIXES = {".bmp", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".webp"}  # HEIC only to be refused by its name
HIDDEN = (".", "@")  # what systems make for themselves: `._0.jpg` of macOS, `@eaDir` of network disks
FLOW = "flow_"  # optical flow, which mmaction2 keeps beside img_00001.jpg


def is_named_as_video(name: str) -> bool:
    """Whether a path, or name, has a suffix of videos."""
    return PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES


def is_named_as_frame(name: str) -> bool:
    """Whether a name is that of an image in a folder of frames."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith((*HIDDEN, FLOW))


def images_of(folder: Path) -> list[str]:
    """The names of a folder's images in natural order: `2.jpg` before `10.jpg`. Raises OSError."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if is_named_as_frame(entry.name) and entry.is_file()]
    return sorted(names, key=_natural)


def _natural(name: str) -> tuple[list[str | int], str]:
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
