"""From a folder of any videos to a list of clips.

Reads a data set's folder of videos (headers only) and labels from sub-folders, a CSV or the file names. Writes
manifests/<dataset>/clips.csv, and classes.csv where there is none yet.
    posebridge ingest --dataset skelgap-mini
"""

from __future__ import annotations

import csv
import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PosebridgeError
from pipeline.manifest import Clip, read_classes, write_classes, write_clips
from pipeline.video.decode import VideoError
from pipeline.video.identity import sha256_file
from pipeline.video.probe import Header, probe

VIDEO_SUFFIXES = {
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4",
    ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv",
}  # fmt: skip
CSV_COLUMNS = ("path", "label", "start", "end", "subject", "camera", "part", "clip_id")
GROUPS = ("label", "subject", "camera", "part")


@dataclass(frozen=True)
class Entry:
    """What is known of a clip before its video is opened; `label` is a class name, empty where unknown."""

    path: str  # relative to the root, with forward slashes
    label: str = ""
    start: float | None = None
    end: float | None = None
    subject: str = ""
    camera: str = ""
    part: str = ""
    clip_id: str = ""


@dataclass(frozen=True)
class Ingestion:
    """What was written. `unreadable` videos (path, reason) stay in the list, for `extract` to report clip by clip;
    `left_out` are files that do not exist or whose name does not fit the pattern."""

    clips_csv: Path
    clips: int
    videos: int
    new_classes: int
    unreadable: tuple[tuple[str, str], ...]
    left_out: tuple[tuple[str, str], ...]


