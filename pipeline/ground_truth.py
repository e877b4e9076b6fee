"""The exact skeletons that the generator of skelgap writes beside its videos.

Reads `<root>/ground_truth.h5`: clip_id [N], keypoints [N, F, 17, 2] float32 pixels, visible [N, F, 17] bool,
boxes [N, F, 4] float32 (x, y, w, h). Gives person boxes to recipes with `boxes: manifest`, and whole skeletons to
the backend `ground_truth`.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.video.identity import sha256_file


class GroundTruth:
    """The file in memory (a few MB). Raises PosebridgeError where it is missing or not such a file."""

    def __init__(self, path: Path):
        if not path.is_file():
            raise PosebridgeError(f"{path} is missing, and the recipe takes boxes or skeletons from it; make it with `posebridge synth`.")
        try:
            with h5py.File(path, "r") as file:
                ids = file["clip_id"].asstr()[:]
                self.keypoints = np.asarray(file["keypoints"], np.float32)  # [N, F, V, 2]
                self.boxes = np.asarray(file["boxes"], np.float32)  # [N, F, 4]
        except (OSError, KeyError, TypeError) as error:
            raise PosebridgeError(f"{path} is not a ground truth file ({error}); make it again with `posebridge synth`.") from None
        self.path = path
        self.sha256 = sha256_file(path)
        self.frames, self.joints = self.keypoints.shape[1:3]
        self._rows = {str(clip_id): row for row, clip_id in enumerate(ids)}

    def row(self, clip_id: str) -> int:
        """The row of a clip; raises PosebridgeError for one that the file does not know."""
        if clip_id not in self._rows:
            raise PosebridgeError(f"{self.path} knows no clip {clip_id!r}; make it again with `posebridge synth`.")
        return self._rows[clip_id]
