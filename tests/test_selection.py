"""Who is asked, about what, and what is chosen: by a method whose answers are written down, through the real stages."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from synthetic import (
    ANCHORS,
    CLASSES,
    D_TEXT,
    PARAMS,
    PROTOCOL,
    SEEN,
    UNSEEN,
    VALIDATION,
    D,
    FakeReader,
    S,
    make_world,
)
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.cache.sealed import seal
from pipeline.errors import PosebridgeError
from pipeline.learn import encode as encoding
from pipeline.learn import evaluate as evaluation
from pipeline.learn import select as selection
from pipeline.learn import train as phases
from pipeline.learn.dataset import label_rows
from pipeline.learn.encode import train_encoder
from pipeline.learn.encoders import encoder_folder
from pipeline.learn.evaluate import adapted, count_parameters, evaluate, gflops, gzsl, result_folder, write_zsl
from pipeline.learn.feature_table import FeatureTable, Joints
from pipeline.learn.features import Samples, load_samples
from pipeline.learn.loop import Loop, Progress
from pipeline.learn.run import open_run
from pipeline.learn.select import PhaseModel, choose_adaptation, choose_values, clearly_best
from pipeline.learn.train import train, train_phase
from pipeline.learn.trained import model_folder
from pipeline.manifest.clips import Clip
from pipeline.methods import METHODS, Known
from pipeline.methods.adaptation import Adaptation
from pipeline.methods.base import Features, Method, Shapes
from pipeline.params import EncodeParams, RunParams, TrainParams
from pipeline.protocol.splits import Split
from pipeline.protocol.training_set import Phase, training_phase
from pipeline.skeleton.augment import augment
from pipeline.skeleton.light_shift_gcn import LightShiftGCN
from pipeline.skeleton.normalise import normalise
from pipeline.text.bank import bank_path

pytestmark = pytest.mark.unit
ROUGH = {"bfloat16": True, "tf32": True}

# ---- a phase in numbers: classes 0, 1 are pseudo-unseen, 2, 3 trained on, 4 unseen; scores stand in tables

SPLIT = Split("p", ("a", "b", "c", "d", "e"), unseen=(4,), validation=(0, 1))


def clip(label: int, number: int) -> Clip:
    return Clip(f"{label}-{number}", f"{label}-{number}.mp4", label=label, part="train")


HELD_OUT = (clip(2, 0), clip(2, 1), clip(3, 0))
PSEUDO_UNSEEN = (clip(0, 0), clip(0, 1), clip(0, 2), clip(1, 0))
TRAINED_ON = (clip(2, 8), clip(3, 9))
PHASE = Phase("select", (2, 3), TRAINED_ON, HELD_OUT, PSEUDO_UNSEEN)
ROWS = (*TRAINED_ON, *PSEUDO_UNSEEN, *HELD_OUT)  # another order than the phase's

# Scores of the classes 0 to 3 for ROWS. A margin is the best of 2, 3 less the best of 0, 1.
GOOD = [
    [0, 0, 9, 0], [1, 0, 0, 6],  # trained on, margins 9 and 5: gamma is measured by them, and nothing else is
    [4, 1, 5, 0],  # of 0: right once gamma > 1
    [1, 4, 7, 0],  # of 0: takes it for 1; margin 3
    [4, 1, 5, 0],  # of 0: as the first
    [1, 6, 2, 0],  # of 1: right at gamma 0 already; margin -4
    [1, 0, 6, 2],  # of 2: right up to gamma 5
    [0, 1, 3, 8],  # of 2: takes it for 3; margin 7
    [2, 0, 1, 8],  # of 3: right up to gamma 6
]  # fmt: skip
BAD = [row[::-1] for row in GOOD]


class Written(nn.Module):
    """Scores that are written down: those of `tables[self.alpha]`, with `beta` added for class 3."""

    device = torch.device("cpu")

    def __init__(self, tables: dict[float, list[list[float]]], **choices: tuple[float, ...]) -> None:
        super().__init__()
        self.tables, self.choices, self.alpha, self.beta = tables, choices, 0.0, 0.0
        self.asked: list[tuple[list[str], list[int]]] = []
        self.eval()

    def scores(self, rows: Tensor, text: Tensor) -> Tensor:
        self.asked.append(([ROWS[row].clip_id for row in rows], text[:, 0, 0].int().tolist()))
        table = torch.tensor(self.tables[self.alpha]) + torch.tensor([0, 0, 0, self.beta])
        return table[rows][:, text[:, 0, 0].long()]


def model(method: Written) -> PhaseModel:
    table = SimpleNamespace(samples=SimpleNamespace(clip_ids=[c.clip_id for c in ROWS]), batches=iter)
    return PhaseModel(PHASE, method, table, lambda classes: torch.tensor(classes).float()[:, None, None])  # type: ignore


def ids(clips: Iterable[Clip]) -> list[str]:
    return [each.clip_id for each in clips]


def test_a_value_is_the_best_by_the_area_and_gamma_by_the_margins() -> None:
    """By hand: S is 2/3 up to gamma 5, 1/3 up to 6, then 0; U is 0 up to -4, 1/4 up to 1, then 3/4. From 3 to 5 no clip
    is on the wrong side: 4 is 1.5 deviations below the mean, 7, of the clips trained on; 4 classes of 16 say so.
    """
    wanted = (4 * -1.5 + 12 * -0.2) / 16
    method = Written({0.0: BAD, 1.0: GOOD, 2.0: GOOD}, alpha=(0.0, 1.0, 2.0))
    assert choose_values(model(method), SPLIT) == {
        "alpha": 1.0,  # the first of equals
        "gamma": pytest.approx(7 + 2 * wanted),  # 5.95
        "gamma_place": pytest.approx(wanted),
        "zsl_top1": 3 / 4,
        "zsl_macro": pytest.approx((2 / 3 + 1) / 2),
        "zsl_n": 4,
        "gzsl_seen": pytest.approx(1 / 3),
        "gzsl_unseen": 3 / 4,
        "gzsl_harmonic": pytest.approx(6 / 13),
        "gzsl_ausuc": pytest.approx(1 / 2),
    }
    assert method.alpha == 1.0, "it is left with what was chosen"


def test_where_no_clip_is_kept_out_the_ranks_among_pseudo_unseen_classes_choose() -> None:
    """One clip a class: no seen class has a clip to be right about, so the area is 0 whatever the value, and no figure
    of seen against unseen classes is made up.
    """
    method = Written({0.0: BAD, 1.0: GOOD}, alpha=(0.0, 1.0))
    alone = replace(model(method), phase=replace(PHASE, held_out=()))
    found = choose_values(alone, SPLIT)
    assert (found["alpha"], found["zsl_top1"], found["gamma"]) == (1.0, 3 / 4, 0.0)
    assert not [name for name in found if name.startswith("gzsl")]
    assert alone.figure(SPLIT) == (1 + 1 + 1 + 1 / 2) / 4


def test_values_are_chosen_on_clips_kept_out_of_training_only() -> None:
    method = Written({0.0: BAD, 1.0: GOOD}, alpha=(0.0, 1.0))
    choose_values(model(method), SPLIT)
    both, alone = (ids((*HELD_OUT, *PSEUDO_UNSEEN)), [0, 1, 2, 3]), (ids(PSEUDO_UNSEEN), [0, 1])
    trained = (ids(TRAINED_ON), [0, 1, 2, 3])
    assert method.asked == [both, both, both, trained, alone], (
        "each value, the chosen one, what its margins are measured by, then among the pseudo-unseen"
    )


def test_values_are_chosen_one_after_another_with_those_before_in_place() -> None:
    """Beside GOOD, a beta of 9 halves the area; beside BAD, which was tried last, it would make no difference."""
    method = Written({0.0: BAD, 1.0: GOOD}, alpha=(1.0, 0.0), beta=(9.0, 0.0))
    found = choose_values(model(method), SPLIT)
    assert (found["alpha"], found["beta"]) == (1.0, 0.0) == (method.alpha, method.beta)


def test_clips_without_features_are_left_out_and_labels_are_columns() -> None:
    scores, labels = model(Written({0.0: GOOD})).scores((clip(1, 77), *PSEUDO_UNSEEN), (1, 0))
    assert scores.tolist() == [[1, 4], [4, 1], [1, 4], [6, 1]] and labels.tolist() == [1, 1, 1, 0]


class Shifted(Adaptation):
    """Adds `shift` to the score of class 1; clips arrive in any order."""

    choices = {"shift": (9.0, 0.0, -2.5, -9.0)}
    shift = 1.0

    def scores(self, batches: Iterable[Tensor], text: Tensor) -> Tensor:
        plain = torch.cat([self.method.scores(batch, text) for batch in batches])  # type: ignore[arg-type]
        return plain + self.shift * (text[:, 0, 0] == 1)


class Narrow(Shifted):
    """Makes one more of the pseudo-unseen clips right, among their classes, and spoils the classes trained on."""

    choices = {"shift": (9.0, 0.0, -2.5)}

    def scores(self, batches: Iterable[Tensor], text: Tensor) -> Tensor:
        moved = super().scores(batches, text)
        return moved + (9.0 * (text[:, 0, 0] == 3) if self.shift else 0.0)


def test_an_adaptation_is_chosen_by_the_curve_that_values_are_chosen_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among the pseudo-unseen classes -2.5 makes all four clips right, 0 and -9 three, 9 one."""
    monkeypatch.setattr(selection, "find_adaptation", {"shifted": Shifted, "narrow": Narrow}.__getitem__)
    method = Written({0.0: [row if row != [1, 4, 7, 0] else [2, 4, 7, 0] for row in GOOD]})
    found = choose_adaptation(model(method), SPLIT, "shifted")
    assert found == {"by": "shifted", "shift": -2.5, "zsl_top1": 1.0, "zsl_macro": 1.0}
    *judged, told = method.asked
    everybody = ids((*HELD_OUT, *PSEUDO_UNSEEN))
    assert len(judged) == 4 and len({tuple(who) for who, _ in judged}) == 1, "a value a call, in one order"
    assert judged[0][0] != everybody, "not that of the file, which goes by classes"
    assert all((sorted(who), of) == (sorted(everybody), [0, 1, 2, 3]) for who, of in judged)
    assert (sorted(told[0]), told[1]) == (sorted(ids(PSEUDO_UNSEEN)), [0, 1]), "to tell of what is chosen"
    assert choose_adaptation(model(method), SPLIT, "narrow")["shift"] == 0.0, "the whole curve counts"
    alone = replace(model(method), phase=replace(PHASE, held_out=()))
    assert choose_adaptation(alone, SPLIT, "narrow")["shift"] == -2.5, "by the pseudo-unseen clips alone"


