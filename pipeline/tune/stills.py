"""Rendered stills of skelgap as a source of training crops; made on the fly, nothing is read or written.

A left-out object is in no still, no background, no caption and no phrase: not even as a wrong answer is its word seen.
"""

from __future__ import annotations

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.synth.objects import OBJECTS
from pipeline.synth.stills import PER_BACKGROUND, TRAIN_STREAM, every_caption, phrase, stills, training_crop
from pipeline.tune.data import TrainingCrop, inside


class StillSource:
    """Stills of the training stream, other ones for every kind and seed. A `CropSource`.

    Raises PosebridgeError where `without` names no object of skelgap.
    """

    per_group = PER_BACKGROUND

    def __init__(self, kind: str = "kp", seed: int = 0, without: tuple[str, ...] = ()) -> None:
        if unknown := sorted(set(without) - set(OBJECTS)):
            raise PosebridgeError(
                f"--without {unknown[0]}: the stills hold no such object; there are {', '.join(OBJECTS)}."
            )
        self.objects = tuple(name for name in OBJECTS if name not in without)
        self.stream = TRAIN_STREAM + 10 * seed + (5 if kind == "sem" else 0)
        self._held = ("none", *self.objects)
        self.phrases = tuple(phrase(name) for name in self._held)
        self.captions = tuple(every_caption(self.objects))
        self._rows = {caption: row for row, caption in enumerate(self.captions)}
        self.facts = {"dataset": "skelgap stills", "stream": str(self.stream), "objects": ", ".join(self.objects)}

    def crops(self, group: int, crop_size: tuple[int, int]) -> list[TrainingCrop]:
        """See `CropSource`. Stills of one caption are one scene."""
        rng = np.random.default_rng([self.stream, group, 1])
        found = []
        for still in stills(self.stream, group, self.objects):
            image, keypoints = training_crop(still, rng, crop_size)
            weights = inside(keypoints, crop_size).astype(np.float32)
            row = self._rows[still.caption]
            found.append(TrainingCrop(image, keypoints, weights, row, row, self._held.index(still.held)))
        return found
