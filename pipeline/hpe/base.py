"""What stage one asks of a pose model: keypoints and pose-anchored cues, in one pass.

`mmpose_adapter` and `onnx_adapter` implement `Estimator`, and so does the fake of the unit tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass
class Estimate:
    """What one batch of N crops yields; K of them were asked for cues."""

    keypoints: np.ndarray  # [N, V, 2] float32, pixels of the crop
    scores: np.ndarray  # [N, V] float32, 0..1; not a number where the model gives none
    cues: np.ndarray  # [K, A, D] float32; zero where the anchor has vanished
    cue_scores: np.ndarray  # [K, A] float32, 0..1


class Estimator(Protocol):
    """A top-down pose model with tapped features."""

    crop_size: tuple[int, int]  # width, height
    joints: int  # V; an attribute `joint_names` may name them, in their order
    cue_width: int  # D; 0 where the recipe has no cues

    def estimate(self, crops: np.ndarray, cue_rows: np.ndarray) -> Estimate:
        """Estimate uint8 RGB crops [N, H, W, 3]; `cue_rows` is a bool [N] mask of the crops that cues are wanted of."""
        ...
