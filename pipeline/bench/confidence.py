"""How far the shares of `predict` can be believed: on test clips, of which nothing was learnt.

Two limits in learn/confidence.py were set while such figures were before us; they are told there.

Each clip is asked about among so many labels with its own action, and among as many without it. Reads a trained run's
extraction and final models; writes nothing, and nothing is chosen by it.
    posebridge bench confidence --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from pipeline.errors import PosebridgeError
from pipeline.learn.confidence import SCOPES, Confidence, questions, read_confidence
from pipeline.learn.dataset import Dataset, label_rows
from pipeline.learn.feature_table import feature_table
from pipeline.learn.run import Opened, open_listed
from pipeline.learn.score import score_table
from pipeline.learn.train import bare_text
from pipeline.learn.trained import load_method, skeleton_encoder
from pipeline.params import RunParams
from pipeline.protocol.heldout import heldout_clips

LABELS = (2, 3, 5, 10)  # that a clip is asked about at a time
BINS = 10


@dataclass(frozen=True)
class Believed:
    """Of one scope (see learn/confidence.py) and so many `labels`, means over seeds: how often the best label is right
    where the action is among them; the expected calibration error of the answers' shares, by the softmax of the
    training and as `predict` tells them, over both kinds of questions; how many of the clips without their action were
    `told`, and how many with it were `lost` to none of these, None where that is no answer in any seed.
    """

    scope: str
    labels: int
    clips: int
    accuracy: float
    ece_before: float
    ece: float
    told: float | None
    lost: float | None


def bench_confidence(
    dataset: Dataset, protocol: str, run_name: str, run: RunParams, seeds: Sequence[int]
) -> list[Believed]:
    """Measure every seed. Raises PosebridgeError where one was trained before shares were calibrated, or on too few
    clips for it.
    """
    opened = open_listed(dataset, protocol, run.of(protocol))
    found: dict[tuple[str, int], list[Believed]] = {}
    for seed in seeds:
        for each in measure_seed(opened, protocol, run_name, seed):
            found.setdefault((each.scope, each.labels), []).append(each)
    if not found:
        raise PosebridgeError(
            f"No shares of the run {run_name!r} are calibrated: it was trained before they were, or its selection "
            "phase has too few clips; run `posebridge train` again."
        )
    return [mean_of(parts) for parts in found.values()]


def measure_seed(opened: Opened, protocol: str, run_name: str, seed: int) -> Iterator[Believed]:
    """The figures of one seed."""
    split, classes = opened.split, range(len(opened.split.class_names))
    test = heldout_clips(split, opened.dataset.clips)
    samples = opened.samples((*test.unseen, *test.seen))
    labels = label_rows((*test.unseen, *test.seen), samples.clip_ids, classes).numpy()
    method, selection = load_method(opened, protocol, run_name, seed)
    table = feature_table(skeleton_encoder(opened, seed, "final"), samples, opened.shapes.anchors)
    bare = bare_text(opened, len(method.text_slots))
    texts = {"classes": opened.bank.take(classes, method.text_slots), "labels": bare and bare(classes)}
    for scope in SCOPES:
        confidence, text = read_confidence(selection, scope), texts["labels" if scope == "labels" else "classes"]
        if confidence is None or text is None:
            continue
        own = np.array(split.seen if scope == "classes" else split.unseen)
        rows = np.flatnonzero(np.isin(labels, own))
        if not len(rows):
            continue
        scores = score_table(method, table, text[own.tolist()], torch.from_numpy(rows)).numpy()
        for count in LABELS:
            if count < len(own):
                asked = list(questions(scores, np.searchsorted(own, labels[rows]), (count,)))
                yield believed(scope, count, asked, confidence, method.temperature)


def believed(
    scope: str, count: int, asked: Sequence[tuple[np.ndarray, bool]], confidence: Confidence, temperature: float
) -> Believed:
    """The figures of questions, as `questions` asks them: first those with the own label in the first column."""
    (known, _), (unknown, _) = asked
    plain = Confidence(temperature, None, 0, 0, 0.0, 0.0)
    right = known.argmax(1) == 0
    shares = [confidence.shares(part) for part in (known, unknown)]
    none = [part[1] > 0.5 for part in shares]
    said = [np.where(rejected, rest, labels.max(1)) for rejected, (labels, rest) in zip(none, shares, strict=True)]
    before = [plain.shares(part)[0].max(1) for part in (known, unknown)]
    tells = confidence.none is not None
    return Believed(
        scope,
        count,
        len(known),
        float(right.mean()),
        calibration_error(np.concatenate(before), np.concatenate([right, np.zeros(len(unknown), bool)])),
        calibration_error(np.concatenate(said), np.concatenate([right & ~none[0], none[1]])),
        float(none[1].mean()) if tells else None,
        float(none[0].mean()) if tells else None,
    )


def calibration_error(shares: np.ndarray, right: np.ndarray) -> float:
    """The expected calibration error [N]: how far shares and hits are apart, over ten bins, weighted by their clips."""
    bins = np.minimum((shares * BINS).astype(int), BINS - 1)
    gaps = [abs(shares[bins == b].sum() - right[bins == b].sum()) for b in range(BINS)]
    return float(sum(gaps) / len(shares))


def mean_of(parts: Sequence[Believed]) -> Believed:
    """Over seeds; of those that tell none of these where not all do."""

    def mean(name: str) -> float | None:
        values = [value for part in parts if (value := asdict(part)[name]) is not None]
        return round(sum(values) / len(values), 4) if values else None

    figures = {name: mean(name) for name in ("accuracy", "ece_before", "ece", "told", "lost")}
    return Believed(parts[0].scope, parts[0].labels, parts[0].clips, **figures)  # type: ignore[arg-type]
