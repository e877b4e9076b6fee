"""The price of each leak: by how much our own figures would rise with the mistakes of released evaluations.

An experiment, and the only place besides the tests where a score sees a test label: nothing else imports this file.
Reads trained runs and their test sets as `evaluate` does, writes cache/leaks/<dataset>/<protocol>/<run>.csv. A leak is
applied to a run as it is trained; only the best epoch on test and whitening need other trainings.
Command: posebridge bench leaks --dataset skelgap --protocol compositional_30_10 --run purls
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.files.tables import write_table
from pipeline.learn.dataset import Dataset
from pipeline.learn.evaluate import open_test
from pipeline.learn.feature_table import Table, feature_table
from pipeline.learn.loop import OnEpoch, Progress, ignore
from pipeline.learn.run import Opened, open_listed
from pipeline.learn.score import adapt_table, calibrated_gamma, score_table
from pipeline.learn.seeds import each_seed
from pipeline.learn.select import PhaseModel
from pipeline.learn.train import train_phase
from pipeline.learn.trained import load_adaptation, load_method, skeleton_encoder
from pipeline.methods.adaptation import Adaptation
from pipeline.methods.base import Features, Method
from pipeline.methods.prototypes import whitening
from pipeline.methods.purls import Purls
from pipeline.methods.skeletoncontext import SkeletonContext
from pipeline.params import Params, RunParams
from pipeline.protocol.gzsl import Stacking, harmonic
from pipeline.protocol.heldout import heldout_clips
from pipeline.protocol.metrics import confusion_matrix, micro
from pipeline.protocol.training_set import training_phase

BATCH = 64


@dataclass(frozen=True)
class Tested:
    """A trained run before its test set, with the labels that no score may see."""

    opened: Opened
    method: Method  # in eval mode, with its chosen values
    gamma: float
    epochs: int  # of its training, as the selection phase chose
    adaptation: Adaptation | None
    table: Table  # of the distinct inputs, as evaluation scores them
    place: Tensor  # [N] int64, where each clip's own is among them
    labels: np.ndarray  # [N] class indices

    @property
    def unseen(self) -> list[int]:
        """The unseen classes."""
        return list(self.opened.split.unseen)

    def text(self, classes: list[int]) -> Tensor:
        """[len(classes), K, d_t]."""
        return self.opened.bank.take(classes, self.method.text_slots)

    @property
    def rows(self) -> Tensor:
        """Rows of the clips of unseen classes, [n]."""
        return torch.from_numpy(np.flatnonzero(np.isin(self.labels, self.unseen)))

    @property
    def truth(self) -> np.ndarray:
        """Their labels as columns of `unseen`, [n]."""
        return np.searchsorted(self.unseen, self.labels[self.rows])

    def right(self, method: Method | None = None) -> np.ndarray:
        """Which of them are recognised among the unseen classes, [n] bool."""
        distinct, where = self.place[self.rows].unique(return_inverse=True)
        scores = score_table(method or self.method, self.table, self.text(self.unseen), distinct)[where]
        return scores.argmax(1).numpy() == self.truth

    def batches(self, order: Tensor | None = None) -> Iterator[tuple[Features, Tensor]]:
        """Their features and columns, 64 clips at a time, in the order of the file or in this one, [n]."""
        order = torch.arange(len(self.truth)) if order is None else order
        for part in order.split(BATCH):
            yield self.table.batch(self.place[self.rows[part]]), torch.from_numpy(self.truth)[part]


def open_tested(opened: Opened, protocol: str, run_name: str, seed: int) -> Tested:
    """One seed of a trained run. Raises PosebridgeError as evaluation does."""
    test = open_test(opened, "")
    method, selection = load_method(opened, protocol, run_name, seed)
    adapt = opened.run.adapt
    adaptation = load_adaptation(adapt, method, selection) if adapt else None
    distinct, place = test.samples.unique()
    encoder = skeleton_encoder(opened, seed, "final")
    table = feature_table(encoder, distinct, opened.shapes.anchors)
    gamma = calibrated_gamma(opened, encoder, method, selection)
    return Tested(opened, method, gamma, selection["epochs"], adaptation, table, place, test.labels)


# clean figures


def top1(t: Tested) -> float:
    """ZSL top-1, as `evaluate` reports it."""
    return float(t.right().mean())


def harmonic_mean(t: Tested) -> float:
    """GZSL's H at the gamma of the selection phase."""
    return harmonic(*_stacking(t).accuracies(t.gamma))


