"""The price of each leak, as `posebridge bench leaks` measured it: what a mistake of evaluation would have added.

Reads cache/leaks/<dataset>/<protocol>/<run>.csv.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.errors import PosebridgeError, reason_of
from pipeline.files.tables import open_table
from pipeline.protocol.spread import Spread, spread_of
from pipeline.report.leaderboard import percent, points, share
from pipeline.report.results import Result
from pipeline.report.runs import Run

TRAINED_ANEW = ("epoch chosen on test", "text whitened over every class")  # their clean figures are no results
SAME = 0.01  # figures of two machines may differ by a clip or two


@dataclass(frozen=True)
class Price:
    """One leak in one run, over its seeds; fractions 0..1."""

    leak: str
    run: str
    figure: str  # top-1, H or adapted top-1
    clean: tuple[float, ...]
    leaky: tuple[float, ...]
    ceiling: float | None  # that of skeletons alone, for a skeleton-only run on true skeletons

    @property
    def gain(self) -> Spread:
        """Leaky minus clean."""
        return spread_of([leaky - clean for clean, leaky in zip(self.clean, self.leaky, strict=True)])

    @property
    def above_ceiling(self) -> float | None:
        """Of the leaky accuracy; None where no ceiling holds, and for H."""
        if self.ceiling is None or self.figure == "H":
            return None
        return statistics.fmean(self.leaky) - self.ceiling


def read_prices(folder: Path, runs: Sequence[Run]) -> tuple[tuple[Price, ...], list[str]]:
    """The prices of these runs of one protocol, leak by leak, the dearest first; and one sentence for each table that
    was left out.
    """
    found, complaints = [], []
    for run in runs:
        path = folder / f"{run.first.run}.csv"
        if not path.is_file():
            continue
        try:
            rows = _read_table(path, run)
        except PosebridgeError as error:
            complaints.append(str(error))
            continue
        exact = run.first.ceilings and run.first.skeletons == "gt" and not run.takes_cues
        ceiling = run.first.ceilings[0] if exact and run.first.ceilings else None
        for (leak, figure), pairs in rows.items():
            clean, leaky = zip(*pairs, strict=True)
            found.append(Price(leak, run.first.run, figure, clean, leaky, ceiling))
    dearest = {leak: max(p.gain.mean for p in found if p.leak == leak) for leak in {p.leak for p in found}}
    return tuple(sorted(found, key=lambda p: (-dearest[p.leak], p.leak, -p.gain.mean))), complaints


def _read_table(path: Path, run: Run) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(leak, figure) -> pairs (clean, leaky). Raises PosebridgeError for a table that is none, or of other models."""
    again = (
        f"run `posebridge bench leaks --dataset {run.first.dataset} --protocol {run.first.protocol} --run {path.stem}`"
    )
    reported = {(result.seed, name): value for result in run.results for name, value in _figures(result).items()}
    rows: dict[tuple[str, str], list[tuple[float, float]]] = {}
    others: list[int] = []  # seeds whose clean figure is not the reported one
    try:
        for row in open_table(path, ("seed", "leak", "figure", "clean", "leaky")):
            clean, leaky = (row.number(column, 0, 1) for column in ("clean", "leaky"))
            seed, leak, figure = row.whole("seed", 0, 1 << 31), row.needed("leak"), row.needed("figure")
            if clean is None or leaky is None or seed is None:
                raise row.wrong("seed, clean and leaky", "a cell is empty")
            if leak not in TRAINED_ANEW and abs(clean - reported.get((seed, figure), math.inf)) > SAME:
                others.append(seed)
            rows.setdefault((leak, figure), []).append((clean, leaky))
    except PosebridgeError as error:
        why = reason_of(error, path)
        raise PosebridgeError(f"{path} is no table of leaks ({why}); {again} again.") from None
    if others:
        raise PosebridgeError(f"{path} is of other models than the results of {path.stem}; {again} again.")
    return rows


def _figures(result: Result) -> dict[str, float]:
    found = {"top-1": result.zsl["top1"]}
    if result.gzsl:
        found["H"] = result.gzsl["harmonic"]
    if result.adapted:
        found["adapted top-1"] = result.adapted["top1"]
    return found


def table(prices: Sequence[Price]) -> pd.DataFrame:
    """Printable, a row a price."""
    rows = []
    for p in prices:
        rows.append({
            "leak": p.leak,
            "run": p.run,
            "figure": p.figure,
            "seeds": str(len(p.clean)),
            "clean": percent(spread_of(p.clean)),
            "with the leak": percent(spread_of(p.leaky)),
            "price, points": points(p.gain.mean) + ("" if p.gain.std is None else f" ± {share(p.gain.std)}"),
            "above the ceiling": points(p.above_ceiling),
        })  # fmt: skip
    return pd.DataFrame(rows)