def ingest(
    dataset: str,
    root: Path,
    *,
    labels: Path | None = None,
    pattern: str = "",
    hash_files: bool = False,
    manifests: Path = Path("manifests"),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Ingestion:
    """List the videos under `root` as clips.

    Labels come from `labels`, a CSV of path,label[,start,end,subject,camera,part,clip_id]; or from `pattern`, a regular
    expression with the named groups label, subject, camera, part, searched in the path; or from `root`/labels.csv
    where there is one; or else from the first sub-folder.

    Args:
        hash_files: note the sha256 of every file, so that `extract` notices any change.
        progress: told (videos done, videos to do).

    Raises:
        PosebridgeError: no videos, a CSV or pattern with an error, a label that an existing classes.csv does not have.
    """
    if not root.is_dir():
        raise PosebridgeError(f"{root} is no folder; correct the root of {dataset} in params.yaml.")
    if labels is None and not pattern and (root / "labels.csv").is_file():
        labels = root / "labels.csv"
    left_out: list[tuple[str, str]] = []
    if labels is not None:
        entries = list(_from_csv(labels, root, left_out))
    elif pattern:
        entries = list(_from_pattern(pattern, root, left_out))
    else:
        entries = [Entry(path, path.split("/")[0] if "/" in path else "") for path in _videos(root)]
    if not entries:
        raise PosebridgeError(
            f"No video found for {dataset} in {root}; known suffixes are {' '.join(sorted(VIDEO_SUFFIXES))}."
        )
    classes, are_new = _classes(manifests / dataset / "classes.csv", entries)
    index = {name: position for position, name in enumerate(classes)}
    headers: dict[str, Header | None] = {}
    hashes: dict[str, str] = {}
    unreadable = []
    paths = list(dict.fromkeys(entry.path for entry in entries))
    for done, path in enumerate(paths, start=1):
        try:
            headers[path] = probe(root / path)
        except VideoError as error:
            headers[path] = None
            unreadable.append((path, str(error)))
        hashes[path] = sha256_file(root / path) if hash_files else ""
        progress(done, len(paths))
    clips = [_clip(entry, name, index, headers[entry.path], hashes[entry.path]) for entry, name in _named(entries)]
    if are_new and classes:
        write_classes(manifests / dataset / "classes.csv", classes)
    clips_csv = write_clips(manifests / dataset / "clips.csv", clips)
    new_classes = len(classes) if are_new else 0
    return Ingestion(clips_csv, len(clips), len(paths), new_classes, tuple(unreadable), tuple(left_out))


def _videos(root: Path) -> list[str]:
    found = (path for path in root.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
    return sorted(path.relative_to(root).as_posix() for path in found)


def _from_pattern(pattern: str, root: Path, left_out: list[tuple[str, str]]) -> Iterator[Entry]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise PosebridgeError(f"The pattern {pattern!r} is not a regular expression: {error}.") from None
    if unknown := set(expression.groupindex) - set(GROUPS):
        raise PosebridgeError(f"The pattern's group {min(unknown)!r} is unknown; known groups are {', '.join(GROUPS)}.")
    for path in _videos(root):
        if match := expression.search(path):
            found: dict[str, Any] = {group: text or "" for group, text in match.groupdict().items()}
            yield Entry(path, **found)
        else:
            left_out.append((path, "the name does not fit the pattern"))


def _from_csv(labels: Path, root: Path, left_out: list[tuple[str, str]]) -> Iterator[Entry]:
    if not labels.is_file():
        raise PosebridgeError(f"{labels} is missing; its header should be {','.join(CSV_COLUMNS)}.")
    with labels.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or ()
        if {"path", "label"} - set(header) or set(header) - set(CSV_COLUMNS):
            raise PosebridgeError(
                f"{labels} has the header {','.join(header)}; it should have path and label, and may have "
                f"{', '.join(CSV_COLUMNS[2:])}."
            )
        for line, row in enumerate(reader, start=2):
            values = {name: (row.get(name) or "").strip() for name in header}
            where = f"{labels}, line {line}"
            try:
                start, end = (float(values[name]) if values.get(name) else None for name in ("start", "end"))
            except ValueError as error:
                raise PosebridgeError(f"{where}: {error}; give start and end in seconds.") from None
            if (start or 0) < 0 or (end is not None and not end > (start or 0)):
                raise PosebridgeError(f"{where}: the segment {start} to {end} is empty; start must be before end.")
            path = Path(values["path"])
            if path.is_absolute() and path.is_relative_to(root.resolve()):
                path = path.relative_to(root.resolve())
            if path.is_absolute() or ".." in path.parts:
                raise PosebridgeError(f"{where}: {path} lies outside of {root}; name videos relative to it.")
            if not (root / path).is_file():
                left_out.append((path.as_posix(), "the file does not exist"))
                continue
            others = {name: values.get(name, "") for name in ("label", "subject", "camera", "part", "clip_id")}
            yield Entry(path.as_posix(), start=start, end=end, **others)


def _classes(path: Path, entries: list[Entry]) -> tuple[list[str], bool]:
    """The class names in their order, and whether they are new."""
    wanted = {entry.label for entry in entries if entry.label}
    if not path.is_file():
        return sorted(wanted), True
    names = read_classes(path)
    if unknown := sorted(wanted - set(names)):
        close = difflib.get_close_matches(unknown[0], names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "correct the label, or delete the file to have it made anew."
        raise PosebridgeError(f"The class {unknown[0]!r} is not in {path}; {hint}")
    return names, False


def _named(entries: list[Entry]) -> Iterator[tuple[Entry, str]]:
    """Every entry with its clip_id: given, or the path without suffix and the segment."""
    stems = Counter(stem for stem, _ in {(entry.path.rpartition(".")[0], entry.path) for entry in entries})
    taken: set[str] = set()
    for entry in entries:
        stem = entry.path.rpartition(".")[0]
        name = entry.clip_id or (stem if stem and stems[stem] == 1 else entry.path)
        if not entry.clip_id and (entry.start is not None or entry.end is not None):
            name += f"@{entry.start or 0:g}-{'' if entry.end is None else f'{entry.end:g}'}"
        if name in taken:
            raise PosebridgeError(f"The clip_id {name!r} would occur twice; give every segment its own clip_id.")
        taken.add(name)
        yield entry, name


def _clip(entry: Entry, clip_id: str, index: dict[str, int], header: Header | None, sha256: str) -> Clip:
    return Clip(
        clip_id=clip_id,
        path=entry.path,
        start=entry.start,
        end=entry.end,
        label=index[entry.label] if entry.label else None,
        subject=entry.subject,
        camera=entry.camera,
        part=entry.part,
        sha256=sha256,
        fps=header.fps if header else None,
        frames=header.frames if header else None,
        height=header.height if header else None,
        width=header.width if header else None,
    )
