"""The windows of a video as a timeline: stretches of one answer each, as a table, subtitles, or a picture.

A moment belongs to the window whose middle is the nearest, as in the overlay. Writes CSV, SRT and PNG.
    posebridge predict long.mp4 --labels "pushing, hugging" --window 3 --timeline long.csv --timeline long.srt
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from pathlib import Path

from matplotlib.figure import Figure

from pipeline.errors import PosebridgeError
from pipeline.files.durable import write_for_people
from pipeline.files.tables import write_table
from pipeline.learn.confidence import NONE
from pipeline.predict.predict import Prediction
from pipeline.report.figures import BASELINE, COLOURS, FAINT, GRID, INK, lettering, save

FORMS = (".csv", ".srt", ".png")
HEADER = ("video", "start", "end", "answer", "confidence", "windows", "reason")
MOST_ROWS = 40  # of the picture; of more answers the longest have one
NOBODY_THERE = "#d8dde1"


@dataclass(frozen=True)
class Stretch:
    """Seconds of a video with one answer: `confidence` is the mean of its windows' shares of it. Where there is no
    `answer`, `reason` tells why.
    """

    video: str
    start: float
    end: float
    answer: str
    confidence: float | None
    windows: int
    reason: str = ""

    @property
    def words(self) -> str:
        """The answer and its share, or the reason."""
        return f"{self.answer} {self.confidence:.0%}" if self.confidence is not None else self.reason


def merge(predictions: Sequence[Prediction]) -> tuple[Stretch, ...]:
    """The stretches of one video, of its windows in order: neighbours with one answer are one stretch."""
    found: list[Stretch] = []
    for prediction, start, end in zip(predictions, *_reigns(predictions), strict=True):
        share = share_of(prediction)
        last = found[-1] if found else None
        if last and (last.answer, last.reason) == (prediction.answer, prediction.reason):
            start, count = last.start, last.windows + 1
            mean = None if share is None else ((last.confidence or 0.0) * last.windows + share) / count
            found[-1] = Stretch(prediction.video, start, end, prediction.answer, mean, count, prediction.reason)
        else:
            found.append(Stretch(prediction.video, start, end, prediction.answer, share, 1, prediction.reason))
    return tuple(found)


def share_of(prediction: Prediction) -> float | None:
    """The share of the answer; None where there is none."""
    if not prediction.answer:
        return None
    return prediction.none if prediction.answer == NONE else prediction.ranking[0].confidence


def _reigns(predictions: Sequence[Prediction]) -> tuple[list[float], list[float]]:
    """From when until when each window's middle is the nearest."""
    middles = [(p.start + p.end) / 2 for p in predictions]
    between = [(one + two) / 2 for one, two in pairwise(middles)]
    if not predictions:
        return [], []
    return [predictions[0].start, *between], [*between, predictions[-1].end]


def check_form(path: Path) -> Path:
    """The path itself. Raises PosebridgeError where its name ends otherwise than a timeline's may."""
    if path.suffix.lower() not in FORMS:
        raise PosebridgeError(f"{path} is no name of a timeline; let it end in {', '.join(FORMS[:-1])} or {FORMS[-1]}.")
    return path


def write_timeline(path: Path, stretches: Sequence[Stretch]) -> Path:
    """Write the stretches of one video in the form that the name ends in."""
    form = check_form(path).suffix.lower()
    if form == ".csv":
        return write_table(path, HEADER, (cells(each) for each in stretches))
    if form == ".srt":
        write_for_people(path, "\n".join(subtitles(stretches)).encode("utf-8", "backslashreplace"))
        return path
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a letter that the font lacks is a box
        return save(draw_timeline(stretches), path)


def cells(stretch: Stretch) -> tuple[object, ...]:
    """A row of a table."""
    video, start, end, answer, confidence, windows, reason = astuple(stretch)
    share = None if confidence is None else f"{confidence:.4f}"
    return video, f"{start:.3f}", f"{end:.3f}", answer, share, windows, reason


def subtitles(stretches: Sequence[Stretch]) -> Iterator[str]:
    """SubRip: numbered texts with their times. A player would take angle brackets for markup, and an empty line for the
    end of a text.
    """
    for number, each in enumerate(stretches, start=1):
        words = " ".join(each.words.split()).replace("-->", "->").replace("<", "(").replace(">", ")")
        yield f"{number}\n{_clock(each.start)} --> {_clock(each.end)}\n{words}\n"


def _clock(seconds: float) -> str:
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02},{rest % 1000:03}"


def colours(stretches: Sequence[Stretch]) -> dict[str, str]:
    """A colour for every answer, by the order in which they appear; grey is none of these, and lighter nobody."""
    answers = dict.fromkeys(each.answer or each.reason for each in stretches)
    labels = [each for each in answers if each != NONE and any(each == stretch.answer for stretch in stretches)]
    named = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}
    return {each: named.get(each, BASELINE if each == NONE else NOBODY_THERE) for each in answers}


def draw_timeline(stretches: Sequence[Stretch]) -> Figure:
    """A row for every answer, in the order in which they appear, with its stretches; the paler, the smaller the share.
    """
    painted, lasting = colours(stretches), dict.fromkeys(colours(stretches), 0.0)
    for each in stretches:
        lasting[each.answer or each.reason] += each.end - each.start
    longest = set(sorted(lasting, key=lasting.__getitem__, reverse=True)[:MOST_ROWS])
    rows = {each: row for row, each in enumerate(each for each in painted if each in longest)}
    height = 1.35 + 0.34 * len(rows)
    figure = Figure(figsize=(9.6, height), facecolor="white")
    axes = figure.subplots()
    figure.subplots_adjust(left=0.235, right=0.97, top=1 - 0.5 / height, bottom=0.6 / height)
    for each in stretches:
        name = each.answer or each.reason
        if name in rows:
            alpha = 1.0 if each.confidence is None else 0.35 + 0.65 * each.confidence
            axes.barh(rows[name], each.end - each.start, left=each.start, height=0.66, color=painted[name], alpha=alpha,
                      linewidth=0, zorder=2)  # fmt: skip
    axes.set_yticks(range(len(rows)), [lettering(name) for name in rows], fontsize=9.5, color=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(stretches[0].start, max(stretches[-1].end, stretches[0].start + 1e-3))
    axes.xaxis.set_major_formatter(lambda value, _: _minutes(value))
    axes.set_xlabel("minutes:seconds; pale: a small share", fontsize=9, color=FAINT)
    axes.grid(axis="x", color=GRID, linewidth=0.8, zorder=0)
    axes.tick_params(length=0, colors=FAINT)
    axes.tick_params(axis="y", colors=INK)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    name = lettering(Path(stretches[0].video).name, 60)
    figure.text(0.02, 1 - 0.14 / height, name, va="top", fontsize=12, fontweight="bold", color=INK)
    return figure


def _minutes(seconds: float) -> str:
    whole = abs(seconds)
    return f"{int(whole // 60)}:{whole % 60:04.1f}".removesuffix(".0")
