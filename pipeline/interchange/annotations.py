"""Annotations of skeletons as others keep them: one clip, and the two files that hold many.

PYSKL / MMAction2 pickle: a list of dicts, or {"annotations": that list, "split": {name: [frame_dir, ...]}}; a dict has
`frame_dir`, `label`, `keypoint` [M, T, V, C], and may have `keypoint_score` [M, T, V], `total_frames`, `img_shape`
(height, width) and, in a plain list, `split`.

`.npz`: arrays over N clips by the same names: `frame_dir` [N] text, `label` [N], `keypoint` [N, M, T, V, C], and
optionally `keypoint_score` [N, M, T, V], `total_frames` [N] (what lies beyond is padding), `img_shape` [N, 2],
`split` [N] text.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.interchange.unpickling import read_pickle


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
    if not records:
        raise PosebridgeError(f"{path} holds no annotation.")
    found: dict[str, Annotation] = {}
    for place, record in enumerate(records):
        annotation = _annotation(record, f"{path}, annotation {place}")
        if annotation.clip_id in found:
            raise PosebridgeError(f"{path} has {annotation.clip_id!r} twice; make every frame_dir unique.")
        found[annotation.clip_id] = annotation
        if annotation.split:
            splits.setdefault(annotation.split, []).append(annotation.clip_id)
    return list(found.values()), splits


def write_pickle(path: Path, annotations: Iterable[Annotation], splits: dict[str, list[str]]) -> int:
    """Write a PYSKL pickle of dicts, lists, numbers, text and numpy arrays; returns the number of annotations."""
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
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        pickle.dump({"split": splits, "annotations": records}, file, protocol=4)
    draft.replace(path)
    return len(records)


def _read_pickle(path: Path) -> tuple[list[Any], dict[str, list[str]]]:
    data = read_pickle(path)
    splits: dict[str, list[str]] = {}
    if isinstance(data, dict):
        lists = data.get("split") or {}
        if not isinstance(lists, dict) or not isinstance(data.get("annotations"), list):
            raise PosebridgeError(f"{path} should be a list of annotations or a dict of annotations and split.")
        splits = {str(name): [str(clip_id) for clip_id in clip_ids] for name, clip_ids in lists.items()}
        data = data["annotations"]
    if not isinstance(data, list):
        raise PosebridgeError(f"{path} should be a list of annotations or a dict of annotations and split.")
    return data, splits


def _read_npz(path: Path) -> tuple[list[Any], dict[str, list[str]]]:
    if not path.is_file():
        raise PosebridgeError(f"{path} is missing; name an annotation file.")
    known = ("frame_dir", "label", "keypoint", "keypoint_score", "total_frames", "img_shape", "split")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in known if name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PosebridgeError(f"{path} is no readable .npz of plain arrays ({type(error).__name__}).") from None
    for name in known[:3]:
        if name not in arrays:
            raise PosebridgeError(f"{path} lacks the array {name!r}; it should have {', '.join(known[:3])}.")
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise PosebridgeError(f"{path}: its arrays should be equally long, one entry a clip; they are {lengths}.")
    return [{name: array[i] for name, array in arrays.items()} for i in range(lengths["label"])], {}


def _annotation(record: Any, where: str) -> Annotation:
    if not isinstance(record, dict) or not {"frame_dir", "label", "keypoint"} <= set(record):
        raise PosebridgeError(f"{where}: it should be a dict with frame_dir, label and keypoint.")
    clip_id = str(record["frame_dir"])
    where = f"{where} ({clip_id!r})"
    try:
        keypoints = np.asarray(record["keypoint"], np.float32)
        label, total = int(record["label"]), int(record.get("total_frames", 0))
        height, width = (int(value) for value in record.get("img_shape", (0, 0)))
        scores = record.get("keypoint_score")
        scores = np.asarray(scores, np.float32) if scores is not None else None
    except (TypeError, ValueError) as error:
        raise PosebridgeError(f"{where}: {error}.") from None
    if keypoints.ndim != 4 or keypoints.shape[3] not in (2, 3) or 0 in keypoints.shape[:2]:
        raise PosebridgeError(f"{where}: keypoint has the shape {keypoints.shape}, not [M, T, V, 2 or 3].")
    there = np.isfinite(keypoints).all(-1)  # [M, T, V]
    if scores is None:
        # Without scores an absent person is a frame of zeros: so are they in NTU's files.
        scores = np.broadcast_to((keypoints != 0).any((2, 3))[..., None], there.shape).astype(np.float32)
    if scores.shape != there.shape:
        raise PosebridgeError(f"{where}: keypoint_score has the shape {scores.shape}, not {there.shape}.")
    frames = total if 0 < total < keypoints.shape[1] else keypoints.shape[1]
    scores = np.where(there & np.isfinite(scores), scores, 0).clip(0, 1)
    split = str(record.get("split", ""))
    return Annotation(clip_id, label, keypoints[:, :frames], scores[:, :frames], height, width, split)
