"""Where the persons of a frame are: the whole frame, what the data set knows, or what a detector finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from pipeline.extract.ground_truth import GroundTruth
from pipeline.manifest.clips import Clip
from pipeline.recipe import Recipe
from pipeline.tracking.tracks import WEAK

if TYPE_CHECKING:
    from pipeline.hpe.detector import Detector

# (clip, position on the timeline, uint8 RGB frame [H, W, 3]) -> [K, 4] float32 boxes x, y, w, h, and how sure, [K]
BoxSource = Callable[[Clip, int, np.ndarray], tuple[np.ndarray, np.ndarray]]

SPARE = 2  # findings of a frame beyond M that are followed too: who the main persons are shows only at the clip's end


def lanes(recipe: Recipe) -> int:
    """How many persons of a frame are estimated."""
    return recipe.persons + (SPARE if recipe.boxes == "detector" else 0)


def box_source(recipe: Recipe, truth: GroundTruth | None) -> BoxSource:
    """The recipe's; `truth` is for `boxes: manifest`. Raises PosebridgeError where the detector is missing or none."""
    if recipe.boxes == "detector":
        from pipeline.hpe.detector import Detector  # loads ONNX Runtime
        from pipeline.hpe.weights import find_detector

        return detected(Detector(find_detector(recipe).path), recipe)
    return full_frame if truth is None else from_truth(truth)


def full_frame(clip: Clip, position: int, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The whole frame as the box of the one person."""
    height, width = frame.shape[:2]
    return np.array([[0, 0, width, height]], np.float32), np.ones(1)


def from_truth(truth: GroundTruth) -> BoxSource:
    """The true box of the one person."""
    return lambda clip, position, frame: (truth.box(clip.clip_id, position)[None], np.ones(1))


def detected(detector: Detector, recipe: Recipe) -> BoxSource:
    """The detector's persons, the largest and surest first, down to half of the recipe's threshold: see `tracking`."""

    def boxes(clip: Clip, position: int, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found, sure = detector.detect(frame, WEAK * recipe.detection_threshold)
        order = np.argsort(-sure * np.sqrt(found[:, 2:].prod(-1)), kind="stable")
        return found[order], sure[order]

    return boxes
