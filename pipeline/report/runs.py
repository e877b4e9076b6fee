"""Runs: the results of a run's seeds on one protocol, put together.

Reads what results.py reads, and confusion.csv beside it. Writes nothing.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.errors import PosebridgeError, reason_of
from pipeline.files.tables import open_table
from pipeline.methods import METHODS, takes_cues
from pipeline.params import BEFORE, EncodeParams, TrainParams
from pipeline.protocol.metrics import binomial_interval, tuple_interval
from pipeline.protocol.spread import Spread, spread_of
from pipeline.report.results import AGAIN, MOST_CLIPS, Result, read_results

# Two results are seeds of one run only if all of this is equal. The device is not among it: seeds of equal settings may
# be averaged, whatever they were computed on, and each metrics.json names that.
SETTINGS = (
    "method", "flags", "recipe", "text", "hpe_text", "skeletons", "test_variant", "ceilings", "adapted_by",
    "training_dataset", "boxes", "cues_from",
)  # fmt: skip

# What a result had that does not tell it, since it was trained before there was the value.
UNTOLD = {"encode": asdict(EncodeParams()) | BEFORE["encode"], "train": asdict(TrainParams()) | BEFORE["train"]}


@dataclass(frozen=True)
class Run:
    """The seeds of one named run on one protocol, at least one."""

    results: tuple[Result, ...]

    @property
    def first(self) -> Result:
        """The lowest seed; its settings are those of all."""
        return self.results[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(result.seed for result in self.results)

    @property
    def single(self) -> bool:
        """A single run has no spread, and every table says so."""
        return len(self.results) == 1

    def spread(self, section: str, key: str) -> Spread | None:
        """Mean and std of e.g. ("zsl", "top1") over the seeds that tell it; None where none does."""
        sections = [found for result in self.results if (found := getattr(result, section))]
        values = [value for found in sections if (value := found.get(key)) is not None]
        return spread_of(values) if values else None

    def mean(self, name: str) -> float | None:
        """Mean of a cost (`params`, `gflops`, `seconds`) over the seeds that state it."""
        values = [value for result in self.results if (value := getattr(result, name)) is not None]
        return statistics.fmean(values) if values else None

    @property
    def training_seconds(self) -> float | None:
        """Mean seconds of one seed's training, both phases: CPU time of all threads, on a GPU wall time; None where no
        seed states it.
        """
        values = [seconds for result in self.results if (seconds := result.selection.get("seconds")) is not None]
        return statistics.fmean(values) if values else None

    @property
    def phase_one(self) -> float | None:
        """Mean area under the seen-unseen curve of the selection phase, by which that chose epochs and values; where no
        class had a clip to spare, zero-shot top-1 on its pseudo-unseen classes. None where a seed tells neither.
        """
        told = [result.selection.get("gzsl_ausuc", result.selection.get("zsl_top1")) for result in self.results]
        values = [figure for figure in told if figure is not None]
        return statistics.fmean(values) if len(values) == len(told) else None

    @property
    def above_ceiling(self) -> float | None:
        """Mean zero-shot top-1 minus the skeleton-only ceiling, a fraction; None where no ceiling is known."""
        top1 = self.spread("zsl", "top1")
        return top1.mean - self.first.ceiling["skeleton"] if self.first.ceiling and top1 else None

    @property
    def twin_hits_max(self) -> int | None:
        """The most twins of one tuple that any seed got right."""
        hits = [result.ceiling.get("twin_hits_max") for result in self.results if result.ceiling]
        return max((hit for hit in hits if hit is not None), default=None)

    def most(self, name: str) -> int | None:
        """The most of `missing` or `repeated` test clips of any seed; None where no seed knows."""
        return max((count for result in self.results if (count := getattr(result, name)) is not None), default=None)

    @property
    def classes_without_clips(self) -> tuple[str, ...]:
        """Names of the classes whose test clips all failed, for any seed."""
        return tuple(dict.fromkeys(name for result in self.results for name in result.classes_without_clips))

    @property
    def text_sha256(self) -> str:
        """Of the descriptions and the weights of their encoder; empty where no seed tells it."""
        return next((result.text_sha256 for result in self.results if result.text_sha256), "")

    def ci95(self, section: str = "zsl") -> tuple[float, float] | None:
        """The 95 % interval of the mean top-1 of `zsl` or `adapted`: how far a test set of n clips can mislead. The
        exact binomial one, or, with twins, that of a bootstrap over their tuples (of `adapted`, the mean of the
        seeds'). All seeds answer the same clips, so their number makes it no narrower.
        """
        top1, n = self.spread(section, "top1"), self.first.zsl["n"]
        if top1 is None:
            return None
        if self.twin_hits_max is not None and section == "zsl" and (right := self.right()):
            return tuple_interval(*right)
        if self.twin_hits_max is not None:
            told = [found["ci95"] for result in self.results if (found := getattr(result, section)) and "ci95" in found]
            if told:
                return statistics.fmean(low for low, _ in told), statistics.fmean(high for _, high in told)
        return binomial_interval(round(top1.mean * n), n)

    def right(self, of: Mapping[int, str] | None = None) -> tuple[np.ndarray, list[str]] | None:
        """How many seeds are right on each test clip, as a share [N], and its tuple, or what its class is `of`; None
        without equal answers.
        """
        answers = [result.answers for result in self.results]
        first = answers[0]
        if len(first) != self.first.zsl["n"] or not all(each.index.equals(first.index) for each in answers):
            return None
        right = np.mean([each.predicted == each.label for each in answers], axis=0)
        alone = first.tuple.where(first.tuple != "", first.index.to_series())
        return right, (first.label.map(of).fillna(alone) if of else alone).to_list()

    @property
    def takes_cues(self) -> bool:
        """Whether the method is shown cues; without them it is a skeleton-only one. Unknown methods are taken to be."""
        return self.first.method not in METHODS or takes_cues(self.first.method, self.first.flags)

    @property
    def leakage(self) -> tuple[float, float, float] | None:
        """HPE leakage: by how much a skeleton-only run on *estimated* skeletons passes the ceiling.

        (excess of the mean, low, high), fractions; the interval is that of `ci95`. None otherwise.
        """
        excess, ceiling, bounds = self.above_ceiling, self.first.ceiling, self.ci95()
        if self.takes_cues or self.first.skeletons == "gt" or excess is None or not ceiling or not bounds:
            return None
        return excess, bounds[0] - ceiling["skeleton"], bounds[1] - ceiling["skeleton"]


def read_runs(folder: Path) -> tuple[list[Run], list[str]]:
    """All runs below `cache/results`, the best mean zero-shot top-1 first within a protocol, and references last.

    Also one sentence for each file that was left out.
    """
    results, complaints = read_results(folder)
    found: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
    for result in results:
        seeds = found[result.dataset, result.protocol, result.run]
        if seeds and (other := _differing(result, seeds[0])):
            what, again = other
            complaints.append(f"{result.folder / 'metrics.json'} was made with another {what} than seed "
                              f"{seeds[0].seed} of the same run; run {again} for all seeds.")  # fmt: skip
        else:
            seeds.append(result)
    runs = [Run(tuple(sorted(seeds, key=lambda result: result.seed))) for seeds in found.values()]
    runs.sort(key=lambda run: (run.first.dataset, run.first.protocol, run.first.reference, -_top1(run), run.first.run))
    return runs, complaints


def read_confusion(run: Run) -> pd.DataFrame | None:
    """Zero-shot confusion summed over the seeds: counts [U, U] by class name (rows true, columns predicted).

    None where a seed has no confusion.csv. Raises PosebridgeError if one is not a square table of counts, or is of
    other classes than the first.
    """
    paths = [result.folder / "confusion.csv" for result in run.results]
    if not all(map(Path.is_file, paths)):
        return None
    total, *others = map(_read_counts, paths)
    for path, counts in zip(paths[1:], others, strict=True):
        if list(counts) != list(total):
            raise PosebridgeError(f"{path} is of other classes than {paths[0]}; {AGAIN}.")
        total += counts
    return total


def _read_counts(path: Path) -> pd.DataFrame:
    try:
        table = open_table(path, ("class",), missing="run `posebridge evaluate` again")
        names = [name for name in table.columns if name != "class"]
        rows = {row.needed("class"): [row.whole(name, 0, MOST_CLIPS) for name in names] for row in table}
        counts = pd.DataFrame.from_dict(rows, "index", columns=names)
    except PosebridgeError as error:
        why = reason_of(error, path)
        raise PosebridgeError(f"{path} is not a square table of counts ({why}); {AGAIN}.") from None
    if list(counts.index) != names or counts.empty or counts.isna().any(axis=None):
        raise PosebridgeError(f"{path} is not a square table of counts; {AGAIN}.")
    return counts


def chosen_before_test(runs: Iterable[Run]) -> list[Run]:
    """The run of each protocol whose `phase_one` is best, of equal ones the first by name, so that nobody need choose a
    row by the test: of those on estimated skeletons, no variant and no reference; by itself among imported features,
    whose encoder knows the pseudo-unseen classes. No run of a protocol where there is nothing to choose from.
    """
    groups: dict[tuple[str, str, bool], list[tuple[float, Run]]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.first.run):
        first, figure = run.first, run.phase_one
        if figure is not None and first.skeletons != "gt" and not first.reference and not first.test_variant:
            groups[first.dataset, first.protocol, first.skeletons == "imported"].append((figure, run))
    return [max(group, key=lambda told: told[0])[1] for group in groups.values() if len(group) > 1]


def group_by_protocol(runs: Iterable[Run]) -> dict[tuple[str, str], list[Run]]:
    """(dataset, protocol) -> its runs, in the order given."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.first.dataset, run.first.protocol].append(run)
    return dict(groups)


def _top1(run: Run) -> float:
    return statistics.fmean(result.zsl["top1"] for result in run.results)


def _has_encoder(result: Result) -> bool:
    """Whether a skeleton encoder of `encode` is below its method. Unknown methods are taken to have one."""
    own = result.method in METHODS and METHODS[result.method].reads == "joints"
    return result.skeletons != "imported" and not own


EVALUATE, TRAIN = "`posebridge evaluate`", "`posebridge train` and `evaluate`"
ENCODE = "`posebridge encode`, `train` and `evaluate`"


def _differing(result: Result, other: Result) -> tuple[str, str] | None:
    """What two results are no seeds of one run for, and the commands that make them so. What they have learnt from and
    been asked by counts where both tell; how they were trained must be known of both. A value that was not there yet
    when one was trained is that of UNTOLD.
    """
    for name in SETTINGS:
        if getattr(result, name) != getattr(other, name):
            return name, EVALUATE
    if result.test_clips != other.test_clips:
        return "number of test clips", EVALUATE
    if _unlike(result.text_sha256, other.text_sha256):
        return "set of descriptions", TRAIN
    if _unlike(result.selection.get("trained_on"), other.selection.get("trained_on")):
        return "set of train clips, descriptions or extractions", ENCODE
    ours, theirs = result.trained, other.trained
    if not ours or not theirs:
        which = "one of the two" if ours or theirs else "neither"
        return f"params.yaml, for all we know ({which} can be read),", EVALUATE
    for section in sorted(ours.keys() & theirs.keys()):
        if section == "encode" and not _has_encoder(result):
            continue  # whatever the parameters say by now, it was trained by none of it
        if UNTOLD[section] | ours[section] | {"seeds": None} != UNTOLD[section] | theirs[section] | {"seeds": None}:
            return f"section `{section}` of params.yaml", ENCODE
    return None


def _unlike(one: str | None, other: str | None) -> bool:
    """Whether two hashes differ, as far as both are told."""
    return bool(one and other and one != other)
