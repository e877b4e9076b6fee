"""The common form of 17 joints, joint by joint in float64, and what is done to two sides of different layouts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.errors import PosebridgeError
from pipeline.methods.key_parts import JOINTS
from pipeline.methods.partition import part_of
from pipeline.skeleton.common import MEANS, Form, comparable, in_common, projected, sources
from pipeline.skeleton.graph import COMMON_17, GRAPHS, graph_of
from pipeline.skeleton.normalise import normalise

pytestmark = pytest.mark.unit

# joint of the form -> joints by the numbers of the layout's own documentation
LIMBS = [
    f"{side}_{part}"
    for parts in (("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle"))
    for side in ("left", "right")
    for part in parts
]
BY_HAND = {
    "coco17": dict(zip(LIMBS, [[5], [7], [9], [6], [8], [10], [11], [13], [15], [12], [14], [16]], strict=True))
    | {"hip_centre": [11, 12], "spine": [11, 12, 5, 6], "shoulder_centre": [5, 6], "head": [3, 4], "nose": [0]},
    "openpose18": dict(zip(LIMBS, [[5], [6], [7], [2], [3], [4], [11], [12], [13], [8], [9], [10]], strict=True))
    | {"hip_centre": [8, 11], "spine": [8, 11, 2, 5], "shoulder_centre": [1], "head": [16, 17], "nose": [0]},
    "ntu25": dict(zip(LIMBS, [[4], [5], [6], [8], [9], [10], [12], [13], [14], [16], [17], [18]], strict=True))
    | {"hip_centre": [0], "spine": [1], "shoulder_centre": [20], "head": [3], "nose": []},
    "kinect20": dict(zip(LIMBS, [[4], [5], [6], [8], [9], [10], [12], [13], [14], [16], [17], [18]], strict=True))
    | {"hip_centre": [0], "spine": [1], "shoulder_centre": [2], "head": [3], "nose": []},
}
NOSE, MIDDLE = COMMON_17.joints.index("nose"), COMMON_17.joints.index("hip_centre")


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("layout", BY_HAND)
def test_every_joint_is_the_one_or_the_mean_that_was_said(layout, dimensions):
    rng = np.random.default_rng(0)
    x, scores = rng.normal(size=(2, 3, len(graph_of(layout).joints), dimensions)), rng.uniform(0.1, 1, (2, 3, 25))
    scores = scores[..., : x.shape[2]]
    places, sure = in_common(x, scores, layout)
    assert places.dtype == np.float64 and places.shape == (2, 3, 17, dimensions) and sure.shape == (2, 3, 17)
    for joint, name in enumerate(COMMON_17.joints):
        own = BY_HAND[layout][name]
        if own:
            expected = sum(x[:, :, part] for part in own) / len(own)
            np.testing.assert_allclose(places[:, :, joint], expected, rtol=1e-15, atol=1e-15)
            assert (sure[:, :, joint] == scores[:, :, own].min(2)).all(), "a mean is as sure as its least sure part"
        else:
            assert not sure[:, :, joint].any(), "what a layout lacks is absent"
            assert (places[:, :, joint] == places[:, :, MIDDLE]).all()


def test_the_form_of_the_form_is_itself_and_every_layout_has_one():
    x, scores = np.random.default_rng(0).normal(size=(4, 17, 2)), np.full((4, 17), 0.5)
    for one, other in zip(in_common(x, scores, "common17"), (x, scores), strict=True):
        assert (one == other).all()
    assert set(GRAPHS) | {"common17"} == set(MEANS)


def test_its_graph_is_whole_and_its_joints_have_a_place_in_every_method():
    linked = {0}
    for _ in COMMON_17.joints:
        linked |= {joint for bone in COMMON_17.bones if linked & set(bone) for joint in bone}
    assert linked == set(range(17)) and len(COMMON_17.joints) == 17
    assert [COMMON_17.joints[j] for j in COMMON_17.mirror][:4] == ["hip_centre", "left_hip", "left_knee", "left_ankle"]
    for joint in COMMON_17.joints:
        name = joint.removeprefix("left_").removeprefix("right_")
        assert part_of(joint) and any(name in names for names in JOINTS.values())


@pytest.mark.parametrize("layout", ["pooled", "body_25"])
def test_another_layout_is_refused(layout):
    with pytest.raises(PosebridgeError, match=f"no common form for the joint layout '{layout}'"):
        sources(layout)


def stand(layout: str, facing: float = 0.0) -> np.ndarray:
    """[V, 3] in metres in Kinect's space of a body that faces the sensor, turned by an angle; its left is at -x."""
    heights = {"ankle": 0.1, "foot": 0.0, "knee": 0.5, "hip": 0.9, "wrist": 0.9, "hand": 0.8, "elbow": 1.1,
               "shoulder": 1.4, "eye": 1.65, "ear": 1.62, "nose": 1.6, "head": 1.62, "neck": 1.4}  # fmt: skip
    middles = {"spine_base": 0.9, "spine_middle": 1.15, "spine_shoulder": 1.4, "hip_centre": 0.9, "spine": 1.15,
               "shoulder_centre": 1.4}  # fmt: skip
    wide = {"eye": 0.03, "ear": 0.08, "hip": 0.1, "knee": 0.1, "ankle": 0.1, "foot": 0.1}
    found = []
    for name in graph_of(layout).joints:
        side, _, part = name.rpartition("_") if name.startswith(("left", "right")) else ("", "", name)
        part = name.split("_", 1)[1].split("_")[0] if side else part
        y = middles.get(name, heights.get(part, 0.8))
        x = {"left": -1, "right": 1}.get(name.split("_")[0], 0) * wide.get(part, 0.2)
        found.append((x, y, -0.1 if name == "nose" else 0.0))
    turn = np.array([[np.cos(facing), 0, np.sin(facing)], [0, 1, 0], [-np.sin(facing), 0, np.cos(facing)]])
    return np.array(found) @ turn.T + [0.3, -0.2, 3.0]


