"""Where the persons of frames are: the whole frame, what the data set knows, or what a detector finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from pipeline.extract.ground_truth import GroundTruth
from pipeline.files.device import CPU
from pipeline.manifest.clips import Clip
from pipeline.recipe import Recipe
from pipeline.skeleton.jitter import jittered
from pipeline.tracking.tracks import WEAK

if TYPE_CHECKING:
    from pipeline.hpe.detector import Detector

Found = tuple[np.ndarray, np.ndarray]  # [K, 4] float32 boxes x, y, w, h in pixels, and how sure, [K]

SPARE = 2  # findings of a frame beyond M that are followed too: who the main persons are shows only at the clip's end


class BoxSource(Protocol):
    """Where the persons are. Any thread may ask.

    `together`: in how many frames they are looked for at a time. `provider`: what a detector runs on, else empty.
    """

    together: int
    provider: str

    def prepare(self, frame: np.ndarray) -> Any:
        """What `find` is to be given of a uint8 RGB frame [H, W, 3], made while others are looked at."""
        ...

    def find(self, frames: Sequence[tuple[Any, int, Sequence[Clip]]]) -> list[list[Found]]:
        """The boxes in up to `together` frames: for each that is prepared, with its position on the timeline and the
        clips that want it, those of every clip.
        """
        ...


def lanes(recipe: Recipe) -> int:
    """How many persons of a frame are estimated."""
    return recipe.persons + (SPARE if recipe.boxes == "detector" else 0)


def box_source(recipe: Recipe, truth: GroundTruth | None, device: torch.device = CPU) -> BoxSource:
    """The recipe's; `truth` is for `boxes: manifest`. Raises PosebridgeError where the detector is missing, is none, or
    cannot use the device.
    """
    if recipe.boxes == "detector":
        from pipeline.hpe.detector import Detector  # loads ONNX Runtime
        from pipeline.hpe.weights import find_detector

        return DetectedBoxes(Detector(find_detector(recipe).path, device), recipe)
    if truth is None:
        return KnownBoxes(lambda clip, position, size: np.array([0, 0, *size], np.float32))
    return known_boxes(truth, recipe)


def known_boxes(
    truth: GroundTruth, recipe: Recipe, id_of: Callable[[Clip], str] = lambda clip: clip.clip_id
) -> KnownBoxes:
    """The true boxes, jittered as far as the recipe says so. `id_of` gives the id under which a clip has its own."""

    def box(clip: Clip, position: int, size: tuple[int, int]) -> np.ndarray:
        true = truth.box(id_of(clip), position)
        if recipe.box_kind == "true":
            return true
        return jittered(true, id_of(clip), position, recipe.box_shift, recipe.box_scale)

    return KnownBoxes(box)


class KnownBoxes:
    """The box of one person, which nobody has to look for.

    `of` gives it, [4] float32, for a clip, a position on its video's timeline and the frame's (width, height).
    """

    together, provider = 1, ""

    def __init__(self, of: Callable[[Clip, int, tuple[int, int]], np.ndarray]):
        self._of = of

    def prepare(self, frame: np.ndarray) -> tuple[int, int]:
        """See `BoxSource`."""
        return frame.shape[1], frame.shape[0]

    def find(self, frames: Sequence[tuple[tuple[int, int], int, Sequence[Clip]]]) -> list[list[Found]]:
        """See `BoxSource`."""
        return [
            [(self._of(clip, position, size)[None], np.ones(1)) for clip in clips] for size, position, clips in frames
        ]


class DetectedBoxes:
    """The detector's persons, the largest and surest first, down to half of the recipe's threshold: see `tracking`."""

    def __init__(self, detector: Detector, recipe: Recipe):
        self._detector, self._threshold = detector, WEAK * recipe.detection_threshold
        self.together, self.provider, self.prepare = detector.together, detector.provider, detector.letterbox

    def find(self, frames: Sequence[tuple[Any, int, Sequence[Clip]]]) -> list[list[Found]]:
        """See `BoxSource`."""
        answers = []
        found = self._detector.detect_together([prepared for prepared, *_ in frames], self._threshold)
        for (boxes, sure), (_, _, clips) in zip(found, frames, strict=True):
            order = np.argsort(-sure * np.sqrt(boxes[:, 2:].prod(-1)), kind="stable")
            answers.append([(boxes[order], sure[order])] * len(clips))
        return answers
