"""Skeleton features as others publish them, before any training of ours: two forms.

SynSE's, which SA-DVAE, TDSM and others share: a folder of one split with `train.npy` [N, 256] (train clips of the seen
classes), `ztest.npy` (test clips of the unseen ones), mostly `gtest.npy` (test clips of all classes), and the labels of
each, indices of all classes, in `train_label.npy`, `z_label.npy`, `g_label.npy`. Clips have no names there: they are
called by their file and row. Where gtest.npy holds clips of unseen classes these should be those of ztest.npy once
more, and are not taken twice. `*_out.npy` and `val.npy` are not read.

Nor are the folders `*_val_*` of SynSE's release, features of an encoder that has not seen the validation classes. They
are what the selection phase should choose on (gamma above all); instead it takes these classes' clips from the one
folder that is read, whose encoder has learnt them. So values are chosen on easier ground than they are used on, and a
calibration may fall short.

One file, a `.npz` or HDF5, of arrays over N clips: `features` [N, 256], or maps [N, 256, T, V] of V joints, or `cues`
[N, S, D] (16 x 512 in the PoseBridge paper), or both; `label` [N]; `part` [N] text (train, val or test; val counts as
test); and optionally `clip_id` [N] text and, with cues, `cue_scores` [N, S]. They may also be called maps, labels,
parts or split, ids or frame_dir. Text in HDF5 is of fixed width, np.array(names, "S").

Floats of 2, 4 or 8 bytes, features up to 1e6 in size. Only names, labels and parts are held in memory.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cache.schema import FEATURE_WIDTH
from pipeline.errors import PosebridgeError, some_names
from pipeline.files.durable import unreadable
from pipeline.files.hashing import sha256_file
from pipeline.files.names import composed, why_outside
from pipeline.interchange.annotations import PARTS, plain_name
from pipeline.interchange.rows import Rows, hdf5_names, hdf5_rows, npy_rows, npz_names, npz_rows
from pipeline.skeleton.graph import GRAPHS

MOST_CLIPS = 5_000_000
NAMED = 8  # arrays in a message
MOST_STEPS, MOST_WIDE = 1000, 1 << 16  # S and D of cues, T of maps
LARGEST = 1e6  # of a feature: an encoder gives some tens, and on far larger ones training overflows without a word
HALF = float(np.finfo(np.float16).max)  # of a cue, which is kept in it
PIECES = {"train": "train_label", "ztest": "z_label", "gtest": "g_label"}
HDF5 = (".h5", ".hdf5")
ROUNDED = 1e-3  # of the largest projection, how far those of one clip may differ: networks round in their own ways
NAMES = {  # of the arrays of a file, and what they may be called as well
    "features": ("maps",), "label": ("labels",), "part": ("parts", "split"), "clip_id": ("ids", "frame_dir"),
    "cues": ("cue",), "cue_scores": ("cue_score",),
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where the features of a clip lie: a row of one of the arrays."""

    array: int
    row: int


@dataclass(frozen=True)
class FeatureSet:
    """N clips. `features` are arrays [., 256] or [., 256, T, V], none of cues alone, and `places` tells each clip's row
    in them; `cues` and `cue_scores` are in the order of the clips.
    """

    clip_ids: list[str]
    labels: list[int]
    parts: list[str]
    features: tuple[Rows, ...]
    places: list[Place]
    sources: dict[str, str]  # file -> sha256
    cues: Rows | None = None
    cue_scores: Rows | None = None
    val: int = 0  # of its test clips, how many the file calls val
    doubts: tuple[str, ...] = ()  # where pieces of it contradict one another, each a phrase
    remarks: tuple[str, ...] = ()  # what somebody should know of it, each a sentence

    @property
    def frames(self) -> int:
        """T of maps; 1 of pooled features, and without any."""
        return (*self.features[0].shape, 1, 1)[2] if self.features else 1

    @property
    def joints(self) -> int:
        """V of maps; 1 of pooled features, and without any."""
        return (*self.features[0].shape, 1, 1)[3] if self.features else 1

    @property
    def pooled(self) -> bool:
        return self.frames == self.joints == 1

    @property
    def cue_width(self) -> int:
        """D; 0 without cues."""
        return self.cues.shape[2] if self.cues is not None else 0

    def feature(self, clip: int) -> np.ndarray:
        """[256, T, V] float32."""
        place = self.places[clip]
        found = self.features[place.array].read(place.row, place.row + 1)
        return found.astype(np.float32).reshape(FEATURE_WIDTH, self.frames, self.joints)

    def content(self, clip: int) -> bytes:
        """What a clip is told by: its features, or its cues where there are no features; its name where it has none."""
        if self.cues is None or self.features:
            return self.feature(clip).tobytes()
        cues = self.cues.read(clip, clip + 1).astype(np.float16)
        return cues.tobytes() if cues.any() else self.clip_ids[clip].encode()


