"""Gamma by margins: what the selection phase chooses must mean the same before the test."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import default_rng

from pipeline.manifest.clips import Clip
from pipeline.protocol.calibration import (
    MOST,
    USUAL_CLASSES,
    USUAL_PLACE,
    balance,
    choose_place,
    gamma_at,
    margins,
    some_of,
)
from pipeline.protocol.gzsl import Stacking, harmonic

pytestmark = pytest.mark.unit


def stacking(seen: list[float], unseen: list[float]) -> Stacking:
    """Clips of these margins, each right about its own side's class."""
    margin = np.array([*seen, *unseen], float)
    right, is_seen = np.ones(len(margin), bool), np.arange(len(margin)) < len(seen)
    return Stacking(margin, right, right, is_seen, np.ones(len(margin)))


def test_a_balance_loses_as_many_of_the_seen_as_of_the_unseen() -> None:
    """Between 2 and 3 a third of the seen clips and a third of the unseen ones are on the wrong side."""
    assert balance(stacking([2, 5, 6], [0, 1, 3])) == 2.5
    assert balance(stacking([5, 7], [1, 3])) == 4, "the middle, where nobody is"
    assert balance(stacking([1, 3], [5, 7])) == 4, "the wrong way round: all are lost, and all taken"
    assert balance(stacking([2, 2], [2])) == 2, "nothing to choose between"
    assert balance(stacking([4, 4], [0, 0, 0])) == 2


def test_a_place_means_the_same_whatever_the_scale_of_margins() -> None:
    rng = default_rng(0)
    seen, unseen, trained = rng.normal(3, 1, 40), rng.normal(1, 1, 60), rng.normal(3.5, 0.7, 90)
    place = choose_place(stacking([*seen], [*unseen]), trained, 6)
    moved = choose_place(stacking([*(5 * seen - 9)], [*(5 * unseen - 9)]), 5 * trained - 9, 6)
    assert moved == pytest.approx(place)
    assert gamma_at(place, 5 * trained - 9) == pytest.approx(5 * gamma_at(place, trained) - 9)


def test_a_few_classes_have_less_to_say() -> None:
    trained = np.array([9.0, 11.0])  # mean 10, deviation 1; what the clips want is 5, so -5
    said = stacking([7, 7], [3, 3])
    for classes in (1, 4, 400):
        expected = (classes * -5 + USUAL_CLASSES * USUAL_PLACE) / (classes + USUAL_CLASSES)
        assert choose_place(said, trained, classes) == pytest.approx(expected)
    assert choose_place(said, np.ones(5), 4) == USUAL_PLACE, "a model that tells nothing apart has no place of its own"
    assert choose_place(said, np.zeros(5), 4) == USUAL_PLACE


def test_where_texts_of_unseen_classes_lie_farther_off_gamma_goes_with_the_margins() -> None:
    """The selection phase has margins around 0.5, the test around 0.9: its bare gamma would take all for seen."""
    rng = default_rng(1)
    said = stacking([*rng.normal(0.6, 0.1, 50)], [*rng.normal(0.3, 0.1, 80)])
    test = stacking([*rng.normal(1.0, 0.1, 50)], [*rng.normal(0.75, 0.1, 80)])
    before = said.best_gamma()
    assert harmonic(*test.accuracies(before)) < 0.1
    place = choose_place(said, rng.normal(0.62, 0.1, 200), 4)
    after = gamma_at(place, rng.normal(1.02, 0.1, 200))
    assert harmonic(*test.accuracies(after)) > 0.8 * test.best_harmonic()


def test_a_margin_is_the_best_seen_score_less_the_best_unseen_one() -> None:
    scores = np.array([[1, 5, 2, 4], [0, 0, 3, 1]], np.float32)
    assert margins(scores, np.array([True, False, True, False])).tolist() == [-3, 2]


def test_margins_are_measured_on_the_same_clips_every_time() -> None:
    clips = [Clip(str(i), f"{i}.mp4", label=i % 7, part="train") for i in range(MOST + 500)]
    found = some_of(clips)
    assert len(set(found)) == MOST and found == some_of(clips) and list(found) == [c for c in clips if c in set(found)]
    assert np.bincount([c.label or 0 for c in found]).min() > MOST / 7 * 0.8, "by lot, whatever order classes come in"
    assert some_of(clips[:5]) == tuple(clips[:5])
