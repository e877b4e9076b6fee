"""The stream of stage one: decode -> boxes -> crops -> pose model -> tracks -> one row of arrays a clip.

Several videos are decoded at a time, and batches fill across clips. What waits between two steps is bounded, so memory
does not grow with the length of a video; and it is taken in the order of paths, so results do not depend on how many
threads there are. Knows nothing of shards.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count, groupby
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.executors.local import usable_cores
from pipeline.extract.boxes import BoxSource, lanes
from pipeline.extract.pending import Answers, Look, PendingClip, lost_joints
from pipeline.extract.stopwatch import Stopwatch
from pipeline.files.ahead import ahead, ahead_of_each
from pipeline.files.device import memory_for
from pipeline.files.names import place_of
from pipeline.hpe.base import Estimate, Estimator, computed_with
from pipeline.hpe.crops import crop, crop_matrix
from pipeline.manifest.clips import Clip
from pipeline.manifest.failure import Failure
from pipeline.recipe import Recipe
from pipeline.video.decode import VideoError
from pipeline.video.identity import VideoRecord, sha256_video
from pipeline.video.image_folder import open_video
from pipeline.video.reader import MAX_LOST, FrameReader
from pipeline.video.sampling import SegmentError
from pipeline.video.thumbnail import thumbnail

MOST_DECODERS = 8  # by default: FFmpeg has several threads a video, too
WAITING = 8  # batches of crops that may wait for the pose model, over all decoders


# what is estimated: of whom, which slots, which person, matrix, pixels; and the frame, where it is wanted
Cut = tuple[PendingClip, np.ndarray, int, np.ndarray, np.ndarray, np.ndarray | None]
Batch = tuple[list[Look | Failure], list[Cut]]


@dataclass
class Shot:
    """A decoded frame in which nobody has looked for persons yet, with what each clip that wants it sees of it."""

    frame: np.ndarray  # [H, W, 3] uint8 RGB
    prepared: Any  # of it, for `BoxSource.find`
    looks: list[Look]


class PoseStream:
    """Runs clips through one pose model, while others are decoded in threads.

    Args:
        boxes: where the persons are; see `box_source`.
        batch_size: crops in one call of the model.
        max_lost: the share of frames that may not decode; see `Video`.
        decoders: videos that are decoded at a time; 0 takes half of the cores that this process may use.
        watch: measures how long decoding, finding boxes and the pose model take.
    """

    def __init__(
        self, recipe: Recipe, estimator: Estimator, boxes: BoxSource, batch_size: int, max_lost: float = MAX_LOST,
        decoders: int = 0, watch: Stopwatch | None = None,
    ):  # fmt: skip
        self._recipe, self._estimator, self._boxes = recipe, estimator, boxes
        self._batch_size, self._max_lost = batch_size, max_lost
        self._decoders = decoders or max(1, min(MOST_DECODERS, len(usable_cores()) // 2))
        self._at_once: int = getattr(estimator, "at_once", 1)
        self._answered = False  # the pose model has given a finite number
        self._watch = watch or Stopwatch()
        self._frame_side = getattr(estimator, "frame_side", 0)  # of one that wants whole frames, too

    @property
    def computed(self) -> dict[str, str]:
        """Where rows are computed, and in what precision: what a receipt keeps."""
        found = computed_with(self._estimator)
        return found | {"detector": self._boxes.provider} if self._boxes.provider else found

    def run(
        self, clips: Sequence[Clip], root: Path, videos: dict[str, VideoRecord]
    ) -> Iterator[dict[str, Any] | Failure]:
        """Yield a row or a Failure for every clip; clips of one video are decoded in one pass.

        `videos` has the record of every path: its identity goes into the row. Raises PosebridgeError where the pose
        model gives no finite number for a whole batch before it has given any.
        """
        batches = self._estimated(self._batches(self._looks(clips, root, videos)))
        for seen, batch, estimate in ahead(batches, 1):  # rows are finished while the next batch is estimated
            for look in seen:
                if isinstance(look, Failure):
                    yield look
                    continue
                look.pending.place(look)
                if look.pending.settle():
                    yield look.pending.row()
            if estimate is not None:
                self._require_an_answer(estimate)
                yield from self._take_in(batch, estimate)

    def _estimated(self, batches: Iterable[Batch]) -> Iterator[tuple[list[Look | Failure], list[Cut], Estimate | None]]:
        """Each with what the pose model says of it, in their order. It is given as many at a time as it takes: while
        one comes to its end, the next has begun.
        """
        with ThreadPoolExecutor(self._at_once, "batch") as pool:
            begun: deque[tuple[list[Look | Failure], list[Cut], Future[Estimate | None]]] = deque()
            for seen, batch in batches:
                begun.append((seen, batch, pool.submit(self._estimate, batch)))
                if len(begun) == self._at_once:
                    seen, batch, answer = begun.popleft()
                    yield seen, batch, answer.result()
            for seen, batch, answer in begun:
                yield seen, batch, answer.result()

    def _batches(self, looks: Iterable[Look | Failure]) -> Iterator[Batch]:
        """Looks, and the crops that fill a batch with them; only looks where most of them show nobody."""
        seen: list[Look | Failure] = []
        batch: list[Cut] = []
        for look in looks:
            seen.append(look)
            for cut in _cuts(look):
                batch.append(cut)
                if len(batch) == self._batch_size:
                    yield seen, batch
                    seen, batch = [], []
            if len(seen) >= 4 * self._batch_size:
                yield seen, []
                seen = []
        yield seen, batch

    def _looks(self, clips: Sequence[Clip], root: Path, videos: dict[str, VideoRecord]) -> Iterator[Look | Failure]:
        """The looks of all clips, in the order of paths and, within a video, of its frames.

        Boxes that are found frame by frame are found by the threads that decode; others by one thread behind them, over
        the frames of several videos.
        """
        by_path = groupby(sorted(clips, key=lambda clip: (clip.path, clip.clip_id)), key=lambda clip: clip.path)
        shots = (self._shots(path, list(group), root, videos) for path, group in by_path)
        together, crops = self._boxes.together, WAITING * self._batch_size
        looks = max(2, min(2 * self._batch_size, crops // (lanes(self._recipe) * self._decoders)))  # of a decoder
        if together == 1:
            return ahead_of_each(map(self._find, shots), self._decoders, looks)
        frames = max(1, together // self._decoders)  # of a decoder: they are large
        return ahead(self._find(ahead_of_each(shots, self._decoders, frames)), looks)

    def _shots(
        self, path: str, segments: list[Clip], root: Path, videos: dict[str, VideoRecord]
    ) -> Iterator[Shot | Failure]:
        """Decode a video once for all its clips; whatever is wrong with it becomes their failures."""
        begun: list[PendingClip] = []
        try:
            with open_video(place := place_of(root, path), self._max_lost, segments[0].image_fps) as video:
                if not videos[path].identity:
                    raise VideoError("open", "the file could not be read when the run began; run it again")
                refuse_changed(segments[0], place, video)
                facts = {
                    "video_path": path,
                    "video_identity": videos[path].identity,
                    "video_fps": video.fps,
                    "video_frames": len(video.times),
                }
                for clip in segments:
                    try:
                        begun.append(self._begin(clip, video, facts))
                    except SegmentError as error:
                        yield Failure(clip.clip_id, "sample", str(error))
                yield from self._decode(video, begun)
        except VideoError as error:
            for clip in [pending.clip for pending in begun if pending.slots] if begun else segments:
                yield Failure(clip.clip_id, error.stage, str(error))

    def _begin(self, clip: Clip, video: FrameReader, facts: dict[str, Any]) -> PendingClip:
        positions = video.sample(self._recipe.frames, clip.start, clip.end)
        record = replace(video.record, available=video.available(clip.start, clip.end))
        widths = self._estimator.joints, self._estimator.cue_width
        return PendingClip(clip, facts, record, positions, self._recipe, *widths)

    def _decode(self, video: FrameReader, begun: list[PendingClip]) -> Iterator[Shot]:
        """One pass over what the clips want of a video."""
        wanted: defaultdict[int, list[PendingClip]] = defaultdict(list)
        for pending in begun:
            for position in pending.slots:
                wanted[position].append(pending)
        for asked, position, frame in self._watch.each("decode", video.frames(sorted(wanted))) if wanted else ():
            height, width = frame.shape[:2]
            known = position, float(video.times[position]), (height, width), thumbnail(frame)
            seen = video.treatment, video.record.lost
            looks = [Look(pending, pending.slots.pop(asked), *known, *seen) for pending in wanted[asked]]
            yield Shot(frame, self._boxes.prepare(frame), looks)

    def _find(self, shots: Iterable[Shot | Failure]) -> Iterator[Look | Failure]:
        """Look for persons, in as many frames at a time as the source of boxes takes, and cut them out."""
        waiting: list[Shot | Failure] = []
        for shot in shots:
            waiting.append(shot)
            if len(waiting) == self._boxes.together:
                yield from self._found(waiting)
                waiting = []
        yield from self._found(waiting)

    def _found(self, waiting: list[Shot | Failure]) -> Iterator[Look | Failure]:
        shots = [shot for shot in waiting if isinstance(shot, Shot)]
        asked = [(shot.prepared, shot.looks[0].position, [look.pending.clip for look in shot.looks]) for shot in shots]
        with self._watch.part("boxes"):
            boxes = iter(self._boxes.find(asked) if asked else ())
        for shot in waiting:
            if isinstance(shot, Failure):
                yield shot
                continue
            whole = self._whole(shot.frame)
            for look, (places, sureness) in zip(shot.looks, next(boxes), strict=True):
                look.whole = whole
                look.crops = self._crops(shot.frame, places, sureness)
                yield look

    def _crops(
        self, frame: np.ndarray, boxes: np.ndarray, sureness: np.ndarray
    ) -> list[tuple[int, np.ndarray, float, np.ndarray, np.ndarray]]:
        """See `Look.crops`."""
        crop_size, most = self._estimator.crop_size, lanes(self._recipe)
        crops = []
        for person, (box, sure) in enumerate(zip(boxes[:most], sureness[:most], strict=True)):
            if np.isfinite(box).all() and box[2] > 0 and box[3] > 0:
                matrix = crop_matrix(box, crop_size)
                crops.append((person, box, float(sure), matrix, crop(frame, matrix, crop_size, self._recipe.light)))
        return crops

    def _whole(self, frame: np.ndarray) -> np.ndarray | None:
        """The frame as an estimator that wants it is shown it."""
        if not self._frame_side:
            return None
        from pipeline.hpe.image_text import fitted  # which loads what only such a one needs

        return fitted(frame, self._frame_side)

    def _estimate(self, batch: Sequence[Cut]) -> Estimate | None:
        """What the pose model says of a batch; None of an empty one."""
        if not batch:
            return None
        cue_rows = _cue_rows(batch)
        crops = np.stack([pixels for *_, pixels, _ in batch])
        wholes = [np.stack([whole for *_, whole in batch if whole is not None])] if self._frame_side else []
        with memory_for("The pose model", self._batch_size, setting="--batch-size"), self._watch.part("pose"):
            return self._estimator.estimate(crops, cue_rows, *wholes)

    def _require_an_answer(self, estimate: Estimate) -> None:
        self._answered = self._answered or not lost_joints(estimate.keypoints, estimate.scores).all()
        if not self._answered:
            raise PosebridgeError(
                f"The pose model {self._recipe.weights or self._recipe.config!r} gives no finite number for any of its "
                f"first {len(estimate.keypoints)} crops; its weights are damaged, or of another model: bring the right "
                "file."
            )

    def _take_in(self, batch: Sequence[Cut], estimate: Estimate) -> Iterator[dict[str, Any] | Failure]:
        """Hand the answers to their clips, and yield the clips that are finished."""
        answers = Answers.of(estimate, np.stack([matrix for _, _, _, matrix, *_ in batch]))
        cues = count()
        for row, ((pending, slots, person, *_), has_cues) in enumerate(zip(batch, _cue_rows(batch), strict=True)):
            pending.put(person, slots, answers, row)
            if has_cues:
                pending.put_cues(person, slots, answers, next(cues))
            if pending.settle():
                yield pending.row()


def _cuts(look: Look | Failure) -> list[Cut]:
    """What is to be estimated of a look."""
    if isinstance(look, Failure):
        return []
    clip, slots, whole = look.pending, look.slots, look.whole
    return [(clip, slots, person, matrix, pixels, whole) for person, _, _, matrix, pixels in look.crops]


def _cue_rows(batch: Sequence[Cut]) -> np.ndarray:
    """The crops of a batch that cues are wanted of, bool [N]."""
    return np.array([pending.wants_cues(slots) for pending, slots, *_ in batch])


def refuse_changed(clip: Clip, path: Path, video: FrameReader) -> None:
    """Raise VideoError where a file is not the one that the manifest describes: by sha256, else by its header."""
    fps, frames, sides = video.header
    differs = ""
    if clip.sha256:
        try:
            same = sha256_video(path) == clip.sha256
        except OSError as error:
            raise VideoError("open", f"the file cannot be read ({error.strerror})") from None
        differs = "" if same else "sha256"
    elif clip.frames and frames and clip.frames != frames:
        differs = f"frames, {frames} for {clip.frames}"
    elif clip.fps and fps and abs(clip.fps - fps) > 1e-3 * fps:
        differs = f"frame rate, {fps:g} for {clip.fps:g}"
    elif clip.height and clip.width and sorted((clip.height, clip.width)) != sides:
        differs = f"size, {sides} for {sorted((clip.height, clip.width))}"
    if differs:
        raise VideoError("open", f"the video has changed since ingest (other {differs}); run `posebridge ingest` again")
