"""Which half of an answer is right: the motion, the object, or both. Reads predictions.csv; writes nothing.

A class of a controlled benchmark is a motion with an object. Of a run that is shown cues only, the motion's share above
that of the largest motion group tells how much posture its cues carry; of a skeleton-only run the object's share tells
the same of the object.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.report.html import table
from pipeline.report.leaderboard import percent, points
from pipeline.report.results import Run, Spread, spread_of
from pipeline.report.swap import answers_of

Attributes = Mapping[int, tuple[str, str]]  # class index -> (motion, object)

PARTS = """<p>Shares of the unseen test clips whose answer names the right motion, the right object, or both (top-1).
The cue-only ceiling is that of an oracle that knows the object and nothing of the motion; cues are taken around
joints, so a run without skeletons that gets past it has read posture from its cues.</p>"""


@dataclass(frozen=True)
class Parts:
    """Means over seeds, fractions 0..1."""

    run: Run
    motion: Spread
    held: Spread


def parts_of(run: Run, attributes: Attributes) -> Parts | None:
    """None where a seed left no predictions, or a class has no attributes."""
    motion, held = [], []
    for result in run.results:
        pairs = [(answer.label, answer.predicted) for answer in answers_of(result).values()]
        if not pairs or any(index not in attributes for pair in pairs for index in pair):
            return None
        motion.append(statistics.fmean(attributes[a][0] == attributes[b][0] for a, b in pairs))
        held.append(statistics.fmean(attributes[a][1] == attributes[b][1] for a, b in pairs))
    return Parts(run, spread_of(motion), spread_of(held))


def parts_section(found: Sequence[Parts]) -> list[str]:
    """The part of the page; none where nothing was found."""
    if not found:
        return []
    header = ["run", "shown", "motion right", "object right", "both", "above the cue-only ceiling"]
    body = []
    for each in found:
        top1, ceiling = each.run.spread("zsl", "top1"), each.run.first.ceiling
        excess = top1.mean - ceiling["cue"] if top1 and ceiling else None
        body.append([each.run.first.run, _shown(each.run), percent(each.motion), percent(each.held), percent(top1),
                     points(excess)])  # fmt: skip
    return ["<h3>Which half of an answer is right</h3>", PARTS, table(header, body, numbers_from=2)]


def _shown(run: Run) -> str:
    if not run.takes_cues:
        return "skeletons"
    return "cues" if run.first.flags.get("skeleton") is False else "both"
