"""Testing a trained run on unseen classes (ZSL) and on all classes (GZSL). Nothing is chosen here.

Reads extractions, the final encoder and method of each seed, the protocol's test set and, where there are any, the
twins; writes
cache/results/<dataset>/<protocol>/<run>/seed-<k>/{metrics.json,confusion.csv,predictions.csv,params.yaml} (and
twins.csv, and what glimpse.py writes); on a variant of the test clips, the same under <run>@<variant>.
Command: posebridge evaluate --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.cache.index import index_path
from pipeline.errors import PosebridgeError
from pipeline.files.device import CPU, memory_for, name_of
from pipeline.files.durable import write_for_people, writing
from pipeline.files.hashing import fingerprint
from pipeline.files.names import check_name
from pipeline.files.tables import write_table
from pipeline.learn.across import under
from pipeline.learn.cells import Cell
from pipeline.learn.dataset import Dataset, label_rows
from pipeline.learn.feature_table import Encoder, feature_table
from pipeline.learn.features import Samples, StoredSamples
from pipeline.learn.glimpse import write_curve, write_glimpse
from pipeline.learn.needs import Needs, need_parts, need_split
from pipeline.learn.preflight import need_ceiling, need_encoders, need_methods, need_run
from pipeline.learn.run import Opened, skeletons_of, write_resolved
from pipeline.learn.score import adapt_table, calibrated_gamma, score_clips
from pipeline.learn.trained import load_adaptation, load_method, skeleton_encoder, take_settings
from pipeline.manifest.clips import Clip
from pipeline.manifest.variants import of_variant
from pipeline.methods.base import Method
from pipeline.params import Params, RunParams
from pipeline.protocol.ceiling import ceilings, columns_of, read_attributes, read_twins, twin_hits
from pipeline.protocol.duplicates import noted_duplicates
from pipeline.protocol.gzsl import Stacking, harmonic
from pipeline.protocol.halves import halves, twins
from pipeline.protocol.heldout import heldout_clips
from pipeline.protocol.metrics import among_best, confusion_matrix, macro, micro, ranks, tuple_interval
from pipeline.protocol.splits import Split


def evaluate(
    dataset: Dataset,
    protocol: str,
    run_name: str,
    run: RunParams,
    params: Params,
    on_seed: Callable[[int], None] | None = None,
    variant: str = "",
    device: torch.device = CPU,
    seeds: Sequence[int] = (),
) -> Path:
    """Test every seed of `run`, or those given, on `protocol`, or on a variant of its test clips; returns the folder of
    results.

    A variant is tested by the models and with the values of the run as it is. metrics.json: accuracies are fractions,
    `seconds` is the wall time of scoring the test set, `gflops` that of one clip (encoder and method, two operations
    to a multiply-add), `params` both together, `missing` the test clips whose extraction failed, `repeated` those that
    repeat a train clip, `classes_without_clips` the names of the classes whose test clips all failed, `halves` and
    `twins` are those of protocol/halves.py, `device` where the others were scored, `text_sha256` of the descriptions
    and the weights of their encoder.
    Raises PosebridgeError, before anything is computed, with all that is missing.
    """
    run, seeds = run.of(protocol), seeds or params.seeds(run)
    opened = require_for_testing(dataset, protocol, run_name, run, seeds, (variant,))
    test = open_test(opened, variant)
    name = of_variant(run_name, variant)
    folder = result_folder(dataset.cache, dataset.name, protocol, name)
    for seed in seeds:
        encoder = skeleton_encoder(opened, seed, "final")
        method, selection = load_method(opened, protocol, run_name, seed)
        settings, place = take_settings(selection), folder / f"seed-{seed}"
        selection.pop("confidence", None)  # no figure of ours rests on it: it is for `predict`
        if (before := place / "metrics.json").is_file():
            with writing(before):  # whoever is killed leaves no mixture of two tests
                before.unlink()
        which = {"dataset": dataset.name, "protocol": protocol, "run": name, "seed": seed, "test_variant": variant}
        with memory_for(f"{name}, seed {seed}"):
            metrics = which | evaluate_seed(opened, test, encoder.to(device), method.to(device), selection, place)
            if not variant and seed == min(params.seeds(run)):
                extracted = set(test.samples.clip_ids)
                shown = [clip for clip in test.clips if clip.clip_id in extracted]
                write_glimpse(place, opened, encoder, method, shown)
        metrics["device"] = name_of(device)
        write_resolved(place / "params.yaml", dataset.name, protocol, run_name, run, params, settings, seed, variant)
        write_for_people(place / "metrics.json", json.dumps(metrics, indent=1).encode() + b"\n")
        if on_seed is not None:
            on_seed(seed)
    return folder


def evaluate_cell(dataset: Dataset, cell: Cell, params: Params, device: torch.device) -> Path:
    """`evaluate` for one seed, anywhere; see learn/cells.py."""
    run = params.runs[cell.name]
    return evaluate(dataset, cell.protocol, cell.name, run, params, None, cell.variant, device, (cell.seed,))


def require_for_testing(
    dataset: Dataset, protocol: str, run_name: str, run: RunParams, seeds: Sequence[int], variants: Sequence[str]
) -> Opened:
    """What a run reads, opened. Raises PosebridgeError with all that testing these seeds on these variants will lack.
    """
    run = run.of(protocol)
    dataset = under(dataset, protocol).of(skeletons_of(run))
    needs = Needs(dataset.missing)
    split = need_split(needs, dataset, protocol)
    need_parts(needs, dataset, split, "test", skeletons_of(run))
    opened = need_run(needs, dataset, protocol, run, split, variants)
    need_ceiling(needs, dataset, split)
    need_encoders(needs, dataset, split, protocol, run, seeds, ("final",))
    need_methods(needs, opened, dataset, protocol, run_name, run, seeds)
    needs.require()
    assert opened is not None, "what it lacks has been told"
    return opened


@dataclass(frozen=True)
class OpenedTest:
    """The test clips of a run, or of a variant of them, with their features."""

    clips: tuple[Clip, ...]
    samples: Samples | StoredSamples  # of those whose extraction succeeded
    labels: np.ndarray  # [N] of the samples, class indices
    all_seen: bool  # every test clip of the seen classes is among them
    twins: Mapping[str, str]  # clip_id -> name of its tuple, of the unseen classes' clips that have one
    repeated: int | None  # how many repeat a train clip, as far as `extract` noted; None where nobody has looked


def open_test(opened: Opened, variant: str) -> OpenedTest:
    """Open the test set. Raises PosebridgeError naming the command that makes what is missing."""
    dataset = opened.dataset
    test = heldout_clips(opened.split, dataset.clips)
    clips = (*test.unseen, *test.seen)
    if variant:
        clips = opened.clips_of(variant, clips)
    samples = opened.samples(clips, variant)
    labels = label_rows(clips, samples.clip_ids, range(len(dataset.class_names))).numpy()
    if opened.split.unseen and not np.isin(labels, opened.split.unseen).any():
        recipe = of_variant(opened.skeletons, variant)
        raise PosebridgeError(
            f"The extraction {recipe} holds no test clip of a class that is unseen in {opened.split.protocol}, so "
            "there is nothing to count; run `posebridge extract` with --retry-failed, or make a variant of such clips."
        )
    twins = read_twins(dataset.twins) if dataset.twins.is_file() else {}
    pairs = noted_duplicates(index_path(dataset.cache, dataset.name, opened.skeletons), dataset.clips)
    of_unseen = {clip.clip_id for clip in clips if clip.label in opened.split.unseen}
    return OpenedTest(
        clips,
        samples,
        labels,
        all_seen=len(clips) - len(of_unseen) == len(test.seen),
        twins={clip_id: name for clip_id, name in twins.items() if clip_id in of_unseen},
        repeated=None if pairs is None else len({clip.clip_id for clip in clips} & {pair.test for pair in pairs}),
    )


def evaluate_seed(
    opened: Opened, test: OpenedTest, encoder: Encoder, method: Method, selection: dict[str, Any], place: Path
) -> dict[str, Any]:
    """The figures of one seed for metrics.json; writes the tables beside it."""
    started = time.perf_counter()
    scores = score_clips(opened, encoder, method, test.samples)  # [N, C]
    seconds = time.perf_counter() - started
    zsl, ceiling, both_halves = None, None, {}
    if opened.split.unseen:
        zsl = write_zsl(place, opened.split, test, scores)
        ceiling = write_ceiling(place, opened, test, scores)
        both_halves = half_right(opened, test, scores)
    # without all clips of the seen classes, S and gamma's effect would be those of other classes
    both = None
    if test.all_seen and has_both(opened.split, test.labels):
        both = gzsl(opened.split, scores, test.labels, calibrated_gamma(opened, encoder, method, selection), place)
    return {
        "method": opened.run.method,
        "flags": opened.run.flags,
        "recipe": opened.run.recipe,
        "text": opened.bank.encoder,
        "text_sha256": fingerprint(opened.bank.encoder_sha256, opened.bank.texts_sha256),
        "hpe_text": opened.hpe_text,
        "cues_from": opened.cues_from,
        "web_data": opened.web_data,
        "skeletons": "imported" if opened.imported else opened.run.skeletons,
        "boxes": opened.boxes,
        "box_iou": opened.box_overlap,
        "features": "imported" if opened.imported or opened.cues_imported else "computed",
        "zsl": zsl,
        "gzsl": both,
        "adapted": adapted(opened, encoder, method, test, selection),
        "selection": selection,
        "ceiling": ceiling,
        "halves": both_halves.get("halves"),
        "twins": both_halves.get("twins"),
        "params": count_parameters(encoder, method),
        "gflops": gflops(opened, encoder, method, test.samples),
        "seconds": round(seconds, 3),
        "missing": len(test.clips) - len(test.samples),
        "repeated": test.repeated,
        "classes_without_clips": classes_without_clips(test, opened.split.class_names),
        **opened.dataset.told,
    }


def classes_without_clips(test: OpenedTest, class_names: Sequence[str]) -> list[str]:
    """Names of the classes whose test clips have all failed, in class order. They stay candidates, and no figure counts
    them.
    """
    listed = {clip.label for clip in test.clips if clip.label is not None}
    return [class_names[label] for label in sorted(listed - set(test.labels.tolist()))]


def write_zsl(place: Path, split: Split, test: OpenedTest, scores: np.ndarray) -> dict[str, Any]:
    """Accuracy among the unseen classes, with confusion.csv (rows: true) and predictions.csv.

    `tuple` of predictions.csv names the clips that are twins of one another, and is empty elsewhere; `rank` is the
    place of the true class, from 1.
    """
    unseen = list(split.unseen)
    rows = np.flatnonzero(np.isin(test.labels, unseen))
    inside = scores[np.ix_(rows, np.array(unseen))]
    truth = np.searchsorted(unseen, test.labels[rows])
    predicted = inside.argmax(1)
    confusion = confusion_matrix(truth, predicted, len(unseen))
    counted = zip(unseen, confusion.tolist(), strict=True)
    names = [split.class_names[c] for c in unseen]
    write_table(place / "confusion.csv", ["class", *names], ([split.class_names[c], *counts] for c, counts in counted))

    def answers() -> Iterator[list[Any]]:
        places = ranks(inside, truth) + 1
        for row, true, said, place_of_true, values in zip(rows.tolist(), truth, predicted, places, inside, strict=True):
            pairs = " ".join(f"{c}:{value:.9g}" for c, value in zip(unseen, values, strict=True))
            clip_id = test.samples.clip_ids[row]
            yield [clip_id, unseen[true], unseen[said], test.twins.get(clip_id, ""), int(place_of_true), pairs]

    write_table(place / "predictions.csv", ["clip_id", "label", "predicted", "tuple", "rank", "scores"], answers())
    return accuracy(confusion, among_best(inside, truth), interval(test, rows, predicted == truth))


def accuracy(confusion: np.ndarray, top5: float | None, ci95: tuple[float, float]) -> dict[str, Any]:
    """Top-1 over clips and over classes, with the 95 % interval of the former."""
    n = int(confusion.sum())
    return {"top1": micro(confusion), "top5": top5, "macro": macro(confusion), "n": n, "ci95": list(ci95)}


def interval(test: OpenedTest, rows: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the share of `right` [n] answers to the clips in these rows [n], twins taken as such."""
    return tuple_interval(right, tuples(test, rows))


