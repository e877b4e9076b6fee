"""What `posebridge predict` tells: lines, a timeline, a growing table, an overlay, JSON."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PosebridgeError
from stages.bars import counter
from stages.shell import answer, say

if TYPE_CHECKING:
    from pipeline.manifest.clips import Clip
    from pipeline.predict.answers import Answered, Windows
    from pipeline.predict.live import LivePoses
    from pipeline.predict.predict import Prediction, Scorer
    from pipeline.predict.table import AnswerTable

SPARSE = 0.25  # seconds from frame to frame that an action may hide in


@dataclass(frozen=True)
class Wanted:
    """What a person wants to see: so many labels, files of these names, JSON."""

    top: int
    timelines: tuple[Path, ...]
    table: Path | None
    overlay: Path | None
    as_json: bool


def run_predictions(
    place: Path, videos: list[Path], clips: list[Clip], how: Windows, live: LivePoses, scorer: Scorer, wanted: Wanted,
    facts: dict[str, Any],
) -> None:  # fmt: skip
    """Answer about `videos`, those in the folder `place` or itself, whose `clips` are known then; fail where nothing
    could be answered because nothing could be read.
    """
    from pipeline.predict.live import video_name
    from pipeline.predict.predict import told_confidence

    begun = time.perf_counter()
    alone = videos == [place]
    facts |= {
        "temperature": (scorer.confidence or scorer).temperature,
        "confidences": told_confidence(scorer.confidence),
        "calibration": dataclasses.asdict(scorer.confidence) if scorer.confidence else None,
    }
    say(facts["confidences"])
    told = Told(live.recipe.frames, how.window is not None)
    found = []
    with (
        closing(open_table(wanted.table, how, live, scorer)) if wanted.table else nullcontext() as table,
        counter("window" if alone else "video", leave=False) as show,
    ):
        left = [path for path in videos if table is None or video_name(path) not in table.done]
        for each in answers(left, clips if alone else None, how, live, scorer, wanted, show):
            told.add(each)
            if table is not None:
                table.add(each)
            else:
                found.append(each)
    facts["seconds"], facts["video_seconds"] = round(time.perf_counter() - begun, 3), round(told.seconds, 3)
    for sentence in told.warnings():
        say(f"Warning: {sentence}")
        facts["warnings"].append(sentence)
    facts["failures"] = told.failed
    if table is not None:
        facts |= {"table": str(table.path), "videos": len(videos), "answered_before": len(videos) - len(left)}
        lines = [f"Wrote {table.path}: {counted(len(videos))}, {len(videos) - len(left)} of them before; "
                 f"{told.failed} of {len(left)} failed."]  # fmt: skip
    else:
        facts |= told_whole(found, wanted, live, how.image_fps)
        lines = [line for each in found for line in sentences(each, not alone)]
        if not alone and told.failed:
            lines.append(f"{told.failed} of {len(videos)} videos failed.")
    answer(facts, "\n".join(lines), wanted.as_json)
    if left and told.failed == len(left) and not told.anything:
        raise PosebridgeError(f"No answer: {told.reason.rstrip('.') if alone else 'none of the videos could be read'}.")


def answers(
    videos: Sequence[Path], clips: list[Clip] | None, how: Windows, live: LivePoses, scorer: Scorer, wanted: Wanted,
    show: Any,
) -> Iterator[Answered]:  # fmt: skip
    """The answers, with progress: over the windows of the one video whose `clips` are known, or over videos."""
    from pipeline.predict.answers import answer_videos

    known = {videos[0]: clips} if clips and videos else {}
    count = (lambda done: show(done, len(clips))) if clips else (lambda done: None)
    found = answer_videos(videos, how, live, scorer, wanted.top, wanted.overlay is not None, known, count)
    for done, each in enumerate(found, start=1):
        yield each
        if clips is None:
            show(done, len(videos))


def open_table(path: Path, how: Windows, live: LivePoses, scorer: Scorer) -> AnswerTable:
    """The table of --table; says where it goes on, and where it begins anew."""
    from pipeline.files.hashing import fingerprint
    from pipeline.predict.table import AnswerTable

    table = AnswerTable(path, fingerprint(scorer.key, live.recipe.fingerprint, how))
    if table.kept:
        say(f"{path} held answers to another question (other labels, words, run or windows); it begins anew, and those "
            f"are kept in {table.kept}.")  # fmt: skip
    elif table.done:
        say(f"{path} has {counted(len(table.done))} already; it goes on.")
    return table


class Told:
    """What is told of all answers together; none of them is kept."""

    def __init__(self, frames: int, windows: bool):
        self.failed, self.anything, self.reason, self.seconds = 0, False, "", 0.0
        self._frames, self._windows, self._longest = frames, windows, 0.0
        self._few: tuple[int, Prediction | None] = (0, None)

    def add(self, each: Answered) -> None:
        """Count one video."""
        self.failed += each.failed
        self.anything |= any(not prediction.failed for prediction in each.predictions)
        self.reason = self.reason or each.reason or next((p.reason for p in each.predictions if p.failed), "")
        self.seconds += each.predictions[-1].end if each.predictions else 0.0
        self._longest = max([self._longest, *(p.end - p.start for p in each.predictions)])
        self._few = (self._few[0] + len(each.few), self._few[1] or next(iter(each.few), None))

    def warnings(self) -> Iterator[str]:
        """What a person should know before believing the answers."""
        if self._longest > self._frames * SPARSE:
            yield (
                f"{self._longest:.0f} s are looked at in {self._frames} frames, {self._frames / self._longest:.1f} a "
                f"second; give a {'shorter ' if self._windows else ''}--window to look closer."
            )
        count, first = self._few
        if first is not None:
            yield (
                f"Answers that rest on few different frames: {count}, first at {first.start:.1f} s of {first.video!r}; "
                "the video pauses or has wrong time stamps, try a shorter --window."
            )


def told_whole(found: Sequence[Answered], wanted: Wanted, live: LivePoses, image_fps: float) -> dict[str, Any]:
    """The answers as JSON has them, and the files that were asked for, written."""
    opened = [each for each in found if not each.reason]
    facts: dict[str, Any] = {
        "predictions": [dataclasses.asdict(p) for each in opened for p in each.predictions],
        "timeline": [dataclasses.asdict(stretch) for each in opened for stretch in each.stretches],
        "unreadable": [{"video": each.video, "reason": each.reason} for each in found if each.reason],
    }
    if not opened:
        return facts
    from pipeline.predict.timeline import write_timeline

    facts["timelines"] = [str(write_timeline(path, opened[0].stretches)) for path in wanted.timelines]
    if wanted.overlay is not None:
        from pipeline.predict.overlay import write_overlay
        from pipeline.skeleton.graph import graph_of

        begun = time.perf_counter()
        with counter("frame", leave=False) as show:
            path = write_overlay(opened[0], wanted.overlay, graph_of(live.recipe.layout), show, image_fps)
        facts |= {"overlay": str(path), "overlay_seconds": round(time.perf_counter() - begun, 3)}
    return facts


def sentences(each: Answered, name: bool) -> Iterator[str]:
    """The lines of a video's answer: `clip.mp4  pushing 71%, hugging 20%`, or of its timeline's stretches."""
    from pipeline.predict.predict import told_shares

    parts = [each.video] if name else []
    if each.reason:
        yield each.reason  # it begins with the name
    elif len(each.predictions) == 1:
        (one,) = each.predictions
        yield "  ".join([*parts, ", ".join(told_shares(one)) or one.reason])
    else:
        for stretch in each.stretches:
            yield "  ".join([*parts, f"{stretch.start:6.1f} - {stretch.end:6.1f} s", stretch.words])


def counted(count: int) -> str:
    """`1 video`, `2 videos`."""
    return f"{count} video{'' if count == 1 else 's'}"
