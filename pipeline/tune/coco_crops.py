"""The people of COCO as a source of training crops, and one crop of them as a pose model sees it in use.

Augmented as RTMPose's own configs do it: flip, shift, scale, rotation. Reads the images; writes nothing.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.hpe.crops import crop, crop_matrix
from pipeline.skeleton.graph import COCO_17
from pipeline.tune.coco import CocoPeople
from pipeline.tune.data import TrainingCrop, inside, shuffled

MIRRORED = list(COCO_17.mirror)  # a mirror makes the left wrist the right one
SHIFT, SCALE, ROTATION = 0.16, 0.4, 80.0  # most: of the crop's size, of 1, degrees
SHIFTED, ROTATED, FLIPPED = 0.3, 0.6, 0.5  # how often


class CocoSource:
    """People of COCO, each once a pass in an order of its own, with one of the image's captions at random.

    A `CropSource`. COCO's captions do not say what a hand holds, and a guess from the words of a whole image would
    teach wrong phrases to empty hands: so there are no phrases, and no hand term. The hands' cues learn through the
    refinement and the projection that they share with the body's. All people of an image are one scene.
    """

    per_group = 1
    phrases: tuple[str, ...] = ()

    def __init__(self, people: CocoPeople, seed: int = 0) -> None:
        self.people, self.seed = people, seed
        self.captions = tuple(dict.fromkeys(text for texts in people.captions for text in texts))
        rows = {text: row for row, text in enumerate(self.captions)}
        self._captions = [np.array([rows[text] for text in texts], np.int64) for texts in people.captions]  # [I]
        self.facts = {"dataset": "COCO", "people": str(len(people)), "pictures": str(len(people.files))}

    def __len__(self) -> int:
        return len(self.people)

    def crops(self, group: int, crop_size: tuple[int, int]) -> list[TrainingCrop]:
        """See `CropSource`. Raises PosebridgeError naming a damaged image."""
        lap, place = divmod(group, len(self.people))
        person = int(shuffled(len(self.people), self.seed, lap)[place])
        scene = int(self.people.image[person])
        rng = np.random.default_rng([self.seed, group, 1])
        flip, change = rng.random() < FLIPPED, augmentation(crop_size, rng)
        image, keypoints = person_crop(self.people, person, self.people.picture(scene), crop_size, change, flip)
        weights = (self._labelled(person, flip) & inside(keypoints, crop_size)).astype(np.float32)
        said = self._captions[scene]
        caption = int(rng.choice(said)) if len(said) else 0
        return [TrainingCrop(image, keypoints, weights, caption, scene)]

    def _labelled(self, person: int, flip: bool) -> np.ndarray:
        labelled = self.people.labelled[person]
        return labelled[MIRRORED] if flip else labelled


def person_crop(
    people: CocoPeople,
    person: int,
    picture: np.ndarray,
    crop_size: tuple[int, int],
    change: np.ndarray | None = None,
    flip: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The crop [h, w, 3] of one person out of `picture`, and the keypoints [17, 2] float32 in crop pixels.

    `change` is a 3x3 matrix in crop pixels that follows the standard crop; `flip` mirrors at last. Keypoints that are
    not labelled come along as they are, without a meaning.
    """
    matrix = crop_matrix(people.boxes[person], crop_size)
    if change is not None:
        matrix = (change @ np.vstack([matrix, [0, 0, 1]]))[:2]
    image = crop(picture, matrix, crop_size)
    keypoints = (people.keypoints[person] @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    if flip:
        image = np.ascontiguousarray(image[:, ::-1])
        keypoints = keypoints[MIRRORED]
        keypoints[:, 0] = crop_size[0] - 1 - keypoints[:, 0]
    return image, keypoints


def augmentation(crop_size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random shift, scale and rotation as a 3x3 matrix in crop pixels; the values are those of RTMPose on COCO."""
    middle = np.array(crop_size) / 2
    shift = np.array([_truncated(rng), _truncated(rng)]) * SHIFT * crop_size if rng.random() < SHIFTED else np.zeros(2)
    angle = ROTATION * _truncated(rng) if rng.random() < ROTATED else 0.0
    centre_x, centre_y = (middle + shift).tolist()
    matrix = np.eye(3)
    matrix[:2] = cv2.getRotationMatrix2D((centre_x, centre_y), angle, 1 / (1 + SCALE * _truncated(rng)))
    matrix[:2, 2] -= shift
    return matrix


def _truncated(rng: np.random.Generator) -> float:
    """Of a normal distribution, cut off at -1 and 1."""
    while abs(value := rng.normal()) > 1:
        pass
    return float(value)
