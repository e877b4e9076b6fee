"""The test set. Only evaluation and the experiment on leaks import this file; a test holds the trainer to that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import PosebridgeError
from pipeline.manifest.clips import Clip
from pipeline.protocol.splits import Split


@dataclass(frozen=True)
class HeldoutClips:
    """Test-part clips of the unseen classes (ZSL) and of the seen ones (with the former: GZSL).

    Those of the part `both` are among the former only, since they train where their class is seen.
    """

    unseen: tuple[Clip, ...]
    seen: tuple[Clip, ...]


def heldout_clips(split: Split, clips: Sequence[Clip]) -> HeldoutClips:
    """Build it. Raises PosebridgeError if an unseen class has no test clip."""
    test = [clip for clip in clips if clip.tests and clip.label is not None]
    labels = {clip.label for clip in test}
    for label in split.unseen:
        if label not in labels:
            raise PosebridgeError(
                f"Class {split.class_names[label]!r} is unseen in {split.protocol} but has no clip of part `test` "
                f"in clips.csv."
            )
    unseen = tuple(clip for clip in test if clip.label in split.unseen)
    return HeldoutClips(unseen, seen=tuple(clip for clip in test if clip.label in split.seen and not clip.trains))
