"""Which classes cues help most and hurt most: a method with them beside the same without. Reads predictions.csv."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pipeline.report.runs import Run
from pipeline.report.swap_pictures import FramesOf, Shown, name_of, said_of

MOST = 6  # classes of each end
ROW = 3  # of a picture


def helped(plain: Run, cued: Run, names: Sequence[str]) -> pd.DataFrame:
    """The classes by what cues change, the most helped first: `label`, `class`, and `without`, `with` cues the mean of
    1 / place of the true class over clips and seeds, `change`. No rows where results of an earlier version tell no
    places.
    """
    sides = {"without": plain, "with": cued}
    seeds = {side: [result.answers for result in run.results] for side, run in sides.items()}
    if not all(len(answers) and (answers["rank"] > 0).all() for found in seeds.values() for answers in found):
        return pd.DataFrame()
    means = {side: pd.concat([(1 / a["rank"]).groupby(a.label).mean() for a in found], axis=1).mean(axis=1)
             for side, found in seeds.items()}  # fmt: skip
    table = pd.DataFrame(means).dropna().rename_axis("label").reset_index()
    table.insert(1, "class", [name_of(names, c) for c in table.label])
    table["change"] = table["with"] - table["without"]
    return table.sort_values(["change", "label"], ascending=[False, True], ignore_index=True)


def ends(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The classes that are helped most and that are hurt most, the most first; each is helped, or hurt, at all."""
    better, worse = table[table.change > 0], table[table.change < 0]
    return better.head(MOST), worse.tail(MOST)[::-1]


def printable(table: pd.DataFrame) -> pd.DataFrame:
    """Both ends of the table as cells."""
    rows = pd.concat(ends(table))
    shown = {name: [f"{value:.2f}" for value in rows[name]] for name in ("without", "with")}
    change = [f"{value:+.2f}".replace("-", "−") for value in rows.change]
    return pd.DataFrame({"class": rows["class"], **shown, "change": change})


def pictures(table: pd.DataFrame, runs: Sequence[Run], names: Sequence[str], frames_of: FramesOf) -> list[list[Shown]]:
    """A clip of each class of `table`, two frames of it and the answers of the first seed of `runs`, in rows of three.
    """
    answers = {run.first.run: run.results[0].answers for run in runs}
    first = next(iter(answers.values()))
    shown = []
    for label, name in zip(table.label, table["class"], strict=True):
        clip_id = first.index[first.label == label][0]
        frames = frames_of(runs[0].first.dataset, "", [clip_id], 2)
        if clip_id in frames:
            shown.append(Shown(frames[clip_id], name, said_of(answers, clip_id, names)))
    return [shown[start : start + ROW] for start in range(0, len(shown), ROW)]
