"""Which half of an answer is right: the motion, the object, or both; see protocol/halves.py. Pure.

A class of a controlled benchmark is a motion with an object. Of a run that is shown cues only, the motion's share above
that of the largest motion group tells how much posture its cues carry; of a skeleton-only run the object's share tells
the same of the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import pandas as pd

from pipeline.protocol.halves import macro_of
from pipeline.protocol.metrics import binomial_interval
from pipeline.protocol.spread import spread_of
from pipeline.report.leaderboard import NONE, between, percent, points, share
from pipeline.report.results import Result
from pipeline.report.runs import Run


@dataclass(frozen=True)
class Parts:
    """One run over the clips of one protocol, or of several; fractions, means over seeds.

    By column of attributes.csv: `right` answers among all, `values` (value -> right answers, clips) of those that a
    macro mean is taken of. `twins`: right answers, answers expected by chance, clips; `twins_ci95` their interval.
    """

    right: dict[str, float]
    values: dict[str, dict[str, tuple[float, int]]]
    twins: tuple[float, float, int]
    twins_ci95: tuple[float, float]

    @property
    def cells(self) -> dict[str, str]:
        """Title -> printable cell."""
        found = {}
        for column, right in self.right.items():
            macro = macro_of(self.values[column])
            found[f"{column} right"] = share(right)
            found[f"{column}, macro"] = NONE if macro is None else f"{share(macro)} (of {len(self.values[column])})"
        right, chance, clips = self.twins
        if clips:
            found["twins"] = share(right / clips)
            found["twins, 95 % interval"] = between(self.twins_ci95)
            found["twins, chance"] = share(chance / clips)
        return found


def parts_of(runs: Sequence[Run]) -> Parts | None:
    """Of one run on protocols of one data set. None where a seed was tested by an earlier version, without attributes,
    or by others than the rest.
    """
    told = [result.halves for run in runs for result in run.results]
    if not all(told) or any(list(halves or {}) != list(told[0] or {}) for halves in told):
        return None
    if any(_counted(result) != _counted(run.first) for run in runs for result in run.results):
        return None
    columns = list(runs[0].first.halves or {})
    right = dict.fromkeys(columns, 0.0)
    values: dict[str, dict[str, tuple[float, int]]] = {column: {} for column in columns}
    hits = chance = 0.0
    clips, everyone = 0, sum(run.first.test_clips for run in runs)
    for run in runs:
        for result in run.results:
            for column, half in (result.halves or {}).items():
                right[column] += half["right"] * run.first.test_clips / everyone / len(run.results)
        first = run.first
        for column, half in (first.halves or {}).items():
            for value, (_, n) in half["values"].items():
                seeds = [(result.halves or {})[column]["values"][value][0] for result in run.results]
                before, clips_before = values[column].get(value, (0.0, 0))
                values[column][value] = before + sum(seeds) / len(seeds), clips_before + n
        if first.twins:
            n = first.twins["n"]
            hits += n * spread_of([result.twins["right"] for result in run.results if result.twins]).mean
            chance += n * first.twins["chance"]
            clips += n
    ci95 = binomial_interval(round(hits), clips)
    if clips and any(run.twin_hits_max is not None for run in runs):  # answers hang together: as each seed tells
        ci95 = _together([run for run in runs if run.first.twins], hits, clips)
    return Parts(right, values, (hits, chance, clips), ci95)


def _together(runs: Sequence[Run], hits: float, clips: int) -> tuple[float, float]:
    """The interval of all `clips`, `hits` of which are right, from those that the seeds of each run tell; of several
    protocols as if they were independent.
    """
    below = above = 0.0
    for run in runs:
        told = [result.twins for result in run.results if result.twins]
        share_of_all = told[0]["n"] / clips
        right = fmean(each["right"] for each in told)
        below += (share_of_all * (right - fmean(each["ci95"][0] for each in told))) ** 2
        above += (share_of_all * (fmean(each["ci95"][1] for each in told) - right)) ** 2
    return hits / clips - below**0.5, hits / clips + above**0.5


def _counted(result: Result) -> dict[str, dict[str, int]]:
    """By column, how many clips there are of each value."""
    halves = result.halves or {}
    return {column: {value: n for value, (_, n) in half["values"].items()} for column, half in halves.items()}


def table(found: Sequence[tuple[Run, Parts]]) -> pd.DataFrame:
    """Printable, a row a run."""
    rows = []
    for run, parts in found:
        top1, ceilings = run.spread("zsl", "top1"), run.first.ceilings
        rows.append({
            "run": run.first.run,
            "shown": _shown(run),
            "both": percent(top1),
            **parts.cells,
            "above the cue-only ceiling": points(top1.mean - ceilings[1] if top1 and ceilings else None),
        })  # fmt: skip
    return pd.DataFrame(rows).fillna(NONE)


def _shown(run: Run) -> str:
    if not run.takes_cues:
        return "skeletons"
    return "cues" if run.first.flags.get("skeleton") is False else "both"
