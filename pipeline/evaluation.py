"""Testing a trained run on unseen classes (ZSL) and on all classes (GZSL). Nothing is chosen here.

Reads extractions, the final encoder and method of each seed, the protocol's test set and, where there are any, the
twins; writes
cache/results/<dataset>/<protocol>/<run>/seed-<k>/{metrics.json,confusion.csv,predictions.csv,params.yaml} (and
twins.csv). Command: posebridge evaluate --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
"""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pipeline.dataset import Dataset, label_rows
from pipeline.encoding import feature_table, load_encoder
from pipeline.features import Samples
from pipeline.methods.base import Method
from pipeline.params import Params, RunParams
from pipeline.phases import load_method, score_table
from pipeline.protocol.ceiling import ceilings, read_twins, twin_hits
from pipeline.protocol.guards import require_eval_mode, require_seen_centre
from pipeline.protocol.gzsl import Stacking, harmonic
from pipeline.protocol.metrics import binomial_interval, confusion_matrix, macro, micro
from pipeline.protocol.splits import Split
from pipeline.protocol.test_set import test_set
from pipeline.runs import Opened, open_run, write_resolved
from pipeline.skeleton.shift_gcn import ShiftGCN


def evaluate(
    dataset: Dataset,
    protocol: str,
    run_name: str,
    run: RunParams,
    params: Params,
    on_seed: Callable[[int], None] | None = None,
) -> Path:
    """Test every seed of `run` on `protocol`; returns the folder of results.

    metrics.json: accuracies are fractions, `seconds` is the wall time of scoring the test set, `gflops` that of one
    clip (encoder and method, two operations to a multiply-add), `params` both together, `missing` the test clips
    whose extraction failed.
    """
    opened = open_run(dataset, protocol, run)
    test = test_set(opened.split, dataset.clips)
    clips = (*test.unseen, *test.seen)
    samples = opened.samples(clips)
    folder = result_folder(dataset.cache, dataset.name, protocol, run_name)
    for seed in params.encode.seeds:
        encoder = load_encoder(dataset, protocol, opened.skeletons, seed, "final")
        method, selection = load_method(opened, protocol, run_name, seed)
        started = time.perf_counter()
        scores = score_clips(opened, encoder, method, samples)  # [N, C]
        seconds = time.perf_counter() - started
        labels = label_rows(clips, samples.clip_ids, range(len(dataset.class_names))).numpy()
        place = folder / f"seed-{seed}"
        place.mkdir(parents=True, exist_ok=True)
        zsl, ceiling = None, None
        if opened.split.unseen:
            zsl = write_zsl(place, opened.split, samples.clip_ids, scores, labels)
            ceiling = write_ceiling(place, opened, samples.clip_ids, scores, labels)
        metrics = {
            "dataset": dataset.name,
            "protocol": protocol,
            "run": run_name,
            "method": run.method,
            "flags": run.flags,
            "seed": seed,
            "recipe": run.recipe,
            "text": opened.bank.encoder,
            "hpe_text": opened.hpe_text,
            "skeletons": run.skeletons,
            "test_variant": run.test_variant,
            "zsl": zsl,
            "gzsl": gzsl(opened.split, scores, labels, selection["gamma"]),
            "adapted": None,  # no method here adapts at test time
            "selection": selection,
            "ceiling": ceiling,
            "params": count_parameters(encoder, method),
            "gflops": gflops(opened, encoder, method, samples),
            "seconds": round(seconds, 3),
            "missing": len(clips) - len(samples),
        }
        (place / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
        write_resolved(place / "params.yaml", dataset.name, protocol, run_name, run, params, seed)
        if on_seed is not None:
            on_seed(seed)
    return folder


def score_clips(
    opened: Opened, encoder: ShiftGCN, method: Method, samples: Samples, text: Tensor | None = None
) -> np.ndarray:
    """Scores of all classes, or of those that `text` [C, K, d_t] describes, for every clip: float32 [N, C].

    Neither a label nor another clip has a say in a row. Each distinct input is scored once, so that equal inputs
    (twins, to whom sees true skeletons only) score equally in every bit.
    """
    require_eval_mode(encoder)
    require_seen_text(opened, method)
    distinct, where = samples.unique()
    table = feature_table(encoder, distinct, opened.shapes.anchors)
    if text is None:
        text = opened.bank.take(range(len(opened.split.class_names)), method.text_slots)
    return score_table(method, table, text, torch.arange(len(distinct)))[where].numpy()


def require_seen_text(opened: Opened, method: Method) -> None:
    """Text may be centred on the seen classes' mean only."""
    if method.centre.any():
        require_seen_centre(method.centre, method.describe(opened.bank.take(opened.split.seen, method.text_slots)))


def write_zsl(
    place: Path, split: Split, clip_ids: Sequence[str], scores: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """Accuracy among the unseen classes, with confusion.csv (rows: true) and predictions.csv."""
    unseen = list(split.unseen)
    rows = np.flatnonzero(np.isin(labels, unseen))
    inside = scores[rows][:, unseen]
    truth = np.searchsorted(unseen, labels[rows])
    predicted = inside.argmax(1)
    confusion = confusion_matrix(truth, predicted, len(unseen))
    with (place / "confusion.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["class", *(split.class_names[c] for c in unseen)])
        for c, counts in zip(unseen, confusion.tolist(), strict=True):
            writer.writerow([split.class_names[c], *counts])
    with (place / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["clip_id", "label", "predicted", "scores"])
        for row, true, said, values in zip(rows.tolist(), truth, predicted, inside, strict=True):
            pairs = " ".join(f"{c}:{value:.9g}" for c, value in zip(unseen, values, strict=True))
            writer.writerow([clip_ids[row], unseen[true], unseen[said], pairs])
    hits, n = int(np.trace(confusion)), int(confusion.sum())
    return {"top1": micro(confusion), "macro": macro(confusion), "n": n, "ci95": list(binomial_interval(hits, n))}


def gzsl(split: Split, scores: np.ndarray, labels: np.ndarray, gamma: float) -> dict[str, float] | None:
    """S, U, H at the gamma of the selection phase, and the area under the curve, micro and macro; None without both
    kinds of clips.
    """
    seen = np.isin(np.arange(scores.shape[1]), split.seen)
    if not (seen[labels].any() and (~seen[labels]).any()):
        return None
    found: dict[str, float] = {"gamma": gamma}
    for suffix, by_class in (("", False), ("_macro", True)):
        stacking = Stacking.of(scores, labels, seen, macro=by_class)
        s, u = stacking.accuracies(gamma)
        found |= {
            f"seen{suffix}": s,
            f"unseen{suffix}": u,
            f"harmonic{suffix}": harmonic(s, u),
            f"ausuc{suffix}": stacking.ausuc(),
        }
    return found


def write_ceiling(
    place: Path, opened: Opened, clip_ids: Sequence[str], scores: np.ndarray, labels: np.ndarray
) -> dict[str, float | int] | None:
    """What skeleton alone and object alone could reach, and the hits per tuple of twins among the unseen clips
    (twins.csv); None without attributes.
    """
    attributes = opened.dataset.folder / "attributes.csv"
    if not attributes.is_file():
        return None
    unseen = list(opened.split.unseen)
    counts = Counter(int(label) for label in labels if label in unseen)
    found: dict[str, float | int] = dict(ceilings(attributes, unseen, counts))
    path = opened.dataset.cache / "videos" / opened.dataset.name / "twins.csv"
    if path.is_file():
        truth = {c: int(label) for c, label in zip(clip_ids, labels, strict=True) if label in unseen}
        said = {c: unseen[int(row[unseen].argmax())] for c, row in zip(clip_ids, scores, strict=True)}
        hits = twin_hits(read_twins(path), {c: said[c] for c in truth}, truth)
        with (place / "twins.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["tuple", "hits"])
            writer.writerows(hits.items())
        found |= {"twin_hits_max": max(hits.values(), default=0), "twin_tuples": len(hits)}
    return found


def count_parameters(*models: torch.nn.Module) -> int:
    """Trained numbers of the encoder (without its training classifier) and the method."""
    return sum(
        p.numel() for model in models for name, p in model.named_parameters() if not name.startswith("classifier")
    )


@torch.no_grad()
def gflops(opened: Opened, encoder: ShiftGCN, method: Method, samples: Samples) -> float:
    """Billions of floating-point operations for one clip, from its keypoints and cues to its scores."""
    one = samples.take([0])
    text = opened.bank.take(opened.split.unseen or opened.split.seen, method.text_slots)
    with FlopCounterMode(display=False) as counter:
        table = feature_table(encoder, one, opened.shapes.anchors)
        method.scores(table.batch(torch.arange(1)), text)
    return round(counter.get_total_flops() / 1e9, 4)


def result_folder(cache: Path, dataset: str, protocol: str, run: str) -> Path:
    """Where the results of a run lie."""
    return cache / "results" / dataset / protocol / run
