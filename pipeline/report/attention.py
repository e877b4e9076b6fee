"""Where the bridge looks, over time and anchors, drawn on the frames that the cues were taken of.

Reads attention.csv, which `evaluate` leaves beside metrics.json. Its first clips, of some unseen classes, whatever was
answered, are shown for themselves; others where a clip is shown for another reason. Writes strips of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import PosebridgeError, reason_of
from pipeline.files.tables import open_table
from pipeline.report.cards import save_strip
from pipeline.report.clip_frames import ClipFrames, FramesOf
from pipeline.report.joints import Row
from pipeline.report.runs import Run
from pipeline.report.swap_pictures import name_of, said_of
from pipeline.skeleton.picture import SURE

SHOWN, MOST_CLIPS, MOST_FRAMES, MOST_ANCHORS, MOST_PERSONS = 3, 20_000, 64, 32, 64
LONGEST = 60  # letters of an anchor, which stand in every cell
COLOUR = (255, 214, 40)
WIDEST, OF_A_FRAME = 1400, 220  # pixels of a strip, and of each of its frames


@dataclass(frozen=True)
class Attended:
    """One clip. `shares`: anchor -> its share of the attention at each of S cue frames, of all persons; those of all
    anchors, and `unseen`, which goes to no cue, add up to 1.
    """

    clip_id: str
    title: str
    said: tuple[tuple[str, str, bool], ...]
    shares: dict[str, tuple[float, ...]]
    unseen: float
    strip: Path | None

    @property
    def frames(self) -> int:
        """S."""
        return len(next(iter(self.shares.values())))

    @property
    def rows(self) -> list[tuple[str, float, list[tuple[float, float]]]]:
        """(anchor, its share in all, (share, beside the largest of all) at each cue frame), the largest first."""
        largest = max(max(row) for row in self.shares.values()) or 1.0
        rows = []
        for name, shares in self.shares.items():
            rows.append((name.replace("_", " "), sum(shares), [(share, share / largest) for share in shares]))
        return sorted(rows, key=lambda row: -row[1])


def attended(
    runs: Sequence[Run], names: Sequence[str], folder: Path, frames_of: FramesOf
) -> tuple[str, tuple[Attended, ...]]:
    """(name of the run, its clips): of `posebridge`, or else of the first run by name that tells it. Nothing where none
    does. Raises PosebridgeError for a table of another form.
    """
    for run in sorted(runs, key=lambda run: (run.first.run != "posebridge", run.first.run)):
        path = run.first.folder / "attention.csv"
        if path.is_file() and (clips := read_attention(path)):
            return run.first.run, tuple(
                _attended(run, clip_id, shares, names, folder / f"attention-{i + 1}.jpg", frames_of)
                for i, (clip_id, shares) in enumerate(list(clips.items())[:SHOWN])
            )
    return "", ()


def looked_at(run: Run, count: int, frames_of: FramesOf) -> Callable[[str], np.ndarray | None]:
    """A function that gives `count` frames of a clip with joints and attention drawn in, [count, H, W, 3]; None of a
    clip whose attention is not told, or whose frames are not there. What is wrong with the table, `attended` says.
    """
    try:
        clips = read_attention(path) if (path := run.first.folder / "attention.csv").is_file() else {}
    except PosebridgeError:
        clips = {}

    def of_clip(clip_id: str) -> np.ndarray | None:
        shares = clips.get(clip_id)
        if not shares or not isinstance(frames_of, ClipFrames):
            return None
        found = frames_of.cue_frames(run.first.dataset, clip_id, run.first.recipe)
        if found is None:
            return None
        steps = [int(len(found[0]) * (i + 0.5) / count) for i in range(count)]
        return _around_people(*found, shares)[steps]

    return of_clip


def read_attention(path: Path) -> dict[str, dict[tuple[int, int, str], float]]:
    """clip_id -> (person, cue frame, anchor) -> share. Raises PosebridgeError for a table of another form."""
    found: dict[str, dict[tuple[int, int, str], float]] = {}
    anchors: set[str] = set()
    try:
        for row in open_table(path, ("clip_id", "person", "cue_frame", "anchor", "share")):
            clip = found.setdefault(row.raw("clip_id"), {})
            person, frame = row.whole("person", 0, MOST_PERSONS - 1), row.whole("cue_frame", 0, MOST_FRAMES - 1)
            share, anchor = row.number("share", 0, 1), row.needed("anchor")
            if person is None or frame is None or share is None:
                raise row.wrong("person, cue_frame and share", "a cell is empty")
            if len(anchor) > LONGEST:
                raise row.wrong("anchor", "no anchor is called so")
            clip[person, frame, anchor] = share
            anchors.add(anchor)
            if len(found) > MOST_CLIPS or len(anchors) > MOST_ANCHORS:
                raise row.wrong("clip_id", "there are more clips or anchors than are told of")
    except PosebridgeError as error:
        why = reason_of(error, path)
        raise PosebridgeError(f"{path} is not as `posebridge evaluate` writes it ({why}); run it again.") from None
    return found


def _attended(
    run: Run, clip_id: str, shares: dict[tuple[int, int, str], float], names: Sequence[str], path: Path,
    frames_of: FramesOf,
) -> Attended:  # fmt: skip
    frames = max(frame for _, frame, _ in shares) + 1
    found = isinstance(frames_of, ClipFrames) and frames_of.cue_frames(run.first.dataset, clip_id, run.first.recipe)
    strip = None
    if found and frames <= len(found[0]) <= MOST_FRAMES:
        frames = len(found[0])  # where nobody is seen in the last ones, the table does not tell of them
        strip = save_strip(_around_people(*found, shares), path, min(WIDEST, OF_A_FRAME * frames))
    table: dict[str, list[float]] = {}
    for (_, frame, anchor), share in shares.items():
        table.setdefault(anchor, [0.0] * frames)[frame] += share
    answers = run.results[0].answers
    title = name_of(names, answers.label[clip_id]) if clip_id in answers.index else clip_id
    return Attended(
        clip_id, title, said_of({run.first.run: answers}, clip_id, names),
        {anchor: tuple(row) for anchor, row in table.items()}, max(0.0, 1 - sum(shares.values())), strip,
    )  # fmt: skip


def _around_people(frames: np.ndarray, row: Row, shares: dict[tuple[int, int, str], float]) -> np.ndarray:
    """The part of the frames where people are, with a circle around each anchor, whose area is its share."""
    x, y, width, height = box_of_people(row, *frames.shape[1:3])
    drawn = _with_anchors(frames, row, shares, height / 6)
    return drawn[:, y : y + height, x : x + width]


def box_of_people(row: Row, height: int, width: int) -> tuple[int, int, int, int]:
    """(x, y, width, height) around all joints that are seen at a cue frame, with what hands may hold, three wide to
    four high as far as the picture goes; the whole picture where no joint is seen.
    """
    steps = row["cue_frame"]
    joints, scores = row["keypoints"][:, steps], row["scores"][:, steps]
    seen = joints[(scores >= SURE) & row["person_valid"][:, steps, None] & np.isfinite(joints).all(-1)]
    if not len(seen):
        return 0, 0, width, height
    limits = np.array([width, height])
    low, high = seen.min(0).clip(0, limits), seen.max(0).clip(0, limits)
    tall = float(max((high - low) * (4 / 3, 1))) * 1.35
    size = np.array([0.75 * tall, tall]).clip(8, limits)
    corner = ((low + high - size) / 2).clip(0, limits - size)
    return int(corner[0]), int(corner[1]), max(int(size[0]), 1), max(int(size[1]), 1)


def _with_anchors(
    frames: np.ndarray, row: Row, shares: dict[tuple[int, int, str], float], most: float
) -> np.ndarray:
    """The frames with a circle around each anchor, at most so many pixels in radius."""
    from pipeline.hpe.pooling import anchor_points  # late: it loads PyTorch

    drawn, largest = np.ascontiguousarray(frames), max(shares.values()) or 1.0
    for (person, frame, anchor), share in shares.items():
        if person >= len(row["keypoints"]) or frame >= len(drawn) or row["keypoints"].shape[2] != 17:
            continue
        try:
            points = anchor_points(anchor).numpy() @ row["keypoints"][person, row["cue_frame"][frame]]
        except KeyError:  # of another version
            continue
        place = points.mean(0)
        if not np.isfinite(place).all() or np.abs(place).max() > 1 << 14:
            continue
        radius = round(most * (share / largest) ** 0.5)
        thick = max(1, round(most / 14))
        cv2.circle(drawn[frame], tuple(place.round().astype(int).tolist()), max(radius, 1), COLOUR, thick, cv2.LINE_AA)
    return drawn