def test_an_adaptation_that_is_better_by_chance_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """-2.5 has an area of .625, 0 one of .5: of four clips its standard error is .25, of 64 it is .0625."""
    monkeypatch.setattr(Shifted, "choices", {"shift": (0.0, -2.5)})
    monkeypatch.setattr(selection, "find_adaptation", {"shifted": Shifted}.__getitem__)
    few = model(Written({0.0: [row if row != [1, 4, 7, 0] else [2, 4, 7, 0] for row in GOOD]}))
    assert choose_adaptation(few, SPLIT, "shifted")["shift"] == 0.0
    many = replace(few, phase=replace(PHASE, pseudo_unseen=PSEUDO_UNSEEN * 16))
    assert choose_adaptation(many, SPLIT, "shifted")["shift"] == -2.5


# ---- the stages: a method that reads label and name of a clip from its skeleton, and is right when the test says so

CODE = 1 / 256  # whole multiples pass float16 unharmed


class Scripted(Method):
    """Knows who a clip is. Right about everybody from the third epoch on, before that about seen classes only."""

    end_to_end = True
    text_slots = ("one_line",)
    choices = {"alpha": (0.0, 0.5, 1.0)}
    log: list[tuple[str, list[int], list[int]]] = []  # what for, rows of clips, classes

    def __init__(self, shapes: Shapes, classes: int, flags: object) -> None:
        super().__init__(shapes, classes, {})
        self.weight, self.alpha = nn.Parameter(torch.zeros(1)), 0.0
        self.register_buffer("epochs", torch.zeros(1))  # the share of the schedule that these weights have seen

    def schedule(self) -> dict[str, object]:
        return {
            "epochs": 8, "optimiser": "sgd", "lr": 0.5, "weight_decay": 0.0, "warmup": 0, "ema": 0.0, "patience": 3,
            "smoothing": 1,
        }  # fmt: skip

    def who(self, features: Features) -> tuple[list[int], Tensor]:
        code = (features.skeleton[:, 0, 0, :3, -1] / CODE).round().long()  # nose: label; eyes: row of the clip
        return code[:, 1].tolist(), code[:, 0]

    def loss(self, features: Features, labels: Tensor, text: Tensor) -> Tensor:
        rows, truth = self.who(features)
        classes = text[:, 0].argmax(-1)
        assert torch.equal(classes[labels], truth), "labels are rows of the text"
        self.log.append(("loss", rows, classes.tolist()))
        self.epochs.fill_(self.progress)
        return self.weight.sum()

    def scores(self, features: Features, text: Tensor) -> Tensor:
        rows, truth = self.who(features)
        classes = text[:, 0].argmax(-1)
        self.log.append(("scores", rows, classes.tolist()))
        right = (truth[:, None] == classes).float()
        blind = torch.isin(truth, torch.tensor([CLASSES.index(name) for name in (*VALIDATION, *UNSEEN)]))
        ready = bool((self.epochs * 8).round() >= 2) and self.alpha in (0.0, 0.5)
        return right if ready else torch.where(blind[:, None], -right, right)


