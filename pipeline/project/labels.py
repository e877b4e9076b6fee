"""Whether labels will do as classes: a line each in lists and protocols, and read as words by a text encoder."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from pipeline.errors import PosebridgeError, short
from pipeline.manifest.clips import why_no_class
from pipeline.manifest.drafts import spoken

BREAKING = ("Cc", "Cs", "Zl", "Zp")  # Unicode's kinds of characters that break a line or are none


def check_labels(labels: Iterable[str]) -> None:
    """Raises PosebridgeError for a label that breaks a line, has blanks around it or no word in it, that results cannot
    hold (`class`), and for two that differ by case, blanks and underscores only, since their texts would be the same.
    """
    known: dict[str, str] = {}
    for label in sorted(labels):
        remedy = "rename its folder, or correct the list of labels"
        if any(unicodedata.category(character) in BREAKING for character in label):
            raise PosebridgeError(f"The label {short(label)} has a line break or control character in it; {remedy}.")
        if label != label.strip():
            raise PosebridgeError(f"The label {short(label)} begins or ends with a blank; {remedy}.")
        if why := why_no_class(label):
            raise PosebridgeError(f"The label {short(label)} cannot be a class: {why}; {remedy}.")
        words = spoken(label).casefold()
        if not words:
            raise PosebridgeError(f"The label {short(label)} has no word in it; {remedy}.")
        first = known.setdefault(words, label)
        if first != label:
            raise PosebridgeError(
                f"The labels {short(first)} and {short(label)} differ by case, blanks or dashes only; give one action "
                "one name."
            )


def wordless(labels: Sequence[str]) -> list[str]:
    """The labels without a letter or digit, an emoji for example: no text encoder makes anything of them."""
    return [label for label in labels if not any(character.isalnum() for character in label)]
