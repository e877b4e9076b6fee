"""How often the nearest examples are right: one subject's (or sequence's) clips asked about, all others as examples.

Reads manifests/<dataset>/ and cache/<dataset>/<recipe>/; writes nothing.
    posebridge bench examples --dataset ut_interaction --recipe tinypose
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.learn.dataset import Dataset
from pipeline.learn.features import Samples, load_samples
from pipeline.predict.examples import ExampleScorer
from pipeline.protocol.ceiling import read_twins
from pipeline.protocol.metrics import tuple_interval

NEIGHBOURS = (1, 3, 0)  # 0: prototypes


@dataclass(frozen=True)
class ExamplesBench:
    """`accuracy` and `ci95` by what is compared, `skeleton` or `skeleton+cues`, and by how, `1 nearest`, `3 nearest`
    or `prototypes`; intervals take twins as such. Nothing is chosen by them; `chance` is that of the most frequent
    class.
    """

    clips: int
    groups: int
    missing: int
    chance: float
    accuracy: dict[str, float]
    ci95: dict[str, tuple[float, float]]
    seconds: float


def bench_examples(dataset: Dataset, recipe: str) -> ExamplesBench:
    """Leave one subject out at a time. Raises PosebridgeError where clips have no subjects, or the cache no clips."""
    begun = time.perf_counter()
    reader = dataset.reader(recipe)
    known = [clip for clip in dataset.clips if clip.label is not None]
    subjects = {clip.subject for clip in known}
    if len(subjects) < 2 or "" in subjects:
        raise PosebridgeError(
            f"The clips of {dataset.name} have no `subject` to leave out; fill the column in clips.csv."
        )
    facts = {clip.clip_id: (clip.subject, clip.label or 0) for clip in known}
    accuracy, intervals = {}, {}
    samples = load_samples(list(facts), reader, reader if "cues" in reader.names else None)
    group = np.array([facts[clip_id][0] for clip_id in samples.clip_ids])
    labels = np.array([facts[clip_id][1] for clip_id in samples.clip_ids])
    twins = read_twins(dataset.twins) if dataset.twins.is_file() else {}
    alike = [twins.get(clip_id, (clip_id,)) for clip_id in samples.clip_ids]
    for name in ("skeleton", "skeleton+cues")[: 1 + (samples.cues is not None)]:
        shown = samples if name == "skeleton+cues" else without_cues(samples)
        for neighbours in NEIGHBOURS:
            right = np.zeros(len(labels), bool)
            for one in sorted(set(group)):
                right[group == one] = leave_out(shown, group == one, labels, dataset, neighbours)
            key = f"{name}, {f'{neighbours} nearest' if neighbours else 'prototypes'}"
            accuracy[key] = float(right.mean())
            intervals[key] = tuple_interval(right, alike)
    return ExamplesBench(
        clips=len(labels),
        groups=len(set(group)),
        missing=len(known) - len(labels),
        chance=float(np.bincount(labels).max() / len(labels)),
        accuracy=accuracy,
        ci95=intervals,
        seconds=time.perf_counter() - begun,
    )


def leave_out(
    samples: Samples, asked: np.ndarray, labels: np.ndarray, dataset: Dataset, neighbours: int
) -> np.ndarray:
    """Which of the clips `asked` [N] bool are right, with all others as examples; a class without any is a miss."""
    rows: list[int] = np.flatnonzero(~asked).tolist()
    classes = sorted(set(labels[rows].tolist()))
    names = [dataset.class_names[c] for c in classes]
    examples = ExampleScorer(names, samples.take(rows), [classes.index(c) for c in labels[rows]], neighbours)
    said = examples.scores(samples.take(np.flatnonzero(asked).tolist())).argmax(1)
    return np.asarray(np.array(classes)[said] == labels[asked])


def without_cues(samples: Samples) -> Samples:
    """The skeletons alone."""
    return replace(samples, cues=None, cue_scores=None)
