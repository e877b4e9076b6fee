"""What a predictor can reach that sees the skeleton only, or the object only: known exactly for skelgap.

Reads `manifests/<dataset>/attributes.csv` (`index,motion,object`; of real people `index,movement,equipment,...`) and
`cache/videos/<dataset>/twins.csv` (`clip_id,tuple`). Writes nothing; `posebridge synth --ceiling PROTOCOL` prints the
ceilings, `posebridge evaluate` records them.

Two classes with the same motion have the same distribution of skeletons. Whoever sees the skeleton only can do no
better than to name, for each motion, the class with most clips. Twins make this certain and not only true on average:
they are clips with one and the same skeleton, of which every deterministic predictor gets at most one right. Of real
people nothing of this is certain: there are no ceilings, and what is read tells only which half of an answer is right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.files.tables import open_table
from pipeline.manifest.clips import MOST_CLASSES

CONTROLLED, REAL = ("motion", "object"), ("movement", "equipment")  # the columns of generated people, of real ones


def columns_of(path: Path) -> tuple[str, str]:
    """Which two columns of attributes.csv tell the halves of an answer."""
    return REAL if set(REAL) <= set(open_table(path, ("index",), REAL).places) else CONTROLLED


def read_attributes(path: Path) -> dict[int, tuple[str, str]]:
    """Read attributes.csv into class index -> (motion, object); an object-free class has the object `none`.

    Raises PosebridgeError for a missing file or a missing column.
    """
    found: dict[int, tuple[str, str]] = {}
    motion, thing = columns_of(path)
    for row in open_table(path, ("index", motion, thing)):
        index = row.whole("index", 0, MOST_CLASSES, "the index of a class")
        if index is None or index in found:
            raise row.wrong("index", "every class has an index of its own; correct it")
        found[index] = row.needed(motion), row.needed(thing)
    return found


def ceilings(attributes: Path, unseen: Sequence[int], counts: Mapping[int, int]) -> dict[str, float]:
    """The best top-1 accuracy that the skeleton alone (`skeleton`) and the object alone (`cue`) allow.

    `unseen` are the candidate classes, `counts` their numbers of test clips. Each ceiling is the sum over groups
    (of equal motion, of equal object) of the largest class's share of the clips, a fraction 0..1. Of real people none.
    Raises PosebridgeError if no class is unseen, if one has no attributes or no object, or if there are no clips.
    """
    if not unseen:
        raise PosebridgeError("This protocol has no unseen class, so it has no ceiling; choose another.")
    known, columns = read_attributes(attributes), columns_of(attributes)
    for index in unseen:
        if index not in known:
            raise PosebridgeError(
                f"{attributes} lacks the unseen class {index}; add `{index},<{columns[0]}>,<{columns[1]}>`."
            )
        if columns == CONTROLLED and known[index][1] == "none":
            raise PosebridgeError(
                f"{attributes}: the class {index} has no object, so no ceiling holds; take it out of the unseen ones."
            )
    if columns == REAL:
        return {}
    total = sum(counts.get(index, 0) for index in unseen)
    if not total:
        raise PosebridgeError("There are no test clips of the unseen classes; make them with `posebridge synth`.")
    largest: dict[str, dict[str, int]] = {"skeleton": defaultdict(int), "cue": defaultdict(int)}
    for index in unseen:
        motion, held = known[index]
        for kind, group in (("skeleton", motion), ("cue", held)):
            largest[kind][group] = max(largest[kind][group], counts.get(index, 0))
    return {kind: sum(groups.values()) / total for kind, groups in largest.items()}


def read_twins(path: Path) -> dict[str, str]:
    """Read twins.csv into clip_id -> name of its tuple.

    Raises PosebridgeError for a missing file or column, and for a clip in two tuples.
    """
    found: dict[str, str] = {}
    for row in open_table(path, ("clip_id", "tuple")):
        if found.setdefault(row.raw("clip_id"), row.text("tuple")) != row.text("tuple"):
            raise row.wrong("tuple", f"the clip {row.raw('clip_id')[:60]!r} is in another tuple already; keep one")
    return found


def twin_hits(twins: Mapping[str, str], predictions: Mapping[str, int], labels: Mapping[str, int]) -> dict[str, int]:
    """How many clips of each tuple of twins were predicted right: tuple -> hits, of the tuples with a prediction.

    `predictions` and `labels` are clip_id -> class index; predictions of the unseen classes' clips ask about the twins
    among these. With ground-truth skeletons a deterministic inductive predictor that uses nothing else has at most one
    hit in every tuple, so `max(hits.values()) > 1` is a leak.
    """
    hits: dict[str, int] = {}
    for clip_id, name in twins.items():
        if clip_id in predictions:
            hits[name] = hits.get(name, 0) + int(predictions[clip_id] == labels[clip_id])
    return hits
