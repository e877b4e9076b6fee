"""Accuracy of every unseen class under every method, from confusion.csv. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pipeline.report.leaderboard import NONE, share

MOST_CLASSES, MOST_RUNS = 60, 8


def by_class(counts: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, int]:
    """(printable, how many classes there are). `counts`: run -> its confusion [U, U], summed over seeds. A row a class,
    those with least of the first run first; of more than `MOST_CLASSES` these.
    """
    shown = dict(list(counts.items())[:MOST_RUNS])
    if not shown:
        return pd.DataFrame(), 0
    first = next(iter(shown.values()))
    clips = first.sum(axis=1)
    right = {run: pd.Series(np.diag(table), table.index) / table.sum(axis=1) for run, table in shown.items()}
    order = next(iter(right.values())).fillna(2).sort_values(kind="stable").index[:MOST_CLASSES]
    table = pd.DataFrame({"class": list(order), "answers": [str(clips[name]) for name in order]})
    for run, each in right.items():
        title = f"run {run}" if run in table else run  # a run may be called `class`
        table[title] = [NONE if pd.isna(value) else share(value) for value in each.reindex(order)]
    return table, len(first)
