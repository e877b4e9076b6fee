"""Annotations of skeletons as others keep them: one clip, and the two files that hold many.

PYSKL / MMAction2 pickle: a list of dicts, or {"annotations": that list, "split": {name: [frame_dir, ...]}}; a dict has
`frame_dir`, `label`, `keypoint` [M, T, V, C], and may have `keypoint_score` [M, T, V], `total_frames`, `img_shape`
(height, width) and, in a plain list, `split`. Files come from other people: types, sizes and names are checked, so
that one that is odd is one sentence, in bounded time and memory.

`.npz`: arrays over N clips by the same names: `frame_dir` [N] text, `label` [N], `keypoint` [N, M, T, V, C], and
optionally `keypoint_score` [N, M, T, V], `total_frames` [N] (what lies beyond is padding), `img_shape` [N, 2],
`split` [N] text.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.files.durable import draft_for_people
from pipeline.files.names import composed, why_outside
from pipeline.interchange.npz import read_arrays
from pipeline.interchange.unpickling import read_pickle
from pipeline.manifest.clips import LONGEST_SIDE, MOST_FRAMES

MOST_CHARACTERS = 500  # of a clip's name
PARTS = {"train": "train", "val": "test", "test": "test"}  # what these sets call `val` is what they are tested on
FARTHEST = 1e7  # pixels or metres from the origin
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # in a list of clips


@dataclass(frozen=True)
class Annotation:
    """One clip. Joints that are not finite, or have score 0, were not seen."""

    clip_id: str
    label: int
    keypoints: np.ndarray  # [M, T, V, C] float32
    scores: np.ndarray  # [M, T, V] float32
    height: int = 0  # of the frame; 0 where unknown
    width: int = 0
    split: str = ""  # the list that it is in, e.g. train or xsub_val


def read_annotations(path: Path) -> tuple[list[Annotation], dict[str, list[str]]]:
    """Annotations and split lists (name -> clip ids) of a `.npz` file or a pickle.

    Raises PosebridgeError naming file and clip for anything that is not as the module's docstring says.
    """
    records, splits = _read_npz(path) if path.suffix == ".npz" else _read_pickle(path)
    found: list[Annotation] = []
    names: set[str] = set()
    for place, record in enumerate(records):
        annotation = _annotation(record, f"{path}, annotation {place}")
        if composed(annotation.clip_id) in names:
            raise PosebridgeError(f"{path} has {annotation.clip_id!r} twice; make every frame_dir unique.")
        names.add(composed(annotation.clip_id))
        found.append(annotation)
        if annotation.split:
            splits.setdefault(annotation.split, []).append(annotation.clip_id)
    if not found:
        raise PosebridgeError(f"{path} holds no annotation.")
    return found, splits


def write_pickle(path: Path, annotations: Iterable[Annotation], splits: dict[str, list[str]]) -> int:
    """Write a PYSKL pickle of dicts, lists, numbers, text and numpy arrays; returns the number of annotations.

    Raises PosebridgeError where the disk is full or the place forbidden.
    """
    records = [
        {
            "frame_dir": annotation.clip_id,
            "label": annotation.label,
            "total_frames": annotation.keypoints.shape[1],
            "img_shape": (annotation.height, annotation.width),
            "original_shape": (annotation.height, annotation.width),
            "keypoint": np.ascontiguousarray(annotation.keypoints, np.float32),
            "keypoint_score": np.ascontiguousarray(annotation.scores, np.float16),
        }
        for annotation in annotations
    ]
    with draft_for_people(path) as draft, draft.open("wb") as file:
        pickle.dump({"split": splits, "annotations": records}, file, protocol=4)
    return len(records)


def _read_pickle(path: Path) -> tuple[Iterable[Any], dict[str, list[str]]]:
    data = read_pickle(path)
    splits: dict[str, list[str]] = {}
    if isinstance(data, dict):
        lists = data.get("split")
        lists = {} if lists is None else lists
        if not isinstance(lists, dict) or not isinstance(data.get("annotations"), list):
            raise PosebridgeError(f"{path} should be a list of annotations or a dict of annotations and split.")
        for name, clip_ids in lists.items():
            listed = isinstance(clip_ids, (list, tuple, np.ndarray)) and _length(clip_ids) >= 0
            if not (listed and isinstance(name, str)):
                raise PosebridgeError(f"{path}: its split should name lists of frame_dir; {_short(name)} is none.")
            splits[name] = [plain_name(clip_id, f"{path}, split {_short(name)}") for clip_id in clip_ids]
        data = data["annotations"]
    if not isinstance(data, list):
        raise PosebridgeError(f"{path} should be a list of annotations or a dict of annotations and split.")
    return data, splits


def _read_npz(path: Path) -> tuple[Iterator[Any], dict[str, list[str]]]:
    known = ("frame_dir", "label", "keypoint", "keypoint_score", "total_frames", "img_shape", "split")
    arrays = read_arrays(path, known)
    for name in known[:3]:
        if name not in arrays:
            raise PosebridgeError(f"{path} lacks the array {name!r}; it should have {', '.join(known[:3])}.")
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise PosebridgeError(f"{path}: its arrays should be equally long, one entry a clip; they are {lengths}.")
    return _records(path, arrays, lengths["label"]), {}


def _records(path: Path, arrays: dict[str, np.ndarray], clips: int) -> Iterator[dict[str, Any]]:
    for i in range(clips):
        try:
            yield {name: array[i] for name, array in arrays.items()}
        except ValueError:
            raise PosebridgeError(f"{path}, annotation {i}: its text is no Unicode; write it again.") from None


def _annotation(record: Any, where: str) -> Annotation:
    if not isinstance(record, dict) or not {"frame_dir", "label", "keypoint"} <= set(record):
        raise PosebridgeError(f"{where}: it should be a dict with frame_dir, label and keypoint.")
    clip_id = plain_name(record["frame_dir"], where)
    where = f"{where} ({_short(clip_id)})"
    if why := why_outside(clip_id):
        raise PosebridgeError(f"{where}: {why}.")
    if clip_id.endswith("/"):
        raise PosebridgeError(f"{where}: a clip of skeletons is no folder of images; take the slash off its name.")
    label = _whole(record["label"], f"{where}: label")
    total = _whole(record.get("total_frames", 0), f"{where}: total_frames")
    height, width = _sides(record.get("img_shape"), where)
    keypoints = _numbers(record["keypoint"], f"{where}: keypoint")
    if keypoints.ndim != 4 or keypoints.shape[3] not in (2, 3) or 0 in keypoints.shape:
        raise PosebridgeError(f"{where}: keypoint has the shape {keypoints.shape}, not [M, T, V, 2 or 3].")
    if keypoints.shape[1] > MOST_FRAMES:
        raise PosebridgeError(f"{where}: keypoint has {keypoints.shape[1]} frames, more than {MOST_FRAMES}; cut it.")
    there = np.isfinite(keypoints).all(-1)  # [M, T, V]
    if (np.abs(keypoints) > FARTHEST).any(where=np.isfinite(keypoints)):
        raise PosebridgeError(f"{where}: keypoint has places beyond {FARTHEST:.0e}; they should be pixels or metres.")
    given = record.get("keypoint_score")
    scores = _seen(keypoints) if given is None else _numbers(given, f"{where}: keypoint_score")
    there &= (keypoints != 0).any((2, 3))[..., None]  # a person all of zeros is padding, whatever the scores say
    if scores.shape != there.shape:
        raise PosebridgeError(f"{where}: keypoint_score has the shape {scores.shape}, not {there.shape}.")
    frames = total if 0 < total < keypoints.shape[1] else keypoints.shape[1]
    scores = np.where(there & np.isfinite(scores), scores, 0).clip(0, 1)
    given = record.get("split")
    split = "" if given is None or (isinstance(given, str) and not given) else plain_name(given, f"{where}: split")
    return Annotation(clip_id, label, keypoints[:, :frames], scores[:, :frames], height, width, split)


def _seen(keypoints: np.ndarray) -> np.ndarray:
    """Which joints of [M, T, V, C] without scores were seen, [M, T, V] of 0 and 1: an unseen one is written as zeros.

    So are absent persons in NTU's files. Where skeletons are centred on a joint it is always zero, and was seen.
    """
    seen = (keypoints != 0).any(-1)
    present = seen.any(-1, keepdims=True)  # [M, T, 1]
    centre = ~(seen & present).any((0, 1)) if keypoints.shape[3] == 3 else np.zeros(seen.shape[2], bool)  # [V]
    if centre.sum() > 1:  # more than one joint is no centre
        centre[:] = False
    return (seen | (present & centre)).astype(np.float32)


def plain_name(value: Any, where: str) -> str:
    """A name as text that a list can hold. Raises PosebridgeError."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 64:
        value = str(int(value))
    if not isinstance(value, str):
        raise PosebridgeError(f"{where}: {_short(value)} is no name; it should be text.")
    if not value.strip() or value != value.strip() or len(value) > MOST_CHARACTERS or _UNWRITABLE.search(value):
        raise PosebridgeError(
            f"{where}: {_short(value)} cannot be the name of a clip; take 1 to {MOST_CHARACTERS} characters without "
            "control characters or blanks around them."
        )
    return str(value)


