"""How accuracy falls as a test gets harder: curves over the strengths of a variant, from none to 3.

Reads nothing but results in memory and predictions.csv beside them; returns a matplotlib Figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from pipeline.manifest.variants import strength
from pipeline.protocol.spread import Spread, spread_of
from pipeline.report.figures import BASELINE, COLOURS, FAINT, GRID, INK, SKELETON_CEILING
from pipeline.report.results import Result
from pipeline.report.runs import Run


@dataclass(frozen=True)
class Curve:
    """One run under one disturbance: (strength, top-1 on the clips that the variant has)."""

    run: str
    points: tuple[tuple[int, Spread], ...]


def curves(runs: Sequence[Run], variants: Mapping[str, Mapping[str, Run]]) -> dict[str, list[Curve]]:
    """Disturbance -> curves of the runs that were tested under it. `variants`: see `Kinds`."""
    found: dict[str, list[Curve]] = {}
    for run in runs:
        kinds: dict[str, dict[int, Run]] = {}
        for variant, tested in variants.get(run.first.run, {}).items():
            kind, level = strength(variant)
            if level:
                kinds.setdefault(kind, {})[level] = tested
        for kind, by_level in kinds.items():
            points = [(0, start(run, by_level[min(by_level)]))]
            for level in sorted(by_level):
                spread = by_level[level].spread("zsl", "top1")
                assert spread is not None
                points.append((level, spread))
            found.setdefault(kind, []).append(Curve(run.first.run, tuple(points)))
    return dict(sorted(found.items()))


def start(run: Run, variant: Run) -> Spread:
    """Top-1 of a run, undisturbed, on the clips that the variant has and on the seeds that were tested on it."""
    seeds = {result.seed: result for result in variant.results}
    values = [_accuracy(result, seeds[result.seed]) for result in run.results if result.seed in seeds]
    values = values or [result.zsl["top1"] for result in run.results]
    return spread_of(values)


def _accuracy(result: Result, variant: Result) -> float:
    answers, there = result.answers, variant.answers
    answers = answers[answers.index.isin(there.index)]
    return result.zsl["top1"] if answers.empty else float((answers.predicted == answers.label).mean())


def draw_curves(found: Mapping[str, Sequence[Curve]], ceiling: float | None) -> Figure:
    """A panel for each disturbance; bars are one standard deviation over seeds, the red line is the skeleton's ceiling.

    `ceiling` is a fraction, None where it is not known.
    """
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(0.7 + 3.0 * columns, 0.75 + 2.55 * rows), facecolor="white")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    names = list(dict.fromkeys(curve.run for some in found.values() for curve in some))
    names.sort(key=lambda name: (name != "posebridge", name == "skeleton"))
    colours = {name: BASELINE if name == "skeleton" else COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    last = max(level for some in found.values() for curve in some for level, _ in curve.points)
    for axes, (kind, some) in zip(panels.flat, found.items(), strict=False):
        for place, name in enumerate(names):
            for curve in (curve for curve in some if curve.run == name):
                x = [level + 0.045 * (place - (len(names) - 1) / 2) for level, _ in curve.points]
                y = [100 * spread.mean for _, spread in curve.points]
                error = [100 * (spread.std or 0) for _, spread in curve.points]
                axes.errorbar(x, y, error, color=colours[name], marker="o", markersize=4.5, linewidth=2, capsize=2.5,
                              label=name, zorder=3)  # fmt: skip
        if ceiling is not None:
            axes.axhline(100 * ceiling, color=SKELETON_CEILING, linewidth=1.3, label="skeleton-only ceiling", zorder=2)
        axes.set_title(kind.replace("_", " "), fontsize=10, color=INK, loc="left", fontweight="bold")
        axes.set_xticks(range(last + 1), ["none", *map(str, range(1, last + 1))])
        axes.set_ylim(0, 100)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.tick_params(colors=FAINT, labelsize=8, length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    for axes in panels.flat[len(found) :]:
        axes.set_visible(False)
    panels[0, 0].set_ylabel("zero-shot top-1, %", fontsize=8.5, color=FAINT)
    lines, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="lower left", bbox_to_anchor=(0.06, 0.0), ncols=4, frameon=False, fontsize=9)
    figure.subplots_adjust(left=0.085, right=0.985, top=1 - 0.32 / figure.get_figheight(), wspace=0.09, hspace=0.34,
                           bottom=0.72 / figure.get_figheight())  # fmt: skip
    return figure
