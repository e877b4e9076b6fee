"""Which half of an answer is right, and the ranks that top-5 is counted by."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.protocol.halves import RARE, halves, twins
from pipeline.protocol.metrics import among_best, ranks, reciprocal_rank

pytestmark = pytest.mark.unit
COLUMNS = ("movement", "equipment")
KNOWN = {
    0: ("curl", "barbell"), 1: ("curl", "dumbbell"), 2: ("curl", "other"), 3: ("row", "barbell"), 4: ("row", "cable"),
    5: ("press", "barbell"),
}  # fmt: skip


def test_halves_are_counted_apart_and_a_macro_mean_goes_over_the_values() -> None:
    labels, said = np.array([0, 3, 5, 1, 2]), np.array([3, 3, 0, 2, 2])
    found = halves(COLUMNS, KNOWN, labels, said)
    assert found["movement"]["right"] == 3 / 5 and found["equipment"]["right"] == 4 / 5
    assert found["equipment"]["values"] == {"barbell": (3, 3), "dumbbell": (0, 1)}, "`other` names nothing"
    assert found["equipment"]["macro"] == (1 + 0) / 2
    assert found["movement"]["values"] == {"curl": (2, 3), "row": (1, 1), "press": (0, 1)}


def test_a_rare_value_has_no_place_in_a_macro_mean() -> None:
    many = {i: ("curl", "bands" if i == 0 else "barbell") for i in range(RARE + 1)}
    labels = np.array([0, 1])
    found = halves(COLUMNS, many, labels, labels)["equipment"]
    assert found["values"] == {"barbell": (1, 1)} and found["right"] == 1
    lost = dict.fromkeys(range(3), ("curl", "other"))
    assert halves(COLUMNS, lost, labels, labels)["equipment"]["macro"] is None


def test_twins_are_asked_for_the_object_among_the_classes_of_their_motion_alone() -> None:
    unseen = [0, 1, 2, 3, 4, 5]
    scores = np.array([
        [0.2, 0.1, 0.9, 0.8, 0.0, 0.9],  # a curl with a barbell: better than the dumbbell, all else does not count
        [0.3, 0.2, 0.0, 0.0, 0.0, 0.0],  # a curl with a dumbbell: wrong
        [0.0, 0.0, 0.0, 0.1, 0.2, 0.0],  # a row with a cable: right
        [9.0, 0.0, 0.0, 0.0, 0.0, 0.0],  # a press occurs with a barbell only: not asked
        [9.0, 0.0, 0.0, 0.0, 0.0, 0.0],  # nobody knows what the other curl is done with: not asked
    ])  # fmt: skip
    found = twins(KNOWN, unseen, np.array([0, 1, 4, 5, 2]), scores)
    assert found is not None and (found["right"], found["chance"], found["n"]) == (2 / 3, 1 / 2, 3)
    assert found["ci95"][0] < 2 / 3 < found["ci95"][1]
    assert twins(KNOWN, [0, 5], np.array([0, 5]), scores[:2, :2]) is None


def test_of_several_classes_with_one_object_any_is_right() -> None:
    known = {0: ("curl", "barbell"), 1: ("curl", "dumbbell"), 2: ("curl", "dumbbell")}
    found = twins(known, [0, 1, 2], np.array([1]), np.array([[0.0, 0.1, 0.2]]))
    assert found is not None and (found["right"], found["chance"]) == (1, pytest.approx(2 / 3))


def test_ranks_of_equal_scores_are_those_of_top_1() -> None:
    scores = np.array([[0.5, 0.5, 0.1], [0.5, 0.5, 0.1], [0.1, 0.2, 0.3]])
    truth = np.array([0, 1, 0])
    assert ranks(scores, truth).tolist() == [0, 1, 2]
    assert reciprocal_rank(scores, truth) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert among_best(scores, truth, best=2) == pytest.approx(2 / 3)
    assert among_best(scores, truth) is None, "three candidates are all among the five best"