@pytest.fixture
def scripted(tmp_path, one_thread, monkeypatch):
    """A world whose clips carry their label and row, and whose texts name their class."""
    monkeypatch.setitem(METHODS, "scripted", Known(f"{__name__}:Scripted", cues=None))
    monkeypatch.setattr(Scripted, "log", [])
    world = make_world(tmp_path)
    full = world.readers["refined"]
    arrays = {name: array.copy() for name, array in full.arrays.items()}
    for row, each in enumerate(world.clips):
        arrays["scores"][row, ..., 0] = each.label * CODE
        arrays["scores"][row, ..., 1:3] = row * CODE
    with h5py.File(bank_path("toy", "minilm", world.cache), "r+") as file:
        file["embeddings"][...] = np.eye(len(CLASSES), D_TEXT)[:, None]
    return replace(world, readers={"refined": FakeReader(full.recipe, full.clip_ids, arrays)})


RUN = RunParams(method="scripted")


def asked(kind: str) -> list[tuple[list[int], list[int]]]:
    return [(rows, classes) for what, rows, classes in Scripted.log if what == kind]


def rows_of(world, clips: Iterable[Clip]) -> set[int]:
    return {world.clips.index(each) for each in clips}


def indices(names: Iterable[str]) -> list[int]:
    return sorted(CLASSES.index(name) for name in names)


