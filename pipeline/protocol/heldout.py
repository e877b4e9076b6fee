"""The test set. Only evaluation and the experiment on leaks import this file; a test holds the trainer to that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import PosebridgeError
from pipeline.manifest.clips import Clip
from pipeline.protocol.splits import Split


@dataclass(frozen=True)
class TestSet:
    """Test-part clips of the unseen classes (ZSL) and of the seen ones (with the former: GZSL)."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    unseen: tuple[Clip, ...]
    seen: tuple[Clip, ...]


def test_set(split: Split, clips: Sequence[Clip]) -> TestSet:
    """Build it. Raises PosebridgeError if an unseen class has no test clip."""
    test = [clip for clip in clips if clip.part == "test" and clip.label is not None]
    labels = {clip.label for clip in test}
    for label in split.unseen:
        if label not in labels:
            raise PosebridgeError(
                f"Class {split.class_names[label]!r} is unseen in {split.protocol} but has no clip of part `test` "
                f"in clips.csv."
            )
    return TestSet(tuple(c for c in test if c.label in split.unseen), tuple(c for c in test if c.label in split.seen))


test_set.__test__ = False  # type: ignore[attr-defined]
