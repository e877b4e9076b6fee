"""The joints of a pose model against the recipe's layout, and a recipe's anchors: refused before any extraction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEstimator, write_video

from pipeline.errors import PosebridgeError
from pipeline.extract.extract import extract
from pipeline.hpe.joints import check_joints, joint_names
from pipeline.hpe.topdown import TopdownModel
from pipeline.learn.features import load_samples
from pipeline.manifest.clips import Clip, write_clips
from pipeline.params import ExtractParams, load_params
from pipeline.predict.live import LivePoses
from pipeline.recipe import ANCHORS, Recipe
from pipeline.skeleton.graph import COCO_17

pytestmark = pytest.mark.unit
RECIPE = Recipe(frames=8, cue_frames=4, weights_sha256="0" * 64)
POSETRACK = ("nose", "head_bottom", "head_top", *COCO_17.joints[3:])  # 17 joints, and other ones


class Other(FakeEstimator):
    """A pose model of other joints."""

    def __init__(self, names: tuple[str, ...], tells: bool = True):
        super().__init__()
        self.joints, self.joint_names = len(names), names if tells else ()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (COCO_17.joints[:14], "yields 14 joints, but the recipe's layout coco17 has 17"),
        (POSETRACK, "Joint 1 of the pose model 'skelgap-sem' is 'head_bottom', .* layout coco17 is 'left_eye'"),
        (("Nose", "left eye", *COCO_17.joints[:1:-1]), "Joint 2 of .* is 'right_ankle'"),
    ],
)
def test_other_joints_are_refused_before_anything_is_written(tmp_path, names, words):
    write_video(tmp_path / "videos/a.mp4")
    write_clips(tmp_path / "manifests/d/clips.csv", [Clip("a", "a.mp4")])
    with pytest.raises(PosebridgeError, match=words):
        extract(
            "d", "r", RECIPE, tmp_path / "videos", params=ExtractParams(), build_estimator=lambda recipe: Other(names),
            manifests=tmp_path / "manifests", cache=tmp_path / "cache",
        )  # fmt: skip
    assert not (tmp_path / "cache").exists()
    with pytest.raises(PosebridgeError, match=words):
        LivePoses(RECIPE, lambda recipe: Other(names))


def test_equal_joints_and_untold_names_pass():
    check_joints(RECIPE, Other(COCO_17.joints))
    check_joints(RECIPE, Other(tuple(name.replace("_", " ").title() for name in COCO_17.joints)))
    check_joints(RECIPE, Other(POSETRACK, tells=False))


def test_mmpose_tells_its_joints():
    assert TopdownModel("rtmpose-t_8xb256-420e_coco-256x192").joint_names == COCO_17.joints
    with pytest.raises(PosebridgeError, match="'head_bottom'"):
        check_joints(RECIPE, Other(TopdownModel("td-hm_res50_8xb64-20e_posetrack18-256x192").joint_names))
    assert joint_names({"keypoint_id2name": {1: "b", 0: "a"}}) == ("a", "b")
    assert joint_names({"keypoint_id2name": {"0": "a", 7: "b"}}) == joint_names(None) == joint_names({}) == ()


def test_a_cache_of_other_joints_is_refused_in_stage_two():
    class Reader:
        recipe, clip_ids, names = RECIPE, ["a"], ("keypoints", "scores", "person_valid")

        def read(self, clip_ids, names):
            return {"keypoints": np.ones((1, 1, 8, 14, 2)), "scores": np.ones((1, 1, 8, 14)),
                    "person_valid": np.ones((1, 1, 8), bool)}  # fmt: skip

    with pytest.raises(PosebridgeError, match="have 14 joints, but their recipe's layout coco17 has 17"):
        load_samples(["a"], Reader())


@pytest.mark.parametrize(
    ("anchors", "words"),
    [
        (("body", "left_hand"), "'left_hand' lacks its mirror image.*add 'right_hand'"),
        (("right_hand",), "'right_hand' lacks its mirror image.*add 'left_hand'"),
        (("body", "tail"), "'tail' is unknown; there are body, head"),
        (("body", "head", "body"), "names the anchor 'body' twice"),
        (("body",) * 10**6, "names the anchor 'body' twice"),
    ],
)
def test_anchors_that_no_training_could_use_are_refused_at_once(tmp_path: Path, anchors, words):
    with pytest.raises(PosebridgeError, match=words):
        replace(RECIPE, anchors=anchors)
    if len(anchors) < 9:
        path = tmp_path / "params.yaml"
        path.write_text(f"recipes: {{mine: {{anchors: [{', '.join(anchors)}]}}}}")
        with pytest.raises(PosebridgeError, match=f"mine: .*{words}"):
            load_params(path)
    assert replace(RECIPE, anchors=("left_hand", "right_hand")).anchors and replace(RECIPE, anchors=ANCHORS[:2]).anchors


def test_a_layout_that_anchors_do_not_know_is_refused(tmp_path):
    for recipe, words in (
        (replace(RECIPE, layout="openpose18"), "anchors of cues are made of the joints of coco17"),
        (replace(RECIPE, layout="coco18", cues="none"), "no joint layout 'coco18'"),
    ):
        with pytest.raises(PosebridgeError, match=words):
            LivePoses(recipe, lambda recipe: FakeEstimator())
