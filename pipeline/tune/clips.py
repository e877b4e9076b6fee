"""Frames of a data set's clips as a source of crops, in the boxes that an extraction found; texts are their classes'.

Reads the videos and cache/<dataset>/<recipe>; writes nothing. What it may show is given: the clips of a phase. Text of
a class that is unseen in the protocol, or plays unseen while values are chosen, never comes here (`guards`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.extract.again import frames_again
from pipeline.hpe.crops import crop, crop_matrix
from pipeline.learn.dataset import Dataset
from pipeline.manifest.clips import Clip
from pipeline.manifest.texts import read_texts, texts_path
from pipeline.protocol.exposure import exposed
from pipeline.protocol.guards import require_texts_of
from pipeline.protocol.training_set import training_phase
from pipeline.tune.coco_crops import FLIPPED, augmentation
from pipeline.tune.data import TrainingCrop, shuffled

SENTENCES = ("label", "one_line", "global", "start", "middle", "end", "hands")  # slots that describe what is seen
HELD = "used_object"  # the slot that says what a hand holds; a class without it has no phrase
BRIGHTNESS, CONTRAST, TINT = 0.4, 0.3, 0.15  # most, of 1
UNKNOWN = np.zeros((17, 2), np.float32), np.zeros(17, np.float32)  # true joints: nobody knows them, and nobody asks


class ClipSource:
    """Every person of every cue frame of `clips`, each once a pass, with one of its class's texts at random.

    A `CropSource`. A scene is a class: two clips of one have the same texts. `texts` [class][slot] may hold the classes
    `allowed` only. With `augmented`, crops are moved, turned, mirrored and relit. Raises LeakError for a clip or a text
    of any other class, PosebridgeError where no clip was extracted.
    """

    per_group = 1

    def __init__(
        self, reader: CacheReader, clips: Sequence[Clip], root: Path, texts: Mapping[int, Mapping[str, str]],
        allowed: Sequence[int], seed: int = 0, augmented: bool = True,
    ) -> None:  # fmt: skip
        require_texts_of([*texts, *(clip.label for clip in clips)], allowed)
        there = set(reader.clip_ids)
        self._clips = [clip for clip in clips if clip.clip_id in there]
        if not self._clips:
            raise PosebridgeError("None of the clips to tune on was extracted; run `posebridge extract` first.")
        self._reader, self._root, self._seed, self._augmented = reader, root, seed, augmented
        self.captions = tuple(sorted({own[slot] for own in texts.values() for slot in SENTENCES if slot in own}))
        rows = {text: row for row, text in enumerate(self.captions)}
        self._said = {label: [rows[own[slot]] for slot in SENTENCES if slot in own] for label, own in texts.items()}
        self.phrases = tuple(sorted({own[HELD] for own in texts.values() if HELD in own}))
        if not all(HELD in texts[label] for label in {clip.label for clip in self._clips if clip.label is not None}):
            self.phrases = ()
        self._held = {label: self.phrases.index(own[HELD]) for label, own in texts.items()} if self.phrases else {}
        self._people = self._find()
        ids = [clip.clip_id for clip in self._clips]
        content = hashlib.sha256(repr((reader.fingerprint, ids, texts, seed, augmented)).encode())
        content.update(self._boxes.tobytes())
        self.facts = {
            "clips": str(len(self._clips)), "frames": str(len(self._people)), "content": content.hexdigest(),
        }  # fmt: skip
        self._lap, self._order = -1, np.empty(0, np.int64)
        self._shown: tuple[int, dict[int, np.ndarray]] = (-1, {})

    def __len__(self) -> int:
        return len(self._people)

    def crops(self, group: int, crop_size: tuple[int, int]) -> list[TrainingCrop]:
        """See `CropSource`. Raises PosebridgeError naming a clip that cannot be decoded."""
        lap, place = divmod(group, len(self._people))
        if lap != self._lap:  # the frames of a clip stay together, since they are decoded in one pass
            turn = shuffled(len(self._clips), self._seed, lap)
            self._lap, self._order = lap, np.argsort(turn[self._people[:, 0]], kind="stable")
        number, position, *_ = self._people[self._order[place]].tolist()
        box = self._boxes[self._order[place]]
        rng = np.random.default_rng([self._seed, group, 1])
        image = changed_crop(
            self._frame(number, position), box, crop_size, rng if self._augmented else None, self._reader.recipe.light
        )
        label = self._clips[number].label or 0
        caption = int(rng.choice(self._said[label]))
        return [TrainingCrop(image, *UNKNOWN, caption, label, self._held.get(label, 0))]

    def _find(self) -> np.ndarray:
        """[R, 2]: clip and position on the video's timeline, a row for everybody who is there in a cue frame."""
        found, boxes = [np.empty((0, 2), np.int64)], [np.empty((0, 4), np.float32)]
        names = ("boxes", "person_valid", "frame_index", "cue_frame")
        for number, clip in enumerate(self._clips):
            row = {name: values[0] for name, values in self._reader.read([clip.clip_id], names).items()}
            slots = np.unique(row["cue_frame"][row["cue_frame"] >= 0])
            there = np.argwhere(row["person_valid"][:, slots].T)  # [R, 2]: slot, person
            shown = row["frame_index"][slots[there[:, 0]]]
            found.append(np.column_stack([np.full(len(shown), number), shown]))
            boxes.append(row["boxes"][there[:, 1], slots[there[:, 0]]])
        self._boxes = np.concatenate(boxes)
        return np.concatenate(found)

    def _frame(self, number: int, position: int) -> np.ndarray:
        """A frame of a clip; those of the latest clip are kept."""
        if self._shown[0] != number:
            first, last = np.searchsorted(self._people[:, 0], (number, number + 1))
            wanted = self._people[first:last, 1].tolist()
            self._shown = (number, frames_again(self._clips[number], self._root, wanted))
        return self._shown[1][position]