def test_the_epoch_is_chosen_by_the_area_and_its_weights_are_kept(scripted):
    opened = open_run(scripted, PROTOCOL, RUN)
    phase = training_phase("select", opened.split, scripted.clips)
    samples = opened.samples((*phase.train, *phase.held_out, *phase.pseudo_unseen))
    model, progress = train_phase(opened, phase, samples, Joints().eval(), PARAMS, 0, None)
    assert progress.scores == [0, 0, 1, 1, 1, 1] and (progress.best_epoch, progress.epoch) == (3, 6)
    steps = 8  # of an epoch of 52 clips in batches of 16: two passes of 4
    assert float(model.method.epochs) == 2 / 8 and not model.method.training
    pulled = [0.5 * (1 - 0.9**step) / (1 - 0.9) for step in range(1, 3 * steps + 1)]
    assert float(model.method.weight.detach()) == pytest.approx(-sum(pulled), rel=1e-5)


@pytest.mark.parametrize(("name", "epochs", "patience"), [("select", None, 3), ("final", 1, 0)])
def test_the_training_is_that_of_params_yaml(scripted, monkeypatch, name, epochs, patience):
    class Stopped(Exception):
        pass

    def fit(model, loss, rows, loop, **options):
        wanted = Loop(epochs or 2, 7, 0.3, 0.4, cosine=False, ema=0.5, seed=6, patience=patience, smoothing=2, **ROUGH)
        assert loop == wanted
        assert (options["validate"] is not None) == (name == "select")
        raise Stopped

    monkeypatch.setattr(phases, "fit", fit)
    monkeypatch.setattr(Scripted, "schedule", lambda self: {})
    opened = open_run(scripted, PROTOCOL, RUN)
    phase = training_phase(name, opened.split, scripted.clips)
    samples = opened.samples((*phase.train, *phase.held_out, *phase.pseudo_unseen))
    params = replace(PARAMS, train=TrainParams(2, 7, 0.3, 0.4, ema=0.5, patience=3, views=1, smoothing=2, **ROUGH))
    with pytest.raises(Stopped):
        train_phase(opened, phase, samples, Joints().eval(), params, 6, epochs)


