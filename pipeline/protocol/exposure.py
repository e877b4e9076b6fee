"""Whose classes' texts a pose model's weights were tuned with, and whether a protocol may use them.

Weights that saw texts of the classes that a protocol trains on in its selection phase say so in one line,
`<data set>/<protocol>@<12 digits>`; the digits are of a hash of those classes, since lists can be edited.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

from pipeline.errors import PosebridgeError
from pipeline.protocol.splits import Split

FORM = re.compile(r"(?P<dataset>[^/@]+)/(?P<protocol>[^/@]+)@(?P<digest>[0-9a-f]{12})")


def exposed(dataset: str, split: Split) -> str:
    """What weights are to say that saw texts of the classes of the selection phase."""
    names = "\n".join(split.class_names[index] for index in split.phase_one)
    return f"{dataset}/{split.protocol}@{hashlib.sha256(names.encode()).hexdigest()[:12]}"


def require_unexposed(said: str, recipe: str, dataset: str, split: Split, read: Callable[[str], Split]) -> None:
    """Nothing where the weights of `recipe`, by what they say, saw no text of a class that is unseen in `split` or
    plays unseen in its selection phase. `read` gives the data set's other protocols.

    Weights that were tuned with another data set's classes pass: the result's `hpe_text` tells of them. Raises
    PosebridgeError.
    """
    if not said:
        return
    match = FORM.fullmatch(said)
    if match is None:
        raise PosebridgeError(
            f"The recipe {recipe!r} has the hpe_classes {said[:60]!r}, which nobody can read; tune anew."
        )
    if match["dataset"] != dataset:
        return
    theirs = split if match["protocol"] == split.protocol else read(match["protocol"])
    if exposed(dataset, theirs) != said:
        raise PosebridgeError(
            f"The protocol {match['protocol']} of {dataset} has changed since the pose weights of the recipe "
            f"{recipe!r} were tuned with the texts of its classes; tune them again with `posebridge tune-hpe`, or "
            "import its cues again."
        )
    if both := sorted({*split.unseen, *split.validation} & set(theirs.phase_one)):
        raise PosebridgeError(
            f"The pose weights of the recipe {recipe!r} were tuned with texts of {split.class_names[both[0]]!r}, which "
            f"is unseen in {split.protocol}; use weights that were tuned for this protocol."
        )
