"""Accuracy on seen against accuracy on unseen test clips, as gamma moves. Reads gzsl_curve.csv beside metrics.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pipeline.errors import PosebridgeError, reason_of
from pipeline.files.tables import open_table
from pipeline.report.figures import BASELINE, COLOURS, FAINT, GRID, INK, lettering
from pipeline.report.runs import Run

MOST_RUNS, MOST_POINTS = 8, 1000


def read_curve(path: Path) -> np.ndarray:
    """(seen, unseen) by rising gamma, fractions [K, 2]. Raises PosebridgeError for a table of another form."""
    points: list[tuple[float, float]] = []
    try:
        for row in open_table(path, ("seen", "unseen")):
            seen, unseen = row.number("seen", 0, 1), row.number("unseen", 0, 1)
            if seen is None or unseen is None or len(points) >= MOST_POINTS:
                raise row.wrong("seen and unseen", "a cell is empty, or there are too many rows")
            points.append((seen, unseen))
    except PosebridgeError as error:
        why = reason_of(error, path)
        raise PosebridgeError(f"{path} is not as `posebridge evaluate` writes it ({why}); run it again.") from None
    return np.array(points).reshape(-1, 2)


def draw_gzsl(runs: Sequence[Run]) -> Figure | None:
    """The first seed of each run that has a curve, with a dot at the gamma that validation chose; None where none has.
    Raises PosebridgeError as `read_curve`.
    """
    told = [(run, path) for run in runs if run.first.gzsl and (path := run.first.folder / "gzsl_curve.csv").is_file()]
    if not told:
        return None
    figure = Figure(figsize=(6.4, 4.6), facecolor="white", layout="constrained")
    axes = figure.subplots()
    side = np.linspace(0.01, 1, 200)
    for level in (0.2, 0.4, 0.6, 0.8):
        there = side > level / 2
        other = level * side[there] / (2 * side[there] - level)
        axes.plot(100 * side[there], 100 * other, color=GRID, linewidth=1, zorder=1)
        axes.text(101, min(100 * other[-1], 101), f"H {100 * level:.0f}", fontsize=7.5, color=FAINT, va="center")
    for i, (run, path) in enumerate(told[:MOST_RUNS]):
        curve, gzsl = 100 * read_curve(path), run.first.gzsl
        assert gzsl is not None
        colour = BASELINE if run.first.method == "skeleton" else COLOURS[i % len(COLOURS)]
        style = "--" if run.first.skeletons == "gt" else "-"
        axes.plot(curve[:, 1], curve[:, 0], style, color=colour, linewidth=2, label=lettering(run.first.run), zorder=2)
        axes.scatter([100 * gzsl["unseen"]], [100 * gzsl["seen"]], s=46, color=colour, edgecolor=INK, zorder=3)
    axes.set_xlim(0, 101)
    axes.set_ylim(0, 101)
    axes.set_xlabel("U: accuracy on unseen classes, %", fontsize=8.5, color=FAINT)
    axes.set_ylabel("S: accuracy on seen classes, %", fontsize=8.5, color=FAINT)
    axes.tick_params(colors=FAINT, labelsize=8, length=0)
    axes.legend(loc="lower left", frameon=False, fontsize=9, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_color(GRID)
    return figure