def tuples(test: OpenedTest, rows: np.ndarray) -> list[Hashable]:
    """What the answers to the clips in these rows [n] hang together by: a clip without twins stands alone."""
    ids = [test.samples.clip_ids[row] for row in rows.tolist()]
    return [test.twins.get(clip_id, (clip_id,)) for clip_id in ids]


def adapted(
    opened: Opened, encoder: Encoder, method: Method, test: OpenedTest, selection: dict[str, Any]
) -> dict[str, Any] | None:
    """Accuracy among the unseen classes after the run's adaptation at test time; None for a run without one.

    All clips of the unseen classes are adapted to together, equal ones once. `by` names the adaptation; its values are
    those of the selection phase.
    """
    name, unseen = opened.run.adapt, list(opened.split.unseen)
    if not (name and unseen):
        return None
    started = time.perf_counter()
    adaptation = load_adaptation(name, method, selection)
    rows = np.flatnonzero(np.isin(test.labels, unseen))
    distinct, where = test.samples.only(rows.tolist()).unique()
    table = feature_table(encoder, distinct, opened.shapes.anchors, device=method.device)
    text = opened.bank.take(unseen, method.text_slots)
    scores = adapt_table(adaptation, table, text, torch.arange(len(distinct)))[where].numpy()
    truth = np.searchsorted(unseen, test.labels[rows])
    said = scores.argmax(1)
    confusion, ci95 = confusion_matrix(truth, said, len(unseen)), interval(test, rows, said == truth)
    found = accuracy(confusion, among_best(scores, truth), ci95)
    values = {attribute: getattr(adaptation, attribute) for attribute in adaptation.choices}
    return found | {"by": name, **values, "seconds": round(time.perf_counter() - started, 3)}


