"""The ONNX backend: any top-down pose graph, with keypoints and pose-anchored cues from one pass; mmpose is not needed.

Reads an .onnx file whose first output is a heatmap [N, V, h, w], or whose first two are SimCC [N, V, W * r] and
[N, V, H * r]. A file of `posebridge export-onnx` says in its metadata how it is fed and decoded; for others the recipe
says it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.files.device import CPU
from pipeline.hpe.base import Estimate, in_order, joined, with_cues_first
from pipeline.hpe.decoding import bounded, decode_dark, decode_heatmap, decode_simcc
from pipeline.hpe.lanes import Lanes, threads_for
from pipeline.hpe.onnx_file import OnnxFacts, load_graph, open_taps, read_facts
from pipeline.hpe.onnx_input import input_of
from pipeline.hpe.onnx_session import open_session, provider_of, run_bound, run_session
from pipeline.hpe.pooling import pool_levels
from pipeline.hpe.transfer import to_arrays, to_device
from pipeline.recipe import Recipe

if TYPE_CHECKING:
    from pipeline.hpe.base import Tapped

REFINED = "refined"  # the output that holds the refined map [N, D, h, w], already projected to the cue's width
PORTION = 4  # crops that go through a CPU together
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB, 0..255


class OnnxEstimator:
    """An `Estimator` over an ONNX graph. Raises PosebridgeError where it does not fit the recipe, or the device."""

    def __init__(self, recipe: Recipe, weights: Path, device: torch.device = CPU) -> None:
        self.recipe, self._name, self.device = recipe, weights.name, device
        if recipe.precision != "float32":
            raise PosebridgeError(f"The precision of {weights.name} is fixed in its graph; set `precision: float32`.")
        model = load_graph(weights)
        facts = read_facts(model, weights.name)
        self.joint_names = facts.joints
        own = [output.name for output in model.graph.output]
        if recipe.cues == "refined" and REFINED not in own:
            raise PosebridgeError(
                f"{weights.name} has no output {REFINED!r}; make such a file with `posebridge export-onnx`, or use a "
                "recipe with `cues: levels`."
            )
        # Without names the taps are the other outputs of the graph: those are maps that somebody found worth showing.
        taps = recipe.taps or facts.taps or tuple(name for name in own[1:] if name != REFINED)
        self._cue_maps = {"levels": taps, "refined": (REFINED,), "none": ()}[recipe.cues]
        open_taps(model, self._cue_maps, weights.name)
        self._lanes = Lanes(device)
        self.at_once = self._lanes.at_once
        self._session = open_session(model, weights.name, device, threads=self._lanes.threads)
        self.provider = provider_of(self._session)
        self._read_input()
        self._read_normalisation(facts)
        self._read_outputs(own, facts)

    def _read_input(self) -> None:
        """Name, size, layout and batch of the one input."""
        found = input_of(self._session, self._name)
        self._step = found.batch or (PORTION if self.device.type == "cpu" else None)
        self._input, self._channels_first, self.crop_size = found.name, found.channels_first, found.crop_size
        self._fixed_batch, self._dtype = found.batch, found.dtype
        self.precision = str(self._dtype).removeprefix("torch.")

    def _read_normalisation(self, facts: OnnxFacts) -> None:
        """Mean and std of values 0..255, in the graph's order of channels: the recipe's, the file's or ImageNet's."""
        recipe = self.recipe
        order = recipe.channels or facts.channels or "rgb"
        if order not in ("rgb", "bgr"):
            raise PosebridgeError(
                f"The channels {order[:60]!r} of {self._name} are unknown; set the recipe's to rgb or bgr."
            )
        self._flip = order == "bgr"
        step = -1 if self._flip else 1
        mean = recipe.mean or facts.mean or IMAGENET_MEAN[::step]
        std = recipe.std or facts.std or IMAGENET_STD[::step]
        if len(mean) != 3 or len(std) != 3 or not np.isfinite((*mean, *std)).all() or min(std) <= 0:
            raise PosebridgeError(
                f"The mean and std of the recipe, or of {self._name}, should be three numbers each, and std above zero."
            )
        self._mean, self._std = (torch.tensor(values, device=self.device).view(3, 1, 1) for values in (mean, std))

    def _read_outputs(self, own: list[str], facts: OnnxFacts) -> None:
        """What the graph yields for two black crops: joints, decoding, the width of the cues."""
        width, height = self.crop_size
        self._outputs = own + [tap for tap in self._cue_maps if tap not in own]
        probe = self._probe(np.zeros((2, height, width, 3), np.uint8))
        ranks = [probe[name].ndim for name in own[:2]]
        if ranks[0] == 4:
            self._pose = own[:1]
        elif ranks == [3, 3] and probe[own[0]].shape[:2] == probe[own[1]].shape[:2]:
            self._pose = own[:2]
        else:
            raise PosebridgeError(
                f"{self._name} should yield a heatmap [N, V, h, w] first, or the two of SimCC; its first output "
                f"{own[0]} has the shape {list(probe[own[0]].shape)}."
            )
        self._outputs = [*self._pose, *self._cue_maps]
        for name in self._outputs:
            found = probe[name]
            if found.dtype.kind != "f" or not found.size or len(found) != 2:
                raise PosebridgeError(
                    f"The output {name!r} of {self._name} is {found.dtype} {list(found.shape)} for two crops; it "
                    "should be floating-point, one row a crop: export it again."
                )
        if flat := [tap for tap in self._cue_maps if probe[tap].ndim != 4]:
            raise PosebridgeError(f"The tap {flat[0]!r} of {self._name} is no map [N, C, h, w]; name another.")
        if self.recipe.cues != "none" and not self._cue_maps:
            raise PosebridgeError(f"{self._name} shows no inner map for cues; name some in the recipe's `taps`.")
        self._rows = {name: torch.from_numpy(probe[name][:0]).to(self.device) for name in self._outputs}
        self.joints = int(probe[own[0]].shape[1])
        self.level_widths = tuple(int(probe[tap].shape[1]) for tap in self._cue_maps)
        self.cue_width = sum(self.level_widths)
        self._decode = self._decoder(probe[own[0]].shape, facts)

    def _decoder(self, shape: tuple[int, ...], facts: OnnxFacts) -> Callable[[list[Tensor]], tuple[Tensor, Tensor]]:
        fitting = ("dark", "quarter") if len(shape) == 4 else ("simcc",)
        decoding = self.recipe.decoding or facts.decoding or fitting[0]
        if decoding not in fitting:
            raise PosebridgeError(
                f"The decoding {decoding!r} does not fit {self._name}; set the recipe's to {' or '.join(fitting)}."
            )
        if decoding == "dark" and min(shape[2:]) < 5:
            raise PosebridgeError(f"The heatmaps of {self._name} are too small for `decoding: dark`; set quarter.")
        if decoding == "simcc":
            return lambda output: decode_simcc(output[0], output[1], output[0].shape[-1] / self.crop_size[0])
        scale = (self.crop_size[0] / shape[3], self.crop_size[1] / shape[2])

        def decode(output: list[Tensor]) -> tuple[Tensor, Tensor]:
            if decoding == "dark":
                keypoints, scores = decode_dark(output[0], scale, facts.dark_kernel)
            else:
                keypoints, scores = decode_heatmap(output[0], scale)
            return keypoints + self.recipe.heatmap_offset, scores

        return decode

    def _images(self, crops: np.ndarray) -> Tensor:
        """uint8 RGB crops [N, H, W, 3] as the graph's input; more of the last one where it takes so many at a time."""
        pixels = to_device(crops, self.device).permute(0, 3, 1, 2)
        missing = -len(crops) % (self._fixed_batch or 1)
        images = torch.empty(len(pixels) + missing, *pixels.shape[1:], device=self.device)
        images[: len(pixels)] = pixels.flip(1) if self._flip else pixels  # by planes, in a third of the time
        images[len(pixels) :] = images[len(pixels) - 1 : len(pixels)]
        images.sub_(self._mean).div_(self._std)
        return (images if self._channels_first else images.permute(0, 2, 3, 1)).to(self._dtype).contiguous()

    def _probe(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """All outputs for these crops, of whatever shapes they are."""
        images = self._images(crops).cpu().numpy()
        step = self._fixed_batch or len(images)
        done = [
            run_session(self._session, self._outputs, {self._input: images[begin : begin + step]}, self._name)
            for begin in range(0, len(images), step)
        ]
        joined = [np.concatenate(pieces)[: len(crops)] for pieces in zip(*done, strict=True)]
        return dict(zip(self._outputs, joined, strict=True))

    def _run(self, images: Tensor, outputs: list[str]) -> list[Tensor]:
        """These outputs for the graph's input, on the device."""
        found = {name: self._rows[name].new_empty(len(images), *self._rows[name].shape[1:]) for name in outputs}
        run_bound(self._session, {self._input: images}, found, self._name)
        return [found[name] for name in outputs]

    def bare(self, crops: np.ndarray) -> Callable[[], object]:
        """The graph alone on these crops, its input prepared and no inner map asked for: what `bench` compares with."""
        portions = self._lanes.portions(len(crops), self._step)
        images = {part.start: self._images(crops[part]) for part in portions}
        return lambda: self._lanes.run(lambda part: self._run(images[part.start], self._pose), portions)

    def estimate(self, crops: np.ndarray, cue_rows: np.ndarray) -> Estimate:
        """Estimate uint8 RGB crops [N, H, W, 3]; see `Estimator`."""
        portions = self._lanes.portions(len(crops), self._step)
        return joined(self._lanes.run(lambda part: self._estimate(crops[part], cue_rows[part]), portions))

    def _estimate(self, crops: np.ndarray, cue_rows: np.ndarray) -> Estimate:
        order, count = with_cues_first(cue_rows)
        maps, keypoints, scores = self._tapped(crops[order])
        with threads_for(count):
            cues, visible = self._cues([each[:count].float() for each in maps], keypoints[:count], scores[:count])
        return in_order(order, *to_arrays(keypoints, scores, cues, visible))

    def tapped(self, crops: np.ndarray) -> Tapped:
        """What cues are pooled of; see `TappedEstimator`."""
        parts = self._lanes.run(lambda part: self._tapped(crops[part]), self._lanes.portions(len(crops), self._step))
        maps, keypoints, scores = zip(*parts, strict=True)
        return [torch.cat(each) for each in zip(*maps, strict=True)], torch.cat(keypoints), torch.cat(scores)

    def _tapped(self, crops: np.ndarray) -> Tapped:
        outputs = [values[: len(crops)] for values in self._run(self._images(crops), self._outputs)]
        pose, maps = outputs[: len(self._pose)], outputs[len(self._pose) :]
        keypoints, raw = self._decode(pose)
        return maps, keypoints, bounded(raw)

    @property
    def taps(self) -> dict[str, tuple[int, int]]:
        """See `TappedEstimator`."""
        shapes = {tap: self._rows[tap].shape for tap in self._cue_maps}
        return {tap: (shape[1], round(self.crop_size[1] / shape[2])) for tap, shape in shapes.items()}

    def _cues(self, maps: list[Tensor], keypoints: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Cues [K, A, D], pooled of all maps, and their scores [K, A]."""
        strides = [self.crop_size[1] / feature.shape[2] for feature in maps]
        return pool_levels(maps, strides, keypoints, scores, self.recipe.anchors, self.recipe.sigma)