def read_features(path: Path, names: Sequence[str], unseen: Sequence[int], folder: Path) -> FeatureSet:
    """The features of a folder in SynSE's form, or of a `.npz` or HDF5 file, all of them looked through. `names` are
    the classes, `unseen` those that the protocol leaves unseen; what is packed is unpacked on the disk of `folder`.

    Raises PosebridgeError naming the file for anything that is not as the module's docstring says.
    """
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise PosebridgeError(f"{path} does not exist; name a file or folder of features.") from None
    except OSError as error:
        raise unreadable(path, error, "name a file or folder of features") from None
    return _folder(path, names, unseen) if is_folder else _file(path, len(names), folder)


def _folder(path: Path, names: Sequence[str], unseen: Sequence[int]) -> FeatureSet:
    rows: dict[str, Rows] = {}
    labels: dict[str, list[int]] = {}
    sources: dict[str, str] = {}
    for name, of_labels in PIECES.items():
        place = path / f"{name}.npy"
        if name == "gtest" and not place.exists() and not (path / f"{of_labels}.npy").exists():
            continue
        if not place.exists() or not (path / f"{of_labels}.npy").exists():
            lacking = place if not place.exists() else path / f"{of_labels}.npy"
            raise PosebridgeError(
                f"{lacking} is missing; a folder of features holds train.npy, train_label.npy, ztest.npy, z_label.npy "
                "and mostly gtest.npy, g_label.npy."
            )
        rows[name] = _features(npy_rows(place))
        labels[name] = _labels(npy_rows(path / f"{of_labels}.npy"), len(rows[name]), len(names))
        sources |= {file: _sha256(path / file) for file in (place.name, f"{of_labels}.npy")}
    if len({found.shape[1:] for found in rows.values()}) > 1:
        shapes = ", ".join(f"{name} {list(found.shape)}" for name, found in rows.items())
        raise PosebridgeError(f"{path}: its arrays differ in shape: {shapes}; write all of them by one encoder.")
    ids, kept, parts, places = [], [], [], []
    for array, (name, own) in enumerate(labels.items()):
        for row, label in enumerate(own):
            if name == "gtest" and label in unseen:
                continue  # ztest.npy has it
            ids.append(f"{name}-{row:07d}")
            kept.append(label)
            parts.append("train" if name == "train" else "test")
            places.append(Place(array, row))
    of_unseen, of_all = Counter(labels["ztest"]), Counter(labels.get("gtest", ()))
    doubts = [
        f"ztest.npy has {of_unseen[label]} clips of {names[label]!r}, a seen class; name the protocol of these "
        "features, or take the clips out"
        for label in sorted(of_unseen) if label not in unseen
    ]  # fmt: skip
    remarks = []
    if any(of_all[label] for label in unseen):
        doubts += [
            f"ztest.npy has {of_unseen[label]} clips of {names[label]!r}, but gtest.npy {of_all[label]}; bring both of "
            "one extraction, or leave gtest.npy out"
            for label in unseen if of_unseen[label] != of_all[label]
        ]  # fmt: skip
        if others := _other_clips(rows, labels, unseen):
            told = some_names([names[label] for label in others], NAMED)
            remarks.append(
                f"{path}: gtest.npy has other clips of {told} than ztest.npy, as if of another extraction; those of "
                "ztest.npy are taken."
            )
    return FeatureSet(
        ids, kept, parts, tuple(rows.values()), places, sources, doubts=tuple(doubts), remarks=tuple(remarks)
    )


def _other_clips(rows: dict[str, Rows], labels: dict[str, list[int]], classes: Sequence[int]) -> list[int]:
    """Those of `classes` of which gtest.npy has as many clips as ztest.npy, in any order, but not the same, as
    projections of each clip tell.
    """
    ours, theirs = (_projected(rows[name]) for name in ("ztest", "gtest"))
    our_labels, their_labels = (np.array(labels[name]) for name in ("ztest", "gtest"))
    far = ROUNDED * float(np.abs(ours).max())
    others = []
    for label in classes:
        one = np.sort(ours[our_labels == label], axis=0)
        two = np.sort(theirs[their_labels == label], axis=0)
        if len(one) == len(two) and (np.abs(one - two) > far).any():
            others.append(label)
    return others


