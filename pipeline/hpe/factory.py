"""From a recipe to its estimator. A new pose backend is one file and one line here."""

from __future__ import annotations

from dataclasses import replace
from pkgutil import resolve_name
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.files.memory import keep_freed_memory
from pipeline.hpe.base import Estimator
from pipeline.hpe.joints import check_joints
from pipeline.recipe import ANCHORS, IMAGE_TEXT, POSE, Recipe

if TYPE_CHECKING:
    import torch

# Each `Estimator` is built with (recipe, path of the weights, device), and imported only when it is asked for.
BACKENDS = {
    "mmpose": "pipeline.hpe.mmpose_adapter:MmposeEstimator",
    "onnx": "pipeline.hpe.onnx_adapter:OnnxEstimator",
}


def check_backend(recipe: Recipe) -> None:
    """Raise PosebridgeError for a recipe whose backend is no pose model that we know."""
    if recipe.backend not in BACKENDS:
        raise PosebridgeError(
            f"The recipe's backend {recipe.backend!r} estimates nothing; use {' or '.join(map(repr, BACKENDS))}."
        )


def build_estimator(recipe: Recipe, device: torch.device | None = None) -> Estimator:
    """Build the estimator of a recipe on a device, by default the CPU; this process keeps memory from then on.

    Raises PosebridgeError for an unknown backend, weights that do not fit or that give no finite number, joints other
    than those of the recipe's layout, and a backend that cannot use the device.
    """
    check_backend(recipe)
    keep_freed_memory()
    estimator = _build(recipe, device)
    check_joints(recipe, estimator)
    _try(recipe, estimator)
    return estimator


def _build(recipe: Recipe, device: torch.device | None) -> Estimator:
    if recipe.cues_from == POSE:
        return _build_pose(recipe, device)
    plain = replace(recipe, cues_from=POSE, cues="none", taps=(), anchors=ANCHORS)
    if recipe.cues_from == IMAGE_TEXT:
        from pipeline.files.device import CPU
        from pipeline.hpe.image_text import ImageTextCues, load_image_text

        model, _ = load_image_text(recipe, device or CPU)  # before mmpose's stand-ins: see hpe/mm_compat.py
        return ImageTextCues(recipe, _build_pose(plain, device), model)
    from pipeline.hpe.image_network import ImageNetworkCues, load_network

    pose = _build_pose(plain, device)
    return ImageNetworkCues(recipe, pose, *load_network(recipe, pose.crop_size))


def _build_pose(recipe: Recipe, device: torch.device | None) -> Estimator:
    from pipeline.files.device import CPU
    from pipeline.hpe.weights import find_weights

    return resolve_name(BACKENDS[recipe.backend])(recipe, find_weights(recipe).path, device or CPU)


def _try(recipe: Recipe, estimator: Estimator) -> None:
    """Raise PosebridgeError where the weights give no number for a picture: damaged ones load without complaint."""
    width, height = estimator.crop_size
    noise = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    if not np.isfinite(estimator.estimate(noise, np.zeros(1, bool)).scores).any():
        raise PosebridgeError(
            f"The weights {recipe.weights!r} give no finite number for a test picture; they are damaged or of another "
            "model: bring the right file."
        )