def test_training_asks_about_the_clips_and_classes_of_its_phase_and_no_other(scripted):
    told = []
    train(scripted, PROTOCOL, "scripted", RUN, PARAMS, lambda what, progress: told.append((what, progress.epoch)))
    assert told == [("seed 0, select", n) for n in range(1, 7)] + [("seed 0, final", n) for n in (1, 2, 3)]
    place = scripted.cache / "models/toy" / PROTOCOL / "scripted/seed-0"
    found = json.loads((place / "selection.json").read_text())
    assert (found["epochs"], found["alpha"], found["scores_by_epoch"]) == (3, 0.0, [0, 0, 1, 1, 1, 1])
    assert (found["zsl_top1"], found["zsl_n"], found["gzsl_harmonic"], found["gamma"]) == (1.0, 32, 1.0, 1.0)

    split = scripted.split(PROTOCOL)
    select, final = (training_phase(name, split, scripted.clips) for name in ("select", "final"))
    first, then = asked("loss")[: 6 * 8], asked("loss")[6 * 8 :]
    for phase, losses, names in ((select, first, set(SEEN) - set(VALIDATION)), (final, then, SEEN)):
        assert all(classes == indices(names) for _, classes in losses)
        assert set().union(*(rows for rows, _ in losses)) == rows_of(scripted, phase.train)
    judged = (
        rows_of(scripted, (*select.held_out, *select.pseudo_unseen, *select.train)),  # the last to measure margins by
        tuple(indices(SEEN)),
    )
    alone = (rows_of(scripted, select.pseudo_unseen), tuple(indices(VALIDATION)))
    by_classes: dict[tuple[int, ...], set[int]] = {}
    for rows, classes in asked("scores"):
        by_classes.setdefault(tuple(classes), set()).update(rows)
    assert by_classes == {classes: rows for rows, classes in (judged, alone)}


def test_evaluation_asks_about_every_test_clip_and_class_with_the_chosen_values(scripted):
    train(scripted, PROTOCOL, "scripted", RUN, PARAMS)
    place = scripted.cache / "models/toy" / PROTOCOL / "scripted/seed-0/selection.json"
    Scripted.log.clear()
    for alpha, (seen, unseen) in ((1.0, (8 / 12, 0)), (0.5, (1, 1))):  # 1: wrong about pseudo-unseen classes as well
        place.write_text(json.dumps(seal(json.loads(place.read_text()) | {"alpha": alpha})))
        folder = evaluate(scripted, PROTOCOL, "scripted", RUN, PARAMS)
        found = json.loads((folder / "seed-0/metrics.json").read_text())
        assert (found["gzsl"]["seen"], found["gzsl"]["unseen"]) == (seen, unseen)
        assert (found["zsl"]["top1"], found["zsl"]["n"], found["adapted"]) == (unseen, 24, None)
    whole = [(rows, classes) for rows, classes in asked("scores") if classes == list(range(16))]
    learnt = training_phase("final", scripted.split(PROTOCOL), scripted.clips).train  # gamma goes by their margins
    tested = [each for each in scripted.clips if each.part == "test"]
    assert set().union(*(rows for rows, _ in whole)) == rows_of(scripted, (*learnt, *tested))


TWO_UNSEEN = Split("p", ("a", "b", "c", "d", "e"), unseen=(1, 4), validation=(0, 2))


def test_answers_are_among_unseen_classes_and_rows_of_the_confusion_are_true_ones(tmp_path):
    """By hand: of three clips of the unseen classes b and e, the first is taken for b, since c is no candidate."""
    scores = np.array([[0, 0.3, 9, 0, 0.2], [9, 0.5, 0, 0, 0.1], [0, 9, 9, 0, 0], [0, 0.1, 0, 0, 0.2]])
    samples = SimpleNamespace(clip_ids=("w", "x", "seen", "y"))
    test = SimpleNamespace(labels=np.array([4, 1, 2, 4]), samples=samples, twins={"y": "tuple"})
    found = write_zsl(tmp_path, TWO_UNSEEN, test, scores)  # type: ignore[arg-type]
    assert (found["top1"], found["macro"], found["n"]) == (pytest.approx(2 / 3), 0.75, 3)
    assert (tmp_path / "confusion.csv").read_text().splitlines() == ["class,b,e", "b,1,0", "e,1,1"]
    assert (tmp_path / "predictions.csv").read_text().splitlines() == [
        "clip_id,label,predicted,tuple,rank,scores",
        "w,4,1,,2,1:0.3 4:0.2",
        "x,1,1,,1,1:0.5 4:0.1",
        "y,4,4,tuple,1,1:0.1 4:0.2",
    ]


