"""The report as one HTML page that needs nothing else: styles, pictures and the script that sorts tables are inside.

The words are in templates/, the tables are made here. Writes nothing itself; `page` returns the text.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.errors import some_names
from pipeline.protocol.duplicates import count_told
from pipeline.report import leaderboard, prices, published
from pipeline.report.cards import Card
from pipeline.report.contents import with_contents
from pipeline.report.controlled import Analysis
from pipeline.report.extraction import Extraction, reasons
from pipeline.report.families import Family, families
from pipeline.report.head import head_of
from pipeline.report.inside import Inside, beside_page, shown_width
from pipeline.report.latex import latex
from pipeline.report.leaderboard import NONE, between, percent, points, setting, share
from pipeline.report.look import Look
from pipeline.report.prices import Price
from pipeline.report.published import REMARK, Comparison, defects
from pipeline.report.repeated import Repeated
from pipeline.report.runs import Run, chosen_before_test
from pipeline.report.together import Together

# of selection.json: what it cost, where it was computed, and the hash of what was learnt from
NOT_CHOSEN = ("seconds", "trained_on", "device", "precision")


@dataclass(frozen=True)
class Section:
    """One protocol of one dataset: its methods (best first), their pictures, its chance level, and what else was found.

    `everyone` are all runs but those on variants: ablations too.
    """

    dataset: str
    protocol: str
    runs: tuple[Run, ...]
    everyone: tuple[Run, ...]
    bars: Path
    confusions: tuple[Path, ...]
    chance: float | None
    analysis: Analysis
    leaks: tuple[Price, ...] = ()
    repeated: tuple[Repeated, ...] = ()
    look: Look = field(default_factory=Look)
    together: Together | None = None

    @property
    def missing(self) -> int:
        """Test clips whose extraction failed."""
        return max(run.most("missing") or 0 for run in self.runs)

    @property
    def without_clips(self) -> str:
        """Classes whose test clips all failed, as a sentence tells them; empty where there is none."""
        return some_names(list(dict.fromkeys(name for run in self.runs for name in run.classes_without_clips)))

    @property
    def zero_shot(self) -> pd.DataFrame:
        """Only unseen classes are candidates."""
        rows = leaderboard.rows(self.runs, self.everyone)
        names = {"ZSL top-1": "top-1", "ZSL top-5": "top-5", "ZSL macro": "macro", "adapted top-1": "adapted"}
        order = ["run", "skeletons", "boxes", "reference", "HPE text", "seeds", "phase one", "ZSL top-1",
                 "95 % interval", "ZSL top-5", "ZSL macro", "vs ceiling", "adapted top-1"]  # fmt: skip
        hits = [run.twin_hits_max for run in self.runs]
        told = [NONE if most is None else str(most) for most in hits]
        return rows[order].rename(columns=names).assign(**{"twins right": told})

    @property
    def phase_one(self) -> str:
        """What the figures of the selection phase are for; empty where there is none."""
        chosen = chosen_before_test(self.everyone)
        elsewhere = [run.first.run for run in chosen if run not in self.runs]
        where = f" Here that is {' and '.join(elsewhere)}, below." if elsewhere else ""
        return leaderboard.PHASE_ONE + where if chosen else ""

    @property
    def references(self) -> str:
        """What a reference is; empty where there is none."""
        return leaderboard.REFERENCES if any(run.first.reference for run in self.runs) else ""

    @property
    def generalised(self) -> pd.DataFrame:
        """All classes are candidates; no rows where no run was tested so."""
        rows = leaderboard.rows(self.runs)[["run", "seeds", "S", "U", "H", "AUSUC"]]
        return rows if any(run.first.gzsl for run in self.runs) else rows.head(0)

    @property
    def prices(self) -> pd.DataFrame:
        """What leaks would have added."""
        return prices.table(self.leaks)

    @property
    def settings(self) -> pd.DataFrame:
        """How each run was made, and what it cost."""
        return pd.DataFrame([_settings(run) for run in self.everyone])


@dataclass(frozen=True)
class Data:
    """The extractions of one data set, what failed in them, and what was never listed."""

    name: str
    extractions: tuple[Extraction, ...]
    histograms: Path | None
    failed: tuple[Card, ...]
    refused: pd.DataFrame
    refused_in_all: int

    @property
    def sampled(self) -> bool:
        return any(each.sampled for each in self.extractions)

    @property
    def failures(self) -> int:
        """Clips that failed under any recipe."""
        return len({failure["clip_id"] for each in self.extractions for failure in each.failures})

    @property
    def table(self) -> pd.DataFrame:
        return pd.DataFrame([each.cells for each in self.extractions])

    @property
    def reasons(self) -> pd.DataFrame:
        return reasons(self.extractions)


def page(
    sections: Sequence[Section], complaints: Sequence[str], comparisons: Sequence[Comparison] = (),
    data: Sequence[Data] = (),
) -> str:  # fmt: skip
    """The whole page. `complaints`: sentences on results that were left out; `comparisons` are shown first."""
    house = templates()
    runs = [run for section in sections for run in section.everyone]
    kept = {(each.dataset, each.protocol): each.together.of for each in sections if each.together}
    body, contents = with_contents(house.get_template("body.html").render(
        sections=sections,
        datasets=data,
        complaints=complaints,
        comparisons=published.table(comparisons),
        remark=REMARK,
        defects=defects(comparisons),
        families=_families(families(runs, kept)),
    ))  # fmt: skip
    script = files("pipeline.report").joinpath("templates/page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return house.get_template("page.html").render(
        head=head_of(runs), contents=contents, body=body, script=Markup(script), script_hash=f"sha256-{digest}"
    )


def templates() -> Environment:
    """The templates, and what they call; all text is escaped."""
    house = Environment(
        loader=PackageLoader("pipeline.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    inside = Inside()
    house.globals |= {"zip": zip, "part": inside.part}
    house.filters |= {
        "beside": _beside,
        "beside_page": beside_page,
        "count_told": count_told,
        "filled": leaderboard.filled,
        "inside": inside,
        "latex": latex,
        "percent": percent,
        "points": points,
        "share": share,
        "shown_width": shown_width,
    }
    return house


def _families(found: Sequence[Family]) -> pd.DataFrame:
    """Means over splits that repeat one another."""
    rows = []
    for each in found:
        rows.append({
            "data set": each.dataset,
            "splits": each.name,
            "run": each.run,
            "reference": each.reference or NONE,
            "number": str(each.splits),
            "top-1": percent(each.top1),
            "least to most": between((each.low, each.high)),
            "95 % interval": between(each.ci95) + (f" ({each.kept} {each.name}s)" if each.kept else ""),
            "top-5": percent(each.top5),
            "H": percent(each.harmonic),
            **(each.parts.cells if each.parts else {}),
        })  # fmt: skip
    return pd.DataFrame(rows).fillna(NONE)


def _settings(run: Run) -> dict[str, str]:
    """Title -> printable cell."""
    params, gflops, seconds = (run.mean(name) for name in ("params", "gflops", "seconds"))
    training = run.training_seconds
    return {
        "run": run.first.run,
        "method, flags": setting(run),
        "recipe": recipes(run),
        "text": leaderboard.text(run),
        "chosen on validation classes": _chosen(run),
        "parameters": NONE if params is None else f"{params / 1e6:.2f} M",
        "GFLOP": NONE if gflops is None else f"{gflops:.3g}",
        "training, s": NONE if training is None else f"{training:.0f}",
        "test, s": NONE if seconds is None else f"{seconds:.1f}",
    }


def recipes(run: Run) -> str:
    """The extractions that a run reads: `gt` for true skeletons alone, `gt, cues refined` where cues are of another."""
    first = run.first
    if first.skeletons in ("estimated", "imported"):
        return first.recipe
    return f"{first.skeletons}, cues {first.recipe}" if run.takes_cues else first.skeletons


def _chosen(run: Run) -> str:
    """The values that validation chose: `alpha 0.5 / 0.2 / 0.5` in the order of seeds, once where all are equal."""
    chosen = []
    for name, first in run.first.selection.items():
        if not isinstance(first, int | float | str) or name in NOT_CHOSEN or name.startswith(("zsl_", "gzsl_")):
            continue  # the scores that the choice was made by are for metrics.json
        values = [result.selection.get(name, NONE) for result in run.results]
        shown = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in values]
        chosen.append(f"{name} {' / '.join(shown[:1] if len(set(shown)) == 1 else shown)}")
    return ", ".join(chosen) or NONE


def _beside(difference: float) -> str:
    if abs(difference) < 0.0005:
        return "level with"
    return f"{share(abs(difference))} points {'above' if difference > 0 else 'below'}"
