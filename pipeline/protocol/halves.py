"""Which half of an answer is right, where a class is two things: a motion with an object, a movement with a tool.

Pure; ceiling.py reads the attributes. `motion` and `object` stand for whatever the two columns are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.protocol.metrics import tuple_interval

Attributes = Mapping[int, tuple[str, str]]  # class index -> (motion, object)
UNTOLD = {"other", "unspecified"}  # values that name nothing: a right one is no merit
RARE = 50  # a value is counted in a macro mean from one class in so many on


def halves(
    columns: Sequence[str], attributes: Attributes, labels: np.ndarray, predicted: np.ndarray
) -> dict[str, dict[str, Any]]:
    """By column: `right`, the share of answers with the right value; `macro`, the mean of such shares over the values,
    and `values`, each with its right answers and its clips. `labels` and `predicted` are class indices [N].

    The macro mean leaves out what names nothing and what is rare among all classes (one in RARE), and is None where
    that leaves nothing.
    """
    found = {}
    for place, column in enumerate(columns):
        common = Counter(pair[place] for pair in attributes.values())
        true, said = (np.array([attributes[int(c)][place] for c in which]) for which in (labels, predicted))
        right = true == said
        values = {
            value: (int(right[true == value].sum()), int((true == value).sum()))
            for value in sorted(set(true.tolist()) - UNTOLD)
            if RARE * common[value] >= len(attributes)
        }
        found[column] = {"right": float(right.mean()), "macro": macro_of(values), "values": values}
    return found


def macro_of(values: Mapping[str, Sequence[float]]) -> float | None:
    """The mean over values of right answers / clips; None without any."""
    return float(np.mean([hits / clips for hits, clips in values.values()])) if values else None


def twins(
    attributes: Attributes, unseen: Sequence[int], labels: np.ndarray, scores: np.ndarray,
    tuples: Sequence[Hashable] | None = None,
) -> dict[str, Any] | None:  # fmt: skip
    """Among the unseen classes of a clip's own motion alone, is the object right? Of the clips whose motion occurs with
    several objects: `right`, the share of right ones; `chance`, that of who draws one of these classes; `n` clips, and
    the interval `ci95`. None where there are none. Classes whose object names nothing take no part.
    labels [N] are class indices, scores [N, U] those of `unseen`; clips of one of `tuples` [N] hang together.
    """
    rivals: dict[str, list[tuple[int, str]]] = defaultdict(list)  # motion -> (column, object)
    for column, index in enumerate(unseen):
        motion, held = attributes[index]
        if held not in UNTOLD:
            rivals[motion].append((column, held))
    hits, chances, alike = [], [], []
    for label, row, name in zip(labels.tolist(), scores, tuples or range(len(labels)), strict=True):
        motion, held = attributes[label]
        others = [other for _, other in rivals[motion]]
        if held in others and len(set(others)) > 1:
            best = max(rivals[motion], key=lambda rival: row[rival[0]])
            hits.append(best[1] == held)
            chances.append(others.count(held) / len(others))
            alike.append(name)
    if not chances:
        return None
    ci95 = list(tuple_interval(np.array(hits), alike))
    return {"right": float(np.mean(hits)), "chance": float(np.mean(chances)), "n": len(hits), "ci95": ci95}
