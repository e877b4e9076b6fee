"""From a pose model, and a cue head that was tuned on it, to one ONNX file that needs no mmpose.

Of an mmpose model it writes a graph with the input `image` [N, 3, H, W] (normalised as its metadata says) and the
outputs of the pose head, the tapped maps under their modules' names and, where there is a refinement, `refined`
[N, D, h, w]. The projection of a cue, linear after pooling in `CueHead`, is applied to the map instead: pooling weights
sum to 1, so the pooled cue is the same.
    posebridge export-onnx --recipe refined --out cache/weights/refined.onnx
To somebody's ONNX file it adds the nodes of a head, and changes nothing that is there:
    posebridge export-onnx --recipe tinypose --head cache/weights/gym.safetensors --out cache/weights/gym.onnx
"""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from pipeline.errors import PosebridgeError
from pipeline.files.durable import write_for_people
from pipeline.hpe.head_file import HeadFile, read_head
from pipeline.hpe.mmpose_adapter import MmposeEstimator
from pipeline.hpe.onnx_adapter import REFINED
from pipeline.hpe.onnx_file import OnnxFacts, load_graph, read_facts, write_facts
from pipeline.hpe.onnx_head import append_head
from pipeline.hpe.onnx_session import open_session
from pipeline.hpe.refinement import CueHead
from pipeline.hpe.topdown import TopdownModel
from pipeline.hpe.weights import WeightsFile, find_weights
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


def export_onnx(recipe: Recipe, out: Path, head: Path | None = None) -> Path:
    """Write the recipe's pose model as ONNX, with a free batch size, its taps and its refinement, or that of `head`.

    Raises PosebridgeError for a backend other than mmpose without a head, weights that do not fit, a head that was
    tuned on others, a decoding of keypoints that the ONNX backend does not know, or a place where nothing can be
    written.
    """
    weights = find_weights(recipe) if recipe.backend == "mmpose" or head is not None else None
    tuned = read_head(head) if head is not None else None
    if weights is None or recipe.backend not in ("mmpose", "onnx"):
        raise PosebridgeError(
            f"Only a model of mmpose can be exported without a --head; the recipe's backend is {recipe.backend!r}."
        )
    if tuned is not None and tuned.pose_sha256 != weights.sha256:
        raise PosebridgeError(
            f"The cue head {head} was tuned on other pose weights than {weights.path}; tune it on these, or name the "
            "recipe that it was tuned with."
        )
    if tuned is not None and recipe.backend == "onnx":
        model = load_graph(weights.path)
        facts = read_facts(model, weights.path.name)
        append_head(model, list(tuned.taps), tuned.cue, REFINED, weights.path.name)
        open_session(model, weights.path.name)  # not ONNX's checker: it refuses graphs of others that run
        facts = replace(facts, hpe_text=tuned.hpe_text, hpe_classes=tuned.hpe_classes)
    else:
        model, facts = _from_mmpose(recipe, weights, tuned)
        onnx.checker.check_model(model)
    write_facts(model, facts)
    write_for_people(out, model.SerializeToString())
    return out


def _from_mmpose(recipe: Recipe, weights: WeightsFile, tuned: HeadFile | None) -> tuple[onnx.ModelProto, OnnxFacts]:
    """A graph of all that an mmpose recipe computes, with a tuned head instead of its own where there is one."""
    estimator = MmposeEstimator(replace(recipe, cues="levels") if tuned else recipe, weights.path)
    pose = estimator.pose
    if tuned is not None and list(tuned.taps) != list(pose.levels):
        raise PosebridgeError(f"The cue head reads {', '.join(tuned.taps)}; set the recipe's taps to these.")
    cue = tuned.cue if tuned else estimator.refiner.cue if estimator.refiner else None
    said = tuned or weights
    facts = replace(_facts(pose, said.hpe_text or recipe.hpe_text), hpe_classes=said.hpe_classes or recipe.hpe_classes)
    names = ["simcc_x", "simcc_y"] if facts.decoding == "simcc" else ["heatmap"]
    names += [*pose.levels, *([REFINED] if cue else [])]
    graph = _Graph(pose, cue).cpu().eval()
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
        return onnx.load(draft), facts


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
