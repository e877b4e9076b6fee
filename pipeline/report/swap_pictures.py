"""The counterfactual swap as pictures: clips side by side, and under each what the runs said of it.

Reads predictions.csv beside metrics.json; frames come from whoever calls, by clip_frames.py or none at all. The clips
are the first tuple of every motion, not chosen by what was answered.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pipeline.report.answers import NOTHING
from pipeline.report.cards import Shown
from pipeline.report.clip_frames import FramesOf
from pipeline.report.runs import Run
from pipeline.report.swap import twins


def twin_rows(runs: Sequence[Run], names: Sequence[str], frames_of: FramesOf) -> list[list[Shown]]:
    """Two twins of the first tuple of every motion, with the answers of the first seed of `runs`."""
    answers = {run.first.run: run.results[0].answers for run in runs}
    rows = []
    for label in _first_of_each_motion(next(iter(answers.values()), NOTHING)):  # of each clip of a tuple
        pair = label.index[:2].tolist()
        frames = frames_of(runs[0].first.dataset, "", pair, 3, runs[0].first.joints)
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
            frames = frames_of(run.first.dataset, variant, [clip_id], 1, run.first.joints)
            if clip_id in frames and clip_id in said.index:
                title = f"other {variant}" if variant else name_of(names, label[clip_id])
                row.append(Shown(frames[clip_id], title, said_of({run.first.run: said}, clip_id, names)))
        if len(row) > 1:
            rows.append(row)
    return rows


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
