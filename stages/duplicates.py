"""Test clips that repeat a train clip, told to the person at the terminal by `extract`, `cache import` and `train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import PosebridgeError
from stages.shell import say

if TYPE_CHECKING:  # imported late, since it takes long to load
    from pipeline.learn.dataset import Dataset
    from pipeline.protocol.duplicates import Duplicate

SHOWN = 10  # on the terminal; --json has them all


def look_for_duplicates(index: Path, clips_csv: Path, cache_root: Path | None) -> list[Duplicate]:
    """Note the duplicates of an extraction beside its index, and tell them."""
    from pipeline.manifest.clips import read_classes, read_clips
    from pipeline.protocol.duplicates import note_duplicates

    found = note_duplicates(index, read_clips(clips_csv), cache_root)
    classes = clips_csv.with_name("classes.csv")
    tell_duplicates(found, read_classes(classes) if found and classes.is_file() else ())
    return found


def known_duplicates(dataset: Dataset, recipe: str, refuse: bool) -> list[Duplicate] | None:
    """Tell the duplicates that `extract` noted; None, and a word on it, where nobody has looked at the extraction.

    Raises PosebridgeError for either where they are to be refused.
    """
    from pipeline.cache.imported import clips_path
    from pipeline.cache.index import index_path
    from pipeline.protocol.duplicates import count_told, noted_duplicates

    index = index_path(dataset.cache, dataset.name, recipe)
    found = noted_duplicates(index, dataset.clips) if index.is_file() else []
    if found is None:
        again = "`posebridge extract` (or `cache import`), which extracts nothing twice"
        if clips_path(index).is_file():
            again = "`posebridge cache import-features` again, which writes nothing twice"
        unknown = f"Nobody has looked for duplicates in {index} as it is now; run {again}."
        if refuse:
            raise PosebridgeError(unknown)
        say(unknown)
    tell_duplicates(found or [], dataset.class_names)
    if found and refuse:
        raise PosebridgeError(
            f"In {dataset.name} {count_told(found)}, first {described(found[0], dataset.class_names)}; take them out "
            "of clips.csv, or train with --duplicates warn."
        )
    return found


def tell_duplicates(found: Sequence[Duplicate], class_names: Sequence[str]) -> None:
    """Say the first ones."""
    for pair in found[:SHOWN]:
        say(f"{pair.kind} in train and test: {described(pair, class_names)}")
    if len(found) > SHOWN:
        say(f"... and {len(found) - SHOWN} more; --json lists them all")


def described(pair: Duplicate, class_names: Sequence[str]) -> str:
    """Both clips with their classes, and how far they are from each other."""
    sides = [
        f"{clip_id} ({class_names[label]})" if label is not None and label < len(class_names) else clip_id
        for clip_id, label in ((pair.train, pair.train_label), (pair.test, pair.test_label))
    ]
    return f"{' | '.join(sides)} (distance {pair.distance:.3f})"