def has_both(split: Split, labels: np.ndarray) -> bool:
    """Whether there are clips of seen and of unseen classes."""
    return bool(np.isin(labels, split.seen).any() and np.isin(labels, split.unseen).any())


def gzsl(
    split: Split, scores: np.ndarray, labels: np.ndarray, gamma: float, place: Path | None = None
) -> dict[str, float] | None:
    """S, U, H at the gamma that the selection phase leads to, and the area under the curve, micro and macro; None
    without both kinds of clips. The curve itself, over clips, is left in `place`. `harmonic_best` is the highest H on
    it, and no result: nothing is chosen by it, it tells what calibration has lost.
    """
    if not has_both(split, labels):
        return None
    seen = np.isin(np.arange(scores.shape[1]), split.seen)
    found: dict[str, float] = {"gamma": gamma}
    for suffix, by_class in (("", False), ("_macro", True)):
        stacking = Stacking.of(scores, labels, seen, macro=by_class)
        s, u = stacking.accuracies(gamma)
        if place is not None and not by_class:
            write_curve(place, stacking)
        found |= {
            f"seen{suffix}": s,
            f"unseen{suffix}": u,
            f"harmonic{suffix}": harmonic(s, u),
            f"harmonic_best{suffix}": stacking.best_harmonic(),
            f"ausuc{suffix}": stacking.ausuc(),
        }
    return found


