"""What stage one asks of a pose model: keypoints and pose-anchored cues, in one pass.

`mmpose_adapter` and `onnx_adapter` implement `Estimator`, and so does the fake of the unit tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

    # maps [N, C, h, w] of the taps, shallow first, keypoints [N, V, 2] in crop pixels, and their scores [N, V]
    Tapped = tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]


@dataclass
class Estimate:
    """What one batch of N crops yields; K of them were asked for cues."""

    keypoints: np.ndarray  # [N, V, 2] float32, pixels of the crop
    scores: np.ndarray  # [N, V] float32, 0..1; not a number where the model gives none
    cues: np.ndarray  # [K, A, D] float32; zero where the anchor has vanished
    cue_scores: np.ndarray  # [K, A] float32, 0..1


def with_cues_first(cue_rows: np.ndarray) -> tuple[np.ndarray, int]:
    """The order [N] in which the K crops that cues are wanted of, a bool [N] mask, come first, and K: their maps are
    then the first K, and need not be copied.
    """
    return np.argsort(~cue_rows, kind="stable"), int(cue_rows.sum())


def in_order(
    order: np.ndarray, keypoints: np.ndarray, scores: np.ndarray, cues: np.ndarray, cue_scores: np.ndarray
) -> Estimate:
    """The estimate of crops that were given in this order, in their own."""
    own = np.argsort(order)
    return Estimate(keypoints[own], scores[own], cues, cue_scores)


def joined(parts: Sequence[Estimate]) -> Estimate:
    """The estimate of a batch from those of its parts."""
    if len(parts) == 1:
        return parts[0]
    rows = zip(*((part.keypoints, part.scores, part.cues, part.cue_scores) for part in parts), strict=True)
    return Estimate(*map(np.concatenate, rows))


class Estimator(Protocol):
    """A top-down pose model with tapped features.

    Attributes that it may have beside these: `joint_names` names its joints, in their order; `device` is where it
    computes, by default the CPU, `provider` what computes there, and `precision` in what numbers. One with `frame_side`
    is shown the frame of each crop, too, as a third argument: in a square of so many pixels, see `image_text.fitted`.
    `at_once` is how many calls of `estimate` it takes at a time, by default one.
    """

    crop_size: tuple[int, int]  # width, height
    joints: int  # V
    cue_width: int  # D; 0 where the recipe has no cues

    def estimate(self, crops: np.ndarray, cue_rows: np.ndarray) -> Estimate:
        """Estimate uint8 RGB crops [N, H, W, 3]; `cue_rows` is a bool [N] mask of the crops that cues are wanted of."""
        ...


class TappedEstimator(Estimator, Protocol):
    """One that shows the maps that its cues are pooled of, on its device: what a cue head is tuned on."""

    @property
    def taps(self) -> dict[str, tuple[int, int]]:
        """Tap -> (channels, stride), shallow first."""
        ...

    def tapped(self, crops: np.ndarray) -> Tapped:
        """Of uint8 RGB crops [N, H, W, 3]."""
        ...


def device_of(estimator: Estimator) -> torch.device:
    """Where an estimator computes."""
    from pipeline.files.device import CPU  # loads torch, which a plan does without

    device: torch.device = getattr(estimator, "device", CPU)
    return device


def computed_with(estimator: Estimator) -> dict[str, str]:
    """The device, what computes there and in what numbers, in words. GPUs of one kind have one name."""
    from pipeline.files.device import name_of

    facts = {key: str(getattr(estimator, key, "")) for key in ("provider", "precision")}
    return {"device": name_of(device_of(estimator)), **{key: value for key, value in facts.items() if value}}
