"""Which half of an answer is right: the motion, the object, or both. Reads predictions.csv; writes nothing.

A class of a controlled benchmark is a motion with an object. Of a run that is shown cues only, the motion's share above
that of the largest motion group tells how much posture its cues carry; of a skeleton-only run the object's share tells
the same of the object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from pipeline.protocol.spread import Spread, spread_of
from pipeline.report.leaderboard import percent, points
from pipeline.report.runs import Run

Attributes = Mapping[int, tuple[str, str]]  # class index -> (motion, object)


@dataclass(frozen=True)
class Parts:
    """Means over seeds, fractions 0..1."""

    run: Run
    motion: Spread
    held: Spread


def parts_of(run: Run, attributes: Attributes) -> Parts | None:
    """None where a seed left no predictions, or a class has no attributes."""
    known = pd.DataFrame(dict(attributes), index=["motion", "held"])  # a column for each class
    right = []
    for result in run.results:
        answers = result.answers
        if answers.empty or not {*answers.label, *answers.predicted} <= attributes.keys():
            return None
        true, said = known[answers.label].to_numpy(), known[answers.predicted].to_numpy()  # [2, N]
        right.append((true == said).mean(1).tolist())
    motion, held = zip(*right, strict=True)
    return Parts(run, spread_of(motion), spread_of(held))


def table(found: Sequence[Parts]) -> pd.DataFrame:
    """Printable, a row a run."""
    rows = []
    for each in found:
        top1, ceilings = each.run.spread("zsl", "top1"), each.run.first.ceilings
        rows.append({
            "run": each.run.first.run,
            "shown": _shown(each.run),
            "motion right": percent(each.motion),
            "object right": percent(each.held),
            "both": percent(top1),
            "above the cue-only ceiling": points(top1.mean - ceilings[1] if top1 and ceilings else None),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _shown(run: Run) -> str:
    if not run.takes_cues:
        return "skeletons"
    return "cues" if run.first.flags.get("skeleton") is False else "both"
