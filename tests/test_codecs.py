"""Heads that mmpose decodes itself, in numpy: cues come with their keypoints, on whatever device the model is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import PosebridgeError
from pipeline.hpe.mmpose_adapter import MmposeEstimator
from pipeline.hpe.topdown import TopdownModel
from pipeline.recipe import Recipe

pytestmark = pytest.mark.unit
UDP = "cspnext-tiny_udp_8xb256-210e_coco-256x192"
DARK = "td-hm_hrnet-w32_dark-8xb64-210e_coco-256x192"


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 256, 192, 3), dtype=np.uint8)


def weights_of(config: str, folder: Path) -> Path:
    """Random ones, of a head that is sure of itself."""
    torch.manual_seed(0)
    state = TopdownModel(config).model.state_dict()
    state["head.final_layer.weight"] *= 100
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "w.safetensors")
    return folder / "w.safetensors"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", [UDP, pytest.param(DARK, marks=pytest.mark.slow)])
def test_cues_come_with_keypoints(config: str, precision: str, device: str, tmp_path: Path) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA GPU here")
    path = weights_of(config, tmp_path)
    recipe = Recipe(config=config, weights=str(path), cues="levels", precision=precision)
    estimator = MmposeEstimator(recipe, path, torch.device(device))
    found = estimator.estimate(crops(3), np.array([True, False, True]))
    assert found.keypoints.shape == (3, 17, 2) and found.cues.shape == (2, 6, estimator.cue_width)
    assert np.isfinite(found.keypoints).all() and np.isfinite(found.cues).all() and found.cues.any()
    assert estimator.precision == precision and estimator.provider == "PyTorch"


def test_what_mmpose_decodes_goes_back_to_the_device_that_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's `meta` is a device without numbers, where every tensor tells its place."""
    path = weights_of(UDP, tmp_path)
    estimator = MmposeEstimator(Recipe(config=UDP, weights=str(path), cues="levels"), path)
    pose, answer = estimator.pose, SimpleNamespace(keypoints=np.ones((1, 17, 2)), keypoint_scores=np.ones((1, 17)))
    monkeypatch.setattr(pose.model.head, "decode", lambda output: [answer, answer])
    maps = zip(pose.channels, pose.strides, strict=True)
    features = [torch.empty(2, width, 256 // stride, 192 // stride, device="meta") for width, stride in maps]
    for output in (torch.empty(2, 17, 64, 48, device="meta"), (torch.empty(2, 17, 9, device="meta"),) * 2):
        keypoints, scores = pose.decode(output)
        assert keypoints.dtype == scores.dtype == torch.float32 and keypoints.shape == (2, 17, 2)
        cues, visible = estimator._cues(features, keypoints, scores)
        assert {each.device.type for each in (keypoints, scores, cues, visible)} == {"meta"}
        assert cues.shape == (2, 6, estimator.cue_width)


@pytest.mark.parametrize(
    "config", ["td-reg_res50_8xb64-210e_coco-256x192", "td-hm_mspn50_8xb32-210e_coco-256x192"]
)  # fmt: skip
def test_a_head_without_maps_or_with_several_stages_is_one_sentence(config: str) -> None:
    with pytest.raises(PosebridgeError, match=rf"^{config} .*; choose a SimCC or heatmap config\.$"):
        TopdownModel(config)
