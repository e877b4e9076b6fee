"""Who trains and who is tested: whole subjects, cameras or videos, about half of each class's clips."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from pipeline.manifest.clips import Clip

WAYS = ("subject", "camera", "video")


def usual_way(clips: Sequence[Clip]) -> str:
    """By subject where the clips tell more than one, or else by camera, or else every video is a source of its own."""
    for way in WAYS[:2]:
        if len({getattr(clip, way) for clip in clips if getattr(clip, way)}) > 1:
            return way
    return "video"


def deal_parts(clips: Sequence[Clip], way: str, before: Sequence[Clip] = ()) -> list[Clip]:
    """The clips with `part` train or test, no source in both: a source is all clips of one `way`.

    The largest source first, each goes where it brings the classes nearer to half and half, and to `train` where both
    are alike; so NTU's cross-subject protocol has it, too. Equal sources come in the order of a hash of their names,
    the same on every machine. A class that is then in one part only, since it has one source or its sources are others'
    too, is of the part `both`: it trains where it is seen and is tested where it is unseen. Clips without a label have
    no part, and clips that have one keep it. Those dealt `before` count, and a source keeps the side that it has there.
    """
    taken: dict[str, str] = {}
    sources: dict[str, Counter[int]] = defaultdict(Counter)
    for clip in clips:
        if clip.label is not None and not clip.part:
            sources[source_of(clip, way)][clip.label] += 1
    order = sorted(sources, key=lambda name: (-sources[name].total(), hashlib.sha256(name.encode()).hexdigest()))
    surplus: Counter[int] = Counter()  # of train clips over test clips, by class
    for clip in before:
        if clip.label is not None and clip.part:
            if clip.part != "both":  # that is a class's, not a source's
                taken.setdefault(source_of(clip, way), clip.part)
            surplus[clip.label] += clip.trains - clip.tests
    part = {}
    for name in order:
        gain = sum(2 * surplus[label] * count for label, count in sources[name].items())
        part[name] = taken.get(name) or ("test" if gain > 0 else "train")
        sign = 1 if part[name] == "train" else -1
        for label, count in sources[name].items():
            surplus[label] += sign * count
    dealt = [
        clip if clip.part or clip.label is None else replace(clip, part=part[source_of(clip, way)]) for clip in clips
    ]
    there = {(clip.label, side) for clip in dealt for side in ("train", "test") if clip.part in (side, "both")}
    there |= {(clip.label, clip.part) for clip in before}
    whole = {clip.label for clip in clips if {(clip.label, "train"), (clip.label, "test")} <= there}
    return [
        now if was.part or was.label is None else replace(now, part=now.part if now.label in whole else "both")
        for was, now in zip(clips, dealt, strict=True)
    ]


def source_of(clip: Clip, way: str) -> str:
    """What a clip must not share with one of the other part; a video where nothing else is told."""
    return (getattr(clip, way) if way != "video" else "") or f"video {clip.path}"
