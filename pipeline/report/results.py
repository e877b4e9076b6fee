"""Results as `evaluate` wrote them, read with care, and gathered into runs over seeds.

Reads `cache/results/<dataset>/<protocol>/<run>/seed-<k>/metrics.json` and `confusion.csv`. Writes nothing.
"""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from pipeline.errors import PosebridgeError
from pipeline.files.tables import read_text
from pipeline.methods import METHODS, takes_cues
from pipeline.protocol.metrics import binomial_interval

MOST_BYTES = 64 << 20  # of a metrics.json
MOST_CLIPS = 1 << 31  # in a cell of a confusion matrix


@dataclass(frozen=True)
class Result:
    """One metrics.json: one run, one seed. Accuracies are fractions 0..1; `ci95` is the exact binomial interval."""

    dataset: str
    protocol: str
    run: str
    method: str
    flags: dict[str, Any]
    seed: int
    recipe: str
    text: str
    hpe_text: str
    skeletons: str
    test_variant: str
    zsl: dict[str, Any]  # top1, macro, n, ci95
    gzsl: dict[str, Any] | None  # seen, unseen, harmonic, ausuc
    adapted: dict[str, Any] | None  # the same as zsl, after test-time adaptation
    selection: dict[str, Any]
    ceiling: dict[str, Any] | None  # skeleton, cue, twin_hits_max
    params: float | None
    gflops: float | None
    seconds: float | None
    folder: Path
    missing: int = 0  # test clips whose extraction failed

    @property
    def adapted_by(self) -> str | None:
        """The name of the adaptation at test time."""
        return self.adapted.get("by") if self.adapted else None


_Amount = Annotated[FiniteFloat, Field(ge=0)]


class _Zsl(TypedDict, total=False):
    top1: float
    macro: float
    n: Annotated[int, Field(ge=1)]
    ci95: tuple[float, float]


class _Adapted(TypedDict, total=False):
    by: str


class _Selection(TypedDict, total=False):
    seconds: _Amount
    adapt: _Adapted


class _Ceiling(TypedDict, total=False):
    twin_hits_max: int | None


# Two results are seeds of one run only if all of this is equal.
SETTINGS = ("method", "flags", "recipe", "text", "hpe_text", "skeletons", "test_variant", "ceiling", "adapted_by")
_NEEDED = {
    "zsl": ("top1", "macro", "n", "ci95"),
    "gzsl": ("seen", "unseen", "harmonic", "ausuc"),
    "adapted": ("top1",),
    "ceiling": ("skeleton", "cue"),
}


class _Typed(TypedDict, total=False):
    """The types of a metrics.json, as far as the report relies on them; `_NEEDED` has more to say of the sections."""

    dataset: str
    protocol: str
    run: str
    method: str
    flags: dict[str, Any]
    seed: int
    recipe: str
    text: str
    hpe_text: str
    skeletons: str
    test_variant: str
    zsl: _Zsl
    adapted: _Adapted | None
    selection: _Selection
    ceiling: _Ceiling | None
    params: _Amount | None
    gflops: _Amount | None
    seconds: _Amount | None
    missing: Annotated[int, Field(ge=0)]


_RESULT = TypeAdapter(_Typed)


@dataclass(frozen=True)
class Spread:
    """Mean over seeds and sample standard deviation; `std` is None for a single run."""

    mean: float
    std: float | None


def spread_of(values: Sequence[float]) -> Spread:
    """Of one figure for each seed."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Run:
    """The seeds of one named run on one protocol, at least one."""

    results: tuple[Result, ...]

    @property
    def first(self) -> Result:
        """The lowest seed; its settings are those of all."""
        return self.results[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(result.seed for result in self.results)

    @property
    def single(self) -> bool:
        """A single run has no spread, and every table says so."""
        return len(self.results) == 1

    def spread(self, section: str, key: str) -> Spread | None:
        """Mean and std of e.g. ("zsl", "top1") over the seeds; None where the section is absent."""
        values = [getattr(result, section)[key] for result in self.results if getattr(result, section)]
        return spread_of(values) if values else None

    def mean(self, name: str) -> float | None:
        """Mean of a cost (`params`, `gflops`, `seconds`) over the seeds that state it."""
        values = [value for result in self.results if (value := getattr(result, name)) is not None]
        return statistics.fmean(values) if values else None

    @property
    def training_seconds(self) -> float | None:
        """Mean CPU seconds, of all threads, of one seed's training, both phases; None where no seed states it."""
        values = [seconds for result in self.results if (seconds := result.selection.get("seconds")) is not None]
        return statistics.fmean(values) if values else None

    @property
    def above_ceiling(self) -> float | None:
        """Mean zero-shot top-1 minus the skeleton-only ceiling, a fraction; None where no ceiling is known."""
        top1 = self.spread("zsl", "top1")
        return top1.mean - self.first.ceiling["skeleton"] if self.first.ceiling and top1 else None

    @property
    def twin_hits_max(self) -> int | None:
        """The most twins of one tuple that any seed got right."""
        hits = [(result.ceiling or {}).get("twin_hits_max") for result in self.results]
        return max((hit for hit in hits if hit is not None), default=None)

    def ci95(self, section: str = "zsl") -> tuple[float, float] | None:
        """The exact binomial interval of the mean top-1 of `zsl` or `adapted`: how far a test set of n clips can
        mislead. All seeds answer the same clips, so their number makes it no narrower.
        """
        top1, n = self.spread(section, "top1"), self.first.zsl["n"]
        return binomial_interval(round(top1.mean * n), n) if top1 else None

    @property
    def takes_cues(self) -> bool:
        """Whether the method is shown cues; without them it is a skeleton-only one. Unknown methods are taken to be."""
        return self.first.method not in METHODS or takes_cues(self.first.method, self.first.flags)

    @property
    def leakage(self) -> tuple[float, float, float] | None:
        """HPE leakage: by how much a skeleton-only run on *estimated* skeletons passes the ceiling.

        (excess of the mean, low, high), fractions; the interval is the exact one of the mean. None otherwise.
        """
        excess = self.above_ceiling
        if self.takes_cues or self.first.skeletons == "gt" or excess is None:
            return None
        low, high = (bound - self.first.ceiling["skeleton"] for bound in self.ci95())  # type: ignore
        return excess, low, high