def test_adapted_answers_are_counted_of_every_clip_though_equal_ones_are_asked_once(monkeypatch):
    """By hand: w and y are equal and taken for b, of which x is; so b has 1 of 1 and e 0 of 2."""
    told: list[object] = []

    def answer(adaptation, table, text, rows):
        told.append((text.tolist(), rows.tolist()))
        return torch.tensor([[0.3, 0.2], [0.5, 0.1]])

    shifted = SimpleNamespace(choices={"shift": (0.0, -2.5)}, shift=-2.5)
    monkeypatch.setattr(evaluation, "load_adaptation", lambda *_: shifted)
    monkeypatch.setattr(evaluation, "feature_table", lambda encoder, samples, *_, device: told.append(samples.clip_ids))
    monkeypatch.setattr(evaluation, "adapt_table", answer)
    x = torch.tensor([0.0, 1, 2, 0])[:, None, None, None, None].expand(4, 1, 1, 17, 2)
    samples = Samples(("w", "x", "seen", "y"), x, torch.ones(4, 1, 1, 17), torch.ones(4, 1, 1).bool())
    bank = SimpleNamespace(take=lambda classes, slots: torch.tensor(classes))
    opened = SimpleNamespace(
        run=SimpleNamespace(adapt="shifted"), split=TWO_UNSEEN, shapes=SimpleNamespace(anchors=()), bank=bank
    )
    test = SimpleNamespace(labels=np.array([4, 1, 2, 4]), samples=samples, twins={})
    found = adapted(opened, None, SimpleNamespace(text_slots=(), device="cpu"), test, {})  # type: ignore[arg-type]
    assert told == [("w", "x"), ([1, 4], [0, 1])]
    assert (found["top1"], found["macro"], found["n"]) == (pytest.approx(1 / 3), 0.5, 3)
    assert (found["by"], found["shift"]) == ("shifted", -2.5)


def test_gzsl_is_told_by_clips_and_by_classes_by_hand():
    """At gamma 1: of a one of two, of c one of one; of b one of one, of e one of two."""
    scores = np.zeros((6, 5))
    scores[[0, 2], [0, 2]] = 5  # of a, of c: right
    scores[1, [0, 1]] = 1.5, 1  # of a: said to be b
    scores[3, [0, 1]] = 2.5, 2  # of b: right
    scores[4, [0, 4]] = 5, 1  # of e: said to be a
    scores[5, 4] = 1  # of e: right
    labels = np.array([0, 0, 2, 1, 4, 4])
    found = gzsl(TWO_UNSEEN, scores, labels, 1.0)
    for suffix, value in (("", 2 / 3), ("_macro", 3 / 4)):
        assert [found[name + suffix] for name in ("seen", "unseen", "harmonic")] == pytest.approx([value] * 3), suffix
    assert found["gamma"] == 1.0
    assert gzsl(TWO_UNSEEN, scores[:3], labels[:3], 1.0) is gzsl(TWO_UNSEEN, scores[3:], labels[3:], 1.0) is None


class Multiplied(nn.Module):
    """An encoder of one product, [B, 2 * 8 * 17 * 3] by [816, 1000], and a method of one more, by [1000, classes]."""

    text_slots = ("one_line",)
    device = torch.device("cpu")

    def feature_map(self, x: Tensor, person: Tensor) -> Tensor:
        return x.flatten(1) @ torch.ones(816, 1000)

    def scores(self, features: Features, text: Tensor) -> Tensor:
        return features.skeleton @ torch.ones(1000, 500 * len(text))


def test_operations_are_those_of_one_clip_from_its_joints_to_its_scores_by_hand():
    """A multiply-add is two: 2 * 816 * 1000 + 2 * 1000 * 500 for the one unseen class of five."""
    three = Samples(tuple("abc"), torch.zeros(3, 2, 8, 17, 2), torch.ones(3, 2, 8, 17), torch.ones(3, 2, 8).bool())
    bank = SimpleNamespace(take=lambda classes, slots: torch.zeros(len(classes), len(slots), 1))
    opened = SimpleNamespace(shapes=SimpleNamespace(anchors=()), split=SPLIT, bank=bank)
    assert gflops(opened, Multiplied(), Multiplied(), three) == 0.0026  # type: ignore[arg-type]


def test_a_run_has_its_shapes_from_its_skeletons_its_cues_and_its_texts(tmp_path):
    world = make_world(tmp_path)
    refined, gt = world.readers["refined"], world.readers["gt"]
    space = FakeReader(replace(gt.recipe, layout="ntu25", dimensions=3), gt.clip_ids, gt.arrays)
    world = replace(world, readers={"refined": refined, "gt": space})
    opened = open_run(world, PROTOCOL, RunParams(skeletons="gt"))
    assert opened.shapes == Shapes(
        D_TEXT, space.recipe.persons, S, ANCHORS, D, layout="ntu25", inputs=4, cue_persons=refined.recipe.persons
    ), "text; persons, moments, anchors and width of cues; joints of three numbers and a score"
    assert opened.skeletons == "gt" and opened.fingerprints == (refined.fingerprint, space.fingerprint)
    blind = open_run(world, PROTOCOL, RunParams(method="skeleton", skeletons="gt"))
    assert blind.shapes == Shapes(D_TEXT, space.recipe.persons, layout="ntu25", inputs=4)
    assert blind.fingerprints == (space.fingerprint, space.fingerprint)


