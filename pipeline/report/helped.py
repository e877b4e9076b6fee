"""Which classes and clips cues help most and hurt most: a method with them beside the same without. Reads
predictions.csv.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pipeline.report.attention import looked_at
from pipeline.report.cards import Shown
from pipeline.report.clip_frames import FramesOf
from pipeline.report.runs import Run
from pipeline.report.swap_pictures import name_of, said_of

MOST = 6  # classes, or clips, of each end
OF_A_CLASS = 2  # clips


def helped(plain: Run, cued: Run, names: Sequence[str]) -> pd.DataFrame:
    """The classes by what cues change, the most helped first: `label`, `class`, and `without`, `with` cues the mean of
    1 / place of the true class over clips and seeds, `change`. No rows where results of an earlier version tell no
    places.
    """
    seeds = _ranked(plain, cued)
    means = {side: pd.concat([(1 / a["rank"]).groupby(a.label).mean() for a in found], axis=1).mean(axis=1)
             for side, found in seeds.items()}  # fmt: skip
    if not means:
        return pd.DataFrame()
    table = pd.DataFrame(means).dropna().rename_axis("label").reset_index()
    table.insert(1, "class", [name_of(names, c) for c in table.label])
    table["change"] = table["with"] - table["without"]
    return table.sort_values(["change", "label"], ascending=[False, True], ignore_index=True)


def helped_clips(plain: Run, cued: Run, names: Sequence[str]) -> pd.DataFrame:
    """The same of single clips, means over seeds, of each end at most `OF_A_CLASS` of a class: with `clip_id`."""
    seeds = _ranked(plain, cued)
    means = {side: pd.concat([1 / a["rank"] for a in found], axis=1).mean(axis=1) for side, found in seeds.items()}
    if not means:
        return pd.DataFrame()
    labels = seeds["with"][0].label
    table = pd.DataFrame(means).join(labels.rename("label"), how="inner").dropna().rename_axis("clip_id").reset_index()
    table["class"] = [name_of(names, c) for c in table.label]
    table["change"] = table["with"] - table["without"]
    table = table.sort_values(["change", "clip_id"], ascending=[False, True], ignore_index=True)
    of_class = table.groupby("label").change
    few = (of_class.cumcount() < OF_A_CLASS) | (of_class.cumcount(ascending=False) < OF_A_CLASS)
    return table[few].reset_index(drop=True)


def _ranked(plain: Run, cued: Run) -> dict[str, list[pd.DataFrame]]:
    """The answers of every seed `without` and `with` cues; nothing where a seed tells no places."""
    seeds = {"without": [r.answers for r in plain.results], "with": [r.answers for r in cued.results]}
    told = all(len(answers) and (answers["rank"] > 0).all() for found in seeds.values() for answers in found)
    return seeds if told else {}


def ends(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The classes, or clips, that are helped most and that are hurt most, the most first; each is, at all."""
    better, worse = table[table.change > 0], table[table.change < 0]
    return better.head(MOST), worse.tail(MOST)[::-1]


def printable(table: pd.DataFrame) -> pd.DataFrame:
    """Both ends of the table as cells."""
    rows = pd.concat(ends(table))
    shown = {name: [f"{value:.2f}" for value in rows[name]] for name in ("without", "with")}
    change = [f"{value:+.2f}".replace("-", "−") for value in rows.change]
    return pd.DataFrame({"class": rows["class"], **shown, "change": change})


def pictures(table: pd.DataFrame, runs: Sequence[Run], names: Sequence[str], frames_of: FramesOf) -> list[Shown]:
    """The clips of `table`, two frames of each, where it is known with the attention of the last of `runs`, and the
    answers of the first seed.
    """
    answers = {run.first.run: run.results[0].answers for run in runs}
    look = looked_at(runs[-1], 2, frames_of)
    drawn = {clip: look(clip) for clip in table.clip_id}
    plain = [clip for clip, frames in drawn.items() if frames is None]
    frames = frames_of(runs[0].first.dataset, "", plain, 2, runs[-1].first.joints)
    frames |= {clip: found for clip, found in drawn.items() if found is not None}
    columns = (table[name].tolist() for name in ("clip_id", "class", "without", "with"))
    return [
        Shown(frames[clip], name, said_of(answers, clip, names), f"{clip}: {without:.2f} to {with_cues:.2f}")
        for clip, name, without, with_cues in zip(*columns, strict=True)
        if clip in frames
    ]
