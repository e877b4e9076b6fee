"""Whether a pose model's joints are those of the recipe's layout: by number always, by name where the model tells it.

Another order of as many joints would pass through everything after it: mirror images, anchors and the torso's length
would be those of other joints, without a word.
"""

from __future__ import annotations

import re
from typing import Any

from pipeline.errors import PosebridgeError
from pipeline.hpe.base import Estimator
from pipeline.recipe import Recipe
from pipeline.skeleton.graph import graph_of


def check_joints(recipe: Recipe, estimator: Estimator) -> None:
    """Raise PosebridgeError where the estimator's joints are not those of the recipe's layout, in its order."""
    wanted = graph_of(recipe.layout).joints
    model = recipe.weights or recipe.config or recipe.backend
    if estimator.joints != len(wanted):
        raise PosebridgeError(
            f"The pose model {model!r} yields {estimator.joints} joints, but the recipe's layout {recipe.layout} has "
            f"{len(wanted)}; use a model of these joints."
        )
    names = tuple(re.sub(r"[^a-z0-9]+", "_", name.lower()) for name in getattr(estimator, "joint_names", ()))
    for place, (name, joint) in enumerate(zip(names, wanted, strict=False)):
        if name != joint:
            raise PosebridgeError(
                f"Joint {place} of the pose model {model!r} is {name!r}, but that of the recipe's layout "
                f"{recipe.layout} is {joint!r}; use a model of these joints in this order."
            )


def joint_names(meta: Any) -> tuple[str, ...]:
    """The names in `keypoint_id2name` of mmpose's `dataset_meta`, in their order; empty where there are none."""
    names = meta.get("keypoint_id2name") if isinstance(meta, dict) else None
    if not isinstance(names, dict) or set(names) != set(range(len(names))):
        return ()
    return tuple(str(names[place]) for place in range(len(names)))
