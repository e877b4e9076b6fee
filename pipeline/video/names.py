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
UNREAD_SUFFIXES = {".avif", ".gif", ".jp2", ".jxl", ".pgm", ".ppm", ".tif", ".tiff"}  # of images that are not read
HIDDEN = (".", "@")  # what systems make for themselves: `._0.jpg` of macOS, `@eaDir` of network disks
FLOW = "flow_"  # optical flow, which mmaction2 keeps beside img_00001.jpg


def is_named_as_video(name: str) -> bool:
    """Whether a path, or name, has a suffix of videos."""
    return PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES


def is_named_as_frame(name: str) -> bool:
    """Whether a name is that of an image in a folder of frames."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith((*HIDDEN, FLOW))


def is_named_as_unread(name: str) -> bool:
    """Whether a name is that of an image that is not read. A folder of nothing else is a clip all the same, which fails
    by a reason, where it would vanish; beside images that are read, a preview say, it is no frame.
    """
    return PurePosixPath(name).suffix.lower() in UNREAD_SUFFIXES and not name.startswith((*HIDDEN, FLOW))


def images_of(folder: Path) -> list[str]:
    """The names of a folder's images in natural order: `2.jpg` before `10.jpg`. Raises OSError."""
    with os.scandir(folder) as entries:
        files = [entry.name for entry in entries if entry.is_file()]
    names = list(filter(is_named_as_frame, files)) or list(filter(is_named_as_unread, files))
    return sorted(names, key=lambda name: (natural(name), name))


def natural(name: str) -> tuple[str | int, ...]:
    """What names are put in order by: words and numbers, `01` and `1` being one."""
    parts = re.split(r"(\d+)", name.casefold())
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts))
