"""What was seen and what was answered, drawn into the video: boxes, skeletons, identities, labels.

Reads the video once more, every frame of it; writes an MP4 (H.264). One frame is held at a time.
    posebridge predict video.mp4 --labels "shaking hands, pushing" --run posebridge --overlay seen.mp4
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from pipeline.errors import PosebridgeError
from pipeline.files.durable import draft_of
from pipeline.predict.answers import Answered
from pipeline.predict.live import Row
from pipeline.predict.predict import Prediction, told_shares
from pipeline.predict.timeline import Stretch, colours
from pipeline.skeleton.graph import Graph
from pipeline.skeleton.picture import COLOURS, draw_skeleton
from pipeline.tracking.similarity import People, box_iou
from pipeline.video.decode import VideoError
from pipeline.video.image_folder import open_video

CLOCK = 1000  # ticks of the overlay's time stamps in a second
ALIKE = 0.1  # IoU of boxes from which persons of two windows are the same


@dataclass(frozen=True)
class Person:
    """One person at one moment."""

    identity: int
    keypoints: np.ndarray  # [V, 2]
    scores: np.ndarray  # [V]
    box: np.ndarray  # [4] x, y, w, h


class Sight:
    """The persons of one window at any moment: between two sampled frames they are in between."""

    def __init__(self, row: Row, identities: Sequence[int]):
        self.times, self.identities = np.asarray(row["timestamp"]), tuple(identities)
        self._row = {key: row[key] for key in ("keypoints", "scores", "boxes", "person_valid")}
        steps = np.diff(self.times)
        self._step = float(steps.max(initial=0.0)) + 1e-6

    def at(self, time: float) -> list[Person]:
        """Who is there at a time in seconds; nobody more than a sampling step away from where they were seen."""
        after = int(np.searchsorted(self.times, time, side="right"))
        before, after = max(after - 1, 0), min(after, len(self.times) - 1)
        gap = float(self.times[after] - self.times[before])
        share = min(max((time - self.times[before]) / gap, 0.0), 1.0) if gap > 0 else 0.0
        near = abs(time - self.times[before]) <= self._step or abs(time - self.times[after]) <= self._step
        valid, persons = self._row["person_valid"], []
        for m, identity in enumerate(self.identities):
            if not near or not (valid[m, before] or valid[m, after]):
                continue
            # Where only one side was seen, it stands for both.
            one, two = (before if valid[m, before] else after), (after if valid[m, after] else before)

            def mean(name: str, m: int = m, one: int = one, two: int = two) -> np.ndarray:
                array = self._row[name][m]
                return (1 - share) * array[one].astype(float) + share * array[two].astype(float)

            persons.append(Person(identity, mean("keypoints"), mean("scores"), mean("boxes")))
        return persons


def sights(rows: Sequence[Row | None]) -> list[Sight | None]:
    """Windows of one video in order, with identities that go on from window to window where boxes overlap."""
    found: list[Sight | None] = []
    last: Sight | None = None
    begun = 0
    for row in rows:
        if row is None:
            found.append(None)
            continue
        persons = [m for m in range(len(row["person_valid"])) if row["person_valid"][m].any()]
        names: dict[int, int] = {}
        if last is not None:
            time = float((row["timestamp"][0] + min(last.times[-1], row["timestamp"][-1])) / 2)
            before, now = last.at(time), Sight(row, range(len(row["person_valid"]))).at(time)
            if before and now:
                overlap = box_iou(as_people(before), as_people(now))
                for i, j in zip(*linear_sum_assignment(-overlap), strict=True):
                    if overlap[i, j] >= ALIKE:
                        names[now[j].identity] = before[i].identity
        for m in persons:
            if m not in names:
                names[m] = begun
                begun += 1
        begun = max([begun, *(name + 1 for name in names.values())])
        last = Sight(row, [names.get(m, -1) for m in range(len(row["person_valid"]))])
        found.append(last)
    return found


def as_people(persons: Sequence[Person]) -> People:
    """Persons as the similarities of `tracking` take them."""
    return People(*(np.stack([getattr(p, name) for p in persons]) for name in ("box", "keypoints", "scores")))


def write_overlay(
    answered: Answered, out: Path, graph: Graph, on_frame: Callable[[int, int], None] = lambda done, total: None,
    image_fps: float | None = None,
) -> Path:  # fmt: skip
    """Draw the windows' answers and persons into every frame, and of several windows a bar of all answers; returns
    `out`.

    A moment belongs to the window whose middle is the nearest. Raises PosebridgeError where the video cannot be read
    again, or `out` not be written.
    """
    middles = np.array([(p.start + p.end) / 2 for p in answered.predictions])
    shown, bar = sights(answered.rows), Bar(answered.stretches) if len(middles) > 1 else None
    video_path = Path(answered.video)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with (
            open_video(video_path, image_fps=image_fps) as video,
            draft_of(out) as draft,
            draft.open("wb") as file,  # a name with a colon would be a protocol to FFmpeg
            av.open(file, "w", format="mp4") as container,
        ):
            stream = None
            total = len(video.times)
            for position, _, frame in video.frames(range(total)):
                time = float(video.times[position])
                window = int(np.abs(middles - time).argmin())
                picture = draw(frame, shown[window], time, caption(answered.predictions[window]), graph)
                if bar is not None:
                    bar.draw(picture, time)
                if stream is None:
                    stream = open_stream(container, picture, video.fps)
                image = av.VideoFrame.from_ndarray(picture, "rgb24")
                image.pts, image.time_base = round(time * CLOCK), Fraction(1, CLOCK)
                container.mux(stream.encode(image))
                on_frame(position + 1, total)
            if stream is not None:
                container.mux(stream.encode())
    except (VideoError, av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PosebridgeError(f"The overlay {out} could not be made ({reason}); name another file or video.") from None
    return out


class Bar:
    """A strip at the lower edge, a colour for each answer over the whole video, and a mark where the moment is."""

    def __init__(self, stretches: Sequence[Stretch]):
        painted = colours(stretches)
        self._begin, self._end = stretches[0].start, max(stretches[-1].end, stretches[0].start + 1e-6)
        self._parts = [(s.start, s.end, hex_colour(painted[s.answer or s.reason])) for s in stretches]
        self._strip = np.empty((0, 3), np.uint8)  # [W, 3], painted once for all frames

    def draw(self, picture: np.ndarray, time: float) -> None:
        """Into a picture [H, W, 3]."""
        height, width = picture.shape[:2]
        top = height - max(4, round(0.03 * height))

        def across(moment: float) -> int:
            return round((moment - self._begin) / (self._end - self._begin) * width)

        if len(self._strip) != width:
            self._strip = np.zeros((width, 3), np.uint8)
            for start, end, colour in self._parts:
                self._strip[across(start) : max(across(end), across(start) + 1)] = colour
        picture[top:] = self._strip
        at, half = min(max(across(time), 0), width - 1), max(1, round(width / 320))
        picture[top - 2 * half :, max(at - half, 0) : at + half] = (255, 255, 255)


def hex_colour(text: str) -> tuple[int, int, int]:
    """`#ff8000` as red, green, blue."""
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def open_stream(container: av.container.OutputContainer, picture: np.ndarray, fps: float) -> av.VideoStream:
    """An H.264 stream for pictures like this one."""
    stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "23"})
    stream.height, stream.width = picture.shape[:2]
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, CLOCK)
    return stream


def caption(prediction: Prediction) -> list[str]:
    """The lines of an answer, best first."""
    if not prediction.ranking:
        return [prediction.reason]
    return told_shares(prediction)


def draw(frame: np.ndarray, sight: Sight | None, time: float, lines: Sequence[str], graph: Graph) -> np.ndarray:
    """A frame [H, W, 3] with its persons and lines, cut to even sides as H.264 needs them."""
    picture = np.ascontiguousarray(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2])
    size = max(max(picture.shape[:2]) / 640, 0.5)
    thick = max(1, round(2 * size))
    for person in sight.at(time) if sight else []:
        colour = COLOURS[person.identity % len(COLOURS)]
        x, y, w, h = (round(float(v)) for v in person.box)
        cv2.rectangle(picture, (x, y), (x + w, y + h), colour, thick, cv2.LINE_AA)
        write(picture, str(person.identity + 1), (x, max(y - round(4 * size), round(14 * size))), size, colour)
        draw_skeleton(picture, person.keypoints, person.scores, graph, colour, thick)
    for i, line in enumerate(lines):
        colour = (255, 255, 255) if i == 0 else (200, 200, 200)
        write(picture, line, (round(8 * size), round((22 + 24 * i) * size)), size * (1.0 if i == 0 else 0.85), colour)
    return picture


def write(picture: np.ndarray, text: str, place: tuple[int, int], size: float, colour: tuple[int, int, int]) -> None:
    """Text on a dark ground of its own; cv2's font knows ASCII only."""
    plain = text.encode("ascii", "replace").decode()
    font, thick = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(size))
    (width, height), below = cv2.getTextSize(plain, font, 0.6 * size, thick)
    x, y = place
    ground = picture[max(y - height - 3, 0) : max(y + below, 0), max(x - 3, 0) : max(x + width + 3, 0)]
    ground //= 4
    cv2.putText(picture, plain, place, font, 0.6 * size, colour, thick, cv2.LINE_AA)
