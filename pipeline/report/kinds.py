"""Which runs of a protocol are compared with which: methods, ablations of a method, and tests on variants.

Also the difference of two runs, paired by seed. Pure: runs in, runs and figures out.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats is slow to load

from pipeline.report.runs import Run


@dataclass(frozen=True)
class Kinds:
    """The runs of one protocol, sorted out.

    A method's default run bears the method's name; a run of the same method with other flags or another recipe is an
    ablation of it, and for `posebridge` so is `skeleton`, which is the same without cues. A method that takes cues
    besides (`cues: true`) is a method of its own.
    """

    methods: tuple[Run, ...]  # all that are no ablation and no variant; in the order given, as everywhere here
    ablations: dict[str, tuple[Run, ...]]  # name of a default run -> the default run first, then its ablations
    variants: dict[str, dict[str, Run]]  # name of a run -> variant -> the same models tested on it


def sort_out(runs: Sequence[Run]) -> Kinds:
    """Sort the runs of one protocol."""
    plain = [run for run in runs if not run.first.test_variant]
    names = {run.first.run for run in plain}
    default = {run.first.run: run for run in plain if run.first.run == run.first.method}
    methods, changed = [], defaultdict(list)
    for run in plain:
        full = default.get(run.first.method)
        if full is None or _same_settings(_without_cues(run), _without_cues(full)):
            methods.append(run)
        else:
            changed[full.first.run].append(run)
    if changed.get("posebridge") and "skeleton" in default:
        changed["posebridge"].append(default["skeleton"])
        changed["posebridge"].sort(key=runs.index)
    variants: dict[str, dict[str, Run]] = defaultdict(dict)
    for run in runs:
        name = base_name(run)
        if run.first.test_variant and name in names:
            variants[name][run.first.test_variant] = run
        elif run.first.test_variant:
            methods.append(run)  # its own run is not here: shown by itself
    ablations = {name: (default[name], *others) for name, others in changed.items()}
    return Kinds(tuple(methods), ablations, dict(variants))


def base_name(run: Run) -> str:
    """`posebridge` of `posebridge@blur-2`."""
    return run.first.run.partition("@")[0]


def changes(run: Run, full: Run) -> str:
    """What a run does otherwise than another of its method: `gate off`, `anchors body`."""
    if run.first.method != full.first.method:
        return "cues off" if run.first.method == "skeleton" else f"method {run.first.method}"
    words = []
    for name in dict.fromkeys([*run.first.flags, *full.first.flags]):
        value = run.first.flags.get(name)
        if value != full.first.flags.get(name):
            words.append(f"{name} {_plain(value)}")
    if run.first.recipe != full.first.recipe:
        words.append(f"recipe {run.first.recipe}")
    if run.first.text != full.first.text:
        words.append(f"text {run.first.text}")
    if run.first.skeletons not in ("estimated", full.first.skeletons):
        words.append(f"skeletons of {run.first.skeletons}")
    return ", ".join(words)


@dataclass(frozen=True)
class Difference:
    """Mean over seeds of one run minus another on the same seed, fractions; a 95 % interval by Student's t."""

    mean: float
    seeds: int
    interval: tuple[float, float] | None = None  # None for a single seed


def difference(run: Run, other: Run, section: str = "zsl", key: str = "top1") -> Difference | None:
    """`run` minus `other` over the seeds that both have; None without such a seed or such a figure.

    Seeds differ in initialisation, order and augmentation. The interval tells how far these carry the difference; it
    does not tell how far another test set would.
    """
    ours = {result.seed: getattr(result, section) for result in run.results}
    theirs = {result.seed: getattr(result, section) for result in other.results}
    gaps = [ours[seed][key] - theirs[seed][key] for seed in ours if seed in theirs and ours[seed] and theirs[seed]]
    if not gaps:
        return None
    mean = statistics.fmean(gaps)
    if len(gaps) == 1:
        return Difference(mean, 1)
    reach = float(stdtrit(len(gaps) - 1, 0.975)) * statistics.stdev(gaps) / math.sqrt(len(gaps))
    return Difference(mean, len(gaps), (mean - reach, mean + reach))


def true_and_estimated(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """(on true skeletons, on estimated ones) of the runs that differ in nothing else."""
    pairs = []
    for run in runs:
        if run.first.skeletons == "gt":
            alike = [r for r in runs if r.first.skeletons == "estimated" and _same_settings(r, run)]
            pairs += [(run, other) for other in alike[:1]]
    return pairs


def with_cues(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """(without cues, with them) of the runs that differ in nothing else; `skeleton` is `posebridge` without cues."""
    pairs = []
    for run in runs:
        if not run.takes_cues:
            alike = [r for r in runs if r.takes_cues and r.first.skeletons == run.first.skeletons]
            if run.first.method == "skeleton":
                pairs += [(run, other) for other in alike if other.first.method == "posebridge"][:1]
            else:
                pairs += [(run, other) for other in alike if _same_settings(_without_cues(other), run)][:1]
    return pairs


def _without_cues(run: Run) -> Run:
    """The run as if the switch `cues` of its method were off."""
    results = tuple(
        replace(result, flags={name: value for name, value in result.flags.items() if name != "cues"})
        for result in run.results
    )
    return Run(results)


def _same_settings(run: Run, other: Run) -> bool:
    """Of one method with the same flags, recipe and text; skeletons may be true or estimated."""
    return all(getattr(run.first, n) == getattr(other.first, n) for n in ("method", "flags", "recipe", "text"))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "as by default"
    return " ".join(str(part) for part in value) if isinstance(value, list) else str(value)
