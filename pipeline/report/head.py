"""What stands at the head of the page: when and by what it was made, and of which data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from pipeline.cache.provenance import git_commit, versions
from pipeline.report.runs import Run, group_by_protocol

NAMED = 3  # data sets in the page's title


@dataclass(frozen=True)
class Head:
    """`data`: a row a protocol, printable."""

    title: str
    made: str
    version: str
    commit: str
    data: pd.DataFrame


def head_of(runs: Sequence[Run], now: datetime | None = None) -> Head:
    """The head of a page of these runs, at least one."""
    groups = group_by_protocol(runs).items()
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    datasets = list(dict.fromkeys(run.first.dataset for run in runs))
    more = f" and {len(datasets) - NAMED} more" if len(datasets) > NAMED else ""
    return Head(
        ", ".join(datasets[:NAMED]) + more,
        f"{moment.day} {moment:%B %Y, %H:%M} UTC",
        versions().get("posebridge", "from its source"),
        git_commit()[:12],
        pd.DataFrame([_row(dataset, protocol, group) for (dataset, protocol), group in groups]),
    )


def _row(dataset: str, protocol: str, group: Sequence[Run]) -> dict[str, str]:
    recipes = dict.fromkeys(run.first.recipe for run in group)
    seeds = [len(run.seeds) for run in group]
    return {
        "data set": dataset,
        "protocol": protocol,
        "test clips": str(group[0].first.test_clips),
        "runs": str(len(group)),
        "seeds": str(seeds[0]) if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}",
        "recipes": ", ".join(recipes),
    }
