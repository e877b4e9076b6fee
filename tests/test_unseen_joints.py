"""Joints that nobody saw, in the skeletons of others: they repeat their last place, and never stand at the origin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.interchange.annotations import Annotation, _annotation
from pipeline.interchange.importing import skeleton_row
from pipeline.manifest.clips import Clip
from pipeline.recipe import Recipe
from pipeline.skeleton.graph import OPENPOSE_18
from pipeline.skeleton.normalise import normalise

pytestmark = pytest.mark.unit
OPENPOSE = Recipe(backend="import", cues="none", layout="openpose18", dimensions=2, persons=2, frames=4)
NTU = Recipe(backend="import", cues="none", layout="ntu25", dimensions=3, persons=2, frames=4)
# A person of 1.7 m at 200 pixels a metre, who stands straight: OpenPose's order, pixels.
STANDING = np.array(
    [[300, 100], [300, 140], [280, 140], [275, 190], [270, 240], [320, 140], [325, 190], [330, 240], [285, 240],
     [285, 320], [285, 400], [315, 240], [315, 320], [315, 400], [295, 95], [305, 95], [290, 98], [310, 98]],
    np.float32,
)  # fmt: skip


def openpose(unseen: dict[int, list[int]]) -> Annotation:
    """Four frames of OpenPose in which these joints (frame -> joints) are written as x = y = score = 0."""
    keypoints, scores = np.tile(STANDING, (1, 4, 1, 1)), np.full((1, 4, 18), 0.8, np.float32)
    keypoints[0] += np.arange(4)[:, None, None]  # the person walks a pixel a frame
    for frame, joints in unseen.items():
        keypoints[0, frame, joints], scores[0, frame, joints] = 0, 0
    record = {"frame_dir": "a", "label": 0, "keypoint": keypoints, "keypoint_score": scores, "img_shape": (480, 640)}
    return _annotation(record, "here")


def row_of(annotation: Annotation, recipe: Recipe = OPENPOSE) -> dict:
    return skeleton_row(Clip("a", "a", label=0), annotation, recipe)


def nose(row: dict) -> np.ndarray:
    """The nose of the first person after normalising, [T, 2] in torso lengths."""
    arrays = [torch.from_numpy(np.asarray(row[name])[None]) for name in ("keypoints", "scores", "person_valid")]
    return normalise(*arrays, OPENPOSE_18)[0, 0, :, 0, :2].numpy()


def test_an_openpose_row_as_the_cache_promises_it() -> None:
    hip, ankle = 8, 10
    row = row_of(openpose({0: [ankle], 2: [hip, ankle], 3: [hip]}))
    places = row["keypoints"][0]
    assert places[1, ankle].tolist() == [286, 401], "where it was seen"
    assert places[2, [hip, ankle]].tolist() == [[286, 241], [286, 401]], "the last place seen"
    assert places[3, hip].tolist() == [286, 241]
    assert row["boxes"][0, 0].tolist() == [270, 95, 60, 305], "of the joints that were seen"
    assert places[0, ankle].tolist() == [300, 247.5], "before there is one, the centre of the box"
    assert row["scores"][0, 0, ankle] == row["scores"][0, 2, hip] == 0
    assert row["person_valid"][0].all() and not row["person_valid"][1].any()


def test_hips_that_are_not_seen_do_not_move_the_nose() -> None:
    straight = nose(row_of(openpose({})))
    for unseen in ({0: [8, 11]}, {2: [8, 11], 3: [8, 11]}, {f: [8, 11] for f in range(4)}, {f: [8] for f in range(4)}):
        assert np.abs(nose(row_of(openpose(unseen))) - straight).max() < 0.35, unseen  # of a torso; it was 1.9


def test_joints_at_the_origin_without_scores_were_not_seen() -> None:
    annotation = openpose({1: [4], 2: [4]})
    record = {"frame_dir": "a", "label": 0, "keypoint": annotation.keypoints, "img_shape": (480, 640)}
    row = row_of(_annotation(record, "here"))
    assert row["scores"][0, :, 4].tolist() == [1, 0, 0, 1] and row["keypoints"][0, 2, 4].tolist() == [270, 240]


def test_a_person_all_of_zeros_is_nobody_whatever_the_scores_say() -> None:
    annotation = openpose({})
    keypoints = np.concatenate([np.zeros_like(annotation.keypoints), annotation.keypoints])
    record = {"frame_dir": "a", "label": 0, "keypoint": keypoints, "keypoint_score": np.ones((2, 4, 18))}
    row = row_of(_annotation(record, "here"))
    assert row["person_valid"].tolist() == [[True] * 4, [False] * 4] and row["keypoints"][0, 0, 0, 0] == 300


def test_three_dimensions_a_lost_joint_an_absent_body_and_a_centre() -> None:
    body = np.random.default_rng(0).normal(size=(2, 4, 25, 3)).astype(np.float32)
    body[1, 2:] = 0  # the second body leaves
    body[0, 1, 7] = 0  # a joint that Kinect lost
    row = row_of(_annotation({"frame_dir": "a", "label": 0, "keypoint": body}, "here"), NTU)
    assert row["scores"][0, :, 7].tolist() == [1, 0, 1, 1] and (row["keypoints"][0, 1, 7] == body[0, 0, 7]).all()
    assert row["person_valid"][1].tolist() == [True, True, False, False] and row["boxes"].shape == (2, 4, 4)
    body[0, 0, 7] = np.nan
    row = row_of(_annotation({"frame_dir": "a", "label": 0, "keypoint": body}, "here"), NTU)
    others = np.delete(body[0, 0], 7, axis=0)
    assert np.allclose(row["keypoints"][0, 0, 7], (others.min(0) + others.max(0)) / 2)
    centred = body - body[:, :, :1]  # on the base of the spine, as many data sets are
    centred[1, 2:] = 0
    row = row_of(_annotation({"frame_dir": "a", "label": 0, "keypoint": np.nan_to_num(centred)}, "here"), NTU)
    assert (row["scores"][0, :, 0] == 1).all() and not row["keypoints"][0, :, 0].any()
