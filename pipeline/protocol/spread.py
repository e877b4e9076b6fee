"""Figures over seeds: their mean and how far they spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Mean over seeds and sample standard deviation; `std` is None for a single run."""

    mean: float
    std: float | None

    @property
    def percent(self) -> str:
        """Of fractions: `62.3 ± 1.2`, or `62.3` for a single run (the table names it so)."""
        return f"{100 * self.mean:.1f}" + ("" if self.std is None else f" ± {100 * self.std:.1f}")


def spread_of(values: Sequence[float]) -> Spread:
    """Of one figure for each seed. Summed exactly: by pandas' means, rounding would hang on the order of seeds."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
