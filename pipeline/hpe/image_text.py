"""Cues of an image-text model (CLIP and its like): a reference, and no part of posebridge.

What a user might take instead: every cue frame, whole, and the crop of every person in it, each as one vector, which
`methods/image_text.py` compares with vectors of words by the same model. Frames, persons and boxes are those of the
recipe, and keypoints those of its pose model, bit for bit, so that all methods see the same clips. The model is one of
sentence-transformers, by name or folder; what it learnt on the web it may have learnt of unseen classes too, which
`web_data` of the recipe declares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from pipeline.errors import PosebridgeError
from pipeline.files.device import CPU, memory_for
from pipeline.files.sentence_model import load_model, weights_sha256
from pipeline.hpe.base import Estimate, Estimator, device_of
from pipeline.recipe import Recipe

SIDE = 336  # pixels of the square that a frame is fitted into: the largest that CLIP models see; each takes its own
AT_ONCE = 32  # pictures in one call of the model
_waiting: dict[str, tuple[Any, str]] = {}  # one at most, by its name


def image_text_sha256(recipe: Recipe) -> str:
    """The hash of the recipe's model, which is kept for who loads it next. Raises as `load_image_text`."""
    loaded = load_image_text(recipe)
    _waiting.clear()
    _waiting[recipe.image_text] = loaded
    return loaded[1]


def load_image_text(recipe: Recipe, device: torch.device = CPU) -> tuple[Any, str]:
    """The recipe's model, on a device, and the hash of its weights.

    Raises PosebridgeError where the recipe names none or declares no `web_data`, where the model cannot be loaded or
    sees no pictures, and where it is another one than the recipe's hash says.
    """
    name = recipe.image_text
    if not name or not recipe.web_data:
        raise PosebridgeError(
            "A recipe with `cues_from: image-text` needs `image_text`, a sentence-transformers name or a folder, and "
            "`web_data`, in words what its weights have seen of the web: `unknown` where nobody tells."
        )
    remedy = (
        f"The image-text model {name!r} could not be loaded; where there is a network, save it by "
        f"`SentenceTransformer({name!r}).save('FOLDER')`, bring the folder, with its model.safetensors, name it as the "
        "recipe's `image_text`, and run `posebridge extract` again"
    )
    model, found = _waiting.pop(name, (None, ""))
    model = model or load_model(name, remedy)
    if "image" not in getattr(model, "modalities", ("image",)):
        raise PosebridgeError(f"The model {name!r} knows words but no pictures; name one of both, as CLIP is.")
    found = found or weights_sha256(model)
    if recipe.image_text_sha256 not in ("", found):
        raise PosebridgeError(
            f"The image-text model {name!r} has sha256 {found[:12]}..., the recipe wants "
            f"{recipe.image_text_sha256[:12]}...; bring the right one or correct image_text_sha256."
        )
    return model.to(device), found


class ImageTextCues:
    """An `Estimator` that wants whole frames beside the crops: the keypoints of `pose`, and of each crop that cues are
    wanted of the vectors of its frame and of itself, of length one.
    """

    frame_side = SIDE  # what `PoseStream` fits frames into

    def __init__(self, recipe: Recipe, pose: Estimator, model: Any) -> None:
        self.recipe, self.pose, self.device, self._model = recipe, pose, device_of(pose), model
        self.crop_size, self.joints = pose.crop_size, pose.joints
        self.joint_names: Sequence[str] = getattr(pose, "joint_names", ())
        self.provider = f"{getattr(pose, 'provider', 'pose model')}, cues by PyTorch"
        self.precision = getattr(pose, "precision", "float32")
        self.cue_width = self._vectors([np.zeros((SIDE, SIDE, 3), np.uint8)]).shape[1]

    def estimate(self, crops: np.ndarray, cue_rows: np.ndarray, frames: np.ndarray | None = None) -> Estimate:
        """Estimate uint8 RGB crops [N, H, W, 3] of `frames` [N, SIDE, SIDE, 3]; see `Estimator`."""
        found = self.pose.estimate(crops, np.zeros(len(crops), bool))
        rows = np.flatnonzero(cue_rows)
        cues = np.zeros((len(rows), len(self.recipe.anchors), self.cue_width), np.float32)
        if len(rows):
            if frames is None:
                raise PosebridgeError("An image-text model sees whole frames, which this command does not show it.")
            for place, view in enumerate(self.recipe.anchors):
                whole = view == "frame"
                seen = frames[rows] if whole else [fitted(crop, max(crop.shape)) for crop in crops[rows]]
                cues[:, place] = self._vectors(seen)
        return Estimate(found.keypoints, found.scores, cues, np.ones(cues.shape[:2], np.float32))

    def _vectors(self, pictures: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """float32 [N, D] of length one; of equal pictures, as a frame of several persons is, one is looked at."""
        first: dict[bytes, int] = {}
        where = [first.setdefault(picture.tobytes(), len(first)) for picture in pictures]
        chosen = np.unique(where, return_index=True)[1]
        with memory_for("The image-text model"):
            found = self._model.encode(
                [Image.fromarray(pictures[row]) for row in chosen], batch_size=AT_ONCE, normalize_embeddings=True,
                convert_to_numpy=True, show_progress_bar=False,
            )  # fmt: skip
        return np.asarray(found, np.float32)[where]


def fitted(picture: np.ndarray, side: int) -> np.ndarray:
    """A uint8 RGB picture [H, W, 3], whole, in the middle of a black square: models of pictures cut off what is beyond
    one, and a person may be there.
    """
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    square = np.zeros((side, side, 3), np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = small
    return square
