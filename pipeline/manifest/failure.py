"""A clip's trouble, which is a row of its own and never the end of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """A clip that could not be extracted. `stage` is open, sample, decode, pose or track."""

    clip_id: str
    stage: str
    reason: str
