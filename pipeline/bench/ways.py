"""Ways to compute one pose model on this machine, in bfloat16 or as an ONNX file: their speed, and how far their
answers are from those of the recipe as it is.

Reads a data set's videos; writes to a temporary folder only.
    posebridge bench ways --dataset skelgap-mini --recipe refined
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.bench.extract import batches_of
from pipeline.bench.timing import seconds_of
from pipeline.errors import PosebridgeError
from pipeline.extract.plan import Source, open_ground_truth
from pipeline.hpe.base import Estimate, Estimator
from pipeline.manifest.clips import Clip
from pipeline.recipe import Recipe

SURE = 0.3  # score of a joint from which its place is compared


@dataclass(frozen=True)
class Way:
    """`crops_per_second` is the median of all rounds, `speedup` that beside the first way. `joints` is how far the
    places of joints are from those of the first way, in crop pixels, the median over joints that it is sure of; `cues`
    the length of the difference of cues in parts of theirs, the median.
    """

    name: str
    crops_per_second: float
    speedup: float
    joints: float
    cues: float


def bench_ways(
    clips: list[Clip], root: Path, recipe: Recipe, ways: Mapping[str, Estimator], batch_size: int, rounds: int = 7
) -> list[Way]:
    """Measure each, in turn on every batch of these clips; the first is what the others are compared with.

    Raises PosebridgeError without clips, for one whose video cannot be read, and for a way with crops of another size.
    """
    if not clips:
        raise PosebridgeError("There is no clip to measure; list some with `posebridge ingest`.")
    first, *_ = ways.values()
    batches = list(batches_of(clips, Source(root, recipe, open_ground_truth(root, recipe)), first, batch_size))
    for name, way in ways.items():
        if way.crop_size != first.crop_size or way.joints != first.joints or way.cue_width != first.cue_width:
            raise PosebridgeError(f"The way {name} has other crops, joints or cues; compare one model with itself.")
    answers = {name: [way.estimate(*batch) for batch in batches] for name, way in ways.items()}  # and a warm-up
    seconds = np.array([
        [sum(seconds_of(partial(way.estimate, *batch)) for batch in batches) for way in ways.values()]
        for _ in range(rounds)
    ])  # fmt: skip
    crops, medians = sum(len(rows) for _, rows in batches), np.median(seconds, 0)
    base = answers[next(iter(ways))]
    return [
        Way(name, crops / each, float(medians[0] / each), *_apart(base, answers[name]))
        for name, each in zip(ways, medians.tolist(), strict=True)
    ]


def _apart(base: list[Estimate], other: list[Estimate]) -> tuple[float, float]:
    """How far joints and cues are apart; 0 where there are none."""
    joints, cues = [np.zeros(0)], [np.zeros(0)]
    for a, b in zip(base, other, strict=True):
        joints.append(np.linalg.norm(a.keypoints - b.keypoints, axis=-1)[a.scores > SURE])
        length = np.maximum(np.linalg.norm(a.cues, axis=-1), 1e-9)
        cues.append((np.linalg.norm(a.cues - b.cues, axis=-1) / length).ravel())
    return _median(joints), _median(cues)


def _median(parts: list[np.ndarray]) -> float:
    values = np.concatenate(parts)
    return float(np.median(values)) if len(values) else 0.0
