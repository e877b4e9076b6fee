"""posebridge: raw videos to zero-shot action recognition through pose-anchored semantic cues.

In a notebook, in the project's folder: `import pipeline; pipeline.results()`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def results(folder: Path | str = "cache/results") -> pd.DataFrame:
    """All figures of every run and seed as one DataFrame: see pipeline/report/results.py."""
    from pipeline.report import results  # late, since everybody imports this file

    return results.results(folder)
