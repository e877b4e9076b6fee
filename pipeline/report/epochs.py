"""Scores by epoch of the selection phase: how training went, and which epoch was taken. Reads metrics.json."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.report.figures import COLOURS, FAINT, GRID, INK, lettering
from pipeline.report.runs import Run

MOST_RUNS, MOST_EPOCHS = 9, 5000
ACROSS = 3


def scores_of(run: Run) -> dict[int, tuple[list[float], int]]:
    """Seed -> its scores by epoch, fractions, and how many epochs were taken; of the seeds that tell it."""
    found = {}
    for result in run.results:
        scores, epochs = result.selection.get("scores_by_epoch"), result.selection.get("epochs")
        if not isinstance(scores, list) or not 0 < len(scores) <= MOST_EPOCHS:
            continue
        if all(isinstance(s, int | float) and math.isfinite(s) and 0 <= s <= 1 for s in scores):
            found[result.seed] = scores, epochs if isinstance(epochs, int) and 0 < epochs <= len(scores) else 0
    return found


def draw_epochs(runs: Sequence[Run]) -> Figure | None:
    """A panel for each of the first runs that tell it, a line a seed, a dot at the epoch that was taken; else None."""
    told = [(run.first.run, found) for run in runs if (found := scores_of(run))][:MOST_RUNS]
    if not told:
        return None
    columns = min(ACROSS, len(told))
    rows = -(-len(told) // columns)
    figure = Figure(figsize=(0.9 + 2.9 * columns, 0.85 + 2.0 * rows), facecolor="white", layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, (name, found) in zip(panels.flat, told, strict=False):
        for i, (seed, (scores, epochs)) in enumerate(sorted(found.items())[: len(COLOURS)]):
            colour = COLOURS[i]
            axes.plot(range(1, len(scores) + 1), [100 * s for s in scores], color=colour, linewidth=1.5,
                      label=f"seed {seed}")  # fmt: skip
            if epochs:
                axes.scatter([epochs], [100 * scores[epochs - 1]], s=34, color=colour, edgecolor=INK, zorder=3)
        axes.set_title(lettering(name, 34), fontsize=9.5, color=INK, loc="left", fontweight="bold")
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.tick_params(colors=FAINT, labelsize=8, length=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("epoch", fontsize=8, color=FAINT)
        for spine in axes.spines.values():
            spine.set_visible(False)
    for axes in panels.flat[len(told) :]:
        axes.set_visible(False)
    panels[0, 0].set_ylabel("score on pseudo-unseen classes, %", fontsize=8, color=FAINT)
    panels[0, 0].legend(frameon=False, fontsize=8, labelcolor=INK)
    return figure
