"""What scores are worth: shares as often right as they say, `none of these`, and whose clips both come from."""

from __future__ import annotations

from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.bench.confidence import believed, calibration_error
from pipeline.learn.confidence import MOST, NONE, Confidence, calibrate, fit_confidence, questions, read_confidence
from pipeline.manifest.clips import Clip
from pipeline.predict.predict import rank, told_confidence

pytestmark = pytest.mark.unit
KNOWN = Confidence(0.1, 0.3, 80, 4, 0.7, 0.2)


def clips(n: int, classes: int, gain: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores [n, classes], of the right class by `gain` of their deviation larger, and the classes [n]."""
    generator = np.random.default_rng(seed)
    truth = np.arange(n) % classes
    scores = 0.1 * generator.standard_normal((n, classes))
    scores[np.arange(n), truth] += 0.1 * gain
    return scores, truth


def test_shares_are_right_as_often_as_they_say_for_sets_of_other_sizes_too() -> None:
    learnt = fit_confidence(*clips(2000, 12, 2.0), temperature=0.02)  # trained far too sure
    assert learnt is not None and learnt.none is not None and learnt.temperature == pytest.approx(0.05, rel=0.1)
    scores, truth = clips(6000, 12, 2.0, seed=1)
    for count in (2, 3, 6):
        shares, none = learnt.shares(scores[truth < count][:, :count])
        assert shares.sum(1) + none == pytest.approx(np.ones(len(shares)))
        among = shares / shares.sum(1, keepdims=True)
        right = among.argmax(1) == truth[truth < count]
        assert among.max(1).mean() == pytest.approx(right.mean(), abs=0.04)
        unknown = learnt.shares(scores[truth >= 6][:, :count])[1]
        both = np.r_[none[: len(unknown)], unknown[: len(none)]]
        half = min(len(none), len(unknown))
        sure = both > 0.8
        assert both[sure].mean() == pytest.approx((np.arange(2 * half) >= half)[sure].mean(), abs=0.05)


def test_what_cannot_be_told_is_no_answer_and_a_few_clips_teach_nothing() -> None:
    learnt = fit_confidence(*clips(200, 4, 0.0), temperature=0.1)
    assert learnt is not None and learnt.none is None and learnt.temperature == pytest.approx(0.4, rel=0.01)
    assert learnt.shares(np.array([0.9, 0.1]))[1] == 0 and "could hardly be told" in told_confidence(learnt)
    assert fit_confidence(*clips(11, 4, 2.0), temperature=0.1) is None
    assert fit_confidence(*clips(40, 1, 2.0), temperature=0.1) is None
    two = fit_confidence(*clips(40, 2, 5.0), temperature=0.1)
    assert two is not None and two.none is not None and two.told > 0.9 > 0.1 > two.lost


def test_each_clip_is_asked_about_with_its_label_first_and_without_it() -> None:
    scores, truth = np.arange(30.0).reshape(6, 5), np.arange(6) % 5
    asked = list(questions(scores, truth))
    wanted = [((6, count), known) for count in (2, 4) for known in (True, False)]
    assert [(part.shape, known) for part, known in asked] == wanted
    for part, known in asked:
        own = scores[np.arange(6), truth]
        assert (part[:, 0] == own).all() if known else not (part == own[:, None]).any()
        assert all(len(set(row)) == len(row) and set(row) <= set(scores[i]) for i, row in enumerate(part))


def test_the_answer_is_none_of_these_from_one_half_on() -> None:
    scorer = SimpleNamespace(labels=("a", "b"), temperature=0.1, confidence=KNOWN)
    ranking, none = rank(scorer, np.array([0.1, 0.2]), top=2)  # type: ignore[arg-type]
    assert [each.label for each in ranking] == ["b", "a"] and none is not None and none > 0.7
    assert sum(each.confidence for each in ranking) + none == pytest.approx(1, abs=1e-3)
    scorer.confidence = None
    ranking, none = rank(scorer, np.array([0.1, 0.2]), top=2)  # type: ignore[arg-type]
    assert none is None and sum(each.confidence for each in ranking) == pytest.approx(1, abs=1e-3)
    assert NONE in told_confidence(None) and "70%" in told_confidence(KNOWN)


def test_what_is_learnt_is_learnt_of_clips_kept_out_of_training_and_of_no_other_class() -> None:
    """Two classes are trained on, two play unseen, and one is unseen: it is not asked about at all."""
    split = SimpleNamespace(seen=(0, 1, 2, 3), phase_one=(0, 1), validation=(2, 3))
    held_out = [Clip(f"h{i}", f"h{i}.mp4", label=i % 2, part="train") for i in range(30)]
    pseudo = [Clip(f"p{i}", f"p{i}.mp4", label=2 + i % 2, part="train") for i in range(30)]
    asked = []

    def scores(clips: tuple[Clip, ...], candidates: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        asked.append((clips, candidates))
        labels = np.array([clip.label for clip in clips])
        return np.where(np.arange(4) == labels[:, None], 0.9, 0.1), labels

    phase = SimpleNamespace(held_out=tuple(held_out), pseudo_unseen=tuple(pseudo))
    model = SimpleNamespace(phase=phase, scores=scores, method=SimpleNamespace(temperature=0.1))
    found = calibrate(model, None, split)  # type: ignore[arg-type]
    assert set(found) == {"classes", "words"} and all(each["clips"] == 30 for each in found.values())
    assert asked == [((*held_out, *pseudo), (0, 1, 2, 3))], "and scored once for both"
    assert set(calibrate(model, model, split)) == {"classes", "words", "labels"}  # type: ignore[arg-type]
    phase.pseudo_unseen = (*pseudo,) * (4 * MOST // 30)  # clips come in turns of their classes
    many = calibrate(model, None, split)["words"]  # type: ignore[arg-type]
    assert many["classes"] == 2 and MOST * 0.9 < many["clips"] <= MOST


def test_an_old_or_odd_selection_has_none() -> None:
    told = asdict(KNOWN)
    assert read_confidence({"confidence": {"words": told}}, "words") == KNOWN
    for odd in (None, {"labels": told}, {"words": 5}, {"words": told | {"temperature": 0}},
                {"words": told | {"none": "x"}}):  # fmt: skip
        assert read_confidence({"confidence": odd}, "words") is None
    assert read_confidence({}, "words") is None
    assert read_confidence({"confidence": {"words": asdict(replace(KNOWN, none=None))}}, "words") is not None


def test_a_bench_counts_what_was_told_what_was_lost_and_how_far_shares_were_off() -> None:
    assert calibration_error(np.array([0.8] * 10), np.arange(10) < 8) == pytest.approx(0)
    assert calibration_error(np.array([1.0, 1.0, 0.5]), np.array([True, False, True])) == pytest.approx((1 + 0.5) / 3)
    known, unknown = np.array([[0.9, 0.1], [0.1, 0.2], [0.2, 0.9]]), np.array([[0.1, 0.1], [0.9, 0.1]])
    found = believed("words", 2, [(known, True), (unknown, False)], KNOWN, 0.1)
    assert (found.accuracy, found.told, found.lost) == (pytest.approx(1 / 3), 0.5, pytest.approx(1 / 3))
    assert found.clips == 3 and found.ece < found.ece_before
    blind = believed("words", 2, [(known, True), (unknown, False)], replace(KNOWN, none=None), 0.1)
    assert blind.told is blind.lost is None
