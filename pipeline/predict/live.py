"""Videos that no manifest lists, through the very stream that `extract` uses: rows as the cache would hold them.

Reads videos; writes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cache.schema import columns
from pipeline.errors import PosebridgeError
from pipeline.extract.boxes import BoxSource, box_source
from pipeline.extract.plan import check_recipe
from pipeline.extract.stream import PoseStream
from pipeline.files.names import text_of
from pipeline.hpe.base import Estimate, Estimator, device_of
from pipeline.hpe.joints import check_joints
from pipeline.ingest.base import list_folder
from pipeline.manifest.clips import Clip
from pipeline.manifest.failure import Failure
from pipeline.params import IMAGE_FPS
from pipeline.recipe import IMAGE_TEXT, Recipe
from pipeline.video.decode import VideoError
from pipeline.video.identity import VideoRecord, identify
from pipeline.video.image_folder import open_video
from pipeline.video.names import is_named_as_frame

WINDOWS_AT_ONCE = 64  # windows that are in memory together
VIDEOS_AT_ONCE = 8  # as many are decoded at a time
MOST_WINDOWS = 100_000  # of one video: a day and a night, every second
UNSURE = 0.2  # a pose model that is sure of no joint, by the median over frames of the best one, has seen nobody

Row = dict[str, Any]


class LivePoses:
    """The recipe's detector and pose model, loaded, over any videos.

    Args:
        recipe: with its hashes resolved.
        batch_size: crops in one call of the pose model.
        detector: an RTMDet file that finds the persons, whatever the recipe's boxes are.
        boxes: where the persons are, for a recipe with `boxes: manifest`; else the whole frame is taken.
    """

    def __init__(
        self, recipe: Recipe, build_estimator: Callable[[Recipe], Estimator], batch_size: int = 16,
        detector: Path | None = None, boxes: BoxSource | None = None,
    ):  # fmt: skip
        check_recipe(recipe)
        if not recipe.needs_videos:
            raise PosebridgeError(
                f"A recipe with `backend: {recipe.backend}` sees no videos; use a run whose recipe has a pose model."
            )
        if recipe.cues_from == IMAGE_TEXT:
            raise PosebridgeError(
                "A run on cues of an image-text model is a reference for `posebridge evaluate`; name a run on cues of "
                "the pose model."
            )
        if detector is not None:
            recipe = dataclasses.replace(recipe, boxes="detector", detector=str(detector), detector_sha256="")
        elif recipe.boxes == "manifest" and boxes is None:
            recipe = dataclasses.replace(recipe, boxes="full_frame")
        self.recipe = recipe
        self.estimator = build_estimator(self.recipe)
        check_joints(self.recipe, self.estimator)
        own = boxes if recipe.boxes == "manifest" else None
        source = own or box_source(self.recipe, None, device_of(self.estimator))
        self._stream = PoseStream(self.recipe, OnceEach(self.estimator), source, batch_size)

    def rows(self, clips: Iterable[Clip]) -> Iterator[tuple[Clip, Row | Failure]]:
        """A row or a Failure for every clip, in their order; memory does not grow with their number. The clips of one
        video follow each other.

        Where nobody is seen, a Failure of the stage `track`.
        """
        videos: dict[str, VideoRecord] = {}
        for part in parts_of(clips):
            places = {clip.path: clip.file(Path()) for clip in part}
            videos = {path: videos.get(path) or identify(place) for path, place in places.items()}
            found = {answer_id(answer): answer for answer in self._stream.run(part, Path(), videos)}
            for clip in part:
                answer = found.pop(clip.clip_id)
                yield clip, answer if isinstance(answer, Failure) else refuse_nobody(answer)

    def reader(self, rows: Sequence[Row]) -> LiveRows:
        """Rows as stage two reads them."""
        return LiveRows(self.recipe, rows, self.estimator.joints, self.estimator.cue_width)


class LiveRows:
    """Rows in memory, as a `features.Reader`: in the numbers that the cache would hold, to the last bit."""

    def __init__(self, recipe: Recipe, rows: Sequence[Row], joints: int, cue_width: int):
        self.recipe = recipe
        self._columns = {c.name: c for c in columns(recipe, joints, cue_width) if c.dtype.kind != "S"}
        self._rows = {row["clip_id"]: row for row in rows}
        self.clip_ids, self.names = list(self._rows), tuple(self._columns)

    def read(
        self, clip_ids: Sequence[str], names: Sequence[str], persons: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """The named columns of these clips, stacked in the order given; of all persons, since all are in memory."""
        dtypes = {name: self._columns[name].dtype for name in names}
        return {
            name: np.stack([np.asarray(self._rows[clip_id][name]).astype(dtype) for clip_id in clip_ids])
            for name, dtype in dtypes.items()
        }


class OnceEach:
    """An estimator that looks at equal crops once: windows that overlap share most of their frames."""

    def __init__(self, estimator: Estimator):
        self._estimator = estimator
        self.crop_size, self.joints, self.cue_width = estimator.crop_size, estimator.joints, estimator.cue_width

    def estimate(self, crops: np.ndarray, cue_rows: np.ndarray) -> Estimate:
        """As `Estimator.estimate`."""
        first: dict[bytes, int] = {}
        where = np.array([first.setdefault(crop.tobytes(), len(first)) for crop in crops])
        if len(first) == len(crops):
            return self._estimator.estimate(crops, cue_rows)
        chosen = np.unique(where, return_index=True)[1]
        wanted = np.zeros(len(first), bool)
        wanted[where[cue_rows]] = True
        once = self._estimator.estimate(crops[chosen], wanted)
        cues = (np.cumsum(wanted) - 1)[where[cue_rows]]  # [K] rows of the cues computed
        return Estimate(once.keypoints[where], once.scores[where], once.cues[cues], once.cue_scores[cues])


def refuse_nobody(row: Row) -> Row | Failure:
    """The row, or a Failure where the pose model saw no person in it."""
    if not row["person_valid"].any():
        return Failure(row["clip_id"], "track", "no person was found in its frames")
    best = row["scores"].max(-1)[row["person_valid"]]
    if float(np.median(best)) < UNSURE:
        return Failure(row["clip_id"], "track", "no joint of a person is to be seen in its frames")
    return row


def parts_of(clips: Iterable[Clip]) -> Iterator[list[Clip]]:
    """As many clips as are in memory together."""
    part: list[Clip] = []
    videos: set[str] = set()
    for clip in clips:
        if len(part) == WINDOWS_AT_ONCE or len(videos | {clip.path}) > VIDEOS_AT_ONCE:
            yield part
            part, videos = [], set()
        part.append(clip)
        videos.add(clip.path)
    if part:
        yield part


def answer_id(answer: Row | Failure) -> str:
    """The clip that a row or a Failure is of."""
    return answer.clip_id if isinstance(answer, Failure) else answer["clip_id"]


def find_videos(place: Path) -> list[Path]:
    """The video itself, be it a folder of images, or those of a folder, sorted. Raises PosebridgeError where there is
    none.
    """
    if place.is_dir():
        folder = list_folder(place)
        videos = folder.videos
        own = any("/" not in path and is_named_as_frame(path) for path in folder.files)
        if own and videos == folder.image_folders:
            return [place]
        if not videos:
            raise PosebridgeError(f"{place} holds no video; name a video or a folder of videos.")
        return [folder.place(path) for path in videos]
    if not place.exists():
        raise PosebridgeError(f"{place} does not exist; name a video or a folder of videos.")
    return [place]


def video_name(path: Path) -> str:
    """A video as answers name it: a folder of images ends in a slash."""
    return text_of(f"{path}/" if path.is_dir() else str(path))


def check_windows(window: float | None, stride: float | None) -> None:
    """Raise PosebridgeError for a window or a stride that is not above zero."""
    for name, value in (("window", window), ("stride", stride)):
        if value is not None and not value > 0:
            raise PosebridgeError(f"The {name} should be above 0 seconds, not {value:g}.")


def windows(
    path: Path, window: float | None = None, stride: float | None = None, image_fps: float = IMAGE_FPS
) -> list[Clip]:
    """The whole video as one clip, or as windows of `window` seconds that begin every `stride` seconds.

    The last window ends with the video. Raises PosebridgeError for a file that is no video, for a window or a stride
    that is not above zero, and for more than MOST_WINDOWS. `image_fps` is the rate of a folder of images.
    """
    check_windows(window, stride)
    try:
        with open_video(path, image_fps=image_fps) as video:
            duration = video.duration
    except VideoError as error:
        raise PosebridgeError(f"{path} cannot be read as a video ({error}); name another one.") from None
    name, fps = video_name(path), image_fps if path.is_dir() else None
    if window is None or window >= duration:
        return [Clip(text_of(f"{path}@0"), name, 0.0, duration, fps=fps)]
    step = min(stride or window / 2, duration - window)
    if (duration - window) / step > MOST_WINDOWS:
        raise PosebridgeError(
            f"{path} of {duration:.0f} s has more than {MOST_WINDOWS} windows with one every {step:g} s; give a longer "
            "--stride."
        )
    count = int(np.ceil((duration - window) / step - 1e-9)) + 1
    starts = [min(i * step, duration - window) for i in range(count)]
    return [Clip(text_of(f"{path}@{start:.6f}"), name, start, start + window, fps=fps) for start in starts]
