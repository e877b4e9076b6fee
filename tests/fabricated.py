"""Made-up results of a controlled benchmark: runs that know the motion and the object with a given chance.

They lie where `evaluate` writes, with twins, seeds, ablations and variants, so that tests of the report know the truth.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.protocol.halves import halves
from pipeline.protocol.metrics import binomial_interval

# the unseen classes of skelgap's compositional_30_10: index -> (motion, object, name)
CLASSES = {
    30: ("overhead", "cup", "lift a cup overhead"),
    31: ("overhead", "bottle", "lift a bottle overhead"),
    32: ("overhead", "umbrella", "lift an umbrella overhead"),
    33: ("overhead", "book", "lift a book overhead"),
    34: ("strike", "bottle", "strike with a bottle"),
    35: ("strike", "umbrella", "strike with an umbrella"),
    36: ("strike", "book", "strike with a book"),
    37: ("shake", "cup", "shake a cup"),
    38: ("shake", "bottle", "shake a bottle"),
    39: ("shake", "umbrella", "shake an umbrella"),
}
CEILING = {"skeleton": 0.3, "cue": 0.4}


def answers(motion: float, held: float, seed: int, tuples: int, twins_alike: bool) -> list[tuple[str, int, int, str]]:
    """(clip_id, label, predicted, tuple) of every unseen clip, for a run that is right about the motion and the object
    with these chances; otherwise it takes any. `twins_alike` gives the twins of a tuple one answer.
    """
    rng = np.random.default_rng(seed)
    found = []
    for name in ("overhead", "strike", "shake"):
        members = [index for index, (m, *_) in CLASSES.items() if m == name]
        for number in range(tuples):
            shared = int(rng.choice(members))
            for index in members:
                thought = name if rng.random() < motion else str(rng.choice(["overhead", "strike", "shake"]))
                knows, luck = rng.random() < held, rng.random()
                fitting = [i for i, (m, o, _) in CLASSES.items() if m == thought and o == CLASSES[index][1] and knows]
                candidates = fitting or [i for i, (m, *_) in CLASSES.items() if m == thought]
                predicted = shared if twins_alike else candidates[int(luck * len(candidates))]
                clip = f"twin-{name}-{number:03d}-{CLASSES[index][1]}"
                found.append((clip, index, predicted, f"twin-{name}-{number:03d}"))
    return found


def write_run(
    results: Path, run: str, motion: float, held: float, seeds: tuple[int, ...] = (0, 1, 2), tuples: int = 20,
    twins_alike: bool = False, variant: str = "", **settings: Any,
) -> None:  # fmt: skip
    """Write the results of one run, all seeds. `settings` go into metrics.json."""
    name = f"{run}@{variant}" if variant else run
    for seed in seeds:
        rows = answers(motion, held, seed, tuples, twins_alike)
        place = results / "skelgap" / "compositional_30_10" / name / f"seed-{seed}"
        place.mkdir(parents=True)
        with (place / "predictions.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["clip_id", "label", "predicted", "tuple", "rank", "scores"])
            writer.writerows((*row, 1 if row[1] == row[2] else 2, "") for row in rows)
        order = list(CLASSES)
        counts = np.zeros((10, 10), int)
        for _, label, predicted, _ in rows:
            counts[order.index(label), order.index(predicted)] += 1
        with (place / "confusion.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["class", *(CLASSES[i][2] for i in order)])
            writer.writerows([CLASSES[i][2], *counts[k].tolist()] for k, i in enumerate(order))
        hits, n = int(np.trace(counts)), len(rows)
        most = max(Counter(t for _, label, predicted, t in rows if label == predicted).values(), default=0)
        data = {
            "dataset": "skelgap", "protocol": "compositional_30_10", "run": name, "method": "posebridge", "flags": {},
            "seed": seed, "recipe": "refined", "text": "minilm", "hpe_text": "captions", "skeletons": "estimated",
            "test_variant": variant,
            "zsl": {"top1": hits / n, "macro": hits / n, "n": n, "ci95": list(binomial_interval(hits, n))},
            "gzsl": {"seen": 0.8, "unseen": hits / n * 0.8, "harmonic": 1.6 * hits / n * 0.8 / (0.8 + hits / n * 0.8),
                     "ausuc": 0.6 * hits / n} if hits else None,
            "adapted": None, "selection": {"epochs": 12, "alpha": 0.25, "gamma": 0.2, "seconds": 30.0},
            "ceiling": CEILING | {"twin_hits_max": most}, "params": 353_688, "gflops": 0.03, "seconds": 1.1,
            "missing": 0,
            "halves": halves(("motion", "object"), {c: (m, o) for c, (m, o, _) in CLASSES.items()},
                             np.array([row[1] for row in rows]), np.array([row[2] for row in rows])),
        }  # fmt: skip
        (place / "metrics.json").write_text(json.dumps(data | settings))
        (place / "params.yaml").write_text("encode: {}\ntrain: {}\n")


def write_benchmark(results: Path, tuples: int = 20) -> None:
    """A whole benchmark: methods, ablations, disturbances and counterfactual variants."""
    skeleton: dict[str, Any] = {"method": "skeleton", "tuples": tuples}
    write_run(results, "posebridge", 0.97, 0.75, seeds=(0, 1, 2, 3, 4), tuples=tuples)
    write_run(results, "skeleton", 0.97, 0.06, seeds=(0, 1, 2, 3, 4), **skeleton)
    write_run(results, "posebridge_gt", 0.99, 0.76, skeletons="gt", tuples=tuples)
    write_run(results, "skeleton_gt", 1.0, 0.0, skeletons="gt", twins_alike=True, **skeleton)
    for name, motion, held, flags in (
        ("cues_only", 0.35, 0.75, {"skeleton": False}),
        ("no_bridge", 0.96, 0.6, {"bridge": False}),
        ("no_additive", 0.97, 0.35, {"additive": False}),
        ("gate", 0.97, 0.74, {"gate": True}),
        ("no_adaptation", 0.95, 0.72, {"adaptation": "none"}),
        ("body_only", 0.96, 0.3, {"anchors": ["body"]}),
    ):
        write_run(results, name, motion, held, flags=flags, tuples=tuples)
    write_run(results, "levels_sem", 0.97, 0.55, recipe="levels", flags={"level_widths": [48, 96, 192, 384]},
              tuples=tuples)  # fmt: skip
    for kind, falls in (("blur", 0.07), ("low_light", 0.16), ("occlusion", 0.12)):
        for level in (1, 2, 3):
            less, variant = falls * level, f"{kind}-{level}"
            write_run(results, "posebridge", 0.97 - less, 0.75 - less, seeds=(0, 1, 2, 3, 4), variant=variant,
                      tuples=tuples)  # fmt: skip
            write_run(results, "gate", 0.97 - less, 0.74 - 1.5 * less, variant=variant, flags={"gate": True},
                      tuples=tuples)  # fmt: skip
            write_run(results, "skeleton", 0.97 - less, 0.05, variant=variant, **skeleton)
    for variant, held in (("distractors", 0.72), ("background", 0.74), ("subject", 0.7)):
        write_run(results, "posebridge", 0.96, held, seeds=(0, 1, 2, 3, 4), variant=variant, tuples=tuples)
        write_run(results, "skeleton", 0.96, 0.05, variant=variant, **skeleton)
