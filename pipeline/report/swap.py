"""The counterfactual swap: what an answer hangs on.

Twins are clips equal in everything but the held object: the answer should change from one to the other. A variant such
as `background` is the same clip with only that changed: the answer should stay. Reads predictions.csv beside
metrics.json; writes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.files.tables import Row, open_table
from pipeline.manifest.clips import MOST_CLASSES
from pipeline.protocol.metrics import binomial_interval
from pipeline.report.results import Result, Run

DRAWS = 2000  # of the bootstrap


@dataclass(frozen=True)
class Answer:
    """What a run said of one unseen test clip. `tuple_id` is shared by twins, empty for a clip without."""

    label: int
    predicted: int
    tuple_id: str


@dataclass(frozen=True)
class Rate:
    """A share of `n` comparisons in `groups` tuples of twins, over all seeds, with a 95 % interval."""

    value: float
    low: float
    high: float
    n: int
    groups: int


@dataclass(frozen=True)
class TwinSwap:
    """Going from one twin to another, in both directions: the answer changes; it changes and is right then."""

    changes: Rate
    to_right: Rate


def read_answers(result: Result) -> dict[str, Answer]:
    """clip_id -> answer, of one seed; empty where it left no predictions.csv.

    Raises PosebridgeError for a file of another form.
    """
    path = result.folder / "predictions.csv"
    if not path.is_file():
        return {}
    try:
        return {
            row.raw("clip_id"): Answer(_index(row, "label"), _index(row, "predicted"), row.raw("tuple"))
            for row in open_table(path, ("clip_id", "label", "predicted", "tuple"))
        }
    except PosebridgeError as error:
        why = str(error).removeprefix(str(path)).strip(" .,:")
        raise PosebridgeError(f"{path} is not as `posebridge evaluate` writes it ({why}); run it again.") from None


def _index(row: Row, column: str) -> int:
    row.needed(column)
    return int(row.whole(column, 0, MOST_CLASSES) or 0)


def answers_of(result: Result) -> dict[str, Answer]:
    """As `read_answers`; empty for a file of another form, which the report names once."""
    try:
        return read_answers(result)
    except PosebridgeError:
        return {}


def twin_swap(run: Run) -> TwinSwap | None:
    """How a run answers when only the held object changes; None where it has no twins."""
    changes: dict[str, list[bool]] = defaultdict(list)
    to_right: dict[str, list[bool]] = defaultdict(list)
    for result in run.results:
        for name, members in tuples(answers_of(result)).items():
            for before, after in permutations(members.values(), 2):
                changed = before.predicted != after.predicted
                changes[name].append(changed)
                to_right[name].append(changed and after.predicted == after.label)
    return TwinSwap(rate(changes), rate(to_right)) if changes else None


def variant_swap(run: Run, variant: Run) -> Rate | None:
    """How often a run answers otherwise on a variant of the same clip, on the same seed; None without such clips."""
    theirs = {result.seed: result for result in variant.results}
    changes: dict[str, list[bool]] = defaultdict(list)
    for result in run.results:
        if result.seed in theirs:
            others = answers_of(theirs[result.seed])
            for clip_id, answer in answers_of(result).items():
                if clip_id in others:
                    changes[answer.tuple_id or clip_id].append(answer.predicted != others[clip_id].predicted)
    return rate(changes) if changes else None


def tuples(answers: Mapping[str, Answer]) -> dict[str, dict[str, Answer]]:
    """Name of a tuple -> clip_id -> answer, of the tuples with two twins or more; both in the order of their names."""
    found: dict[str, dict[str, Answer]] = defaultdict(dict)
    for clip_id in sorted(answers):
        found[answers[clip_id].tuple_id][clip_id] = answers[clip_id]
    return {name: found[name] for name in sorted(found) if name and len(found[name]) > 1}


def rate(groups: Mapping[str, Sequence[bool]]) -> Rate:
    """The share of True, with a percentile bootstrap over groups, since comparisons within a tuple hang together.

    Where all comparisons agree the bootstrap knows no spread; there every group counts as one trial of the exact
    binomial interval.
    """
    hits = np.array([sum(group) for group in groups.values()], float)
    counts = np.array([len(group) for group in groups.values()], float)
    total, n = float(hits.sum()), int(counts.sum())
    if total in (0, n):
        low, high = binomial_interval(len(hits) if total else 0, len(hits))
    else:
        rows = np.random.default_rng(0).integers(len(hits), size=(DRAWS, len(hits)))
        low, high = np.quantile(hits[rows].sum(1) / counts[rows].sum(1), (0.025, 0.975)).tolist()
    return Rate(total / n, low, high, n, len(hits))
