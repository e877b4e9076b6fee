"""Bounds of numbers and choices of words in dataclasses, stated where the value is."""

from __future__ import annotations

import math
from dataclasses import field, fields
from typing import Any

from pipeline.errors import PosebridgeError

MOST_SEED = 2**32 - 1


def within(default: Any, least: float = -math.inf, most: float = math.inf, above: float = -math.inf) -> Any:
    """A field that is at least `least`, at most `most` and more than `above`; of a tuple, each of its numbers."""
    return field(default=default, metadata={"within": (least, most, above)})


def one_of(*words: str) -> Any:
    """A field that is one of these words, by default the first."""
    return field(default=words[0], metadata={"words": words})


def check_bounds(values: Any) -> None:
    """For `__post_init__`: raise PosebridgeError, naming the field, for a number that is out of its bounds or none, and
    for a word that is none of the choice.
    """
    for each in fields(values):
        value = getattr(values, each.name)
        if value not in (words := each.metadata.get("words", (value,))):
            raise PosebridgeError(f"{each.name} should be one of {', '.join(filter(None, words))}, not {value!r}.")
        if "within" not in each.metadata:
            continue
        least, most, above = each.metadata["within"]
        bounds = {"at least": least, "more than": above, "at most": most}
        for number in value if isinstance(value, tuple) else (value,):
            if not (math.isfinite(number) and least <= number <= most and number > above):
                wanted = [f"{word} {bound:.10g}" for word, bound in bounds.items() if math.isfinite(bound)]
                raise PosebridgeError(
                    f"{each.name} should be {' and '.join(wanted) or 'a finite number'}, not {number!r}."
                )
