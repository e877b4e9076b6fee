"""A map of test clips and class prototypes: the two principal components of the space in which clips are compared.

Reads map.csv, which `evaluate` leaves beside metrics.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from pipeline.errors import PosebridgeError, reason_of
from pipeline.files.tables import open_table
from pipeline.manifest.clips import MOST_CLASSES
from pipeline.report.figures import COLOURS, FAINT, GRID, INK, lettering
from pipeline.report.runs import Run
from pipeline.report.swap_pictures import name_of

MOST = 10_000  # points
NAMED = 12  # unseen classes that have a colour and a name of their own
OTHERS = "#b9c2c9"
TEN = (*COLOURS, "#c98a1b", "#3f7d20", "#b03a2e", "#444b54")


def find_map(runs: Sequence[Run]) -> tuple[Run, Path] | None:
    """Of `posebridge`, or else of the first run by name that has one."""
    ordered = sorted(runs, key=lambda run: (run.first.run != "posebridge", run.first.run))
    found = ((run, run.first.folder / "map.csv") for run in ordered)
    return next(((run, path) for run, path in found if path.is_file()), None)


def read_map(path: Path) -> pd.DataFrame:
    """`kind` (clip or prototype), `label`, `x`, `y`. Raises PosebridgeError for a table of another form."""
    rows: list[tuple[str, int, float, float]] = []
    try:
        for row in open_table(path, ("kind", "label", "x", "y")):
            label, x, y = row.whole("label", 0, MOST_CLASSES), row.number("x", -1e3, 1e3), row.number("y", -1e3, 1e3)
            if label is None or x is None or y is None or len(rows) >= MOST:
                raise row.wrong("label, x and y", "a cell is empty, or there are too many rows")
            rows.append((row.raw("kind"), label, x, y))
    except PosebridgeError as error:
        why = reason_of(error, path)
        raise PosebridgeError(f"{path} is not as `posebridge evaluate` writes it ({why}); run it again.") from None
    return pd.DataFrame(rows, columns=["kind", "label", "x", "y"])


def draw_map(points: pd.DataFrame, unseen: Sequence[int], names: Sequence[str]) -> Figure:
    """Dots are clips, stars prototypes; unseen classes in colour, seen ones in grey."""
    figure = Figure(figsize=(8.4, 5.4), facecolor="white")
    axes = figure.add_axes((0.02, 0.03, 0.66, 0.94))
    there = set(points.label)
    named = [c for c in unseen if c in there][:NAMED]
    colour = {c: TEN[i] for i, c in enumerate(named)} if len(unseen) <= NAMED else {}
    is_unseen = points.label.isin(unseen)
    for kind, marker, size in (("clip", "o", 16), ("prototype", "*", 210)):
        seen = points[(points.kind == kind) & ~is_unseen]
        axes.scatter(seen.x, seen.y, s=size * 0.7, marker=marker, color=OTHERS, edgecolor="white", linewidth=0.5,
                     label=f"{kind} of a seen class", zorder=2 if kind == "clip" else 4)  # fmt: skip
        some = points[(points.kind == kind) & is_unseen]
        size = min(size, max(36, 4000 // max(len(some), 1)))
        axes.scatter(some.x, some.y, s=size, marker=marker, color=[colour.get(c, COLOURS[0]) for c in some.label],
                     edgecolor="white" if kind == "clip" else INK, linewidth=0.5 if kind == "clip" else 0.9,
                     label=None if colour else f"{kind} of an unseen class",
                     zorder=3 if kind == "clip" else 5)  # fmt: skip
    for c in named if colour else ():
        axes.scatter([], [], s=36, color=colour[c], label=lettering(name_of(names, c), 34))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=8.5, labelcolor=INK)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(GRID)
    axes.set_xlabel("first two principal components", fontsize=8, color=FAINT)
    return figure
