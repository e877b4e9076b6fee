"""Clips and class lists: the text files that name the data.

Reads and writes `manifests/<dataset>/clips.csv` and `classes.csv`; knows nothing of how anything is computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.files.names import composed, place_of, why_outside
from pipeline.files.tables import Row, Table, open_table, write_table


@dataclass(frozen=True)
class Clip:
    """One row of clips.csv: a whole video, or the segment [start, end) of one, in seconds.

    `path` is relative to the data set's root, as pipeline/files/names.py writes it; that of a folder of images ends
    with a slash. `label` is the 0-based index into classes.csv, None where unknown. A clip of the part `both` trains
    where its class is seen and tests where it is unseen: for data sets with one clip of a class, say.
    """

    clip_id: str
    path: str
    start: float | None = None
    end: float | None = None
    label: int | None = None
    subject: str = ""
    camera: str = ""
    part: str = ""  # train, test or both
    sha256: str = ""
    fps: float | None = None
    frames: int | None = None
    height: int | None = None
    width: int | None = None

    def file(self, root: Path) -> Path:
        """Where the video lies."""
        return place_of(root, self.path)

    @property
    def image_fps(self) -> float | None:
        """The rate at which a folder's images follow one another; None where it is not told, and for a file."""
        return self.fps if self.path.endswith("/") else None

    @property
    def trains(self) -> bool:
        """Whether it may be trained on where its class is seen."""
        return self.part in ("train", "both")

    @property
    def tests(self) -> bool:
        """Whether it may be tested on where its class is unseen."""
        return self.part in ("test", "both")


COLUMNS = tuple(f.name for f in fields(Clip))
PARTS = ("train", "test", "both")
MOST_SECONDS, MOST_RATE, MOST_FRAMES, MOST_CLASSES, LONGEST_SIDE = 1e8, 1e6, 10**10, 10**6, 10**6
Others = Mapping[str, Mapping[str, str]]  # clip_id -> column of people's own -> cell


def write_clips(path: Path, clips: Iterable[Clip], others: Others | None = None) -> Path:
    """Write clips.csv, whole or not at all; None becomes an empty cell. `others` are columns that are none of ours.

    Raises PosebridgeError for a path that leads out of the data set's folder.
    """
    others = others or {}
    columns = list(dict.fromkeys(name for cells in others.values() for name in cells))
    rows = []
    for clip in clips:
        if why := why_outside(clip.path):
            raise PosebridgeError(f"The clip {clip.clip_id!r} cannot be listed in {path}: {why}.")
        values = (getattr(clip, name) for name in COLUMNS)
        own = others.get(clip.clip_id, {})
        rows.append([*(f"{v:.10g}" if isinstance(v, float) else v for v in values), *(own.get(c) for c in columns)])
    return write_table(path, (*COLUMNS, *columns), rows)


def read_clips(path: Path, classes: int = MOST_CLASSES) -> list[Clip]:
    """Read clips.csv, of a data set with so many classes.

    Raises PosebridgeError, with line and column, for a missing file or column, a wrong number, a label that is no
    class, a part that is neither train nor test, a path that leads out of the folder, or a repeated clip_id.
    """
    return [clip for clip, _ in _listed(_open_clips(path), classes)]


def read_with_others(path: Path) -> tuple[list[Clip], dict[str, dict[str, str]]]:
    """As `read_clips`, and the columns that are none of ours: clip_id -> column -> cell."""
    table = _open_clips(path)
    columns = [name for name in table.places if name not in COLUMNS]
    clips, others = [], {}
    for clip, row in _listed(table, MOST_CLASSES):
        clips.append(clip)
        if columns:
            others[clip.clip_id] = {name: row.raw(name) for name in columns}
    return clips, others


def _open_clips(path: Path) -> Table:
    remedy = f"make it with `posebridge ingest --dataset {path.parent.name}`"
    return open_table(path, ("clip_id", "path"), COLUMNS[2:], remedy)


def _listed(table: Table, classes: int) -> Iterable[tuple[Clip, Row]]:
    seen: dict[str, int] = {}
    for row in table:
        clip = _clip(row, classes)
        first = seen.setdefault(composed(clip.clip_id), row.line)
        if first != row.line:
            raise row.wrong(
                "clip_id", f"the clip_id {clip.clip_id!r} occurs twice, first on line {first}; make it unique"
            )
        yield clip, row


def _clip(row: Row, classes: int) -> Clip:
    row.needed("clip_id")
    if why := why_outside(row.raw("path")):
        raise row.wrong("path", why)
    start, end = segment(row)
    sha256 = row.text("sha256").lower()
    if sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise row.wrong("sha256", "a sha256 has 64 hex digits; empty the cell, or note it with `ingest --hash`")
    return Clip(
        clip_id=row.raw("clip_id"),
        path=row.raw("path"),
        start=start,
        end=end,
        label=row.whole("label", 0, classes - 1, "the index of a class"),
        subject=row.text("subject"),
        camera=row.text("camera"),
        part=part_of(row),
        sha256=sha256,
        fps=row.number("fps", 0, MOST_RATE, "a frame rate"),
        frames=row.whole("frames", 0, MOST_FRAMES, "a count of frames"),
        height=row.whole("height", 0, LONGEST_SIDE, "a height in pixels"),
        width=row.whole("width", 0, LONGEST_SIDE, "a width in pixels"),
    )


def segment(row: Row) -> tuple[float | None, float | None]:
    """`start` and `end` of a row. Raises PosebridgeError for what is no time, and for an empty segment."""
    start = row.number("start", 0, MOST_SECONDS, "a time in seconds")
    end = row.number("end", 0, MOST_SECONDS, "a time in seconds")
    if end is not None and not end > (start or 0):
        raise row.wrong("end", f"the segment {start or 0:g} to {end:g} is empty; start must be before end")
    return start, end


def part_of(row: Row) -> str:
    """`part` of a row in lower case. Raises PosebridgeError for another word than those of `PARTS`."""
    part = row.text("part").lower()
    if part and part not in PARTS:
        raise row.wrong("part", f"{row.text('part')[:60]!r} is no part; write train, test, both or nothing")
    return part


def why_no_class(name: str) -> str:
    """Why a name cannot be that of a class; empty where it can. Each class heads a column of confusion.csv, and `class`
    is the heading of its first one.
    """
    return "results have a column `class`, so no class can be called that" if name.strip().lower() == "class" else ""


def read_classes(path: Path) -> list[str]:
    """Read classes.csv (`index,name`); raises PosebridgeError unless indices run 0, 1, 2, ... and names differ and
    may be those of classes.
    """
    names: dict[str, str] = {}
    for expected, row in enumerate(open_table(path, ("index", "name"), (), "write it as `index,name`, 0-based")):
        if row.whole("index", 0, MOST_CLASSES) != expected:
            raise row.wrong("index", f"index {row.text('index')!r} should be {expected} (0-based, in order)")
        name = row.needed("name")
        if why := why_no_class(name):
            raise row.wrong("name", f"{why}; give it another name")
        if composed(name) in names:
            raise row.wrong("name", f"the class name {name!r} occurs twice; make it unique")
        names[composed(name)] = name
    return list(names.values())


def write_classes(path: Path, names: Sequence[str]) -> Path:
    """Write classes.csv."""
    return write_table(path, ("index", "name"), enumerate(names))