def read_result(path: Path) -> Result | None:
    """Read one metrics.json; None where no class is unseen (`all_seen`), so that it has no place in a table.

    Raises PosebridgeError if it is not JSON, is incomplete, or lies in a foreign folder.
    """
    remedy = "run `posebridge evaluate` again or remove it"
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            raise ValueError
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise PosebridgeError(f"{path} is not readable as JSON; {remedy}.") from None
    names = [field.name for field in fields(Result) if field.name not in ("folder", "missing")]
    if missing := [name for name in names if not isinstance(data, dict) or name not in data]:
        raise PosebridgeError(f"{path} lacks {', '.join(missing)}; {remedy}.")
    if data["zsl"] is None:
        return None
    for section, keys in _NEEDED.items():
        part = data[section]
        if part is None:
            continue
        if not isinstance(part, dict) or any(key not in part for key in keys):
            raise PosebridgeError(f"{path}: {section} should have {', '.join(keys)}; {remedy}.")
        values = [part[key] for key in keys if key != "n"]
        numbers = [number for value in values for number in (value if isinstance(value, list) else [value])]
        if not all(isinstance(x, int | float) and math.isfinite(x) and 0 <= x <= 1 for x in numbers):
            raise PosebridgeError(f"{path}: {section} should hold fractions between 0 and 1; {remedy}.")
    try:
        known = {name: data[name] for name in _Typed.__annotations__ if name in data}
        _RESULT.validate_json(json.dumps(known), strict=True)  # of JSON, which may say NaN where nobody looks
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:200] or "it"
        raise PosebridgeError(f"{path} is not as it should be: {where}: {first['msg']}; {remedy}.") from None
    place = path.parts[-5:-1]
    if place != (data["dataset"], data["protocol"], data["run"], f"seed-{data['seed']}"):
        raise PosebridgeError(f"{path} does not belong there: it says {data['dataset']}, {data['protocol']}, "
                              f"{data['run']}, seed {data['seed']}; {remedy}.")  # fmt: skip
    return Result(**{name: data[name] for name in names}, folder=path.parent, missing=data.get("missing", 0))


def read_runs(results: Path) -> tuple[list[Run], list[str]]:
    """All runs below `cache/results`, the best mean zero-shot top-1 first within a protocol.

    Also one sentence for each file that was left out.
    """
    found: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
    complaints: list[str] = []
    for path in sorted(results.glob("**/metrics.json")):
        try:
            result = read_result(path)
        except PosebridgeError as error:
            complaints.append(str(error))
            continue
        if result is None:
            continue
        seeds = found[result.dataset, result.protocol, result.run]
        if differing := [name for name in SETTINGS if seeds and _setting(result, name) != _setting(seeds[0], name)]:
            complaints.append(f"{path} was made with another {differing[0]} than seed {seeds[0].seed} of the same run; "
                              "run `posebridge evaluate` for all seeds.")  # fmt: skip
            continue
        seeds.append(result)
    runs = [Run(tuple(sorted(seeds, key=lambda result: result.seed))) for seeds in found.values()]
    runs.sort(key=lambda run: (run.first.dataset, run.first.protocol, -_top1(run), run.first.run))
    return runs, complaints


def read_confusion(run: Run) -> tuple[list[str], np.ndarray] | None:
    """Zero-shot confusion summed over the seeds: class names [U], counts [U, U] int64 (rows true, columns predicted).

    None where a seed has no confusion.csv. Raises PosebridgeError if one is not a square table of counts.
    """
    total: np.ndarray | None = None
    names: list[str] = []
    for result in run.results:
        path = result.folder / "confusion.csv"
        if not path.is_file():
            return None
        text, _ = read_text(path, "run `posebridge evaluate` again")
        try:
            rows = list(csv.reader(io.StringIO(text, newline="")))
            counts = np.array([[int(cell) for cell in row[1:]] for row in rows[1:]], np.int64)
        except (ValueError, OverflowError, csv.Error):
            rows, counts = [], np.empty(0, np.int64)
        names = rows[0][1:] if rows else []
        if counts.min(initial=0) < 0 or counts.max(initial=0) > MOST_CLIPS or counts.shape != (len(names), len(names)):
            raise PosebridgeError(f"{path} is not a square table of counts; run `posebridge evaluate` again.")
        total = counts if total is None else total + counts
    return (names, total) if total is not None else None


def group_by_protocol(runs: Sequence[Run]) -> dict[tuple[str, str], list[Run]]:
    """(dataset, protocol) -> its runs, in the order given."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.first.dataset, run.first.protocol].append(run)
    return dict(groups)


def _top1(run: Run) -> float:
    return statistics.fmean(result.zsl["top1"] for result in run.results)


def _setting(result: Result, name: str) -> Any:
    value = getattr(result, name)
    if name == "ceiling" and value:  # the hits differ by seed, the ceilings must not
        return value["skeleton"], value["cue"]
    return value
