"""Splits, phases, metrics, calibration, guards."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from pipeline.errors import PosebridgeError
from pipeline.manifest.clips import Clip
from pipeline.methods.prototypes import whitening
from pipeline.protocol import metrics, training_set
from pipeline.protocol.guards import (
    LeakError,
    require_clips_of_phase,
    require_disjoint_sources,
    require_eval_mode,
    require_no_pseudo_unseen,
    require_seen_centre,
    require_seen_spread,
)
from pipeline.protocol.gzsl import Stacking, harmonic
from pipeline.protocol.heldout import heldout_clips
from pipeline.protocol.metrics import binomial_interval, confusion_matrix, macro, micro, per_class, tuple_interval
from pipeline.protocol.splits import Split, read_split
from pipeline.protocol.training_set import training_phase

pytestmark = pytest.mark.unit
NAMES = ("drink", "eat", "wave", "clap", "throw a ball", "jump")
SPLIT = Split("p", NAMES, unseen=(4, 5), validation=(0, 1))


def write(tmp_path, unseen, validation):
    (tmp_path / "p.txt").write_text("# a title\n\n" + "\n".join(unseen) + "\n")
    (tmp_path / "p.val.txt").write_text("\n".join(validation) + "\n")
    return read_split(tmp_path, "p", NAMES)


def test_a_protocol_is_read(tmp_path):
    split = write(tmp_path, ["5 jump", "4 throw a ball"], ["0 drink", "1 eat"])
    assert split == SPLIT
    assert split.seen == (0, 1, 2, 3) and split.phase_one == (2, 3)


def test_a_protocol_may_leave_no_class_unseen(tmp_path):
    assert write(tmp_path, ["# nobody"], ["0 drink", "1 eat"]).seen == tuple(range(6))


def test_a_protocol_is_read_with_tabs_and_however_its_letters_are_composed(tmp_path):
    assert write(tmp_path, ["5\tjump", "4\u00a0 throw a ball"], ["0 drink", "1 eat "]) == SPLIT
    (tmp_path / "q.txt").write_text("1 cafe\u0301\n")
    (tmp_path / "q.val.txt").write_text("0 a\n2 b\n")
    assert read_split(tmp_path, "q", ("a", "caf\u00e9", "b", "c", "d")).unseen == (1,)


@pytest.mark.parametrize(
    ("unseen", "validation", "words"),
    [
        (["5 jmup"], ["0 drink", "1 eat"], ["p.txt, line 3", "'jmup'", "'jump'"]),
        (["4 jump"], ["0 drink", "1 eat"], ["line 3", "'jump' is 5", "0-based"]),
        (["5 jump", "5 jump"], ["0 drink", "1 eat"], ["line 4", "line 3 already"]),
        (["5 jump"], ["0 drink", "5 jump"], ["p.val.txt, line 2", "'jump'", "unseen"]),
        (["5 jump"], ["0 drink"], ["1 classes", "at least 2"]),
        (["2 wave", "3 clap", "4 throw a ball"], ["0 drink", "1 eat"], ["leave 1 classes"]),
    ],
)
def test_a_wrong_protocol_is_one_sentence_with_its_line(tmp_path, unseen, validation, words):
    with pytest.raises(PosebridgeError) as error:
        write(tmp_path, unseen, validation)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("name", "lines", "words"),
    [
        ("synse_4_2", ["5 jump"], ["synse_4_2.txt, line 1, the last", "1 of 6", "not 4 seen and 2 unseen"]),
        ("synse_4_2", ["0 drink", "1 eat", "5 jump"], ["line 3, the last", "3 of 6"]),
        ("mine", ["# Counts: 4 seen, 2 unseen.", "5 jump"], ["mine.txt, line 1", "not 4 seen and 2 unseen"]),
        ("mine", ["# Counts: 3 seen, 1 unseen.", "5 jump"], ["mine.txt, line 1", "not 3 seen and 1 unseen"]),
        ("mine", ["6 jump", "5 throw a ball"], ["mine.txt, line 1", "'jump' is 5 (0-based), not 6"]),
        ("mine", ["5 jump", "4"], ["mine.txt, line 2", "'' is not a class"]),
    ],
)
def test_a_list_with_a_class_too_few_or_numbered_from_one_is_refused(tmp_path, name, lines, words):
    (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / f"{name}.val.txt").write_text("2 wave\n3 clap\n")
    with pytest.raises(PosebridgeError) as error:
        read_split(tmp_path, name, NAMES)
    assert all(word in str(error.value) for word in words), error.value
    (tmp_path / f"{name}.txt").write_text("# Counts: 4 seen, 2 unseen.\n4 throw a ball\n5 jump\n")
    (tmp_path / f"{name}.val.txt").write_text("0 drink\n1 eat\n")
    assert read_split(tmp_path, name, NAMES).unseen == (4, 5)


def test_a_missing_protocol_lists_those_there_are(tmp_path):
    write(tmp_path, ["5 jump"], ["0 drink", "1 eat"])
    with pytest.raises(PosebridgeError, match="protocols there are: p"):
        read_split(tmp_path, "q", NAMES)
    (tmp_path / "p.val.txt").unlink()
    with pytest.raises(PosebridgeError, match="p.val.txt is missing; name the pseudo-unseen validation classes"):
        read_split(tmp_path, "p", NAMES)


def clips(per_class=10):
    return [
        Clip(f"{label}-{part}-{i}", f"{label}-{part}-{i}.mp4", label=label, part=part)
        for label in range(6)
        for part in ("train", "test")
        for i in range(per_class)
    ]


def test_the_selection_phase_has_no_pseudo_unseen_and_no_test_clip():
    phase = training_phase("select", SPLIT, clips())
    assert phase.classes == (2, 3)
    assert {c.label for c in phase.train} == {c.label for c in phase.held_out} == {2, 3}
    assert {c.label for c in phase.pseudo_unseen} == {0, 1}
    assert {c.part for c in (*phase.train, *phase.held_out, *phase.pseudo_unseen)} == {"train"}
    assert (len(phase.train), len(phase.held_out), len(phase.pseudo_unseen)) == (16, 4, 20)
    assert not {c.clip_id for c in phase.train} & {c.clip_id for c in phase.held_out}


def test_a_fifth_of_each_class_is_kept_out_whatever_the_order_of_clips(monkeypatch):
    split, guarded = replace(SPLIT, validation=(0,)), []
    monkeypatch.setattr(training_set, "require_no_pseudo_unseen", lambda *about: guarded.append(about))
    some = [c for c in clips() if int(c.clip_id[-1]) < {2: 7, 3: 4}.get(c.label, 10)]  # 10, 7, 4 of classes 1, 2, 3
    phase, other = (training_phase("select", split, given) for given in (some, some[::-1]))
    assert [c.clip_id for c in phase.held_out] == ["1-train-4", "1-train-8", "2-train-0"], "by the hash of their ids"
    assert set(other.held_out) == set(phase.held_out)
    assert guarded == [(each.train, (1, 2, 3)) for each in (phase, other)]


def test_the_final_phase_has_every_seen_class_and_nothing_to_choose_on():
    phase = training_phase("final", SPLIT, clips())
    assert {c.label for c in phase.train} == {0, 1, 2, 3} and len(phase.train) == 40
    assert phase.held_out == phase.pseudo_unseen == ()


def test_a_class_without_clips_is_named():
    with pytest.raises(PosebridgeError, match="'wave' has no clip of part `train`"):
        training_phase("select", SPLIT, [c for c in clips() if c.label != 2])
    with pytest.raises(PosebridgeError, match="'jump' is unseen in p but has no clip of part `test`"):
        heldout_clips(SPLIT, [c for c in clips() if c.label != 5])


def test_the_test_set_has_test_clips_only():
    test = heldout_clips(SPLIT, clips())
    assert {c.label for c in test.unseen} == {4, 5} and {c.label for c in test.seen} == {0, 1, 2, 3}
    assert {c.part for c in (*test.unseen, *test.seen)} == {"test"}


def test_a_clip_of_both_parts_trains_where_its_class_is_seen_and_tests_where_it_is_unseen():
    both = [Clip(f"{label}-{i}", f"{label}-{i}/", label=label, part="both") for label in range(6) for i in range(5)]
    select, final = training_phase("select", SPLIT, both), training_phase("final", SPLIT, both)
    assert {c.label for c in (*select.train, *select.held_out)} == {2, 3}
    assert {c.label for c in select.pseudo_unseen} == {0, 1} and {c.label for c in final.train} == {0, 1, 2, 3}
    test = heldout_clips(SPLIT, [*both, Clip("t", "t.mp4", label=0, part="test")])
    assert {c.label for c in test.unseen} == {4, 5} and [c.clip_id for c in test.seen] == ["t"]
    require_disjoint_sources([*both, Clip("n", "0-0/", 1.0, label=0, part="both")])
    for other in (Clip("n", "0-0/", label=1, part="both"), Clip("n", "0-0/", label=0, part="train")):
        with pytest.raises(PosebridgeError, match="come from one video"):
            require_disjoint_sources([*both, other])


def test_metrics_by_hand():
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 2])
    matrix = confusion_matrix(labels, predicted, 4)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert micro(matrix) == pytest.approx(4 / 6)
    assert macro(matrix) == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)  # the class without clips does not count
    assert np.isnan(per_class(matrix)[3]) and np.isnan(micro(np.zeros((2, 2), int)))
    assert np.isnan(macro(np.zeros((2, 2), int)))
    assert per_class(matrix)[:3].tolist() == [2 / 3, 1 / 2, 1]


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (3, 10), (61, 180), (1, 1)])
def test_the_interval_is_clopper_and_pearsons(hits, n):
    exact = binomtest(hits, n).proportion_ci(0.95, "exact")
    assert binomial_interval(hits, n) == pytest.approx((exact.low, exact.high))


def test_answers_to_twins_hang_together_and_others_do_not():
    right = np.repeat([True, False], 30)  # of twenty tuples of three, ten are right as a whole
    tuples = [row // 3 for row in range(60)]
    assert tuple_interval(right, tuples) == pytest.approx(binomial_interval(10, 20), abs=0.06), "trials are tuples"
    assert tuple_interval(right, range(60)) == pytest.approx(binomial_interval(30, 60)), "each its own: exact"
    for all_of_them in (0, 1):
        assert tuple_interval(np.full(60, all_of_them), tuples) == binomial_interval(20 * all_of_them, 20)
    one_of_each = np.tile([True, False, False], 20)  # as true skeletons allow; another tuple need not be so
    assert tuple_interval(one_of_each, tuples) == binomial_interval(7, 20), "never of no width"
    by_seeds = np.tile([0.0, 0.6, 0.2, 0.4], 20)  # means of five seeds: as much of each pair, but for the last digit
    assert tuple_interval(by_seeds, [row // 2 for row in range(80)]) == binomial_interval(12, 40)


def test_the_bootstrap_takes_no_more_memory_with_more_tuples(monkeypatch):
    right, tuples = np.arange(400) % 7 < 3, [row // 2 for row in range(400)]
    once = tuple_interval(right, tuples)
    monkeypatch.setattr(metrics, "AT_ONCE", 3 * 200)
    assert tuple_interval(right, tuples) == once, "the same draws"
    sizes, kept = [], np.random.default_rng

    def drawing(seed):
        rng = kept(seed)
        note = lambda high, size: sizes.append(size) or rng.integers(high, size=size)  # noqa: E731
        return SimpleNamespace(integers=note)

    monkeypatch.setattr(np.random, "default_rng", drawing)
    tuple_interval(right, tuples)
    assert max(rows for rows, _ in sizes) == 3 and sum(rows for rows, _ in sizes) == metrics.DRAWS


# Two seen classes (columns 0, 1), two unseen (2, 3). Margins: best seen minus best unseen.
SEEN = np.array([True, True, False, False])
SCORES = np.array([
    [0.9, 0.1, 0.4, 0.0],  # of class 0: right while gamma <= 0.5
    [0.8, 0.2, 0.6, 0.0],  # of class 1: never right, says 0
    [0.5, 0.0, 0.4, 0.3],  # of class 2: right once gamma > 0.1
    [0.7, 0.0, 0.3, 0.4],  # of class 3: right once gamma > 0.3
])  # fmt: skip
LABELS = np.array([0, 1, 2, 3])


def test_calibrated_stacking_by_hand():
    stacking = Stacking.of(SCORES, LABELS, SEEN)
    assert stacking.margin == pytest.approx([0.5, 0.2, 0.1, 0.3])
    assert stacking.accuracies(0.0) == (0.5, 0.0)
    assert stacking.accuracies(0.2) == (0.5, 0.5)
    assert stacking.accuracies(0.4) == (0.5, 1.0)
    assert stacking.accuracies(0.6) == (0.0, 1.0)
    assert stacking.best_gamma() == pytest.approx(0.4)
    assert harmonic(0.5, 1.0) == pytest.approx(2 / 3) and harmonic(0, 0) == 0
    assert stacking.ausuc() == pytest.approx(0.5)  # a rectangle: S = .5 while U goes from 0 to 1


def test_gamma_is_the_middle_of_the_widest_of_the_best_intervals():
    """By hand: H is 4/9 from 0 to 2 and from 3 to 10, 1/3 between, and 0 on either side, where the widest ones are."""
    is_seen = np.array([True, True, True, False, False, False])
    right = np.array([True, True, False, True, True, False])
    margin = np.array([10.0, 2, 100, 0, 3, -100])
    assert Stacking(margin, right, right, is_seen, np.ones(6)).best_gamma() == 6.5
    assert Stacking(margin[1:4], right[1:4], right[1:4], is_seen[1:4], np.ones(3)).best_gamma() == 1
    assert Stacking(margin[[1, 3]], right[[1, 3]], right[[1, 3]], is_seen[[1, 3]], np.ones(2)).best_gamma() == 1
    same = Stacking(np.full(6, 7.0), right, right, is_seen, np.ones(6))
    assert same.best_gamma() == 0, "nothing to choose between"
    alone = Stacking(margin[:2], right[:2], right[:2], is_seen[:2], np.ones(2))
    assert alone.accuracies(5) == (0.5, 0), "nobody unseen"


def test_stacking_agrees_with_a_plain_argmax_over_all_classes():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(200, 7)), rng.integers(0, 7, 200)
    seen = np.array([1, 1, 0, 1, 0, 1, 0], bool)
    for by_class in (False, True):
        stacking = Stacking.of(scores, labels, seen, macro=by_class)
        for gamma in (-1.0, 0.0, 0.3, 2.0):
            predicted = (scores - gamma * seen).argmax(1)
            count = macro if by_class else micro
            expected = [count(confusion_matrix(labels[m], predicted[m], 7)) for m in (seen[labels], ~seen[labels])]
            assert stacking.accuracies(gamma) == pytest.approx(tuple(expected))
        area = stacking.ausuc()
        assert 0 < area < 1


def test_area_and_gamma_are_those_of_every_gamma_tried_one_by_one():
    rng = np.random.default_rng(0)
    for trial in range(60):
        clips = int(rng.integers(1, 60))
        scores, labels = rng.normal(size=(clips, 5)), rng.integers(0, 5, clips)
        scores[np.arange(clips), labels] += rng.random()
        if trial % 2:
            scores = (4 * scores).round() / 4  # ties
        stacking = Stacking.of(scores, labels, np.array([1, 0, 1, 0, 1], bool), macro=trial % 3 == 0)
        edges = np.unique(stacking.margin)
        gammas = [-np.inf, *(edges[1:] + edges[:-1]) / 2, np.inf]
        pairs = [stacking.accuracies(gamma) for gamma in gammas]
        assert stacking.ausuc() == pytest.approx(np.trapezoid(*np.array(pairs).T), abs=1e-12)
        if len(edges) > 1:
            best = max(harmonic(*pair) for pair in pairs[1:-1])
            assert harmonic(*stacking.accuracies(stacking.best_gamma())) == pytest.approx(best, abs=1e-12)


def test_a_gamma_between_neighbouring_numbers_still_parts_them():
    below = 1.0
    above = np.nextafter(below, 2)  # their mean is one of them
    both = np.ones(2, bool)
    stacking = Stacking(np.array([above, below]), both, both, np.array([True, False]), np.ones(2))
    assert stacking.accuracies(stacking.best_gamma()) == (1, 1)


def test_one_source_video_in_both_parts_is_refused():
    a = Clip("a", "a.mp4", part="train", sha256="1" * 64)
    require_disjoint_sources([a, Clip("b", "b.mp4", part="test", sha256="2" * 64)])
    for other in (Clip("b", "b.mp4", part="test", sha256="1" * 64), Clip("b", "a.mp4", start=1.0, part="test")):
        with pytest.raises(PosebridgeError, match="Clips a .train. and b .test. come from one video"):
            require_disjoint_sources([a, other])
    for one, same in (("a.mp4", "./a.mp4"), ("x/a.mp4", "x//./a.mp4"), ("é.mp4", "e\u0301.mp4")):
        with pytest.raises(PosebridgeError, match="come from one video"):
            require_disjoint_sources([Clip("a", one, part="train"), Clip("b", same, part="test")])
    require_disjoint_sources([a, Clip("b", "a.mp4", part=""), Clip("c", "a.mp4", part="train")])  # not used
    require_disjoint_sources([a, Clip("b", "a.mp4", start=1.0, part="train")])  # segments of one video are fine


def test_guards_catch_what_they_guard():
    with pytest.raises(LeakError, match="must not be trained on"):
        require_no_pseudo_unseen([Clip("x", "x", label=0, part="train")], classes=(2, 3))
    with pytest.raises(LeakError, match="must not be trained on"):
        require_no_pseudo_unseen([Clip("x", "x", label=2, part="test")], classes=(2, 3))
    require_no_pseudo_unseen([Clip("x", "x", label=2, part="train")], classes=(2, 3))
    require_clips_of_phase(["x"], [Clip("x", "x"), Clip("y", "y")])
    with pytest.raises(LeakError, match="z does not belong"):
        require_clips_of_phase(["x", "z"], [Clip("x", "x"), Clip("y", "y")])
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
    with pytest.raises(LeakError, match="train mode"):
        require_eval_mode(net)
    net.eval()
    require_eval_mode(net)
    net[1].train()
    with pytest.raises(LeakError, match="1 is in train mode"):
        require_eval_mode(net)
    text = torch.randn(5, 4)
    require_seen_centre(text[:3].mean(0), text[:3])
    with pytest.raises(LeakError, match="centred"):
        require_seen_centre(text.mean(0), text[:3])


def test_text_whitened_by_other_classes_as_well_is_caught() -> None:
    text = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    ours, everyone = (whitening(some - some.mean(0), 1.0) for some in (text[:3], text))
    require_seen_spread(ours, ours + 1e-6)
    with pytest.raises(LeakError, match="whitened"):
        require_seen_spread(everyone, ours)


def test_everything_right_is_exactly_one_whatever_the_counts() -> None:
    """Shares that are added up one by one end above 1, and a fraction above 1 is no accuracy."""
    labels = np.array([0] * 41 + [1] * 31 + [2] * 7)
    scores = np.eye(3)[labels]
    seen = np.array([True, True, False])
    for by_class in (False, True):
        assert Stacking.of(scores, labels, seen, macro=by_class).accuracies(0.0) == (1.0, 1.0)