def _projected(rows: Rows) -> np.ndarray:
    """[N, 8] float64: the rows along a few directions, always the same."""
    directions = np.random.default_rng(0).normal(size=(int(np.prod(rows.shape[1:])), 8))
    return np.concatenate([block.reshape(len(block), -1).astype(np.float64) @ directions for _, block in rows.blocks()])


def _file(path: Path, classes: int, folder: Path) -> FeatureSet:
    if path.suffix.lower() not in (".npz", *HDF5):
        raise PosebridgeError(
            f"{path} is neither a folder with train.npy and ztest.npy nor a .npz, .h5 or .hdf5 file of features."
        )
    sha256 = _sha256(path)
    hdf5 = path.suffix.lower() in HDF5
    big = (hdf5_rows if hdf5 else npz_rows)(path, [*NAMES, *chain.from_iterable(NAMES.values())], folder)
    for name, others in NAMES.items():
        called = [each for each in (name, *others) if each in big]
        if len(called) > 1:
            raise PosebridgeError(f"{path} holds both {called[0]!r} and {called[1]!r}; leave one out.")
        if called:
            big[name] = big.pop(called[0])
    seen = "cues" if "cues" in big and "features" not in big else "features"
    if lacking := [name for name in (seen, "label", "part") if name not in big]:
        there = some_names((hdf5_names if hdf5 else npz_names)(path), NAMED) or "nothing"
        raise PosebridgeError(
            f"{path} lacks the array {lacking[0]!r}; it should have features or cues, label and part, and has {there}."
        )
    features = (_features(big["features"]),) if seen == "features" else ()
    clips = len(big[seen])
    for name, rows in big.items():
        if rows.shape[:1] != (clips,) or name in ("clip_id", "part") and len(rows.shape) > 1:
            raise PosebridgeError(
                f"{path}: {name} has the shape {list(rows.shape)}, but there are {clips} clips; write one row a clip, "
                "in the same order in all arrays."
            )
    ids = _names(path, big["clip_id"]) if "clip_id" in big else [f"clip-{row:07d}" for row in range(clips)]
    parts, val = [], 0
    for clip_id, value in zip(ids, _values(big["part"]), strict=True):
        part = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        if part.strip().lower() not in PARTS:
            raise PosebridgeError(f"{path}: {clip_id!r} is of the part {part[:40]!r}; write train, val or test.")
        parts.append(PARTS[part.strip().lower()])
        val += part.strip().lower() == "val"
    return FeatureSet(
        ids, _labels(big["label"], clips, classes), parts, features, [Place(0, row) for row in range(clips)],
        {path.name: sha256}, *_cues(big), val=val,
    )  # fmt: skip


def _features(rows: Rows) -> Rows:
    """The same, once it is known that they are such features, every number of them finite."""
    shape = rows.shape
    if len(shape) not in (2, 4) or shape[1] != FEATURE_WIDTH:
        raise PosebridgeError(
            f"{rows.name} has the shape {list(shape)}; the methods here read features [N, {FEATURE_WIDTH}] or maps "
            f"[N, {FEATURE_WIDTH}, T, V]: take those of an encoder of that width, before its classifier."
        )
    known = {len(graph.joints): name for name, graph in GRAPHS.items()}
    if shape[2:] not in ((), (1, 1)) and (shape[3] not in known or not 1 <= shape[2] <= MOST_STEPS):
        counts = ", ".join(f"{joints} of {name}" for joints, name in known.items())
        raise PosebridgeError(
            f"{rows.name} has maps {list(shape[1:])}; the last number should be of joints: {counts}; write maps of one "
            f"of these, or their means [N, {FEATURE_WIDTH}]."
        )
    _require_numbers(rows, LARGEST)
    _require_differences(rows)
    return rows


def _require_differences(rows: Rows) -> None:
    """Raise PosebridgeError where all clips have the same features, or each has one number all over: those of no
    encoder.
    """
    first, same, flat = rows.read(0, 1), len(rows) > 1, True
    for _, block in rows.blocks():
        values = block.reshape(len(block), -1)
        same, flat = same and bool((block == first).all()), flat and bool((values == values[:, :1]).all())
        if not (same or flat):
            return
    what = "has the same features for every clip" if same else "has one number all over in every clip"
    raise PosebridgeError(f"{rows.name} {what}, so nothing can be learnt of it; extract it again.")