def test_runs_whose_skeletons_know_of_more_persons_than_their_cues_are_trained_and_tested(tmp_path):
    world = make_world(tmp_path, train=4, twins=2)
    gt = world.readers["gt"]
    two = {name: np.repeat(array, 2, axis=1) for name, array in gt.arrays.items()}
    two["person_valid"][::2, 1] = False  # alone in every other clip
    world.readers["gt"] = FakeReader(replace(gt.recipe, persons=2), gt.clip_ids, two)
    quick = replace(PARAMS, encode=replace(PARAMS.encode, epochs=1), train=replace(PARAMS.train, epochs=1))
    encoding.encode(world, PROTOCOL, "gt", quick.encode)
    own = {"encoder": "shift_gcn", "width": 4, "blocks": [1, 1], "cues": True, "cue_width": 16, "epochs": 1}
    small = {"width": 16, "heads": 2}
    for run in (RunParams(skeletons="gt", flags=small), RunParams(method="pgfa", skeletons="gt", flags=own)):
        train(world, PROTOCOL, run.method, run, quick)
        folder = evaluate(world, PROTOCOL, run.method, run, quick)
        assert json.loads((folder / "seed-0/metrics.json").read_text())["zsl"]["n"] == 2 * len(UNSEEN)


@pytest.mark.parametrize(
    ("folder", "kind"), [(result_folder, "results"), (model_folder, "models"), (encoder_folder, "encoders")]
)
def test_what_is_made_lies_by_data_set_protocol_and_run_and_nowhere_else(folder, kind):
    names = ["d", "p", "r"]
    assert folder(Path("c"), *names) == Path("c") / kind / "d/p/r"
    for place in range(3):
        with pytest.raises(PosebridgeError):
            folder(Path("c"), *names[:place], "../x", *names[place + 1 :])


def test_parameters_are_those_of_encoder_and_method_without_the_classifier_of_training():
    encoder = nn.ModuleDict({"classifier": nn.Linear(9, 9), "body": nn.Linear(2, 3)})
    assert count_parameters(encoder, nn.Linear(4, 1)) == 2 * 3 + 3 + 4 + 1


# ---- what params.yaml says is what trains: the loop is written down instead of run


def test_a_method_is_trained_on_all_views_and_scored_on_the_first(tmp_path, monkeypatch):
    world = make_world(tmp_path)
    opened = open_run(world, PROTOCOL, RunParams(flags={"width": 8, "heads": 2, "layers": 1}))
    phase = training_phase("final", opened.split, world.clips)
    asked, batch = [], FeatureTable.batch

    def fit(model, loss, rows, loop, **_):
        assert rows == len(phase.train)
        loss(torch.arange(rows), torch.Generator().manual_seed(0))
        model.eval()
        return Progress()

    monkeypatch.setattr(phases, "fit", fit)
    monkeypatch.setattr(FeatureTable, "batch", lambda table, *which: asked.append(which) or batch(table, *which))
    params = replace(PARAMS, train=replace(PARAMS.train, views=3))
    train_phase(opened, phase, opened.samples(phase.train), LightShiftGCN(17, 2, 8, (1,), 0.0, 3).eval(), params, 0, 1)
    (rows, views), *scored = asked
    assert sorted(rows.tolist()) == list(range(len(phase.train))) and set(views.tolist()) == {0, 1, 2}
    assert scored and all(len(which) == 1 for which in scored), "to fit the ridge, as they are"


def test_what_was_begun_on_other_weights_of_the_encoder_is_not_gone_on_with(tmp_path, monkeypatch):
    """Other ones of the same size, such as the same with another sign."""
    world, keys = make_world(tmp_path), []
    opened = open_run(world, PROTOCOL, RunParams(method="skeleton", flags={"width": 8, "heads": 2, "layers": 1}))
    phase = training_phase("final", opened.split, world.clips)
    encoder = LightShiftGCN(17, 2, 8, (1,), 0.0, 3).eval()
    note = lambda model, *_, fingerprint, **options: keys.append(fingerprint) or model.eval() and Progress()  # noqa: E731
    monkeypatch.setattr(phases, "fit", note)
    for sign in (1, 1, -1):
        with torch.no_grad():
            encoder.blocks[0].temporal.weight.mul_(sign)
        train_phase(opened, phase, opened.samples(phase.train), encoder, PARAMS, 0, 1)
    assert keys[0] == keys[1] != keys[2]