def _whole(value: Any, what: str) -> int:
    """A whole number: 3, 3.0 or an array of one of them. Raises PosebridgeError."""
    if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "iuf":
        value = value.reshape(())[()]
    plain: Any = value
    if isinstance(value, (np.integer, np.floating)):
        plain = value.item()
    whole = isinstance(plain, float) and math.isfinite(plain) and plain.is_integer()
    whole = whole or (isinstance(plain, int) and not isinstance(plain, bool))
    if not whole or abs(plain) >= 1 << 53:
        raise PosebridgeError(f"{what} should be a whole number, but is {_short(value)}.")
    return int(plain)


def _sides(value: Any, where: str) -> tuple[int, int]:
    """Height and width of a frame; 0 where unknown."""
    if value is None:
        return 0, 0
    if not isinstance(value, (list, tuple, np.ndarray)) or _length(value) != 2:
        raise PosebridgeError(f"{where}: img_shape should be (height, width), but is {_short(value)}.")
    height, width = (_whole(side, f"{where}: img_shape") for side in value)
    if not (0 <= height <= LONGEST_SIDE and 0 <= width <= LONGEST_SIDE):
        raise PosebridgeError(f"{where}: img_shape should be 0 to {LONGEST_SIDE} pixels, but is {height} x {width}.")
    return height, width