def adapted_top1(t: Tested) -> float:
    """ZSL top-1 after the run's adaptation, with the values of the selection phase."""
    assert t.adaptation is not None
    distinct, where = t.place[t.rows].unique(return_inverse=True)
    scores = adapt_table(t.adaptation, t.table, t.text(t.unseen), distinct)[where]
    return float((scores.argmax(1).numpy() == t.truth).mean())


def _stacking(t: Tested) -> Stacking:
    split = t.opened.split
    everybody = list(range(len(split.class_names)))
    scores = score_table(t.method, t.table, t.text(everybody), torch.arange(len(t.table.samples)))[t.place]
    return Stacking.of(scores.numpy(), t.labels, np.isin(everybody, split.seen))


# the same figures, each with one mistake


@torch.no_grad()
def pooled_by_the_true_class(t: Tested) -> float:
    """PURLS, DynaPURLS: a clip is pooled by its own class's descriptions, and so compared with every candidate."""
    assert isinstance(t.method, Purls)
    text, hits = t.text(t.unseen), 0
    for features, truth in t.batches():
        kept = t.method.keep(features, text)  # [B, U, d_t]
        own = kept[torch.arange(len(truth)), truth][:, None]
        hits += int((t.method.compare(own, text).argmax(1) == truth).sum())
    return hits / len(t.truth)


@torch.no_grad()
def right_if_either_branch_is(t: Tested) -> float:
    """Neuron, whose protocol SkeletonContext follows: two answers for a clip, one of which has to be right."""
    assert isinstance(t.method, SkeletonContext)
    text, hits = t.text(t.unseen), 0
    for features, truth in t.batches():
        answers = [t.method.compare(x, text).argmax(1) for x in t.method.branches(features)]
        hits += int(((answers[0] == truth) | (answers[1] == truth)).sum())
    return hits / len(t.truth)


@torch.no_grad()
def scored_in_train_mode(t: Tested) -> float:
    """DynaPURLS: dropout, and batch norm by the statistics of test batches."""
    method, text = copy.deepcopy(t.method).train(), t.text(t.unseen)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        order = torch.randperm(len(t.rows))
        hits = [(method.scores(features, text).argmax(1) == truth) for features, truth in t.batches(order)]
    return float(torch.cat(hits).float().mean())


def centred_on_every_class(t: Tested) -> float:
    """Text centred on the mean of all classes, unseen ones included, and whitened by them where the method does so."""
    method = copy.deepcopy(t.method)
    method.see_text(t.text(list(range(len(t.opened.split.class_names)))))
    return float(t.right(method).mean())


def values_chosen_on_test(t: Tested) -> float:
    """SMIE and others: the method's own values by unseen test accuracy."""
    method = copy.deepcopy(t.method)
    return max(float(t.right(method).mean()) for _ in over_the_grid(method))


def over_the_grid(one: Method | Adaptation) -> Iterator[None]:
    """Set its values to every combination of its choices, one after another."""
    for values in product(*one.choices.values()):
        for name, value in zip(one.choices, values, strict=True):
            setattr(one, name, value)
        yield


def gamma_chosen_on_test(t: Tested) -> float:
    """Neuron, STAR: the GZSL calibration by test accuracy."""
    stacking = _stacking(t)
    return harmonic(*stacking.accuracies(stacking.best_gamma()))


def adaptation_chosen_on_test(t: Tested) -> float:
    """PGFA's alpha, Skeleton-Cache's grid: the values of the adaptation by unseen test accuracy."""
    adaptation = copy.copy(t.adaptation)
    assert adaptation is not None
    return max(adapted_top1(replace(t, adaptation=adaptation)) for _ in over_the_grid(adaptation))