def _cues(big: dict[str, Rows]) -> tuple[Rows | None, Rows | None]:
    cues, scores = big.get("cues"), big.get("cue_scores")
    if cues is None:
        if scores is not None:
            raise PosebridgeError(f"{scores.name} has no cues beside it; add the array cues, or leave it out.")
        return None, None
    if len(cues.shape) != 3 or not (1 <= cues.shape[1] <= MOST_STEPS and 1 <= cues.shape[2] <= MOST_WIDE):
        raise PosebridgeError(
            f"{cues.name} has the shape {list(cues.shape)}; it should be [N, S, D], one vector a time step of a video."
        )
    _require_weight(cues, HALF)
    if scores is not None:
        if scores.shape != cues.shape[:2]:
            raise PosebridgeError(
                f"{scores.name} has the shape {list(scores.shape)}; write {list(cues.shape[:2])}, one a cue."
            )
        _require_weight(scores, 1.0, 0.0)
    return cues, scores


def _require_weight(rows: Rows, most: float, least: float | None = None) -> None:
    """As `_require_numbers`, and that not all are 0, of which nothing is learnt."""
    if not _require_numbers(rows, most, least):
        raise PosebridgeError(f"{rows.name} is 0 all over, so nothing can be learnt of it; leave it out.")


def _require_numbers(rows: Rows, most: float, least: float | None = None) -> bool:
    """Raise PosebridgeError unless all are finite floats, no further from 0 than `most`, or from `least` to `most`.
    Returns whether any is not 0.
    """
    if rows.dtype.kind != "f" or rows.dtype.itemsize not in (2, 4, 8):
        raise PosebridgeError(f"{rows.name} is of the type {str(rows.dtype)[:40]}; it should be float16, 32 or 64.")
    if len(rows) > MOST_CLIPS:
        raise PosebridgeError(f"{rows.name} has {len(rows):,} clips; bring at most {MOST_CLIPS:,}.")
    weighs = False
    for start, block in rows.blocks():
        with np.errstate(invalid="ignore"):
            wide = block.astype(np.float64)
        good = (wide <= most) & (wide >= (-most if least is None else least))  # False where it is not a number
        if not good.all():
            row = start + int(np.flatnonzero(~good.reshape(len(block), -1).all(1))[0])
            raise PosebridgeError(
                f"{rows.name}: row {row} (0-based) has values that are not finite or beyond {most:.6g}; extract it "
                "again, or leave the clip out."
            )
        weighs = weighs or bool(wide.any())
    return weighs


def _labels(rows: Rows, clips: int, classes: int) -> list[int]:
    if rows.shape not in ((clips,), (clips, 1)):
        raise PosebridgeError(
            f"{rows.name} has the shape {list(rows.shape)}, but there are {clips} clips; write [{clips}], the index of "
            "each clip's class."
        )
    if rows.dtype.kind not in "iuf":
        kind = str(rows.dtype)[:40]
        raise PosebridgeError(f"{rows.name} is of the type {kind}; labels are whole numbers, as classes.csv has them.")
    values = rows.read(0, clips).reshape(clips)
    good = (values >= 0) & (values < classes) & (values == np.floor(values))
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        remedy = "correct it, or complete that list"
        if values.min() == 1 and values.max() == classes:
            remedy = "they seem to begin with 1, so take 1 off each"
        raise PosebridgeError(
            f"{rows.name}: row {row} (0-based) has the label {values[row]}; classes.csv has 0 to {classes - 1}: "
            f"{remedy}."
        )
    return [int(value) for value in values]


def _values(rows: Rows) -> Iterator[Any]:
    """The entries of a list, some read at a time: text is as wide as its longest entry, or as somebody says."""
    for _, block in rows.blocks():
        yield from block.tolist()


def _names(path: Path, rows: Rows) -> list[str]:
    names: dict[str, str] = {}
    for row, value in enumerate(_values(rows)):
        name = plain_name(value, f"{path}, row {row}")
        if why := why_outside(name):
            raise PosebridgeError(f"{path}, row {row}: {why}.")
        if composed(name) in names:
            raise PosebridgeError(f"{path} has {name!r} twice; make every clip_id unique.")
        names[composed(name)] = name
    return list(names.values())


def _sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise unreadable(path, error, "name a file or folder of features") from None
