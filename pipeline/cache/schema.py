"""What a shard holds: its datasets, their shapes by recipe, and the check that a file is such a shard."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.recipe import CUES_ALONE, Recipe
from pipeline.video.record import RECORD_BYTES
from pipeline.video.thumbnail import SIDE

SCHEMA = 2
FEATURE_WIDTH = 256  # of imported features: that of every skeleton encoder here, and of those of the field


@dataclass(frozen=True)
class Column:
    """One dataset of a shard, of shape [N, *shape]. A `dtype` of kind S is fixed-width UTF-8 of any width."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...] = ()
    axes: tuple[str, ...] = ()
    unit: str = ""

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Place:
    """Where a dataset lies in a file."""

    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


def columns(
    recipe: Recipe, joints: int, cue_width: int, text_widths: dict[str, int] | None = None
) -> tuple[Column, ...]:
    """The datasets of a shard of this recipe.

    A recipe with `cues: none` has no `cues`, `cue_scores` and `cue_frame`; one that opens no video, no `thumbnail`; one
    of imported features, these in the place of skeletons; one of imported cues alone, neither.
    `text_widths` gives the bytes of the UTF-8 columns where a shard is to be written; a reader takes them as they come.
    """
    m, t, s, a, c = recipe.persons, recipe.frames, recipe.cue_frames, len(recipe.anchors), recipe.dimensions
    unit = "pixel" if c == 2 else "metre"
    wide = text_widths or {}

    def text(name: str) -> Column:
        return Column(name, np.dtype(f"S{wide.get(name, 64)}"))

    skeleton = (
        text("clip_id"),
        Column("keypoints", np.dtype("<f4"), (m, t, joints, c), ("person", "frame", "joint", "xyz"[:c]), unit),
        Column("scores", np.dtype("<f2"), (m, t, joints), ("person", "frame", "joint")),
        Column("boxes", np.dtype("<f4"), (m, t, 4), ("person", "frame", "xywh"), unit),
        Column("person_valid", np.dtype(bool), (m, t), ("person", "frame")),
        Column("track_id", np.dtype("<i4"), (m,), ("person",)),
        Column("frame_index", np.dtype("<i4"), (t,), ("frame",)),
        Column("timestamp", np.dtype("<f8"), (t,), ("frame",), "second"),
    )
    features = (Column("features", np.dtype("<f4"), (FEATURE_WIDTH, t, joints), ("feature", "frame", "joint")),)
    imported = (text("clip_id"), *(() if recipe.layout == CUES_ALONE else features))
    cues = (
        Column("cues", np.dtype("<f2"), (m, s, a, cue_width), ("person", "cue_frame", "anchor", "feature")),
        Column("cue_scores", np.dtype("<f2"), (m, s, a), ("person", "cue_frame", "anchor")),
        Column("cue_frame", np.dtype("<i4"), (s,), ("cue_frame",)),
    )
    video = (
        text("video_path"),
        text("video_identity"),
        Column("video_fps", np.dtype("<f8"), unit="1/second"),
        Column("video_frames", np.dtype("<i4")),
        Column("video_height", np.dtype("<i4"), unit="pixel"),
        Column("video_width", np.dtype("<i4"), unit="pixel"),
        Column("video_record", np.dtype(f"S{RECORD_BYTES}")),  # a ClipRecord in JSON; empty where no video was read
    )
    pictures = (Column("thumbnail", np.dtype("u1"), (t, SIDE, SIDE), ("frame", "row", "column")),)
    return (
        (imported if recipe.backend == "features" else skeleton)
        + (() if recipe.cues == "none" else cues)
        + video
        + (pictures if recipe.needs_videos else ())
    )


def locate(path: Path, expected: tuple[Column, ...], remedy: str) -> dict[str, Place]:
    """Open a shard, make sure that it is one, and tell where each dataset lies.

    Files may come from others: links, virtual, external, chunked or filtered datasets, other names, types or shapes are
    refused. Raises PosebridgeError, ending in `remedy`.
    """

    def refuse(reason: str) -> PosebridgeError:
        return PosebridgeError(f"{path} is not a shard of this recipe: {reason}; {remedy}.")

    try:
        file = h5py.File(path, "r", locking=False)  # sealed, and perhaps on a read-only network disk
    except Exception:  # damaged structures come out of HDF5 as errors of many classes
        raise refuse("it is not a readable HDF5 file") from None
    with file:
        try:
            found = _locate(file, expected, path.stat().st_size)
        except Exception as error:
            raise refuse(f"its HDF5 structure is damaged ({type(error).__name__})") from None
    if isinstance(found, str):
        raise refuse(found)
    return found


def _locate(file: h5py.File, expected: tuple[Column, ...], size: int) -> dict[str, Place] | str:
    """Where each dataset lies, or why the file is not such a shard."""
    if (schema := file.attrs.get("schema")) != SCHEMA:
        return f"its schema is {schema!r}, not {SCHEMA}"
    if file.userblock_size:
        return "it has a user block"
    if odd := set(file) ^ {column.name for column in expected}:
        name = min(odd)
        return f"the dataset {name[:100]!r} is {'unknown' if name in file else 'missing'}"
    places = {}
    for column in expected:
        if not isinstance(file.get(column.name, getlink=True), h5py.HardLink):
            return f"{column.name!r} is a link to elsewhere"
        dataset = file[column.name]
        if not isinstance(dataset, h5py.Dataset):
            return f"{column.name!r} is not a dataset"
        if reason := _misfit(dataset, column, size):
            return f"{column.name!r} {reason}"
        places[column.name] = Place(dataset.id.get_offset(), dataset.dtype, dataset.shape)
    if len({place.shape[0] for place in places.values()}) != 1:
        return "its datasets differ in the number of clips"
    end = 0
    for name, place in sorted(places.items(), key=lambda item: item[1].offset):
        if place.offset < end:
            return f"{name!r} overlaps with another dataset"
        end = place.offset + place.bytes
    return places


def _misfit(dataset: h5py.Dataset, column: Column, file_size: int) -> str:
    """Why a dataset is not the column, or an empty string."""
    plan = dataset.id.get_create_plist()
    if dataset.is_virtual or dataset.external:
        return "keeps its data in another file"
    if plan.get_layout() != h5py.h5d.CONTIGUOUS or plan.get_nfilters():
        return "is chunked or compressed"
    if dataset.dtype.kind != column.dtype.kind or (column.dtype.kind != "S" and dataset.dtype != column.dtype):
        return f"is of type {dataset.dtype}, not {column.dtype}"
    if dataset.ndim != 1 + len(column.shape) or dataset.shape[1:] != column.shape or not dataset.size:
        return f"has the shape {dataset.shape}, not [N, {', '.join(map(str, column.shape))}]"
    offset = dataset.id.get_offset()
    if offset is None or offset + dataset.size * dataset.dtype.itemsize > file_size:
        return "reaches beyond the end of the file"
    return ""
