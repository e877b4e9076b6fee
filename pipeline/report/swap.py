"""The counterfactual swap: what an answer hangs on.

Twins are clips equal in everything but the held object: the answer should change from one to the other. A variant such
as `background` is the same clip with only that changed: the answer should stay. Reads predictions.csv beside
metrics.json; writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from pipeline.protocol.metrics import tuple_interval
from pipeline.report.runs import Run


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


def twin_swap(run: Run) -> TwinSwap | None:
    """How a run answers when only the held object changes; None where it has no twins."""
    answers = [twins(result.answers).reset_index() for result in run.results]
    pairs = pd.concat([one.merge(one, on="tuple", suffixes=("", "_then")) for one in answers])
    pairs = pairs[pairs.clip_id != pairs.clip_id_then]
    if pairs.empty:
        return None
    changes = pairs.predicted != pairs.predicted_then
    return TwinSwap(
        rate(changes, pairs.tuple), rate(changes & (pairs.predicted_then == pairs.label_then), pairs.tuple)
    )


def variant_swap(run: Run, variant: Run) -> Rate | None:
    """How often a run answers otherwise on a variant of the same clip, on the same seed; None without such clips."""
    theirs = {result.seed: result for result in variant.results}
    both = [
        result.answers.join(theirs[result.seed].answers, how="inner", rsuffix="_then").reset_index()
        for result in run.results
        if result.seed in theirs
    ]
    pairs = pd.concat(both) if both else pd.DataFrame()
    if pairs.empty:
        return None
    return rate(pairs.predicted != pairs.predicted_then, pairs.tuple.where(pairs.tuple != "", pairs.clip_id))


def twins(answers: pd.DataFrame) -> pd.DataFrame:
    """The answers of which a tuple has two or more, in the order of the tuples' names and of the clips'."""
    shared = answers[(answers.tuple != "") & answers.tuple.duplicated(keep=False)]
    return shared.sort_index().sort_values("tuple", kind="stable")


def rate(hits: pd.Series, groups: pd.Series) -> Rate:
    """The share of True, with an interval over tuples, since comparisons within a tuple hang together."""
    low, high = tuple_interval(hits.to_numpy(float), groups)
    return Rate(float(hits.mean()), low, high, len(hits), groups.nunique())
