"""The price of each leak, as `posebridge bench leaks` measured it: what a mistake of evaluation would have added.

Reads cache/leaks/<dataset>/<protocol>/<run>.csv.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.files.tables import open_table
from pipeline.report.html import table
from pipeline.report.leaderboard import NONE, percent, points
from pipeline.report.results import Result, Run, Spread, spread_of

TRAINED_ANEW = ("epoch chosen on test", "text whitened over every class")  # their clean figures are no results
SAME = 0.01  # figures of two machines may differ by a clip or two

PRICES = """<p>Mistakes that released evaluations make, made on purpose in an experiment apart, on the same trained
models: <b>clean</b> is the figure as it is reported above, <b>with the leak</b> what would have been reported. The
best epoch on test is sought in the same training, gone on with as long as the schedule allows; its clean figure is
that of the epoch which validation had chosen, before prototypes are adapted to seen classes; whitened text has two
trainings of its own, with the statistics of seen classes and of all. Whatever a skeleton-only
run on true skeletons has above its ceiling is the leak and nothing else.</p>"""


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
        ceiling = (run.first.ceiling or {}).get("skeleton") if run.first.skeletons == "gt" else None
        for (leak, figure), pairs in rows.items():
            clean, leaky = zip(*pairs, strict=True)
            found.append(Price(leak, run.first.run, figure, clean, leaky, None if run.takes_cues else ceiling))
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
            clean, leaky = (row.number(column) for column in ("clean", "leaky"))
            seed, leak, figure = row.whole("seed", 0, 1 << 31), row.needed("leak"), row.needed("figure")
            if clean is None or leaky is None or seed is None:
                raise row.wrong("seed, clean and leaky", "a cell is empty")
            if leak not in TRAINED_ANEW and abs(clean - reported.get((seed, figure), math.inf)) > SAME:
                others.append(seed)
            rows.setdefault((leak, figure), []).append((clean, leaky))
    except PosebridgeError as error:
        why = str(error).removeprefix(str(path)).strip(" .,:")
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


def section(prices: Sequence[Price]) -> list[str]:
    """The part of the page; none without prices."""
    if not prices:
        return []
    header = ["leak", "run", "figure", "seeds", "clean", "with the leak", "price, points", "above the ceiling"]
    body = []
    for p in prices:
        price = f"{points(p.gain.mean)}" + ("" if p.gain.std is None else f" ± {100 * p.gain.std:.1f}")
        over = points(p.above_ceiling) if p.above_ceiling is not None else NONE
        figures = [percent(spread_of(values)) for values in (p.clean, p.leaky)]
        body.append([p.leak, p.run, p.figure, str(len(p.clean)), *figures, price, over])
    return ["<h3>The price of each leak</h3>", PRICES, table(header, body, numbers_from=3)]
