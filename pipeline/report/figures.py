"""Pictures of results, as matplotlib Figure objects: no pyplot, no global state, no display.

Writes nothing itself; `save` turns a figure into a PNG file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from pipeline.files.durable import writing
from pipeline.report.leaderboard import percent
from pipeline.report.runs import Run

INK, FAINT, GRID = "#22303c", "#6b7883", "#e3e7ea"
SKELETON_CEILING, CUE_CEILING = "#b3261e", "#b26a00"
# posebridge has the first colour, other methods the next ones in the order of their names; the baseline is grey.
COLOURS = ("#2563a8", "#2a8a6a", "#7a4fa3", "#c2577a", "#3b8ea5", "#8a7a2a", "#5a6acf", "#a0522d")
BASELINE = "#9aa6b0"
COLOURS_HELD = 128  # of a picture: a third of the bytes, and nobody sees it
DOTS = 160  # an inch
LARGEST = 12_000  # dots of a side: bars of 140 runs; of more, a run has fewer
MOST_CLASSES = 60  # of a confusion: some 3,700 dots of a side


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG, without software versions in its metadata. Raises PosebridgeError where the disk does not let us."""
    figure.set_dpi(dots(figure))
    canvas = FigureCanvasAgg(figure)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.draw()
        true = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        few = true.quantize(COLOURS_HELD, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        palette, ground = few.getpalette() or [], 3 * int(np.asarray(few)[0, 0])
        few.putpalette([*palette[:ground], 255, 255, 255, *palette[ground + 3 :]])  # white is white
        few.save(path, optimize=True)
    return path


def lettering(name: str, most: int = 28) -> str:
    """A name as a picture has room for it, its dollar signs no formula."""
    return (name if len(name) <= most else f"{name[: most - 1]}…").replace("$", r"\$")


def dots(figure: Figure) -> float:
    """An inch, so that no picture outgrows memory."""
    return min(DOTS, LARGEST / max(figure.get_size_inches()))


def bars(runs: Sequence[Run], chance: float | None) -> Figure:
    """Zero-shot top-1 of each run of one protocol, with what the skeleton alone and the object alone could reach.

    A bar is the mean over seeds, a dot a seed, the bracket the 95 % interval of the mean. Runs on
    ground-truth skeletons are striped.
    """
    height = 1.5 + 0.52 * len(runs)
    figure = Figure(figsize=(8.4, height), facecolor="white")
    axes = figure.subplots()
    figure.subplots_adjust(left=0.235, right=0.85, top=1 - 0.52 / height, bottom=0.78 / height)
    methods = ["posebridge", *sorted({run.first.method for run in runs} - {"posebridge", "skeleton"})]
    for row, run in enumerate(runs):
        method = run.first.method
        colour = BASELINE if method == "skeleton" else COLOURS[methods.index(method) % len(COLOURS)]
        top1 = run.spread("zsl", "top1")
        assert top1 is not None
        truth = run.first.skeletons == "gt"
        axes.barh(row, 100 * top1.mean, height=0.56, color=colour, hatch="////" if truth else None,
                  edgecolor="white", linewidth=0, zorder=2)  # fmt: skip
        low, high = (100 * bound for bound in run.ci95() or (0.0, 1.0))
        axes.errorbar((low + high) / 2, row, xerr=(high - low) / 2, color=INK, capsize=3.5, linewidth=1, zorder=4)
        seeds = [100 * result.zsl["top1"] for result in run.results]
        axes.scatter(seeds, [row] * len(seeds), s=17, color="white", edgecolor=INK, linewidth=0.9, zorder=5)
        label = percent(top1) + (" (single run)" if run.single else "")
        axes.text(max(high, *seeds, 100 * top1.mean) + 1.8, row, label, va="center", color=INK, fontsize=9.5,
                  fontweight="bold", zorder=6, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
    axes.set_yticks(range(len(runs)), [_label(run) for run in runs], fontsize=9, color=INK)
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    legend = "bar: mean over seeds;  ○ one seed;   |–| 95 % interval of the mean;   striped: true skeletons"
    axes.set_xlabel(f"zero-shot top-1 on unseen classes, %\n{legend}",
                    fontsize=8, color=FAINT, loc="left", linespacing=1.6)  # fmt: skip
    _reference_lines(axes, runs, chance)
    axes.tick_params(axis="x", colors=FAINT, labelsize=8, length=0)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GRID, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _label(run: Run) -> str:
    sources = {"gt": "true skeletons", "imported": "imported features"}
    source = sources.get(run.first.skeletons, "estimated skeletons")
    return f"{run.first.run}\n{'a reference' if run.first.reference else source}"


def _reference_lines(axes: Axes, runs: Sequence[Run], chance: float | None) -> None:
    """Vertical lines with their names above the plot: chance, skeleton-only ceiling, cue-only ceiling."""
    lines: list[tuple[float, str, str, str]] = []
    if ceilings := runs[0].first.ceilings:
        lines.append((ceilings[0], "skeleton-only\nceiling", SKELETON_CEILING, "-"))
        lines.append((ceilings[1], "cue-only\nceiling", CUE_CEILING, "--"))
    if chance is not None:
        lines.append((chance, "chance", FAINT, ":"))
    lines.sort(key=lambda line: line[0])
    for place, (value, name, colour, style) in enumerate(lines):
        axes.axvline(100 * value, color=colour, linestyle=style, linewidth=1.5, zorder=3)
        last = place == len(lines) - 1
        axes.annotate(f"{name} {100 * value:.1f}", (100 * value, 1), xycoords=axes.get_xaxis_transform(),
                      xytext=(3 if last else -3, 4),
                      textcoords="offset points", ha="left" if last else "right", va="bottom",
                      fontsize=8, color=colour, linespacing=1.15)  # fmt: skip


def confusion(table: pd.DataFrame, title: str, groups: Sequence[str] | None = None) -> Figure:
    """Zero-shot confusion: counts [U, U] by class name, rows true, columns predicted; shaded by share of the row.

    `groups` names each class's motion; classes with one motion lie in one box, since no skeleton can tell them apart.
    Of more than `MOST_CLASSES` those with most errors are shown, in their order, and the title says so.
    """
    counts = table.to_numpy()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shown = _most_confused(counts)
    counts, share = counts[np.ix_(shown, shown)], share[np.ix_(shown, shown)]
    names, size = [lettering(str(table.columns[place])) for place in shown], len(shown)
    if size < len(table):
        title += f": the {size} of {len(table)} classes with most errors"
    side = max(3.1, 0.36 * size)
    width, height = side + 1.8, side + 1.7  # room for the names of classes
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((1.7 / width, 1.35 / height, side / width, side / height))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if size <= 12:
        for row in range(size):
            for column in range(size):
                if counts[row, column]:
                    axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=9,
                              color="white" if share[row, column] > 0.55 else INK)  # fmt: skip
    axes.set_xticks(range(size), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=8, color=INK)
    axes.set_yticks(range(size), names, fontsize=8, color=INK)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted", fontsize=8, color=FAINT)
    axes.set_ylabel("true", fontsize=8, color=FAINT)
    axes.set_title(title, fontsize=9.5, color=INK, loc="left", fontweight="bold")
    for spine in axes.spines.values():
        spine.set_color(GRID)
    for start, end in _stretches([groups[place] for place in shown] if groups else []):
        corner, side = (start - 0.5, start - 0.5), end - start
        axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=SKELETON_CEILING, linewidth=1.4,
                                 clip_on=False, zorder=3))  # fmt: skip
    return figure


def _most_confused(counts: np.ndarray) -> np.ndarray:
    """The places of `MOST_CLASSES` classes, or of all, that have most errors in their row and column [U, U]; sorted."""
    errors = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    return np.sort(np.argsort(-errors, kind="stable")[:MOST_CLASSES])


def _stretches(groups: Sequence[str]) -> list[tuple[int, int]]:
    """[start, end) of each run of equal neighbours."""
    edges = [0, *(i for i in range(1, len(groups)) if groups[i] != groups[i - 1]), len(groups)]
    return [(start, end) for start, end in zip(edges, edges[1:], strict=False) if end > start]
