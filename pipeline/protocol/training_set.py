"""What may be learnt from: the clips of the two training phases. The test set is built in heldout.py, by another
stage.

Selection phase: train on the seen classes minus the pseudo-unseen ones; choose values on train-part clips of the
pseudo-unseen classes (ZSL) and of all seen classes (GZSL). One clip in five of the classes trained on is kept out of
training, so that the calibration between seen and unseen scores is not measured on clips that the model has learnt by
heart. Final phase: train on every train-part clip of every seen class, with the chosen values; nothing is chosen any
more.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import PosebridgeError
from pipeline.manifest.clips import Clip
from pipeline.protocol.guards import require_no_pseudo_unseen
from pipeline.protocol.splits import Split

PHASES = ("select", "final")


@dataclass(frozen=True)
class Phase:
    """One phase: its classes, the clips it trains on, and (selection only) the clips that values are chosen on."""

    name: str
    classes: tuple[int, ...]
    train: tuple[Clip, ...]
    held_out: tuple[Clip, ...] = ()  # of the phase's own classes
    pseudo_unseen: tuple[Clip, ...] = ()


def training_phase(name: str, split: Split, clips: Sequence[Clip]) -> Phase:
    """The phase `select` or `final`. Raises PosebridgeError when a class that it needs has no train-part clip."""
    train = [clip for clip in clips if clip.trains and clip.label is not None]
    seen, phase_one, validation = set(split.seen), set(split.phase_one), set(split.validation)  # asked for every clip
    if name == "final":
        phase = Phase(name, split.seen, tuple(c for c in train if c.label in seen))
    else:
        own = [c for c in train if c.label in phase_one]
        kept_out = _one_in_five(own)
        phase = Phase(
            name,
            split.phase_one,
            train=tuple(c for c in own if c.clip_id not in kept_out),
            held_out=tuple(c for c in own if c.clip_id in kept_out),
            pseudo_unseen=tuple(c for c in train if c.label in validation),
        )
    present = {c.label for c in (*phase.train, *phase.pseudo_unseen)}
    for label in (*phase.classes, *(split.validation if name == "select" else ())):
        if label not in present:
            raise PosebridgeError(
                f"Class {split.class_names[label]!r} has no clip of part `train` in clips.csv; "
                f"{split.protocol} needs some."
            )
    require_no_pseudo_unseen(phase.train, phase.classes)
    return phase


def _one_in_five(clips: Sequence[Clip]) -> set[str]:
    """Ids of a fifth of each class's clips (rounded down), chosen by a hash of the id: the same for every seed and
    machine.
    """
    by_class: dict[int | None, list[str]] = defaultdict(list)
    for clip in clips:
        by_class[clip.label].append(clip.clip_id)
    chosen: set[str] = set()
    for ids in by_class.values():
        ids.sort(key=lambda clip_id: hashlib.sha256(clip_id.encode()).hexdigest())
        chosen.update(ids[: len(ids) // 5])
    return chosen
