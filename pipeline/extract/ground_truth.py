"""The exact skeletons that the generator of skelgap writes beside its videos.

Reads `<root>/ground_truth.h5`: clip_id [N], keypoints [N, F, 17, 2] float32 pixels, visible [N, F, 17] bool,
boxes [N, F, 4] float32 (x, y, w, h). Gives person boxes to recipes with `boxes: manifest`, and whole skeletons to
the backend `ground_truth`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.manifest.clips import Clip
from pipeline.manifest.failure import Failure
from pipeline.recipe import Recipe
from pipeline.video.sampling import SegmentError, sample_positions


class GroundTruth:
    """The file in memory (a few MB). Raises PosebridgeError where it is missing or not such a file."""

    def __init__(self, path: Path):
        if not path.is_file():
            raise PosebridgeError(
                f"{path} is missing, and the recipe takes boxes or skeletons from it; make it with `posebridge synth`."
            )
        try:
            ids, self.keypoints, self.boxes = _read(path)
        except (OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # all are h5py's
            raise PosebridgeError(
                f"{path} is not a ground truth file ({error}); make it again with `posebridge synth`."
            ) from None
        self.path = path
        self.frames, self.joints = self.keypoints.shape[1:3]
        self._rows = {clip_id: row for row, clip_id in enumerate(ids)}

    def row(self, clip_id: str) -> int:
        """The row of a clip; raises PosebridgeError for one that the file does not know."""
        if clip_id not in self._rows:
            raise PosebridgeError(f"{self.path} knows no clip {clip_id!r}; make it again with `posebridge synth`.")
        return self._rows[clip_id]

    def content_hash(self, clip_id: str) -> str:
        """Hash of what the file says of one clip: a changed clip is noticed, an added one disturbs no other."""
        row = self.row(clip_id)
        return hashlib.sha256(self.keypoints[row].tobytes() + self.boxes[row].tobytes()).hexdigest()[:16]

    def box(self, clip_id: str, position: int) -> np.ndarray:
        """[4] float32: the person's box at a frame; x, y, w, h in pixels."""
        return self.boxes[self.row(clip_id), min(position, self.frames - 1)]


def _read(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Clip ids, keypoints [N, F, V, 2] and boxes [N, F, 4]. Raises errors of h5py, and ValueError for odd arrays."""
    with h5py.File(path, "r") as file:
        names, *arrays = (file[key] for key in ("clip_id", "keypoints", "boxes"))
        if sum(array.nbytes for array in arrays) > path.stat().st_size:
            raise ValueError("it declares more than it holds")
        ids = [str(clip_id) for clip_id in names.asstr()[:]]
        keypoints, boxes = (np.asarray(array, np.float32) for array in arrays)
    n, f, v, _ = keypoints.shape
    if keypoints.shape != (len(ids), f, v, 2) or boxes.shape != (n, f, 4) or not keypoints.size:
        raise ValueError(f"its keypoints are {list(keypoints.shape)} and its boxes {list(boxes.shape)}")
    if not (np.isfinite(keypoints).all() and np.isfinite(boxes).all()):
        raise ValueError("it has numbers that are not finite")
    return ids, keypoints, boxes


def ground_truth_rows(clips: Iterable[Clip], truth: GroundTruth, recipe: Recipe) -> Iterator[dict[str, Any] | Failure]:
    """Rows for the cache with the exact skeletons at the frames that the recipe samples; no video is opened.

    All joints score 1, hidden ones too: a ceiling is about true skeletons. The one person is the first of M. A segment
    without a frame is a Failure.
    """
    for clip in clips:
        row = truth.row(clip.clip_id)
        fps = clip.fps or 25.0
        times = np.arange(truth.frames) / fps
        try:
            positions = sample_positions(times, truth.frames / fps, recipe.frames, clip.start, clip.end)  # [T]
        except SegmentError as error:
            yield Failure(clip.clip_id, "sample", str(error))
            continue
        joints = truth.keypoints[row, positions]  # [T, V, 2]
        persons = np.arange(recipe.persons) == 0  # [M]
        yield {
            "clip_id": clip.clip_id,
            "keypoints": np.broadcast_to(joints, (recipe.persons, *joints.shape)),
            "scores": np.broadcast_to(persons[:, None, None], (recipe.persons, recipe.frames, truth.joints)),
            "boxes": truth.boxes[row, positions] * persons[:, None, None],
            "person_valid": np.broadcast_to(persons[:, None], (recipe.persons, recipe.frames)),
            "track_id": np.where(persons, 0, -1),
            "frame_index": positions,
            "timestamp": times[positions],
            "video_path": clip.path,
            "video_identity": "",
            "video_fps": fps,
            "video_frames": truth.frames,
            "video_height": clip.height or 0,
            "video_width": clip.width or 0,
            "video_record": "",
        }