def second_pass_over_the_test_set(t: Tested) -> float:
    """Skeleton-Cache: what an online adaptation says when it has seen every clip already, counted as its figure."""
    assert t.adaptation is not None
    distinct, where = t.place[t.rows].unique(return_inverse=True)
    order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(0))
    parts = distinct[order].split(t.adaptation.batch_size)
    twice = t.adaptation.scores(t.table.batches([*parts, *parts]), t.text(t.unseen)).detach()[len(order) :]
    scores = torch.empty_like(twice).index_copy_(0, order, twice)[where]
    return float((scores.argmax(1).numpy() == t.truth).mean())


def right_if_the_label_is_within_the_answer(t: Tested) -> float:
    """SkeletonLLM: an answer is right where the name of the true class is a part of it."""
    names = [t.opened.split.class_names[c].lower() for c in t.unseen]
    distinct, where = t.place[t.rows].unique(return_inverse=True)
    said = score_table(t.method, t.table, t.text(t.unseen), distinct)[where].argmax(1).tolist()
    return float(np.mean([names[true] in names[answer] for true, answer in zip(t.truth, said, strict=True)]))


def better_row_quoted(t: Tested) -> float:
    """SKI-VLM: of several rows, here with the adaptation and without, the one that tests better."""
    return max(top1(t), adapted_top1(t))


def mean_of_batch_means(t: Tested) -> float:
    """SMIE, PGFA: a short last batch counts as much as a full one."""
    return float(np.mean([part.mean() for part in np.split(t.right(), range(BATCH, len(t.truth), BATCH))]))


FIGURES: dict[str, Callable[[Tested], float]] = {
    "top-1": top1,
    "H": harmonic_mean,
    "adapted top-1": adapted_top1,
}


@dataclass(frozen=True)
class Leak:
    """A mistake, the figure that it raises, and whom it can befall."""

    leaky: Callable[[Tested], float]
    figure: str = "top-1"
    suits: Callable[[Tested], bool] = lambda t: True

    @property
    def name(self) -> str:
        """In words."""
        return self.leaky.__name__.replace("_", " ")


LEAKS = (
    Leak(
        pooled_by_the_true_class, suits=lambda t: isinstance(t.method, Purls) and t.method.flags.partition != "static"
    ),
    Leak(right_if_either_branch_is, suits=lambda t: isinstance(t.method, SkeletonContext)),
    Leak(scored_in_train_mode),
    Leak(centred_on_every_class, suits=lambda t: bool(t.method.centre.any())),
    Leak(values_chosen_on_test, suits=lambda t: bool(t.method.choices)),
    Leak(gamma_chosen_on_test, "H"),
    Leak(adaptation_chosen_on_test, "adapted top-1", lambda t: bool(t.adaptation and t.adaptation.choices)),
    Leak(second_pass_over_the_test_set, "adapted top-1", lambda t: bool(t.adaptation and t.adaptation.online)),
    Leak(right_if_the_label_is_within_the_answer),
    Leak(better_row_quoted, suits=lambda t: bool(t.adaptation)),
    Leak(mean_of_batch_means),
)


def price_run(
    dataset: Dataset, protocol: str, run_name: str, run: RunParams, params: Params, on_epoch: OnEpoch = ignore,
    jobs: int = 1,
) -> Path:  # fmt: skip
    """Measure every leak on every seed of a trained run, `jobs` at a time. Returns the table
    `seed,leak,figure,clean,leaky`.

    Raises PosebridgeError as evaluation does, for one that is not trained.
    """
    work = partial(price_seed, open_listed(dataset, protocol, run), protocol, run_name, params)
    rows = [row for found in each_seed(work, params.seeds(run), jobs, on_epoch) for row in found]
    path = dataset.cache / "leaks" / dataset.name / protocol / f"{run_name}.csv"
    return write_table(path, list(rows[0]), (row.values() for row in rows))


