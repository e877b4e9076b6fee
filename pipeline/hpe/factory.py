"""From a recipe to its estimator."""

from __future__ import annotations

from pipeline.errors import PosebridgeError
from pipeline.hpe.base import Estimator
from pipeline.recipe import Recipe


def build_estimator(recipe: Recipe) -> Estimator:
    """Build the estimator of a recipe. Raises PosebridgeError for an unknown backend or weights that do not fit."""
    from pipeline.hpe.weights import find_weights

    if recipe.backend == "mmpose":
        from pipeline.hpe.mmpose_adapter import MmposeEstimator

        return MmposeEstimator(recipe, find_weights(recipe).path)
    if recipe.backend == "onnx":
        from pipeline.hpe.onnx_adapter import OnnxEstimator

        return OnnxEstimator(recipe, find_weights(recipe).path)
    raise PosebridgeError(f"The recipe's backend {recipe.backend!r} estimates nothing; use `mmpose` or `onnx`.")
