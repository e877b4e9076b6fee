"""The people of COCO 2017: keypoints, boxes and captions, checked against the images before anything is trained.

Reads COCO's own layout: annotations/person_keypoints_{train,val}2017.json, annotations/captions_{train,val}2017.json,
train2017/*.jpg, val2017/*.jpg. Writes nothing. Any data set in this layout will do.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import PosebridgeError

JOINTS = 17
FEWEST_JOINTS = 5  # of a person to train on; a caption says nothing of a lone elbow
Progress = Callable[[Sequence[str]], Iterator[str]]


@dataclass(frozen=True)
class CocoPeople:
    """P people in I images of one part, the people of an image side by side."""

    folder: Path  # of the images
    files: tuple[str, ...]  # [I] names in the folder
    captions: tuple[tuple[str, ...], ...]  # [I]; empty ones where no captions were asked for
    image: np.ndarray  # [P] int64, row of files
    boxes: np.ndarray  # [P, 4] float64 x, y, w, h in pixels
    keypoints: np.ndarray  # [P, 17, 2] float32, pixels
    labelled: np.ndarray  # [P, 17] bool; a labelled joint may be hidden
    areas: np.ndarray  # [P] float64, of the segmented body, square pixels
    left_out: dict[str, int]  # how many people, by reason

    def __len__(self) -> int:
        return len(self.image)

    def first(self, count: int) -> CocoPeople:
        """The first `count` people."""
        arrays = ("image", "boxes", "keypoints", "labelled", "areas")
        return replace(self, **{name: getattr(self, name)[:count] for name in arrays})

    def picture(self, row: int) -> np.ndarray:
        """The image with row `row` of `files`, uint8 RGB [H, W, 3]. Raises PosebridgeError naming a damaged file."""
        path = self.folder / self.files[row]
        try:
            with Image.open(path) as image:
                return np.array(image.convert("RGB"))  # as stored: COCO's places know nothing of EXIF rotation
        except (OSError, SyntaxError, ValueError) as error:
            raise PosebridgeError(f"{path} is damaged ({' '.join(str(error).split())[:80]}); bring it again.") from None


def read_people(
    root: Path,
    part: str,
    captions: bool,
    without: Sequence[str] = (),
    fewest_joints: int = FEWEST_JOINTS,
    progress: Progress = iter,
) -> CocoPeople:
    """The people of `part` (`train` or `val`), crowds and people with few labelled joints left out.

    With `captions` every image needs one. `without` leaves out the images that a caption of theirs names one of these
    words for, in the singular or with -s or -es; it reads captions too. `progress` may wrap the check of the images.

    Raises PosebridgeError, before any training: a missing or malformed annotation file, nobody left, images that are
    missing, damaged or of another size than annotated, or without a caption: how many, and the first one.
    """
    path = root / "annotations" / f"person_keypoints_{part}2017.json"
    coco = _read(path, ("images", "annotations", "categories"))
    said = _read_captions(root / "annotations" / f"captions_{part}2017.json") if captions or without else {}
    words = {word: re.compile(rf"\b{re.escape(word)}(?:e?s)?\b", re.IGNORECASE) for word in without}
    taken, left_out = [], Counter[str]()
    try:
        images = {image["id"]: image for image in coco["images"]}
        person = _person(coco["categories"], path)
        for annotation in coco["annotations"]:
            if annotation["category_id"] != person:
                continue
            texts = said.get(annotation["image_id"], ())
            if reason := _unfit(annotation, fewest_joints) or _naming(texts, words):
                left_out[reason] += 1
            else:
                taken.append((images[annotation["image_id"]], annotation))
        taken.sort(key=lambda pair: pair[0]["id"])  # so that an image of several people is read once
        used = list({image["id"]: image for image, _ in taken}.values())
        rows = {image["id"]: row for row, image in enumerate(used)}
        points = np.array([a["keypoints"] for _, a in taken], np.float32).reshape(-1, JOINTS, 3)
        people = CocoPeople(
            folder=root / f"{part}2017",
            files=tuple(image["file_name"] for image in used),
            captions=tuple(tuple(said.get(image["id"], ())) for image in used) if captions else ((),) * len(used),
            image=np.array([rows[image["id"]] for image, _ in taken], np.int64),
            boxes=np.array([a["bbox"] for _, a in taken], float).reshape(-1, 4),
            keypoints=points[..., :2],
            labelled=points[..., 2] > 0,
            areas=np.array([a["area"] for _, a in taken], float),
            left_out=dict(left_out),
        )
        sizes = [(int(image["width"]), int(image["height"])) for image in used]
    except (KeyError, TypeError, ValueError) as error:
        raise PosebridgeError(
            f"{path} is not in COCO's form of person keypoints ({type(error).__name__}: {error}); bring the original."
        ) from None
    if not len(people):
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "it lists nobody"
        raise PosebridgeError(f"{path} leaves nobody to use ({why}); bring the original, or leave out fewer.")
    if captions and (mute := [f for f, texts in zip(people.files, people.captions, strict=True) if not texts]):
        raise PosebridgeError(
            f"{len(mute)} of {len(used)} images with people have no caption in captions_{part}2017.json (first: "
            f"{mute[0]}); bring the captions of the same images."
        )
    _check_images(people, sizes, progress)
    return people


def _unfit(annotation: dict[str, Any], fewest_joints: int) -> str:
    """Why a person is left out; empty for one to use."""
    if annotation.get("iscrowd"):
        return "crowds"
    if sum(v > 0 for v in annotation["keypoints"][2::3]) < fewest_joints:
        return f"with fewer than {fewest_joints} labelled joints"
    if min(annotation["bbox"][2:]) < 1:
        return "with an empty box"
    return ""


def _naming(texts: Sequence[str], words: dict[str, re.Pattern[str]]) -> str:
    """The reason to leave out an image whose captions name one of the words; empty for others."""
    return next((f"where a caption names {word!r}" for word, form in words.items() if any(map(form.search, texts))), "")


def _check_images(people: CocoPeople, sizes: list[tuple[int, int]], progress: Progress) -> None:
    """Every image is there, and its header tells the size that the annotations were made on."""
    missing, wrong = [], []
    for file, size in zip(progress(people.files), sizes, strict=True):
        path = people.folder / file
        if not path.is_file():
            missing.append(file)
            continue
        try:
            with Image.open(path) as image:
                found = image.size
        except (OSError, SyntaxError, ValueError):
            found = (0, 0)
        if found != size:
            wrong.append(file)
    if missing:
        raise PosebridgeError(
            f"{len(missing)} of {len(sizes)} images with people are missing in {people.folder} (first: {missing[0]}); "
            "bring them."
        )
    if wrong:
        raise PosebridgeError(
            f"{len(wrong)} of {len(sizes)} images in {people.folder} are damaged or not of the size that they were "
            f"annotated at (first: {wrong[0]}); bring them again."
        )


def _read(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """A JSON file of COCO's form."""
    if not path.is_file():
        raise PosebridgeError(f"{path} is missing; bring it from COCO's annotations_trainval2017.zip.")
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise PosebridgeError(f"{path} is damaged or no JSON ({error}); bring it again.") from None
    if absent := [key for key in keys if not isinstance(found, dict) or not isinstance(found.get(key), list)]:
        raise PosebridgeError(f"{path} has no list {absent[0]!r}; bring COCO's own file.")
    return found


def _read_captions(path: Path) -> dict[int, list[str]]:
    """Captions by image id, white space made plain, in the file's order."""
    said: dict[int, list[str]] = {}
    try:
        for annotation in _read(path, ("annotations",))["annotations"]:
            if caption := " ".join(annotation["caption"].split()):
                said.setdefault(annotation["image_id"], []).append(caption)
    except (KeyError, TypeError, AttributeError) as error:
        raise PosebridgeError(
            f"{path} is not in COCO's form of captions ({type(error).__name__}: {error}); bring the original."
        ) from None
    return said


def _person(categories: list[dict[str, Any]], path: Path) -> int:
    """The id of the category of people with COCO's 17 joints."""
    for category in categories:
        if category["name"] == "person" and len(category.get("keypoints", ())) == JOINTS:
            return category["id"]
    raise PosebridgeError(f"{path} has no category `person` with {JOINTS} keypoints; bring COCO's person keypoints.")
