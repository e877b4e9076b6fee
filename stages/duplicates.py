"""Test clips that repeat a train clip, told to the person at the terminal by `extract`, `cache import` and `train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.shell import say

if TYPE_CHECKING:  # imported late, since it loads torch and FAISS
    from pipeline.duplication import Duplicate

SHOWN = 10  # on the terminal; --json has them all


def look_for_duplicates(index: Path, clips_csv: Path, cache_root: Path | None) -> list[Duplicate]:
    """Note the duplicates of an extraction beside its index, and tell them."""
    from pipeline.duplication import note_duplicates
    from pipeline.manifest import read_clips

    found = note_duplicates(index, read_clips(clips_csv), cache_root)
    tell_duplicates(found)
    return found


def tell_duplicates(found: Sequence[Duplicate]) -> None:
    """Say the first ones."""
    for pair in found[:SHOWN]:
        say(f"{pair.kind} in train and test: {pair.train} | {pair.test} (distance {pair.distance:.3f})")
    if len(found) > SHOWN:
        say(f"... and {len(found) - SHOWN} more; --json lists them all")
