"""The mmpose backend: any top-down SimCC or heatmap config, with keypoints and pose-anchored cues from one pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.files.device import CPU
from pipeline.hpe.base import Estimate, in_order, joined, with_cues_first
from pipeline.hpe.decoding import bounded
from pipeline.hpe.lanes import Lanes, threads_for
from pipeline.hpe.model import PoseBridgeHPE
from pipeline.hpe.pooling import pool_levels
from pipeline.hpe.topdown import TopdownModel, by_onednn, channels_last, fuse_layers
from pipeline.hpe.transfer import to_arrays, to_device
from pipeline.hpe.weights import load_checkpoint
from pipeline.recipe import Recipe

if TYPE_CHECKING:
    from pipeline.hpe.base import Tapped

PORTION = 8  # crops that go through a CPU together
MOST_WIDTH = 4096  # of a refinement, before a model of that width is made


class MmposeEstimator:
    """An `Estimator` over an mmpose model. Raises PosebridgeError where the weights do not fit the recipe."""

    provider = "PyTorch"

    def __init__(self, recipe: Recipe, weights: Path, device: torch.device = CPU) -> None:
        self.recipe, self.device, self.precision = recipe, device, recipe.precision
        self.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[recipe.precision]
        state, names = load_checkpoint(weights)
        self.refiner: PoseBridgeHPE | None = None
        if recipe.cues == "refined":
            if not any(key.startswith("cue.") for key in state):
                raise PosebridgeError(
                    f"{weights.name} holds no cue refinement; tune one with `posebridge tune-hpe`, "
                    "or use a recipe with `cues: levels`."
                )
            project = state.get("cue.project.weight")
            if project is None or project.ndim != 2 or not 0 < project.shape[1] <= MOST_WIDTH:
                raise PosebridgeError(f"The cue refinement of {weights.name} is damaged; bring the file again.")
            self.refiner = PoseBridgeHPE(recipe.config, recipe.taps, recipe.pooled_stride, project.shape[1])
            self.pose = self.refiner.pose
            if f"cue.refine.project.{len(self.refiner.cue.refine.project)}.0.weight" in state:
                raise PosebridgeError(
                    f"The cue refinement of {weights.name} is of an earlier version of posebridge, or of another "
                    "pooled_stride; tune one again with `posebridge tune-hpe --kind sem --mode frozen --init`."
                )
            self._load(self.refiner, {k: v for k, v in state.items() if not k.startswith("to_text.")}, weights)
        else:
            self.pose = TopdownModel(recipe.config, recipe.taps)
            own = {k.removeprefix("pose."): v for k, v in state.items() if k.startswith("pose.")}
            self._load(self.pose, own or {f"model.{k}": v for k, v in state.items()}, weights)
        network = self.refiner or self.pose
        network.to(self.device).eval().requires_grad_(False)
        channels_last(network)
        exact = network if self.dtype == torch.float32 else self.refiner and self.refiner.cue  # float32 in any case
        if exact is not None:
            if device.type == "cpu":
                by_onednn(exact)
            fuse_layers(exact)
        self._lanes = Lanes(device)
        self.at_once = self._lanes.at_once
        self.crop_size, self.joints = self.pose.crop_size, self.pose.joints
        self.joint_names = names or self.pose.joint_names
        self.cue_width = {
            "refined": self.refiner.cue.cue_width if self.refiner else 0,
            "levels": sum(self.pose.channels),
            "none": 0,
        }[recipe.cues]

    def _load(self, module: torch.nn.Module, state: dict[str, Tensor], weights: Path) -> None:
        own = {key: value.shape for key, value in module.state_dict().items()}
        given = {key: value.shape for key, value in state.items()}
        if own != given:
            wrong = sorted(key for key in own.keys() | given.keys() if own.get(key) != given.get(key))
            raise PosebridgeError(
                f"{weights.name} does not fit {self.recipe.config}: {len(wrong)} tensors are missing, foreign or of"
                f" another shape (first: {wrong[0]}); give its own weights."
            )
        module.load_state_dict(state)

    def estimate(self, crops: np.ndarray, cue_rows: np.ndarray) -> Estimate:
        """Estimate uint8 RGB crops [N, H, W, 3]; see `Estimator`."""
        portions = self._lanes.portions(len(crops), PORTION if self.device.type == "cpu" else None)
        return joined(self._lanes.run(lambda part: self._estimate(crops[part], cue_rows[part]), portions))

    @torch.inference_mode()
    def _estimate(self, crops: np.ndarray, cue_rows: np.ndarray) -> Estimate:
        order, count = with_cues_first(cue_rows)
        features, keypoints, scores = self.tapped(crops[order])
        with threads_for(count):
            cues, visible = self._cues([f[:count].float() for f in features], keypoints[:count], scores[:count])
        return in_order(order, *to_arrays(keypoints, scores, cues, visible))

    @torch.inference_mode()
    def tapped(self, crops: np.ndarray) -> Tapped:
        """What cues are pooled of; see `TappedEstimator`."""
        images = self.pose.normalise(to_device(crops, self.device)).contiguous(memory_format=torch.channels_last)
        with threads_for(len(crops)), torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32):
            output, features = self.pose(images)
        output = tuple(o.float() for o in output) if isinstance(output, tuple) else output.float()
        keypoints, raw = self.pose.decode(output)
        return features, keypoints, bounded(raw)

    @property
    def taps(self) -> dict[str, tuple[int, int]]:
        """See `TappedEstimator`."""
        described = zip(self.pose.channels, self.pose.strides, strict=True)
        return dict(zip(self.pose.levels, described, strict=True))

    def _cues(self, features: list[Tensor], keypoints: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Cues [K, A, D] and their scores [K, A] of K crops."""
        recipe = self.recipe
        if self.cue_width == 0 or len(keypoints) == 0:
            empty = keypoints.new_zeros(len(keypoints), len(recipe.anchors), self.cue_width)
            return empty, empty.new_zeros(empty.shape[:2])
        if self.refiner is not None:
            return self.refiner.cue.cues(features, keypoints, scores, recipe.anchors, recipe.sigma)
        return pool_levels(features, self.pose.strides, keypoints, scores, recipe.anchors, recipe.sigma)