def _length(value: list | tuple | np.ndarray) -> int:
    """Of a list, or of an array with one axis; else -1."""
    return -1 if isinstance(value, np.ndarray) and value.ndim != 1 else len(value)


def _numbers(value: Any, what: str) -> np.ndarray:
    """An array, or lists of numbers, as float32; what is too large for it becomes infinite. Raises PosebridgeError."""
    if isinstance(value, (list, tuple)):
        level = [value]
        while level:  # lists may hold text, which numpy would take apart or blow up
            inside = [item for part in level for item in part]
            level = [item for item in inside if isinstance(item, (list, tuple))]
            if not all(isinstance(item, (list, tuple, int, float, np.ndarray)) for item in inside):
                raise PosebridgeError(f"{what} should be an array of numbers.")
        try:
            with np.errstate(over="ignore"):
                value = np.asarray(value, np.float64)
        except (ValueError, TypeError, OverflowError):
            raise PosebridgeError(f"{what} should be an array of numbers; its lists are not equally long.") from None
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise PosebridgeError(f"{what} should be an array of numbers, but is of the type {str(kind)[:40]}.")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(value, np.float32)


def _short(value: Any) -> str:
    """A value for a message."""
    if isinstance(value, str):
        text = repr(value[:61])
    elif isinstance(value, (bool, float, np.generic, type(None))):
        text = repr(value)
    else:  # its text may be endless
        text = f"a value of the type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
