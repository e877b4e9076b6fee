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
from pipeline.recipe import Recipe
from pipeline.video.sampling import sample_positions


class GroundTruth:
    """The file in memory (a few MB). Raises PosebridgeError where it is missing or not such a file."""

    def __init__(self, path: Path):
        if not path.is_file():
            raise PosebridgeError(
                f"{path} is missing, and the recipe takes boxes or skeletons from it; make it with `posebridge synth`."
            )
        try:
            with h5py.File(path, "r") as file:
                ids = file["clip_id"].asstr()[:]
                self.keypoints = np.asarray(file["keypoints"], np.float32)  # [N, F, V, 2]
                self.boxes = np.asarray(file["boxes"], np.float32)  # [N, F, 4]
        except (OSError, KeyError, TypeError) as error:
            raise PosebridgeError(
                f"{path} is not a ground truth file ({error}); make it again with `posebridge synth`."
            ) from None
        self.path = path
        self.frames, self.joints = self.keypoints.shape[1:3]
        self._rows = {str(clip_id): row for row, clip_id in enumerate(ids)}

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


def ground_truth_rows(clips: Iterable[Clip], truth: GroundTruth, recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Rows for the cache with the exact skeletons at the frames that the recipe samples; no video is opened.

    All joints score 1, hidden ones too: a ceiling is about true skeletons. The one person is the first of M.
    """
    for clip in clips:
        row = truth.row(clip.clip_id)
        fps = clip.fps or 25.0
        times = np.arange(truth.frames) / fps
        positions = sample_positions(times, truth.frames / fps, recipe.frames, clip.start, clip.end)  # [T]
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
