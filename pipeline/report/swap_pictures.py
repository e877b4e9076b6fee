"""The counterfactual swap as pictures: clips side by side, and under each what the runs said of it.

Reads predictions.csv beside metrics.json; frames come from whoever calls, by clip_frames.py or none at all. The clips
are the first tuple of every motion, not chosen by what was answered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline.report.answers import NOTHING
from pipeline.report.figures import FAINT, INK, SKELETON_CEILING
from pipeline.report.runs import Run
from pipeline.report.swap import twins

# dataset, variant, clip ids, frames of each -> clip_id -> [frames, H, W, 3] uint8, of those whose video is there
FramesOf = Callable[[str, str, Sequence[str], int], dict[str, np.ndarray]]
RIGHT = "#1d7a4c"


@dataclass(frozen=True)
class Shown:
    """One clip of a picture. `said`: run, answer, whether it is right."""

    frames: np.ndarray  # [n, H, W, 3] uint8
    title: str
    said: tuple[tuple[str, str, bool], ...]


def twin_rows(runs: Sequence[Run], names: Sequence[str], frames_of: FramesOf) -> list[list[Shown]]:
    """Two twins of the first tuple of every motion, with the answers of the first seed of `runs`."""
    answers = {run.first.run: run.results[0].answers for run in runs}
    rows = []
    for label in _first_of_each_motion(next(iter(answers.values()), NOTHING)):  # of each clip of a tuple
        pair = label.index[:2].tolist()
        frames = frames_of(runs[0].first.dataset, "", pair, 3)
        if set(pair) <= set(frames):
            rows.append([Shown(frames[c], name_of(names, label[c]), said_of(answers, c, names)) for c in pair])
    return rows


def variant_rows(run: Run, variants: dict[str, Run], names: Sequence[str], frames_of: FramesOf) -> list[list[Shown]]:
    """A clip of every motion as it is and in each of `variants` (name -> the run tested on it), with the answers."""
    answers = {"": run.results[0].answers}
    answers |= {variant: tested.results[0].answers for variant, tested in variants.items()}
    rows = []
    for label in _first_of_each_motion(answers[""]):
        clip_id = label.index[0]
        row = []
        for variant, said in answers.items():
            frames = frames_of(run.first.dataset, variant, [clip_id], 1)
            if clip_id in frames and clip_id in said.index:
                title = f"other {variant}" if variant else name_of(names, label[clip_id])
                row.append(Shown(frames[clip_id], title, said_of({run.first.run: said}, clip_id, names)))
        if len(row) > 1:
            rows.append(row)
    return rows


def draw_rows(rows: Sequence[Sequence[Shown]]) -> Figure:
    """Clips side by side, a row each; all clips of a row have as many frames."""
    columns = max(len(row) for row in rows)
    frames = len(rows[0][0].frames)
    lines = max(len(shown.said) for row in rows for shown in row)
    block = 9.6 / columns  # inches
    height = (block - 0.15) / frames
    step = height + 0.42 + 0.19 * lines
    figure = Figure(figsize=(9.6, step * len(rows)), facecolor="white")
    total = figure.get_figheight()
    for i, row in enumerate(rows):
        for j, shown in enumerate(row):
            bottom = (total - i * step - 0.26 - height) / total
            axes = figure.add_axes((j / columns, bottom, (block - 0.15) / 9.6, height / total))
            axes.imshow(np.concatenate(list(shown.frames), axis=1), aspect="auto")
            axes.set_axis_off()
            axes.set_title(shown.title, fontsize=9, color=INK, loc="left", fontweight="bold", pad=4)
            for line, (run, answer, right) in enumerate(shown.said):
                axes.annotate(f"{run}: ", (0, 0), xycoords="axes fraction", xytext=(0, -11 - 13 * line),
                              textcoords="offset points", fontsize=8, color=FAINT, va="center")  # fmt: skip
                mark, colour = ("✓", RIGHT) if right else ("✗", SKELETON_CEILING)
                axes.annotate(f"{mark} {answer}", (0, 0), xycoords="axes fraction", va="center", fontsize=8,
                              xytext=(5 + 4.6 * max(len(r) for r, *_ in shown.said), -11 - 13 * line),
                              textcoords="offset points", color=colour)  # fmt: skip
    return figure


def _first_of_each_motion(answers: pd.DataFrame) -> list[pd.Series]:
    """The labels of the first tuple of every motion, by clip: tuples of one motion are named alike but for a number at
    the end.
    """
    found = twins(answers)
    first = found.tuple.groupby(found.tuple.str.rpartition("-")[0], sort=False).transform("first")
    return [label for _, label in found[found.tuple == first].groupby("tuple", sort=False).label]


def said_of(answers: dict[str, pd.DataFrame], clip_id: str, names: Sequence[str]) -> tuple[tuple[str, str, bool], ...]:
    """The answers of runs (name -> answers.py's table) to a clip, by name, and whether they are right."""
    return tuple(
        (run, name_of(names, said.predicted[clip_id]), bool(said.predicted[clip_id] == said.label[clip_id]))
        for run, said in answers.items()
        if clip_id in said.index
    )


def name_of(names: Sequence[str], index: int) -> str:
    """What a class is called; its index where the data set does not name it."""
    return names[index] if index < len(names) else f"class {index}"
