"""Published figures beside ours: published | ours | difference, for every protocol and method.

Reads manifests/published.csv (`dataset,protocol,measure,method,ours,value,source,note`) and published_defects.csv
(`method,measure,defect`: with what a figure was obtained that this project does not copy). Writes nothing itself;
`posebridge report` shows it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.files.shipped import SHIPPED
from pipeline.files.tables import open_table
from pipeline.protocol.spread import Spread, spread_of
from pipeline.report.leaderboard import NONE, aligned, between, percent, points, seeds, text
from pipeline.report.runs import Run

# measure -> its title, and the section and key of metrics.json that hold ours; None: we have no such figure
MEASURES: dict[str, tuple[str, tuple[str, str] | None]] = {
    "zsl_top1": ("ZSL top-1", ("zsl", "top1")),
    "adapted_top1": ("ZSL top-1, adapted", ("adapted", "top1")),
    "gzsl_harmonic": ("GZSL H", ("gzsl", "harmonic")),
    "gain": ("gain in ZSL top-1, points", None),
}
COLUMNS = ("dataset", "protocol", "measure", "method", "ours", "value", "source", "note")
MARK = "†"
REMARK = (
    "Published figures are in percent as printed, the difference is ours minus published in points, the interval is "
    "the 95 % one of our mean. Pose models, features, descriptions and details of the protocol differ "
    f"between papers, so a difference is no verdict on a method. {MARK}: the published figure has a known defect."
)


@dataclass(frozen=True)
class Figure:
    """One published figure. `protocols` are several where it is the mean over them; `ours` is our method's name."""

    dataset: str
    protocols: tuple[str, ...]
    measure: str
    method: str
    ours: str
    printed: str  # with the digits of its source
    fraction: float  # as our accuracies are: 0..1
    source: str
    note: str
    defects: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """A published figure and one of our runs, or none."""

    figure: Figure
    run: Run | None = None  # of the first protocol
    ours: Spread | None = None
    interval: tuple[float, float] | None = None  # fractions; None over several protocols, and for GZSL

    @property
    def difference(self) -> float | None:
        """Ours minus published, a fraction."""
        return None if self.ours is None else self.ours.mean - self.figure.fraction

    def cells(self) -> dict[str, str]:
        """Title -> printable cell; a dash where we have nothing."""
        figure = self.figure
        protocols = figure.protocols[0] if len(figure.protocols) == 1 else f"mean of {', '.join(figure.protocols)}"
        return {
            "data set": figure.dataset,
            "protocol": protocols,
            "measure": MEASURES[figure.measure][0],
            "method": figure.method,
            "published": figure.printed + (MARK if figure.defects else ""),
            "ours": percent(self.ours),
            "difference": points(self.difference),
            "95 % interval": between(self.interval),
            "seeds": seeds(self.run) if self.run else NONE,
            "text": text(self.run) if self.run else NONE,
            "our run": _named(self.run) if self.run else NONE,
            "source": figure.source + (f"; {figure.note}" if figure.note else ""),
        }


def _named(run: Run) -> str:
    return run.first.run + (", imported" if run.first.features == "imported" else "")


def compare(runs: Sequence[Run], manifests: Path) -> list[Comparison]:
    """All published figures on the data sets of `runs`, in the file's order, each beside every run of its method.

    References, runs on true skeletons, of a test variant, or with the flag `cues`, which makes another system of a
    method, stand beside none. A figure that we have no run for stands alone.
    """
    lists = manifests if (manifests / "published.csv").exists() else SHIPPED / "manifests"
    figures = read_published(lists / "published.csv", lists / "published_defects.csv")
    comparable = [
        run
        for run in runs
        if run.first.skeletons in ("estimated", "imported")
        and not (run.first.reference or run.first.test_variant or "cues" in run.first.flags)
    ]
    datasets = {run.first.dataset for run in runs}
    found: list[Comparison] = []
    for figure in figures:
        if figure.dataset in datasets:
            found += _beside(figure, comparable) or [Comparison(figure)]
    return found


