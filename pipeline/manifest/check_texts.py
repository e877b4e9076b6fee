"""Whether the texts of a data set are worth training on: complete, of a fair length, and different from each other.

Works on what `read_texts` returns; reads and writes nothing itself.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

DESCRIPTIONS = ("head", "hands", "torso", "legs", "start", "middle", "end", "global")
CONTEXT = ("environment", "used_object", "target_object")
SLOTS = ("label", "one_line", *DESCRIPTIONS, *CONTEXT, "key_parts")
BODY_PARTS = ("head", "hands", "arms", "torso", "legs", "hips", "feet")

# (fewest, most) words of a slot.
LENGTHS = {
    "label": (1, 10),
    **dict.fromkeys(("one_line", *DESCRIPTIONS), (5, 25)),
    **dict.fromkeys(CONTEXT, (1, 5)),
}
ALIKE = 0.75  # shared share of words from which two texts count as the same one

Texts = Mapping[tuple[int, str], str]


def check_texts(
    texts: Texts, class_names: Sequence[str], drafts: Collection[tuple[int, str]] = frozenset()
) -> list[str]:
    """What is wrong with `texts` (by class index and slot): one sentence a finding, empty if nothing is.

    `drafts` are texts made of the labels by one pattern. They say the same of every class and are not held against
    one another for it, but for the labels themselves.
    """
    written = {key: text for key, text in texts.items() if key not in drafts}
    return [
        *_missing(texts, class_names),
        *_lengths(texts, class_names),
        *_key_parts(texts, class_names),
        *_alike_within_a_class(written, class_names),
        *_alike_across_classes(written, class_names),
        *_same_label(texts, class_names),
    ]


def _missing(texts: Texts, class_names: Sequence[str]) -> Iterator[str]:
    for index, name in enumerate(class_names):
        for slot in SLOTS:
            if not texts.get((index, slot), "").strip():
                yield f"{name!r} has no text in the slot {slot!r}."
    for index, slot in texts:
        if slot not in SLOTS or index not in range(len(class_names)):
            yield f"Class {index}, slot {slot!r}: there is no such class or slot."


def _lengths(texts: Texts, class_names: Sequence[str]) -> Iterator[str]:
    for (index, slot), text in texts.items():
        fewest, most = LENGTHS.get(slot, (1, 25))
        count = len(text.split())
        if count and not fewest <= count <= most:
            yield f"{class_names[index]!r}, {slot}: {count} words, not {fewest} to {most}."


def _key_parts(texts: Texts, class_names: Sequence[str]) -> Iterator[str]:
    for (index, slot), text in texts.items():
        parts = text.split(";")
        if slot == "key_parts" and (set(parts) - set(BODY_PARTS) or len(set(parts)) < len(parts)):
            yield f"{class_names[index]!r}, key_parts: {text!r} is not a list out of {';'.join(BODY_PARTS)}."


def _alike_within_a_class(texts: Texts, class_names: Sequence[str]) -> Iterator[str]:
    for index, name in enumerate(class_names):
        words = {slot: _words(texts.get((index, slot), "")) for slot in ("one_line", *DESCRIPTIONS)}
        for one, other in itertools.combinations(words, 2):
            if _overlap(words[one], words[other]) >= ALIKE:
                yield f"{name!r}: the slots {one} and {other} say the same."


def _alike_across_classes(texts: Texts, class_names: Sequence[str]) -> Iterator[str]:
    """A class's own name is left out, so that one sentence with two names filled in counts as the same one."""
    names = [_words(name) for name in class_names]
    for slot in ("one_line", *DESCRIPTIONS):
        words = {
            index: _words(texts[index, slot]) - names[index]
            for index in range(len(class_names))
            if (index, slot) in texts
        }
        for one, other in itertools.combinations(words, 2):
            if _overlap(words[one], words[other]) >= ALIKE:
                yield f"{class_names[one]!r} and {class_names[other]!r} say the same in the slot {slot}."


def _same_label(texts: Texts, class_names: Sequence[str]) -> Iterator[str]:
    first: dict[str, str] = {}
    for index, name in enumerate(class_names):
        label = texts.get((index, "label"), "").lower()
        if label in first:
            yield f"{first[label]!r} and {name!r} have the same label."
        first[label] = name


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard index of two sets of words; texts without words are a matter of `_missing`."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if shared else 0.0
