"""Clips and class lists: the text files that name the data.

Reads and writes `manifests/<dataset>/clips.csv` and `classes.csv`; knows nothing of how anything is computed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from pipeline.errors import PosebridgeError


@dataclass(frozen=True)
class Clip:
    """One row of clips.csv: a whole video, or the segment [start, end) of one, in seconds.

    `path` is relative to the data set's root. `label` is the 0-based index into classes.csv, None where unknown.
    """

    clip_id: str
    path: str
    start: float | None = None
    end: float | None = None
    label: int | None = None
    subject: str = ""
    camera: str = ""
    part: str = ""  # train or test
    sha256: str = ""
    fps: float | None = None
    frames: int | None = None
    height: int | None = None
    width: int | None = None


COLUMNS = tuple(f.name for f in fields(Clip))
_FLOATS, _INTS = {"start", "end", "fps"}, {"label", "frames", "height", "width"}


def write_clips(path: Path, clips: Iterable[Clip]) -> Path:
    """Write clips.csv; None becomes an empty field."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for clip in clips:
            values = (getattr(clip, name) for name in COLUMNS)
            writer.writerow("" if v is None else f"{v:.10g}" if isinstance(v, float) else v for v in values)
    return path


def read_clips(path: Path) -> list[Clip]:
    """Read clips.csv. Raises PosebridgeError for a missing file or column, a bad number or a repeated clip_id."""
    if not path.is_file():
        raise PosebridgeError(f"{path} is missing; make it with `posebridge ingest`.")
    clips: list[Clip] = []
    seen: set[str] = set()
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if missing := {"clip_id", "path"} - set(reader.fieldnames or ()):
            raise PosebridgeError(
                f"{path} lacks the column {sorted(missing)[0]}; its header should be {','.join(COLUMNS)}."
            )
        for line, row in enumerate(reader, start=2):
            try:
                clip = Clip(**{name: _parse(name, row.get(name) or "") for name in COLUMNS})  # type: ignore[arg-type]
            except ValueError as error:
                raise PosebridgeError(f"{path}, line {line}: {error}.") from None
            if clip.clip_id in seen:
                raise PosebridgeError(
                    f"{path}, line {line}: the clip_id {clip.clip_id!r} occurs twice; make it unique."
                )
            seen.add(clip.clip_id)
            clips.append(clip)
    return clips


def _parse(name: str, text: str) -> object:
    if name in _FLOATS:
        return float(text) if text else None
    if name in _INTS:
        return int(text) if text else None
    return text


def read_classes(path: Path) -> list[str]:
    """Read classes.csv (`index,name`); raises PosebridgeError unless indices run 0, 1, 2, ... and names differ."""
    if not path.is_file():
        raise PosebridgeError(f"{path} is missing; write it as `index,name`, 0-based.")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [row.get("name", "") for row in rows]
    for expected, row in enumerate(rows):
        if row.get("index") != str(expected):
            raise PosebridgeError(
                f"{path}, line {expected + 2}: index {row.get('index')!r} should be {expected} (0-based, in order)."
            )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise PosebridgeError(f"{path}: the class name {twice!r} occurs twice.")
    return names


def write_classes(path: Path, names: Iterable[str]) -> Path:
    """Write classes.csv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("index", "name"))
        writer.writerows(enumerate(names))
    return path
