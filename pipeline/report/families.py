"""Protocols that are repetitions of one another, such as random splits, as one figure: their mean and spread.

Published tables average over such splits. Reads runs, writes nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from pipeline.protocol.metrics import binomial_interval, tuple_interval
from pipeline.protocol.spread import Spread, spread_of
from pipeline.report.parts import Parts, parts_of
from pipeline.report.runs import Run

Kept = Mapping[tuple[str, str], Mapping[int, str]]  # (data set, protocol) -> class -> what it is kept together by


@dataclass(frozen=True)
class Family:
    """One run over the splits of a family; fractions.

    `top1`, `top5` and `harmonic`: mean and sample standard deviation over splits, each split the mean over its seeds.
    `low` and `high`: the split with the least and with the highest top-1. `ci95`: of the means of all splits; what is
    asked in several of them hangs together, as twins and what a split keeps together do, which `kept` tells: values of
    the column that all splits are called as. `parts` are counted over the clips of all.
    """

    dataset: str
    name: str
    run: str
    splits: int
    top1: Spread
    low: float
    high: float
    clips: int
    ci95: tuple[float, float]
    top5: Spread | None
    harmonic: Spread | None
    parts: Parts | None
    reference: str = ""
    kept: int = 0


def family_of(protocol: str) -> str:
    """`smie_1` and `smie_2` are of the family `smie`; a data set's protocols without any number are one family."""
    numbered = re.fullmatch(r"(.+)_\d+", protocol)
    return numbered[1] if numbered else "all splits"


def families(runs: Sequence[Run], kept: Kept | None = None) -> list[Family]:
    """Every run that was tested on two or more splits of a family, the best first within one, and references last.

    `kept` tells of a split what each of its classes is kept together by, as the shoot of an exercise.
    """
    groups: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        first = run.first
        groups[first.dataset, family_of(first.protocol), first.run].append(run)
    found = [summary(*key, members, kept or {}) for key, members in groups.items() if len(members) > 1]
    return sorted(found, key=lambda f: (f.dataset, f.name, f.reference, -f.top1.mean))


def summary(dataset: str, name: str, run: str, members: Sequence[Run], kept: Kept | None = None) -> Family:
    """The splits of one run, two at least, put together; `kept` as for `families`."""
    of = [(kept or {}).get((member.first.dataset, member.first.protocol), {}) for member in members]
    top1, top5, harmonic = (
        [spread.mean for member in members if (spread := member.spread(*figure))]
        for figure in (("zsl", "top1"), ("zsl", "top5"), ("gzsl", "harmonic"))
    )
    clips = sum(member.first.test_clips for member in members)
    hits = round(sum(mean * member.first.test_clips for mean, member in zip(top1, members, strict=True)))
    return Family(
        dataset, name, run, len(members), spread_of(top1), min(top1), max(top1), clips,
        _interval(members, of) or binomial_interval(hits, clips),
        spread_of(top5) if len(top5) == len(members) else None,
        spread_of(harmonic) if len(harmonic) == len(members) else None,
        parts_of(members), members[0].first.reference,
        len({each.get(label) for member, each in zip(members, of, strict=True) for label in member.first.answers.label})
        if all(of)
        else 0,
    )  # fmt: skip


def _interval(members: Sequence[Run], of: Sequence[Mapping[int, str]]) -> tuple[float, float] | None:
    """The 95 % interval of all answers: exact where nothing hangs together, else a bootstrap over tuples, a clip that
    several splits ask about being one, or over what all splits keep together. None where a split does not tell its
    answers.
    """
    told = [member.right(each if all(of) else None) for member, each in zip(members, of, strict=True)]
    if not all(told):
        return None
    right, tuples = zip(*filter(None, told), strict=True)
    return tuple_interval(np.concatenate(right), chain.from_iterable(tuples))
