"""A lab's own captioned images as a source of crops: a CSV `image,caption`, a row a caption, paths from where it lies.

Reads the images, and where the recipe has a detector finds the main person of each; writes nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.extract.boxes import BoxSource, box_source
from pipeline.files.names import is_file
from pipeline.files.tables import open_table
from pipeline.manifest.clips import Clip
from pipeline.recipe import Recipe
from pipeline.tune.clips import UNKNOWN, changed_crop
from pipeline.tune.data import TrainingCrop, shuffled
from pipeline.video.image import read_image
from pipeline.video.picture import PictureError

HELD_OUT = 10  # one image in so many, by a hash of its name, is kept to choose the epoch by
FEWEST = 20  # images
SAME = 1e-3  # distance of the vectors of one text, however they were computed
ENGLISH = "an and at by for from her his into of over the their to up while with"
FOREIGN = (  # little words of German, French, Spanish, Portuguese, Italian, Dutch and Swedish
    "auf dem den der eine einen einer ein mit und zum avec dans des est et les leurs sur une con del el en las los "
    "para por una uno com das dos em uma al che di gli il nel een het met naar op van zijn att ett med och på"
)


class CaptionedImages:
    """Images, each once a pass, with one of its captions at random. A `CropSource`; an image is a scene.

    The person is the largest and surest one that `boxes` finds, from `threshold` on; without any, the whole image. As
    in COCO, captions do not say what a hand holds: there are no phrases.
    """

    per_group = 1
    phrases: tuple[str, ...] = ()

    def __init__(
        self, images: Sequence[tuple[Path, tuple[str, ...]]], boxes: BoxSource, threshold: float, seed: int,
        augmented: bool, light: str = "as_is",
    ) -> None:  # fmt: skip
        self._images, self._boxes, self._threshold = images, boxes, threshold
        self._seed, self._augmented, self._light = seed, augmented, light
        self.captions = tuple(dict.fromkeys(text for _, texts in images for text in texts))
        rows = {text: row for row, text in enumerate(self.captions)}
        self._said = [[rows[text] for text in texts] for _, texts in images]
        files = [(str(path), path.stat().st_size, texts) for path, texts in images]
        content = hashlib.sha256(repr((files, seed, augmented, threshold)).encode()).hexdigest()
        self.facts = {"dataset": "captioned images", "pictures": str(len(images)), "content": content}
        self._found: dict[int, np.ndarray] = {}  # image -> box

    def __len__(self) -> int:
        return len(self._images)

    def crops(self, group: int, crop_size: tuple[int, int]) -> list[TrainingCrop]:
        """See `CropSource`. Raises PosebridgeError naming a damaged image."""
        lap, place = divmod(group, len(self))
        scene = int(shuffled(len(self), self._seed, lap)[place])
        path = self._images[scene][0]
        try:
            picture, _ = read_image(path)
        except PictureError as error:
            raise PosebridgeError(f"{path} cannot be read ({error}); bring it again, or take its rows out.") from None
        rng = np.random.default_rng([self._seed, group, 1])
        augmented = rng if self._augmented else None
        image = changed_crop(picture, self._box(scene, picture), crop_size, augmented, self._light)
        return [TrainingCrop(image, *UNKNOWN, int(rng.choice(self._said[scene])), scene)]

    def _box(self, scene: int, picture: np.ndarray) -> np.ndarray:
        if scene not in self._found:
            asked = (self._boxes.prepare(picture), 0, [Clip("", "")])
            ((boxes, sure),) = self._boxes.find([asked])[0]
            whole = np.array([0, 0, picture.shape[1], picture.shape[0]], np.float32)
            there = boxes[sure >= self._threshold]
            self._found[scene] = there[0] if len(there) else whole
        return self._found[scene]


def captioned_sources(
    table: Path, recipe: Recipe, seed: int, device: torch.device
) -> tuple[CaptionedImages, CaptionedImages]:
    """What a head is tuned on, and one image in ten to choose its epoch by.

    Raises PosebridgeError, before anything is computed, for an empty caption (line and column), images that are
    missing (how many, and the first), and too few of them.
    """
    said: dict[Path, list[str]] = {}
    for row in open_table(table, ("image", "caption"), (), "write it as `image,caption`, a row a caption"):
        # `a.png` and `../own/a.png` are one image; links are not followed, since names choose who is held out
        place = Path(os.path.abspath(table.parent / row.needed("image")))  # noqa: PTH100
        said.setdefault(place, []).append(" ".join(row.needed("caption").split()))
    if missing := [path for path in said if not is_file(path)]:
        raise PosebridgeError(
            f"{len(missing)} of {len(said)} images of {table} are missing (first: {missing[0]}); bring them, or take "
            "their rows out."
        )
    if len(said) < FEWEST:
        raise PosebridgeError(f"{table} names {len(said)} images; a cue head needs at least {FEWEST}.")
    name_of = {path: os.path.relpath(path, table.parent) for path in said}  # the same wherever the folder lies
    ranked = sorted(said, key=lambda path: hashlib.sha256(os.fsencode(name_of[path])).hexdigest())
    kept = set(ranked[: max(2, len(ranked) // HELD_OUT)])
    boxes = box_source(recipe, None, device)

    def source(held_out: bool) -> CaptionedImages:
        images = [(path, tuple(texts)) for path, texts in said.items() if (path in kept) == held_out]
        return CaptionedImages(images, boxes, recipe.detection_threshold, seed, not held_out, recipe.light)

    return source(False), source(True)


def require_readable(captions: Sequence[str], encoder: str) -> None:
    """Raise PosebridgeError where captions are surely in a language that `minilm`, which knows English only, cannot
    read: most letters are of another script, or little words of other languages are far more than English ones.
    """
    letters = [letter for text in captions for letter in text if letter.isalpha()]
    strange = sum(ord(letter) > 0x24F for letter in letters)  # beyond the Latin letters
    words = [word for text in captions for word in text.casefold().split()]
    foreign, english = (sum(map(set(known.split()).__contains__, words)) for known in (FOREIGN, ENGLISH))
    if encoder == "minilm" and (2 * strange > len(letters) or 2 * foreign > len(captions) and foreign > 3 * english):
        raise PosebridgeError(
            f"The captions are not in English, which is all that minilm reads (first: {captions[0][:60]!r}); name a "
            "sentence encoder of their language with --text."
        )


def require_apart(vectors: Tensor, encoder: str) -> None:
    """Raise PosebridgeError where all captions, as vectors [K, d_t] of length 1, are one: a head would learn nothing,
    and every answer be right.
    """
    if float((vectors - vectors[:1]).norm(dim=1).max()) < SAME:
        raise PosebridgeError(
            f"All captions are the same to {encoder}, so there is nothing to learn; write what each image shows."
        )
