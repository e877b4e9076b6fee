"""What a data set's folder is asked for, and what a layout answers. Reads names only, and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

VIDEO_SUFFIXES = {
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4",
    ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """What is known of a clip before its video is opened; `label` is a class name, empty where unknown."""

    path: str  # relative to the root, with forward slashes
    label: str = ""
    start: float | None = None  # seconds
    end: float | None = None
    subject: str = ""
    camera: str = ""
    part: str = ""
    clip_id: str = ""
    frames: tuple[int, int] | None = None  # the segment in frames, where that is how the data set tells it


@dataclass
class Listing:
    """What a layout makes of a folder. Nothing disappears: what is no entry stands in one of the other lists."""

    entries: list[Entry] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)  # what should be there and is not, reason
    left_out: list[tuple[str, str]] = field(default_factory=list)  # what is there and cannot be used, reason
    remarks: list[str] = field(default_factory=list)  # sentences on what only a count can tell


@dataclass(frozen=True)
class Folder:
    """A data set's folder as found. `files` are all files below `root`: relative, forward slashes, sorted."""

    root: Path
    files: Sequence[str]

    @property
    def videos(self) -> list[str]:
        """The files with a suffix of videos."""
        return [path for path in self.files if PurePosixPath(path).suffix.lower() in VIDEO_SUFFIXES]


@dataclass(frozen=True)
class Layout:
    """One published data set.

    `read` takes the folder, the class names in their order, and one of `splits`, the first of which is the default.
    """

    read: Callable[[Folder, Sequence[str], str], Listing]
    splits: tuple[str, ...]
    large: bool = False  # headers are read only when asked for
    in_frames: bool = False  # segments are told in frames, so headers have to be read
    skeleton_list: bool = False  # there is a published list of samples without skeletons: missing_skeletons.txt


def list_folder(root: Path) -> Folder:
    """All files below `root`. Links are followed, each folder once; a link to nothing is no file."""
    seen: set[str] = set()

    def walk(folder: str, prefix: str) -> Iterator[str]:
        real = os.path.realpath(folder)
        if real in seen:
            return
        seen.add(real)
        with os.scandir(folder) as found:
            for entry in found:
                if entry.is_dir():
                    yield from walk(entry.path, f"{prefix}{entry.name}/")
                elif entry.is_file():
                    yield prefix + entry.name

    return Folder(root, sorted(walk(str(root), "")))


def stem(path: str) -> str:
    """The name of a file without folders and suffix."""
    return path.rpartition("/")[2].rpartition(".")[0]
