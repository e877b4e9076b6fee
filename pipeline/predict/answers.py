"""The answers about many videos, one video after the other, as soon as each is done.

Reads videos; writes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.manifest.clips import Clip
from pipeline.params import IMAGE_FPS
from pipeline.predict.live import LivePoses, Row, video_name, windows
from pipeline.predict.predict import Prediction, Scorer, predict
from pipeline.predict.timeline import Stretch, merge
from pipeline.video.record import shows_few


@dataclass(frozen=True)
class Windows:
    """How a video is looked at: whole, or in windows of so many seconds, one every `stride` seconds."""

    window: float | None = None
    stride: float | None = None
    image_fps: float = IMAGE_FPS


@dataclass(frozen=True)
class Answered:
    """One video: the answers to its windows, with the rows of poses where they are asked for, and those answers that
    rest on a `few` different frames; or the `reason` why it could not be opened.
    """

    video: str
    predictions: tuple[Prediction, ...] = ()
    rows: tuple[Row | None, ...] = ()
    few: tuple[Prediction, ...] = ()
    reason: str = ""

    @property
    def failed(self) -> bool:
        """Whether something of it could not be read."""
        return bool(self.reason) or any(prediction.failed for prediction in self.predictions)

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """Its timeline; a single one without an answer where it could not be opened."""
        return merge(self.predictions) if not self.reason else (Stretch(self.video, 0, 0, "", None, 0, self.reason),)


def answer_videos(
    videos: Sequence[Path], how: Windows, live: LivePoses, scorer: Scorer, top: int = 3, keep_rows: bool = False,
    known: Mapping[Path, Sequence[Clip]] | None = None, on_window: Callable[[int], None] = lambda done: None,
) -> Iterator[Answered]:  # fmt: skip
    """What each video shows. One that cannot be opened is told of, and the others go on; so does one with a window that
    does not decode. The windows of some may be `known`.
    """
    ahead: deque[Answered] = deque()  # videos that were opened, and others with the reason why not, in their order

    def clips() -> Iterator[Clip]:
        for path in videos:
            try:
                found = (known or {}).get(path) or windows(path, how.window, how.stride, how.image_fps)
            except PosebridgeError as error:
                ahead.append(Answered(video_name(path), reason=str(error)))
                continue
            ahead.append(Answered(found[0].path))
            yield from found

    done = 0
    for video, group in groupby(predict(clips(), live, scorer, top), key=lambda pair: pair[0].video):
        while (unread := ahead.popleft()).reason:
            yield unread
        predictions, rows, few = [], [], []
        for prediction, row in group:
            predictions.append(prediction)
            rows.append(without_cues(row) if keep_rows and row is not None else None)
            if row is not None and shows_few(row["video_record"], live.recipe.frames):
                few.append(prediction)
            done += 1
            on_window(done)
        yield Answered(video, tuple(predictions), tuple(rows), tuple(few))
    yield from ahead


def without_cues(row: Row) -> Row:
    """What an overlay needs of a row."""
    return {key: row[key] for key in row if "cue" not in key}