def changed_crop(
    picture: np.ndarray, box: np.ndarray, crop_size: tuple[int, int], rng: np.random.Generator | None,
    light: str = "as_is",
) -> np.ndarray:  # fmt: skip
    """The crop [h, w, 3] of a box, in the recipe's `light`; with `rng` moved, turned, relit and mirrored at random."""
    matrix = crop_matrix(box, crop_size)
    if rng is None:
        return crop(picture, matrix, crop_size, light)
    matrix = (augmentation(crop_size, rng) @ np.vstack([matrix, [0, 0, 1]]))[:2]
    image = relit(crop(picture, matrix, crop_size, light), rng)
    return np.ascontiguousarray(image[:, ::-1]) if rng.random() < FLIPPED else image


def relit(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop in other light: uint8 RGB [H, W, 3] of another brightness, contrast and tint."""
    bright, contrast = 1 + BRIGHTNESS * rng.uniform(-1, 1), 1 + CONTRAST * rng.uniform(-1, 1)
    tint = 1 + TINT * rng.uniform(-1, 1, 3)
    middle = float(image.mean())
    values = ((image.astype(np.float32) - middle) * contrast + middle * bright) * tint
    return np.asarray(values.clip(0, 255), np.uint8)


def protocol_sources(
    dataset: Dataset, protocol: str, recipe: str, root: Path, variant: str, seed: int
) -> tuple[ClipSource, ClipSource, str]:
    """What a head may be tuned on for a protocol, what chooses its epoch, and what its `hpe_classes` is to say.

    Clips and texts of the classes that the selection phase trains on; those that play unseen in it choose. The
    protocol's unseen classes are in neither, and all that comes after may choose by the same classes. `variant` names
    imported texts. Raises PosebridgeError naming what is missing.
    """
    split, reader = dataset.split(protocol), dataset.reader(recipe)
    if "cues" not in reader.names:
        raise PosebridgeError(f"The recipe {recipe!r} has no cue frames to tune on; extract one with cues.")
    phase = training_phase("select", split, dataset.clips)
    said = read_texts(texts_path(dataset.folder, variant), dataset.class_names)[1]

    def source(clips: Sequence[Clip], classes: Sequence[int], augmented: bool) -> ClipSource:
        own: dict[int, dict[str, str]] = {label: {} for label in classes}
        for (label, slot), text in said.items():
            if label in own:
                own[label][slot] = text
        return ClipSource(reader, clips, root, own, classes, seed, augmented)

    train = source(phase.train, phase.classes, True)
    return train, source(phase.pseudo_unseen, split.validation, False), exposed(dataset.name, split)
