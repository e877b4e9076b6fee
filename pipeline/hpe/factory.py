"""From a recipe to its estimator."""

from __future__ import annotations

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.hpe.base import Estimator
from pipeline.hpe.joints import check_joints
from pipeline.recipe import Recipe


def build_estimator(recipe: Recipe) -> Estimator:
    """Build the estimator of a recipe.

    Raises PosebridgeError for an unknown backend, weights that do not fit or that give no finite number, and joints
    other than those of the recipe's layout.
    """
    estimator = _build(recipe)
    check_joints(recipe, estimator)
    _try(recipe, estimator)
    return estimator


def _build(recipe: Recipe) -> Estimator:
    from pipeline.hpe.weights import find_weights

    if recipe.backend == "mmpose":
        from pipeline.hpe.mmpose_adapter import MmposeEstimator

        return MmposeEstimator(recipe, find_weights(recipe).path)
    if recipe.backend == "onnx":
        from pipeline.hpe.onnx_adapter import OnnxEstimator

        return OnnxEstimator(recipe, find_weights(recipe).path)
    raise PosebridgeError(f"The recipe's backend {recipe.backend!r} estimates nothing; use `mmpose` or `onnx`.")


def _try(recipe: Recipe, estimator: Estimator) -> None:
    """Raise PosebridgeError where the weights give no number for a picture: damaged ones load without complaint."""
    width, height = estimator.crop_size
    noise = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    if not np.isfinite(estimator.estimate(noise, np.zeros(1, bool)).scores).any():
        raise PosebridgeError(
            f"The weights {recipe.weights!r} give no finite number for a test picture; they are damaged or of another "
            "model: bring the right file."
        )
