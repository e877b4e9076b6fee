"""The price of each leak: clean figures are those of evaluation, and no product path comes near a leaky one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import FLAGS, PARAMS, PROTOCOL, make_world
from test_purls import give_eight_slots
from test_report import write_result

from pipeline.bench import leaks
from pipeline.learn.encode import encode
from pipeline.learn.evaluate import evaluate
from pipeline.learn.run import open_run
from pipeline.learn.train import train
from pipeline.methods.adaptation import Adaptation
from pipeline.methods.base import Features, Method, Shapes
from pipeline.methods.purls import Purls
from pipeline.methods.skeletoncontext import SkeletonContext
from pipeline.params import RunParams
from pipeline.report.prices import TRAINED_ANEW, read_prices
from pipeline.report.runs import read_runs
from pipeline.text.bank import bank_path

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parent.parent
QUICK = replace(PARAMS, train=replace(PARAMS.train, epochs=6))
UNSEEN_CLIPS = 70  # more than one batch
RUNS = {
    "posebridge": RunParams(flags=FLAGS | {"text_slots": ["hands", "global"]}, adapt="pgfa"),
    "purls": RunParams("purls", {"width": 8, "hidden": 32}),
    "pgfa": RunParams("pgfa", {"hidden": [8], "out": 16, "epochs": 4, "text_slots": ["global"]}),
    "pgfa_gt": RunParams(  # equal inputs: evaluation adapts to each once
        "pgfa", {"hidden": [8], "out": 16, "epochs": 4, "text_slots": ["global"]}, skeletons="gt", adapt="pgfa"
    ),
    "purls_gt": RunParams("purls", {"width": 8, "hidden": 32}, skeletons="gt"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory, one_thread):
    world = make_world(tmp_path_factory.mktemp("price"))
    give_eight_slots(bank_path("toy", "minilm", world.cache))
    for skeletons in ("refined", "gt"):
        encode(world, PROTOCOL, skeletons, replace(PARAMS.encode, epochs=2))
    for name, run in RUNS.items():
        train(world, PROTOCOL, name, run, QUICK)
    return world


def metrics(world, name):
    folder = evaluate(world, PROTOCOL, name, RUNS[name], QUICK)
    return json.loads((folder / "seed-0/metrics.json").read_text())


@pytest.mark.parametrize("name", RUNS)
def test_clean_figures_are_those_of_evaluation(world, name):
    found = metrics(world, name)
    reported = {"top-1": found["zsl"]["top1"], "H": found["gzsl"]["harmonic"]}
    if found["adapted"]:
        reported["adapted top-1"] = found["adapted"]["top1"]
    rows = leaks.prices(leaks.open_tested(open_run(world, PROTOCOL, RUNS[name]), PROTOCOL, name, 0))
    assert {row["figure"] for row in rows} == set(reported)
    for row in rows:
        assert row["clean"] == pytest.approx(reported[row["figure"]], abs=1e-12), row
        assert 0 <= row["leaky"] <= 1
        if "chosen on test" in row["leak"]:
            assert row["leaky"] >= row["clean"], row
    by_name = {row["leak"] for row in rows}
    assert ("pooled by the true class" in by_name) == name.startswith("purls")
    assert ("values chosen on test" in by_name) == (name == "posebridge")
    assert ("adaptation chosen on test" in by_name) == (name in ("posebridge", "pgfa_gt"))


def test_pooling_by_the_true_class_pays(world, monkeypatch):
    """A method that sees nothing but what it is pooled by: each candidate confirms itself, or the true one."""
    tested = leaks.open_tested(open_run(world, PROTOCOL, RUNS["purls"]), PROTOCOL, "purls", 0)
    blind = lambda method, features, text: method.describe(text).expand(len(features.quality), -1, -1)  # noqa: E731
    monkeypatch.setattr(Purls, "keep", blind)
    row = next(row for row in leaks.prices(tested) if row["leak"] == "pooled by the true class")
    assert row["clean"] <= 0.25 and row["leaky"] == 1.0


class Told(Method):
    """Scores that a test makes up: `matrix` [N, every class] of the clips, plus what the state of the method adds."""

    text_slots = ("global",)
    choices = {"alpha": (0.0, 1.0)}

    def __init__(self, matrix, unseen, right_when=lambda method: True):
        super().__init__(Shapes(d_text=8, persons=1), 1, {})
        self.matrix, self.unseen, self.right_when = matrix, unseen, right_when
        self.alpha, self.text_seen = 0.0, 0

    def loss(self, features, labels, text):
        raise NotImplementedError

    def see_text(self, text):
        self.text_seen = len(text)

    def scores(self, features, text):
        own = self.matrix[features.skeleton[:, 0].long()] * (1 if self.right_when(self) else -1)
        return own if len(text) == own.shape[1] else own[:, self.unseen]


class Rows:
    """A feature table whose features say which row they are of."""

    def __init__(self, rows):
        self.samples = range(rows)

    def batch(self, rows):
        return Features(rows[:, None].float(), torch.zeros(len(rows), 1, 2))

    def batches(self, parts):
        return map(self.batch, parts)


class Chosen(Adaptation):
    """Right by its better value only."""

    choices = {"alpha": (0.0, 1.0)}
    alpha = 0.0

    def scores(self, batches, text):
        return torch.cat([self.method.scores(batch, text) for batch in batches]) * (1 if self.alpha else -1)


def made_up(world, right_when=lambda method: True, wrong=0, seen_bonus=0.0, seen_clips=0):
    """Made-up clips of the unseen classes, then of seen ones: each scores its own class 2, the last `wrong` -2, and
    clips of unseen classes the first seen one `seen_bonus`.
    """
    opened = open_run(world, PROTOCOL, RUNS["pgfa"])
    split = opened.split
    labels = [split.unseen[i % len(split.unseen)] for i in range(UNSEEN_CLIPS)] + [split.seen[0]] * seen_clips
    own = torch.full((len(labels),), 2.0)
    own[UNSEEN_CLIPS - wrong : UNSEEN_CLIPS] = -2
    matrix = torch.zeros(len(labels), len(split.class_names))
    matrix[:UNSEEN_CLIPS, split.seen[0]] = seen_bonus
    matrix[range(len(labels)), labels] = own
    method = Told(matrix, list(split.unseen), right_when).eval()
    place = torch.arange(len(labels))
    return leaks.Tested(opened, method, 0.0, 1, Chosen(method), Rows(len(labels)), place, np.array(labels))


def test_a_short_last_batch_counts_as_a_whole_one(world):
    t = made_up(world, wrong=6)
    assert leaks.top1(t) == 64 / 70 and leaks.mean_of_batch_means(t) == 0.5


def test_train_mode_is_what_is_scored(world):
    t = made_up(world, right_when=lambda method: method.training)
    assert leaks.top1(t) == 0.0 and leaks.scored_in_train_mode(t) == 1.0 and not t.method.training


def test_every_class_is_in_the_centre(world):
    t = made_up(world, right_when=lambda method: method.text_seen == len(method.matrix[0]))
    assert leaks.top1(t) == 0.0 and leaks.centred_on_every_class(t) == 1.0 and t.method.text_seen == 0


def test_the_best_values_on_test_are_taken(world):
    t = made_up(world, right_when=lambda method: method.alpha == 1.0)
    assert leaks.top1(t) == 0.0 and leaks.values_chosen_on_test(t) == 1.0 and t.method.alpha == 0.0
    for kind in (t.method, t.adaptation):  # of a grid, as Skeleton-Cache's: one value by one would not find it
        kind.choices, kind.beta = {"alpha": (0.0, 1.0, 0.5), "beta": (0.0, 2.0, 1.0)}, 0.0
    t.method.right_when = lambda method: (method.alpha, method.beta) == (1.0, 2.0)
    assert leaks.values_chosen_on_test(t) == 1.0 and (t.method.alpha, t.method.beta) == (0.0, 0.0)
    assert {(t.adaptation.alpha, t.adaptation.beta) for _ in leaks.over_the_grid(t.adaptation)} == {
        (alpha, beta) for alpha in (0.0, 1.0, 0.5) for beta in (0.0, 2.0, 1.0)
    }
    t = made_up(world)
    assert leaks.adapted_top1(t) == 0.0 and leaks.adaptation_chosen_on_test(t) == 1.0 and t.adaptation.alpha == 0.0


def test_the_best_gamma_on_test_is_taken(world):
    t = made_up(world, seen_bonus=3.0, seen_clips=5)  # unseen clips go to a seen class until it is handicapped by 1
    t.method.matrix[UNSEEN_CLIPS:, t.opened.split.seen[0]] = 9.0
    assert leaks.harmonic_mean(t) == 0.0 and leaks.gamma_chosen_on_test(t) == 1.0


def test_a_second_pass_has_seen_every_clip(world):
    class Late(Adaptation):
        """Right once more clips have come than there are."""

        online = True

        def scores(self, batches, text):
            found, seen = [], 0
            for batch in batches:
                seen += len(batch.quality)
                found.append(self.method.scores(batch, text) * (1 if seen > UNSEEN_CLIPS else -1))
            return torch.cat(found)

    t = made_up(world)
    t = replace(t, adaptation=Late(t.method))
    assert leaks.adapted_top1(t) == 0.0 and leaks.second_pass_over_the_test_set(t) == 1.0
    assert "second pass over the test set" in {row["leak"] for row in leaks.prices(t)}
    assert "second pass over the test set" not in {row["leak"] for row in leaks.prices(made_up(world))}


def test_a_name_within_another_is_no_answer(world):
    t = made_up(world, wrong=UNSEEN_CLIPS)
    t.method.matrix[:, t.opened.split.unseen[1]] = 9.0  # all are taken for the second unseen class
    names = list(t.opened.split.class_names)
    names[t.unseen[0]], names[t.unseen[1]] = "Eat", "eat an apple"
    names[t.unseen[2]], names[t.unseen[3]] = "eat an apple and sit", "run"
    t = replace(t, opened=replace(t.opened, split=replace(t.opened.split, class_names=tuple(names))))
    share = [float((t.truth == c).mean()) for c in range(4)]
    assert leaks.top1(t) == share[1] and leaks.right_if_the_label_is_within_the_answer(t) == share[0] + share[1]


def test_the_better_row_is_quoted(world):
    t = made_up(world)
    assert (leaks.top1(t), leaks.adapted_top1(t), leaks.better_row_quoted(t)) == (1.0, 0.0, 1.0)
    t.adaptation.alpha, t.method.right_when = 1.0, lambda method: False
    assert leaks.better_row_quoted(t) == 0.0
    t.adaptation.alpha = 0.0
    assert (leaks.top1(t), leaks.better_row_quoted(t)) == (0.0, 1.0)


def test_either_branch_may_be_right(world):
    class Two(SkeletonContext):
        def __init__(self, told):
            Method.__init__(self, Shapes(d_text=8, persons=1), 1, {})
            self.text_slots, self.told = told.text_slots, told

        def branches(self, features):
            scores = self.told.scores(features, torch.zeros(len(self.told.unseen)))
            even = features.skeleton[:, :1] % 2 == 0
            return scores * torch.where(even, 1, -3), scores * torch.where(even, -3, 1)

        def compare(self, x, text):
            return x

    t = made_up(world)
    t = replace(t, method=Two(t.method).eval())
    assert leaks.top1(t) == 0.0 and leaks.right_if_either_branch_is(t) == 1.0


def test_the_best_epoch_on_test_is_compared_with_the_chosen_one(world):
    found = metrics(world, "pgfa")
    opened = open_run(world, PROTOCOL, RUNS["pgfa"])
    row = leaks.price_of_the_best_epoch(opened, 0, found["selection"]["epochs"], QUICK)
    assert row["clean"] == found["zsl"]["top1"] <= row["leaky"]


def test_text_is_whitened_by_the_classes_that_are_named():
    """By hand: classes 0 and 1 vary along the first axis only; class 2 is far away along the second."""
    text = torch.tensor([[[3.0, 1.0]], [[1.0, 1.0]], [[2.0, 9.0]]])
    mask = torch.tensor([[True], [True], [True]])
    white = leaks.whitened(text, mask, [0, 1])  # mean (2, 1), covariance diag(1, 0), drawn to diag(.95, .05)
    torch.testing.assert_close(white[:, 0], torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
    both = leaks.whitened(text, mask, [0, 1, 2])
    assert not torch.allclose(both, white) and both[0, 0, 1] < 0, "the third class moves the mean"
    assert not leaks.whitened(text, mask & torch.tensor([[True], [True], [False]]), [0, 1])[2].any()


def test_whitening_is_trained_with_the_one_and_the_other_text(world, monkeypatch):
    opened, seen = open_run(world, PROTOCOL, RUNS["pgfa"]), []
    kept = leaks.whitened
    monkeypatch.setattr(leaks, "whitened", lambda *about: seen.append(list(about[2])) or kept(*about))
    row = leaks.price_of_whitening(opened, 0, 2, QUICK)
    assert seen == [list(opened.split.seen), list(range(len(opened.split.class_names)))]
    assert row["leak"] in TRAINED_ANEW and 0 <= row["clean"] <= 1 and 0 <= row["leaky"] <= 1


def test_the_table_of_a_run_is_read_by_the_report(world):
    run = RUNS["purls"]
    evaluate(world, PROTOCOL, "purls", run, QUICK)
    told = []
    path = leaks.price_run(world, PROTOCOL, "purls", run, QUICK, lambda what, _: told.append(what))
    assert path == world.cache / "leaks" / world.name / PROTOCOL / "purls.csv" and set(told) == {"seed 0"}
    runs, _ = read_runs(world.cache / "results")
    runs = [found for found in runs if found.first.run == "purls"]
    prices, complaints = read_prices(path.parent, runs)
    assert not complaints and {price.leak for price in prices} > {"pooled by the true class", *TRAINED_ANEW}
    assert all(len(price.clean) == 1 for price in prices)
    assert [price.gain.mean for price in prices][0] == max(price.gain.mean for price in prices)
    other = 0 if runs[0].first.zsl["top1"] > 0.5 else 1
    for text, words in (
        ("leak,figure\nnone,top-1\n", "is no table of leaks"),
        (f"seed,leak,figure,clean,leaky\n0,none,top-1,{other},{other}\n", "of other models than the results"),
        ("seed,leak,figure,clean,leaky\n7,none,top-1,0.5,0.5\n", "of other models than the results"),
    ):
        path.write_text(text)
        prices, complaints = read_prices(path.parent, runs)
        assert not prices and words in complaints[0] and "bench leaks --dataset toy" in complaints[0]


def test_the_dearest_leak_stands_first_and_its_dearest_run(tmp_path):
    cheap, dear = TRAINED_ANEW
    for name, *leaky in (("a", 0.5, 0.6), ("b", 0.7, 0.55), ("c", 0.6, 0.8)):
        write_result(tmp_path / "results", name, 0)
        rows = [f"0,{leak},top-1,0.5,{value}\n" for leak, value in zip(TRAINED_ANEW, leaky, strict=True)]
        (tmp_path / f"{name}.csv").write_text("".join(["seed,leak,figure,clean,leaky\n", *rows]))
    prices, _ = read_prices(tmp_path, read_runs(tmp_path / "results")[0])
    order = [(dear, "cab"), (cheap, "bca")]
    assert [(p.leak, p.run) for p in prices] == [(leak, run) for leak, runs in order for run in runs]


def test_nothing_but_the_experiment_imports_it():
    """The leaks are in a file that neither training nor evaluation knows."""
    for folder in ("pipeline", "stages"):
        for path in (ROOT / folder).rglob("*.py"):
            known = "pipeline.bench.leaks" in path.read_text() or "import leaks" in path.read_text()
            assert not known or path.name in ("leaks.py", "bench_accuracy.py"), path
