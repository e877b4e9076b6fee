"""From an mmpose model to one ONNX file that yields the same keypoints and cues where mmpose is not installed.

Writes a graph with the input `image` [N, 3, H, W] (normalised as its metadata says) and the outputs of the head, the
tapped maps under their modules' names and, for weights with refinement, `refined` [N, D, h, w]. The projection of a
cue, linear after pooling in `CueHead`, is applied to the map instead: pooling weights sum to 1, so the pooled cue is
the same.
    posebridge export-onnx --recipe refined --out cache/weights/refined.onnx
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from pipeline.errors import PosebridgeError
from pipeline.files.durable import write_for_people
from pipeline.hpe.mmpose_adapter import MmposeEstimator
from pipeline.hpe.onnx_adapter import REFINED
from pipeline.hpe.onnx_file import OnnxFacts, write_facts
from pipeline.hpe.refinement import CueHead
from pipeline.hpe.topdown import TopdownModel
from pipeline.hpe.weights import find_weights
from pipeline.recipe import Recipe

OPSET = 17


class _Graph(nn.Module):
    """Everything that the file computes."""

    def __init__(self, pose: TopdownModel, cue: CueHead | None) -> None:
        super().__init__()
        self.pose, self.cue = pose, cue

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        output, features = self.pose(images)
        outputs = (*output, *features) if isinstance(output, tuple) else (output, *features)
        if self.cue is None:
            return outputs
        project = self.cue.project
        refined = nn.functional.conv2d(self.cue.refine(features), project.weight[:, :, None, None], project.bias)
        return (*outputs, refined)


def export_onnx(recipe: Recipe, out: Path) -> Path:
    """Write the recipe's pose model as ONNX, with a free batch size, its taps and its refinement.

    Raises PosebridgeError for a backend other than mmpose, weights that do not fit, a decoding of keypoints that the
    ONNX backend does not know, or a place where nothing can be written.
    """
    if recipe.backend != "mmpose":
        raise PosebridgeError(f"Only a model of mmpose can be exported; the recipe's backend is {recipe.backend!r}.")
    weights = find_weights(recipe)
    estimator = MmposeEstimator(recipe, weights.path)
    pose = estimator.pose
    facts = _facts(pose, weights.hpe_text or recipe.hpe_text)
    names = ["simcc_x", "simcc_y"] if facts.decoding == "simcc" else ["heatmap"]
    names += [*pose.levels, *([REFINED] if estimator.refiner else [])]
    graph = _Graph(pose, estimator.refiner.cue if estimator.refiner else None).cpu().eval()
    width, height = pose.crop_size
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations, and notes about shapes that are constants
        draft = Path(folder) / "model.onnx"
        torch.onnx.export(
            graph,
            (torch.zeros(2, 3, height, width),),
            draft,
            input_names=["image"],
            output_names=names,
            dynamic_axes={name: {0: "N"} for name in ["image", *names]},
            opset_version=OPSET,
            dynamo=False,  # the newer exporter needs another package and takes minutes
        )
        model = onnx.load(draft)
    write_facts(model, facts)
    onnx.checker.check_model(model)
    write_for_people(out, model.SerializeToString())
    return out


def _facts(pose: TopdownModel, hpe_text: str) -> OnnxFacts:
    codec = pose.model.head.decoder
    kind = type(codec).__name__
    if kind == "SimCCLabel" and not codec.use_dark:
        decoding = "simcc"
    elif kind == "MSRAHeatmap":
        decoding = "dark" if codec.unbiased else "quarter"
    else:
        raise PosebridgeError(
            f"The codec {kind} of {pose.config} cannot be exported; choose a config with SimCCLabel or MSRAHeatmap."
        )
    step = -1 if pose.flip_channels else 1
    mean, std = (tuple(values.flatten().tolist()[::step]) for values in (pose.mean, pose.std))
    return OnnxFacts(
        hpe_text=hpe_text,
        decoding=decoding,
        dark_kernel=int(getattr(codec, "blur_kernel_size", OnnxFacts.dark_kernel)),
        mean=mean,
        std=std,
        channels="bgr" if pose.flip_channels else "rgb",
        taps=pose.levels,
        joints=pose.joint_names,
    )
