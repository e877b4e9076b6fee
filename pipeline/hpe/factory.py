"""From a recipe to its estimator. A new pose backend is one file and one line here."""

from __future__ import annotations

from pkgutil import resolve_name

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.hpe.base import Estimator
from pipeline.hpe.joints import check_joints
from pipeline.recipe import Recipe

# Each `Estimator` is built with (recipe, path of the weights), and imported only when it is asked for.
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


def build_estimator(recipe: Recipe) -> Estimator:
    """Build the estimator of a recipe.

    Raises PosebridgeError for an unknown backend, weights that do not fit or that give no finite number, and joints
    other than those of the recipe's layout.
    """
    check_backend(recipe)
    estimator = _build(recipe)
    check_joints(recipe, estimator)
    _try(recipe, estimator)
    return estimator


def _build(recipe: Recipe) -> Estimator:
    from pipeline.hpe.weights import find_weights

    return resolve_name(BACKENDS[recipe.backend])(recipe, find_weights(recipe).path)


def _try(recipe: Recipe, estimator: Estimator) -> None:
    """Raise PosebridgeError where the weights give no number for a picture: damaged ones load without complaint."""
    width, height = estimator.crop_size
    noise = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    if not np.isfinite(estimator.estimate(noise, np.zeros(1, bool)).scores).any():
        raise PosebridgeError(
            f"The weights {recipe.weights!r} give no finite number for a test picture; they are damaged or of another "
            "model: bring the right file."
        )