def test_an_encoder_is_trained_as_params_say_on_augmented_skeletons(tmp_path, monkeypatch):
    world = make_world(tmp_path)
    phase = training_phase("select", world.split(PROTOCOL), world.clips)
    samples = load_samples(ids(phase.train), world.reader("refined"))
    labels = label_rows(phase.train, samples.clip_ids, phase.classes)
    told = []

    def note(model, loss, rows, loop, **_):
        found = loss(torch.tensor([30, 0]), torch.Generator().manual_seed(5))
        x = normalise(samples.keypoints, samples.scores, samples.person_valid, samples.graph)[[30, 0]]
        x = augment(x, torch.Generator().manual_seed(5), samples.graph)
        scores = model(x, samples.person_valid.any(-1)[[30, 0]])
        told.append((rows, loop, found, F.cross_entropy(scores, labels[[30, 0]], label_smoothing=0.1)))
        return Progress()

    monkeypatch.setattr(encoding, "fit", note)
    params = EncodeParams(7, 5, lr=0.3, weight_decay=0.2, width=8, blocks=(1,), dropout=0.0, ema=0.8, **ROUGH)
    encoder, _ = train_encoder(samples, labels, len(phase.classes), params, 3)
    ((rows, loop, found, wanted),) = told
    assert (rows, loop) == (len(phase.train), Loop(7, 5, 0.3, 0.2, ema=0.8, seed=3, **ROUGH))
    torch.testing.assert_close(found, wanted)
    assert labels[30] != labels[0] and encoder.classifier.out_features == len(phase.classes)


def two_persons(world) -> Samples:
    """The train clips of the final phase, in every second one a person more: scores are .75, and those of this one .25.
    """
    phase = training_phase("final", world.split(PROTOCOL), world.clips)
    one = load_samples(ids(phase.train), world.reader("refined"))
    valid = one.person_valid.repeat(1, 2, 1)
    valid[::2, 1] = False
    scores = torch.full_like(one.scores, 0.75)
    return replace(
        one, keypoints=one.keypoints.repeat(1, 2, *[1] * (one.keypoints.ndim - 2)),
        scores=torch.cat([scores, scores / 3], 1), person_valid=valid,
    )  # fmt: skip


@pytest.mark.parametrize("swap", [True, False])
def test_an_encoder_sees_both_persons_in_either_place(tmp_path, monkeypatch, swap):
    samples, seen = two_persons(make_world(tmp_path)), []

    def note(model, loss, rows, loop, **_):
        monkeypatch.setattr(model, "forward", lambda x, person: seen.append((x, person)) or torch.zeros(len(x), 3))
        loss(torch.arange(rows), torch.Generator().manual_seed(5))
        return Progress()

    monkeypatch.setattr(encoding, "fit", note)
    params = EncodeParams(width=4, blocks=(1,), swap_persons=swap)
    train_encoder(samples, torch.zeros(len(samples), dtype=torch.int64), 3, params, 0)
    ((x, person),) = seen
    second = x[:, 0, ..., -1].amax((1, 2)) < 0.5
    assert torch.equal(person, samples.person_valid.any(-1)) and not second[::2].any(), "who is alone stays"
    share = float(second[1::2].float().mean())
    assert 0.2 < share < 0.8 if swap else share == 0


@pytest.mark.parametrize("swap", [True, False])
def test_persons_change_places_in_training_if_params_say_so(scripted, monkeypatch, swap):
    told, made = [], phases.feature_table
    note = lambda *given, **options: told.append(options["swap"]) or made(*given, **options)  # noqa: E731
    monkeypatch.setattr(phases, "feature_table", note)
    params = replace(PARAMS, train=TrainParams(1, swap_persons=swap))
    opened = open_run(scripted, PROTOCOL, RUN)
    phase = training_phase("final", opened.split, scripted.clips)
    train_phase(opened, phase, opened.samples(phase.train), Joints().eval(), params, 0, 1)
    assert told == [swap]


def test_a_value_that_is_better_by_chance_is_not_taken() -> None:
    """Of 80 clips, half of them right, the standard error is .056."""
    assert clearly_best([0.5, 0.55, 0.52], 80) == 0 and clearly_best([0.5, 0.56, 0.6], 80) == 2
    assert clearly_best([0.5, 0.55], 8000) == 1, "which many clips do tell"
    assert clearly_best([0.0, 0.0], 80) == 0 and clearly_best([0.0, 0.01], 80) == 1