def seen(x: np.ndarray, layout: str, other: str, dimensions: int):
    scores, valid = np.ones(x.shape[:-1]), np.ones(x.shape[:-2], bool)
    return comparable(x, scores, valid, layout, other, Form(dimensions, x.shape[1], x.shape[2]))


@pytest.mark.parametrize("layout", ["ntu25", "kinect20"])
def test_one_body_is_one_picture_whether_kinect_or_a_camera_sees_it(layout):
    """The camera's picture has x to the right and y down, and a body's left on its right where it faces the camera."""
    body = stand(layout)[None, None, None]
    camera = (stand("coco17") * [-180, -180, 1] + [320, 240, 0])[None, None, None, :, :2]  # pixels
    pictures = []
    for x, own, other in ((body, layout, "coco17"), (camera, "coco17", layout)):
        places, scores, valid = map(torch.from_numpy, seen(x, own, other, 2))
        assert not scores[..., NOSE].any() and scores.sum() == 16
        pictures.append(normalise(places, scores, valid, COMMON_17))
    torch.testing.assert_close(*pictures, atol=1e-5, rtol=0)
    left = COMMON_17.joints.index("left_shoulder")
    assert pictures[0][0, 0, 0, left, 0] > 0.3


def test_metres_become_millimetres_that_grow_downwards():
    np.testing.assert_array_equal(projected(np.array([[0.5, 1.25, 3.0]])), [[-500.0, -1250.0]])


def test_three_dimensions_stay_where_both_sides_have_them():
    ntu, kinect = (seen(stand(name, 0.4)[None, None, None], name, "ntu25", 3) for name in ("ntu25", "kinect20"))
    np.testing.assert_allclose(ntu[0], kinect[0], atol=1e-12)
    assert ntu[0].shape == (1, 1, 1, 17, 3) and (ntu[1] == kinect[1]).all()


def test_scores_of_two_pose_models_are_not_compared_and_nobody_jumps_to_the_origin():
    rng = np.random.default_rng(0)
    x, scores = rng.normal(size=(1, 2, 5, 17, 2)) + 50, rng.uniform(0, 1, (1, 2, 5, 17)).astype(np.float32)
    valid = np.array([[[False, True, False, True, False], [False] * 5]])
    places, sure, there = comparable(x, scores, valid, "coco17", "openpose18", Form(2, 2, 5))
    assert (sure[0, 0] == 1).all() and sure.dtype == np.float32 and not sure[0, 1].any()
    assert there[0].tolist() == [[True] * 5, [False] * 5]
    form, _ = in_common(x, scores, "coco17")
    for frame, shown in enumerate([1, 1, 1, 3, 3]):
        assert (places[0, 0, frame] == form[0, 0, shown]).all()


def test_other_numbers_of_persons_and_frames_become_those_that_are_trained_on():
    x = np.arange(3.0)[None, None, :, None, None] * np.ones((1, 2, 1, 17, 2))  # in frame t every joint is at (t, t)
    valid = np.array([[[True] * 3, [False] * 3]])
    places, scores, there = comparable(x, np.ones(x.shape[:-1]), valid, "coco17", "coco17", Form(2, 3, 5))
    assert places.shape == (1, 3, 5, 17, 2) and scores.shape == places.shape[:-1]
    np.testing.assert_array_equal(places[0, 0, :, 0, 0], [0, 0.5, 1, 1.5, 2])
    assert there[0].all(1).tolist() == [True, False, False] and not scores[0, 1:].any()
    places, _, there = comparable(x, np.ones(x.shape[:-1]), valid, "coco17", "coco17", Form(2, 1, 2))
    assert places.shape == (1, 1, 2, 17, 2) and places[0, 0, :, 0, 0].tolist() == [0, 2] and there.all()
    still, _, _ = comparable(x[:, :, :1], np.ones((1, 2, 1, 17)), valid[:, :, :1], "coco17", "coco17", Form(2, 2, 4))
    assert not still.any() and still.shape[2] == 4