def table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Printable, a row a comparison."""
    return pd.DataFrame([comparison.cells() for comparison in comparisons])


def text_table(comparisons: Sequence[Comparison]) -> str:
    """The table for a terminal, one block a data set, with what must be known to read it; the page has the sources."""
    if not comparisons:
        return ""
    blocks = [
        f"{dataset}: published | ours | difference\n{aligned(rows.drop(columns=['data set', 'source']))}"
        for dataset, rows in table(comparisons).groupby("data set", sort=False)
    ]
    return "\n\n".join([*blocks, "\n".join([REMARK, *defects(comparisons)])])


def defects(comparisons: Sequence[Comparison]) -> list[str]:
    """One sentence for each marked method: what its figures were obtained with."""
    known: dict[str, list[str]] = {}
    for comparison in comparisons:
        for defect in comparison.figure.defects:
            sentences = known.setdefault(comparison.figure.method, [])
            if defect not in sentences:
                sentences.append(defect)
    return [f"{MARK} {method}: {'; '.join(sentences)}." for method, sentences in known.items()]


def read_published(path: Path, defects_path: Path) -> list[Figure]:
    """Both files, joined. Raises PosebridgeError, with line and column, for an unknown measure, a value that is no
    percentage, and a figure without protocol or source; no file is no figure.
    """
    if not path.is_file():
        return []
    known = list(open_table(defects_path, ("method", "measure", "defect"), (), "bring it back with git"))
    figures = []
    for row in open_table(path, COLUMNS, (), "bring it back with git"):
        dataset, protocol, measure, method, ours, printed, source, note = map(row.text, COLUMNS)
        if measure not in MEASURES:
            raise row.wrong("measure", f"the measure {measure!r} is unknown; use {', '.join(MEASURES)}")
        row.needed("value")
        percentage = row.number("value", 0, 100, "a percentage as it is printed")
        row.needed("protocol")
        row.needed("source")
        defective = tuple(
            d.text("defect") for d in known if d.text("method") == method and d.text("measure") in ("", measure)
        )
        figures.append(
            Figure(
                dataset, tuple(protocol.split()), measure, method, ours, printed, (percentage or 0.0) / 100, source,
                note, defective,
            )  # fmt: skip
        )
    return figures


def _beside(figure: Figure, runs: Sequence[Run]) -> list[Comparison]:
    """The figure beside every run of its method that all its protocols have."""
    place = MEASURES[figure.measure][1]
    if place is None or not figure.ours:
        return []
    section, key = place
    own: dict[str, dict[str, Run]] = {}  # run's name -> protocol -> run
    for run in runs:
        first = run.first
        if section == "adapted" and first.adapted_by != figure.ours:
            continue
        if first.dataset == figure.dataset and first.protocol in figure.protocols and first.method == figure.ours:
            own.setdefault(first.run, {})[first.protocol] = run
    found = []
    for by_protocol in own.values():
        if set(by_protocol) != set(figure.protocols):
            continue
        parts = [by_protocol[protocol] for protocol in figure.protocols]
        ours = _spread(parts, section, key)
        if ours is None:
            continue
        run = parts[0]
        bounds = run.ci95(section) if len(parts) == 1 and key == "top1" else None
        found.append(Comparison(figure, run, ours, bounds))
    return found


def _spread(parts: Sequence[Run], section: str, key: str) -> Spread | None:
    """Mean and std over seeds of the mean over protocols; None where a protocol lacks the figure or a seed."""
    if any(part.seeds != parts[0].seeds for part in parts):
        return None
    tables = [[getattr(result, section) for result in part.results] for part in parts]
    if not all(value for table in tables for value in table):
        return None
    means = [statistics.fmean(value[key] for value in of_one_seed) for of_one_seed in zip(*tables, strict=True)]
    return spread_of(means)
