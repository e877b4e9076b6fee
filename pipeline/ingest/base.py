"""What a data set's folder is asked for, and what a layout answers. Reads names only, and writes nothing."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.files.names import composed, place_of, text_of
from pipeline.video.names import HIDDEN, is_named_as_frame, is_named_as_unread, is_named_as_video


@dataclass(frozen=True)
class Entry:
    """What is known of a clip before its video is opened; `label` is a class name, empty where unknown."""

    path: str  # relative to the root, as pipeline/files/names.py writes it
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
    """A data set's folder as found. `files` are all files below `root`, but those in `image_folders`: relative, as
    files/names.py writes them, sorted. `odd` are the folders that cannot be read and what is named like a video and is
    no file: (path, reason). `image_folders` hold images and no video themselves; their paths end with a slash.
    """

    root: Path
    files: Sequence[str]
    odd: Sequence[tuple[str, str]] = ()
    image_folders: Sequence[str] = ()

    @property
    def videos(self) -> list[str]:
        """The files with a suffix of videos; where there is none at all, the folders of images."""
        return [path for path in self.files if is_named_as_video(path)] or list(self.image_folders)

    def place(self, path: str) -> Path:
        """Where one of `files` lies."""
        return place_of(self.root, path)


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
    """All files below `root`, none of them opened. Links are followed, after the folders themselves, each folder once;
    of names that differ by their Unicode form only, the first counts. A folder of images counts as a whole, so that
    the frames of a large data set are not held in memory.
    """
    files: list[str] = []
    image_folders: list[str] = []
    odd: list[tuple[str, str]] = []
    seen: set[tuple[int, int]] = set()
    links: deque[str] = deque()
    waiting = [""]
    while waiting or links:
        prefix = waiting.pop() if waiting else links.popleft()
        folder = root / prefix
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            odd.append((text_of(prefix.rstrip("/")) or ".", f"the folder cannot be read ({error.strerror})"))
            continue
        if prefix and _holds_frames(prefix, entries):
            image_folders.append(text_of(prefix))
            entries = [entry for entry in entries if not is_named_as_frame(entry.name)]
        for entry in entries:
            name = prefix + entry.name
            try:
                if entry.is_dir():
                    (links if entry.is_symlink() else waiting).append(f"{name}/")
                elif entry.is_file():
                    files.append(text_of(name))
                elif is_named_as_video(name):
                    odd.append((text_of(name), "it is no file, but a link to nothing, a device or a pipe"))
            except OSError as error:  # a link to itself
                odd.append((text_of(name), f"it cannot be read ({error.strerror})"))
    files, image_folders = _once(files, odd), _once(image_folders, odd)
    return Folder(root, files, sorted(odd), image_folders)


def _once(paths: list[str], odd: list[tuple[str, str]]) -> list[str]:
    """The paths, sorted, without those that are there already in another Unicode form, which are added to `odd`."""
    once: dict[str, str] = {}
    for path in sorted(paths):
        first = once.setdefault(composed(path), path)
        if first != path:
            odd.append((path, f"the same name in another Unicode form is there already, as {first!a}"))
    return list(once.values())


def _holds_frames(prefix: str, entries: list[os.DirEntry[str]]) -> bool:
    """Whether a folder that is not hidden holds images and no video."""
    if any(part.startswith(HIDDEN) for part in prefix.split("/")):
        return False
    names = [entry.name for entry in entries]
    images = any(map(is_named_as_frame, names)) or any(map(is_named_as_unread, names))
    return images and not any(map(is_named_as_video, names))


def stem(path: str) -> str:
    """The name of a video without folders and suffix."""
    name = path.rstrip("/").rpartition("/")[2]
    return name if path.endswith("/") else name.rpartition(".")[0]


def folders_of(path: str) -> list[str]:
    """The folders that a video lies in, the outermost first."""
    return path.rstrip("/").split("/")[:-1]
