"""Texts of a data set for which nobody has written any yet: made of the labels, and marked as drafts.

texts.csv then has a fourth column, `draft`: `yes` where a text is one. Whoever writes words of their own empties it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.files.tables import open_table, write_table
from pipeline.manifest.check_texts import CONTEXT, LENGTHS, SLOTS
from pipeline.manifest.clips import MOST_CLASSES

MARK = "yes"
# What a label becomes in each slot. Different enough from one another that a class's slots do not all say the same.
PATTERNS = {
    "label": "{}",
    "one_line": "Somebody does this in front of the camera: {}.",
    "head": "The head and the gaze of somebody during {}.",
    "hands": "What both arms and hands do during {}.",
    "torso": "How the trunk bends and turns during {}.",
    "legs": "The steps and the stance that belong to {}.",
    "start": "The first moment, when {} has just begun.",
    "middle": "Halfway through, {} is in full course.",
    "end": "The last moment, when {} is nearly over.",
    "global": "A whole body in motion, seen from far: {}.",
    **dict.fromkeys(CONTEXT, "none"),
    "key_parts": "head;hands;torso;legs",
}
LONGEST = LENGTHS["label"][1]  # words of a label


def spoken(label: str) -> str:
    """A label as words: `hand_shaking` and `HandShaking` are `hand shaking` and `Hand Shaking`."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)
    return " ".join(re.sub(r"[_/\\.\-]+", " ", parted).split())


def draft_texts(class_names: Sequence[str]) -> dict[tuple[int, str], str]:
    """A text for every slot of every class, by (class index, slot). Of a long label only the first words are taken."""
    phrases = [" ".join(spoken(name).split()[:LONGEST]) for name in class_names]
    return {
        (index, slot): PATTERNS[slot].replace("{}", phrase) for index, phrase in enumerate(phrases) for slot in SLOTS
    }


def write_with_drafts(
    path: Path, texts: Mapping[tuple[int, str], str], drafts: Mapping[tuple[int, str], str]
) -> Path:
    """Write texts.csv: the `texts` there are, and in every other slot the draft."""
    rows = [
        (index, slot, texts.get((index, slot), draft), None if (index, slot) in texts else MARK)
        for (index, slot), draft in drafts.items()
    ]
    return write_table(path, ("index", "slot", "text", "draft"), rows)


def read_drafts(path: Path) -> set[tuple[int, str]]:
    """Which texts are marked as drafts: (class index, slot). Of a table that `read_texts` can read."""
    table = open_table(path, ("index", "slot", "text"), ("draft",))
    if "draft" not in table.places:
        return set()
    return {
        (index, row.text("slot"))
        for row in table
        if row.text("draft") and (index := row.whole("index", 0, MOST_CLASSES)) is not None
    }