def price_seed(
    opened: Opened, protocol: str, run_name: str, params: Params, seed: int, on_epoch: OnEpoch
) -> list[dict[str, object]]:
    """The rows of one seed."""
    tested = open_tested(opened, protocol, run_name, seed)
    trained_anew = [
        measure(opened, seed, tested.epochs, params, partial(on_epoch, f"seed {seed}"))
        for measure in (price_of_the_best_epoch, price_of_whitening)
    ]
    return [{"seed": seed} | row for row in (*prices(tested), *trained_anew)]


def prices(t: Tested) -> list[dict[str, object]]:
    """What every leak that can befall the run adds to it: rows `leak,figure,clean,leaky`, fractions 0..1."""
    return [
        {"leak": leak.name, "figure": leak.figure, "clean": FIGURES[leak.figure](t), "leaky": leak.leaky(t)}
        for leak in LEAKS
        if leak.suits(t)
    ]


def price_of_the_best_epoch(
    opened: Opened, seed: int, epochs: int, params: Params, on_epoch: Callable[[Progress], None] = ignore
) -> dict[str, object]:
    """Most released code: of all epochs, the one of the best unseen test accuracy. Trains the final phase once more.

    `epochs` is what the selection phase chose; the clean figure is that of this epoch in the same training. What a
    method estimates after its training (`finish`) is in neither figure.
    """
    judge = judge_on_test(opened, seed)
    _, progress = train_final(opened, seed, params, None, judge, on_epoch)
    clean, leaky = progress.scores[epochs - 1], max(progress.scores)
    return {"leak": "epoch chosen on test", "figure": "top-1", "clean": clean, "leaky": leaky}


def price_of_whitening(
    opened: Opened, seed: int, epochs: int, params: Params, on_epoch: Callable[[Progress], None] = ignore
) -> dict[str, object]:
    """Text whitened by the mean and covariance of all classes, unseen ones included; the clean figure is that of text
    whitened by the classes trained on. Trains the final phase with each, for `epochs`.
    """
    judge, figures = judge_on_test(opened, seed), []
    for classes in (opened.split.seen, range(len(opened.split.class_names))):
        bank = replace(opened.bank, embeddings=whitened(opened.bank.embeddings, opened.bank.mask, classes))
        model, _ = train_final(replace(opened, bank=bank), seed, params, epochs, None, on_epoch)
        figures.append(judge(model))
    return {"leak": "text whitened over every class", "figure": "top-1", "clean": figures[0], "leaky": figures[1]}


def whitened(text: Tensor, mask: Tensor, classes: Sequence[int]) -> Tensor:
    """Text [C, K, d_t] whitened by the descriptions of `classes`, L2-normalised, 0 outside `mask` [C, K].

    The covariance is drawn to a multiple of the identity by a tenth: descriptions are fewer than dimensions.
    """
    own = text[list(classes)][mask[list(classes)]].double()  # [n, d_t]
    white = (text.double() - own.mean(0)) @ whitening(own - own.mean(0), 0.1 / 0.9)
    return F.normalize(white, dim=-1).float() * mask[..., None]


def judge_on_test(opened: Opened, seed: int) -> Callable[[PhaseModel], float]:
    """Top-1 of a model among the unseen classes, on their test clips: what no training may know."""
    test, unseen = heldout_clips(opened.split, opened.dataset.clips), list(opened.split.unseen)
    encoder = skeleton_encoder(opened, seed, "final")
    table = feature_table(encoder, opened.samples(test.unseen), opened.shapes.anchors)

    def judge(model: PhaseModel) -> float:
        scores, labels = replace(model, table=table).scores(test.unseen, unseen)
        return micro(confusion_matrix(labels, scores.argmax(1), len(unseen)))

    return judge


def train_final(
    opened: Opened, seed: int, params: Params, epochs: int | None, judge: Callable[[PhaseModel], float] | None,
    on_epoch: Callable[[Progress], None],
) -> tuple[PhaseModel, Progress]:  # fmt: skip
    """The final phase as `train` has it, but judged after every epoch where `judge` is given."""
    phase = training_phase("final", opened.split, opened.dataset.clips)
    encoder = skeleton_encoder(opened, seed, "final")
    return train_phase(
        opened, phase, opened.samples(phase.train), encoder, params, seed, epochs, judge=judge, on_epoch=on_epoch
    )
