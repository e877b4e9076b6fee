"""Identity over time, with stick persons whose truth is known: crossing, coming, leaving, missed."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from pipeline.skeleton.graph import COCO_17
from pipeline.tracking.clothes import clothes, exchange_mistaken
from pipeline.tracking.persons import main_persons
from pipeline.tracking.similarity import People, box_iou, closeness, oks
from pipeline.tracking.tracks import Findings, link

pytestmark = pytest.mark.unit
FRAMES, HEIGHT = 32, 120.0


def stick(centre: np.ndarray, phase: np.ndarray, lean: float) -> np.ndarray:
    """Joints [T, 17, 2] of somebody who walks: centre [T, 2], swinging limbs by phase [T], leaning."""
    rows = np.array([-50, -53, -53, -51, -51, -38, -38, -20, -20, -4, -4, 4, 4, 30, 30, 56, 56], float)
    sides = np.array([0, 2, -2, 4, -4, 11, -11, 14, -14, 15, -15, 8, -8, 8, -8, 8, -8], float)
    swing = np.array([0, 0, 0, 0, 0, 0, 0, 6, -6, 12, -12, 0, 0, -8, 8, -18, 18], float)
    x = sides + swing * np.sin(phase)[:, None] - lean * rows
    return centre[:, None] + np.stack([x, np.broadcast_to(rows, x.shape)], -1)


def findings(people: list[np.ndarray], rng: np.random.Generator, there: np.ndarray | None = None) -> Findings:
    """What a detector and a pose model make of people [T, 17, 2]: noisy, and in a random order in every frame."""
    joints = np.stack(people)  # [K, T, 17, 2]
    joints = joints + rng.normal(0, 1.5, joints.shape)
    low, high = joints.min(2) - 5, joints.max(2) + 5
    boxes = np.concatenate([low, high - low], -1) + rng.normal(0, 2, (*low.shape[:2], 4))
    sure = np.full(joints.shape[:2], 0.8) if there is None else np.where(there, 0.8, 0.0)
    order = rng.permuted(np.tile(np.arange(len(people))[:, None], (1, joints.shape[1])), axis=0)  # [K, T]
    pick = (order, np.arange(joints.shape[1]))
    colours = np.broadcast_to(np.eye(len(people), 6)[:, None], (*joints.shape[:2], 6))
    scores = np.full(joints.shape[:3], 0.7)
    found = Findings(boxes[pick], sure[pick], joints[pick], scores, colours[pick], np.arange(joints.shape[1]) / 8)
    found.__dict__["order"] = order
    return found


def truth(found: Findings, identity: np.ndarray) -> list[list[int]]:
    """For every person, the identities in the order of the frames, -1 left out."""
    order = found.__dict__["order"]
    people = [identity.T[(order == k).T] for k in range(len(order))]
    return [person[person >= 0].tolist() for person in people]


def walk(start: float, end: float, y: float = 100.0) -> np.ndarray:
    return np.stack([np.linspace(start, end, FRAMES), np.full(FRAMES, y)], -1)


STEPS = np.linspace(0, 14, FRAMES)


def people(boxes, joints, scores):
    return People(np.array(boxes, float), np.array(joints, float), np.array(scores))


def test_boxes_joints_and_nearness_by_hand() -> None:
    one = people([[0, 0, 10, 10]], [[[1, 1], [4, 4]]], [[0.8, 0.2]])
    two = people([[5, 0, 10, 20], [40, 0, 10, 10]], [[[4, 5], [4, 4]], [[1, 1], [4, 4]]], [[0.4, 0.6], [0.0, 0.0]])
    assert box_iou(one, two) == pytest.approx(np.array([[50 / 250, 0]]))
    near = np.exp(-25 / (2 * 150 * 0.14**2))  # 5 pixels in boxes of 150 on average
    assert oks(one, two) == pytest.approx(np.array([[(0.4 * near + 0.2) / 0.6, 0]]))
    assert closeness(one, two) == pytest.approx(np.array([[(1 - 50**0.5 / 20) * 0.5, 0]]))
    nose = people([[0, 0, 10, 10]], np.zeros((1, 17, 2)), np.eye(1, 17))
    aside = nose.moved(np.array([[0.3, 0.4]]))
    assert aside.boxes.tolist() == [[0.3, 0.4, 10, 10]] and aside.centres.tolist() == [[5.3, 5.4]]


@pytest.mark.parametrize(
    ("part", "spread"),
    [("nose", 0.26), ("eye", 0.25), ("ear", 0.35), ("shoulder", 0.79), ("elbow", 0.72), ("wrist", 0.62), ("hip", 1.07),
     ("knee", 0.87), ("ankle", 0.89)],
)  # fmt: skip
def test_joints_are_as_exact_as_the_annotators_of_coco(part: str, spread: float) -> None:
    """cocoapi gives the spreads in tenths; half a pixel aside in a box of 100 pixels."""
    for joint, name in enumerate(COCO_17.joints):
        if name.endswith(part):
            one = people([[0, 0, 10, 10]], np.zeros((1, 17, 2)), np.eye(17)[[joint]])
            alike = oks(one, one.moved(np.array([[0.3, 0.4]])))[0, 0]
            assert alike == pytest.approx(np.exp(-0.25 / (2 * 100 * (2 * spread / 10) ** 2))), name


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("aside", [0.0, 12.0])
def test_two_people_who_cross_keep_their_identity(seed: int, aside: float) -> None:
    people = [stick(walk(50, 400), STEPS, 0.12), stick(walk(400, 50, 100 + aside), STEPS + 1.5, -0.12)]
    found = findings(people, np.random.default_rng(seed))
    first, second = truth(found, link(found, 0.4))
    assert len(set(first)) == len(set(second)) == 1 and first[0] != second[0]
    assert len(first) == len(second) == FRAMES


def test_the_one_seen_through_a_missed_crossing_stays_the_one() -> None:
    people = [stick(walk(50, 400), STEPS, 0.12), stick(walk(400, 50), STEPS + 1.5, -0.12)]
    there = np.ones((2, FRAMES), bool)
    there[1, 14:18] = False  # hidden by the other just where they meet
    found = findings(people, np.random.default_rng(0), there)
    first, second = truth(found, link(found, 0.4))
    assert len(set(first)) == len(set(second)) == 1 and first[0] != second[0]


def test_missed_detections_do_not_end_a_track() -> None:
    rng = np.random.default_rng(1)
    people = [stick(walk(50, 300), STEPS, 0.1), stick(walk(200, 480), STEPS, 0.1), stick(walk(600, 500), STEPS, -0.1)]
    there = rng.random((3, FRAMES)) > 0.2
    there[:, 0] = True
    found = findings(people, rng, there)
    tracks = truth(found, link(found, 0.4))
    assert [len(set(person)) for person in tracks] == [1, 1, 1]
    assert [len(person) for person in tracks] == there.sum(1).tolist()


def test_who_leaves_is_gone_and_who_enters_is_new() -> None:
    stays = stick(walk(200, 220), STEPS, 0.0)
    leaves, enters = stick(walk(100, -60), STEPS, 0.1), stick(walk(640, 420), STEPS, -0.1)
    there = np.ones((3, FRAMES), bool)
    there[1, 10:], there[2, :20] = False, False
    found = findings([stays, leaves, enters], np.random.default_rng(2), there)
    first, second, third = truth(found, link(found, 0.4))
    assert [len(set(person)) for person in (first, second, third)] == [1, 1, 1]
    assert len({first[0], second[0], third[0]}) == 3


def test_a_weak_finding_goes_on_with_a_track_but_begins_none() -> None:
    found = findings([stick(walk(50, 300), STEPS, 0.1), stick(walk(500, 500), STEPS, 0.0)], np.random.default_rng(3))
    order = found.__dict__["order"]
    scores = np.full(order.shape, 0.25)
    scores[(order == 0) & (np.arange(FRAMES) <= 5)] = 0.5
    identity = link(Findings(found.boxes, scores, *astuple(found)[2:]), 0.5)
    assert (identity[order == 0] == 0).all() and (identity[order == 1] == -1).all(), "0.5 and its half are enough"
    scores[scores == 0.25] = 0.249
    assert (link(Findings(found.boxes, scores, *astuple(found)[2:]), 0.5)[:, 6:] == -1).all()


def test_a_pose_that_is_seen_twice_is_one_person() -> None:
    found = findings([stick(walk(50, 300), STEPS, 0.1)], np.random.default_rng(4))
    twice = Findings(*(np.concatenate([a, a * 0.995]) for a in astuple(found)[:5]), found.times)
    assert (link(twice, 0.4)[0] == 0).all() and (link(twice, 0.4)[1] == -1).all()


def test_main_persons_are_large_sure_and_long_there() -> None:
    near, far = stick(walk(100, 150), STEPS, 0.1), stick(walk(400, 450), STEPS, 0.0)
    small = stick(walk(300, 300), STEPS, 0.0)
    small = small.mean((1, 2), keepdims=True) + (small - small.mean((1, 2), keepdims=True)) * 0.3
    there = np.ones((3, FRAMES), bool)
    there[1, :12] = False
    found = findings([near, far, small], np.random.default_rng(5), there)
    order = found.__dict__["order"]
    rows, track_id = main_persons(found, 2, 0.4)
    assert rows.shape == (2, FRAMES) and track_id.tolist() == [track_id[0], track_id[1]] and len(set(track_id)) == 2
    assert (order[rows[0], np.arange(FRAMES)] == 0).all()
    assert (rows[1] >= 0).tolist() == there[1].tolist()
    assert (order[rows[1][12:], np.arange(12, FRAMES)] == 1).all()


def test_nobody_and_short_tracks_are_no_main_persons() -> None:
    there = np.zeros((1, FRAMES), bool)
    found = findings([stick(walk(50, 300), STEPS, 0.1)], np.random.default_rng(6), there)
    rows, track_id = main_persons(found, 2, 0.4)
    assert (rows == -1).all() and (track_id == -1).all()
    there[0, 3:5] = True  # two frames of 32
    found = findings([stick(walk(50, 300), STEPS, 0.1)], np.random.default_rng(6), there)
    assert (main_persons(found, 2, 0.4)[1] == -1).all()


def test_a_still_picture_has_its_persons() -> None:
    """A one-frame video: the same frame in every slot, at the same time."""
    found = findings([stick(walk(100, 100), STEPS * 0, 0.1)], np.random.default_rng(7))
    arrays = (np.repeat(a[:, :1], FRAMES, 1) for a in astuple(found)[:5])
    still = Findings(*arrays, np.zeros(FRAMES))
    rows, track_id = main_persons(still, 1, 0.4)
    assert (rows == 0).all() and track_id.tolist() == [0]


def test_clothes_are_the_middle_of_chest_and_thighs() -> None:
    crop = np.full((8, 10, 3), 99, np.uint8)
    crop[2:4, 4:6], crop[4:6, 4:6] = (255, 0, 51), (0, 102, 255)
    crop[4, 4:6] = (0, 0, 255)
    assert clothes(crop) == pytest.approx([1, 0, 0.2, 0, 0.2, 1])


def test_clothes_tell_who_is_who_after_an_embrace() -> None:
    x = np.concatenate([np.linspace(0, 95, 10), np.full(6, 96.0), np.full(6, 95.0), np.linspace(95, 0, 10)])
    boxes = np.stack([np.stack([100 + s * (100 - x), x * 0, x * 0 + 40, x * 0 + 120], -1) for s in (-1, 1)])
    right = np.array([[0] * 32, [1] * 32])
    mistaken = right.copy()
    mistaken[:, 16:] = 1 - right[:, 16:]  # exchanged while they hid each other
    colours = np.broadcast_to(np.eye(2, 6)[:, None], (2, 32, 6))
    apart = np.r_[0:9, 16:32]
    assert (exchange_mistaken(mistaken, boxes, colours)[:, apart] == right[:, apart]).all()
    assert (exchange_mistaken(right, boxes, colours) == right).all()
    alike = np.full((2, 32, 6), 0.5)
    assert (exchange_mistaken(mistaken, boxes, alike) == mistaken).all(), "the same clothes tell nothing"


def test_clothes_tell_who_is_who_after_one_was_not_found_for_a_while() -> None:
    """Two who stand far apart; the left one, red, is lost for three frames, in which the right one gets her name."""
    right = np.array([[0, 0, 0, -1, -1, -1, 0, 0, 0], [1] * 9])
    mistaken = np.array([[0, 0, 0, -1, -1, -1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0, 0, 0]])
    boxes = np.zeros((2, 9, 4))
    boxes[:] = [[[0.0, 0, 40, 120]], [[400, 0, 40, 120]]]
    boxes[right < 0] = 0
    colours = np.broadcast_to(np.eye(2, 6)[:, None], (2, 9, 6))
    assert (exchange_mistaken(mistaken, boxes, colours) == right).all()
    assert (exchange_mistaken(right, boxes, colours) == right).all()
