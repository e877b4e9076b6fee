"""What a run costs against how often it is right. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from pipeline.report.figures import BASELINE, COLOURS, FAINT, GRID, INK, lettering
from pipeline.report.runs import Run

MOST = 40  # runs
# what is measured, how it is called
COSTS = (
    ("gflops", "GFLOP a clip"),
    ("params", "million parameters"),
    ("training_seconds", "seconds of training"),
    ("extraction", "seconds of extraction a clip"),
)


def draw_cost(runs: Sequence[Run], extraction: Mapping[str, float]) -> Figure | None:
    """A panel a cost, logarithmic, a dot a run; None where fewer than two runs tell any.

    `extraction`: recipe -> seconds a clip, where they are known.
    """
    told: list[tuple[str, list[tuple[Run, float, float]]]] = []
    for name, title in COSTS:
        points = [(run, cost, top1.mean) for run in runs[:MOST]
                  if (cost := _cost(run, name, extraction)) and (top1 := run.spread("zsl", "top1"))]  # fmt: skip
        if len(points) > 1 and (name != "extraction" or len({cost for _, cost, _ in points}) > 1):  # of one recipe: one
            told.append((title, points))
    if not told:
        return None
    rows = 1 if len(told) < 4 else 2
    columns = -(-len(told) // rows)
    figure = Figure(figsize=(0.8 + 2.95 * columns, 0.5 + 2.6 * rows), facecolor="white", layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    names = list(dict.fromkeys(run.first.run for _, points in told for run, *_ in points))
    for axes, (title, points) in zip(panels.flat, told, strict=False):
        for run, value, accuracy in points:
            place = names.index(run.first.run)
            colour = BASELINE if run.first.method == "skeleton" else COLOURS[place % len(COLOURS)]
            marker = "D" if run.first.skeletons == "gt" else "o"
            axes.scatter([value], [100 * accuracy], s=58, marker=marker, color=colour, edgecolor=INK, linewidth=0.7,
                         zorder=3, label=lettering(run.first.run))  # fmt: skip
        axes.set_xscale("log")
        ends = sorted({f(value for _, value, _ in points) for f in (min, max)})
        axes.set_xticks(ends, [f"{end:.3g}" for end in ends])
        axes.set_xticks([], minor=True)
        axes.set_xlabel(title, fontsize=8.5, color=FAINT)
        axes.grid(color=GRID, linewidth=0.8)
        axes.tick_params(which="both", colors=FAINT, labelsize=7.5, length=0)
        axes.set_ylim(0, 105)
        axes.margins(x=0.2)
        for spine in axes.spines.values():
            spine.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel("zero-shot top-1, %", fontsize=8.5, color=FAINT)
    for axes in panels.flat[len(told) :]:
        axes.remove()
    lines, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False, fontsize=8.5)
    return figure


def recipes_of(run: Run) -> set[str]:
    """The extractions that a run reads."""
    return {run.first.joints, *([run.first.recipe] if run.takes_cues else [])} - {""}


def _cost(run: Run, name: str, extraction: Mapping[str, float]) -> float | None:
    if name == "extraction":
        read = recipes_of(run)
        return sum(extraction[recipe] for recipe in read) if read and extraction.keys() >= read else None
    value = run.training_seconds if name == "training_seconds" else run.mean(name)
    return value / 1e6 if value and name == "params" else value