def write_ceiling(
    place: Path, opened: Opened, test: OpenedTest, scores: np.ndarray
) -> dict[str, float | int] | None:
    """What skeleton alone and object alone could reach, and the hits per tuple of twins among the unseen clips
    (twins.csv); None without attributes, and for real people.
    """
    attributes = opened.dataset.folder / "attributes.csv"
    if not attributes.is_file():
        return None
    unseen = list(opened.split.unseen)
    counts = Counter(int(label) for label in test.labels if label in unseen)
    found: dict[str, float | int] = dict(ceilings(attributes, unseen, counts))
    if not found:
        return None
    if test.twins:
        clip_ids = test.samples.clip_ids
        predicted = {c: unseen[int(row[unseen].argmax())] for c, row in zip(clip_ids, scores, strict=True)}
        labels = {c: int(label) for c, label in zip(clip_ids, test.labels, strict=True)}
        hits = twin_hits(test.twins, predicted, labels)
        write_table(place / "twins.csv", ["tuple", "hits"], hits.items())
        found |= {"twin_hits_max": max(hits.values(), default=0), "twin_tuples": len(hits)}
    return found


def half_right(opened: Opened, test: OpenedTest, scores: np.ndarray) -> dict[str, Any]:
    """`halves` and `twins` of protocol/halves.py, of the unseen classes' clips; empty without attributes."""
    path = opened.dataset.folder / "attributes.csv"
    if not path.is_file():
        return {}
    unseen, known = np.array(opened.split.unseen), read_attributes(path)
    rows = np.flatnonzero(np.isin(test.labels, unseen))
    labels, inside = test.labels[rows], scores[np.ix_(rows, unseen)]
    return {
        "halves": halves(columns_of(path), known, labels, unseen[inside.argmax(1)]),
        "twins": twins(known, unseen.tolist(), labels, inside, tuples(test, rows)),
    }


def count_parameters(*models: torch.nn.Module) -> int:
    """Trained numbers of the encoder (without its training classifier) and the method."""
    return sum(
        p.numel() for model in models for name, p in model.named_parameters() if not name.startswith("classifier")
    )


@torch.no_grad()
def gflops(opened: Opened, encoder: Encoder, method: Method, samples: Samples | StoredSamples) -> float:
    """Billions of floating-point operations for one clip, from its keypoints and cues to its scores."""
    one = samples.take([0])
    text = opened.bank.take(opened.split.unseen or opened.split.seen, method.text_slots).to(method.device)
    # held_bytes: the batch is what the encoder makes anew
    table = feature_table(encoder, one, opened.shapes.anchors, held_bytes=0, device=method.device)
    with FlopCounterMode(display=False) as counter:
        method.scores(table.batch(torch.arange(1)), text)
    return round(counter.get_total_flops() / 1e9, 4)


def result_folder(cache: Path, dataset: str, protocol: str, run: str) -> Path:
    """Where the results of a run lie."""
    check_name(run, "run")
    return cache / "results" / check_name(dataset, "data set") / check_name(protocol, "protocol") / run
