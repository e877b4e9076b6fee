"""The stream of stage one: decode -> boxes -> crops -> pose model -> tracks -> one row of arrays a clip.

Batches fill across clips; what is held at any time is three batches of crops and the arrays of the clips that they
touch, so memory does not grow with the length of a video. Knows nothing of shards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.files.hashing import sha256_file
from pipeline.files.names import place_of
from pipeline.hpe.base import Estimator
from pipeline.hpe.crops import crop, crop_matrix, to_frame
from pipeline.hpe.detector import Detector
from pipeline.manifest.clips import Clip
from pipeline.manifest.failure import Failure
from pipeline.recipe import Recipe
from pipeline.tracking.clothes import clothes
from pipeline.tracking.persons import main_persons
from pipeline.tracking.tracks import WEAK, Findings
from pipeline.video.ahead import ahead
from pipeline.video.decode import MAX_LOST, Video, VideoError
from pipeline.video.identity import VideoRecord
from pipeline.video.record import ClipRecord, Treatment
from pipeline.video.sampling import SegmentError, cue_positions
from pipeline.video.thumbnail import SIDE, thumbnail

# (clip, position on the timeline, uint8 RGB frame [H, W, 3]) -> [K, 4] float32 boxes x, y, w, h, and how sure, [K]
BoxSource = Callable[[Clip, int, np.ndarray], tuple[np.ndarray, np.ndarray]]

SPARE = 2  # findings of a frame beyond M that are followed too: who the main persons are shows only at the clip's end


def full_frame(clip: Clip, position: int, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The whole frame as the box of the one person."""
    height, width = frame.shape[:2]
    return np.array([[0, 0, width, height]], np.float32), np.ones(1)


def detected(detector: Detector, recipe: Recipe) -> BoxSource:
    """The detector's persons, the largest and surest first, down to half of the recipe's threshold: see `tracking`."""

    def boxes(clip: Clip, position: int, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found, sure = detector.detect(frame, WEAK * recipe.detection_threshold)
        order = np.argsort(-sure * np.sqrt(found[:, 2:].prod(-1)), kind="stable")
        return found[order], sure[order]

    return boxes


def lanes(recipe: Recipe) -> int:
    """How many persons of a frame are estimated."""
    return recipe.persons + (SPARE if recipe.boxes == "detector" else 0)


class PendingClip:
    """The arrays of one clip while its frames pass through the pose model."""

    def __init__(
        self,
        clip: Clip,
        video: dict[str, Any],
        record: ClipRecord,
        positions: np.ndarray,
        recipe: Recipe,
        joints: int,
        cue_width: int,
    ):
        m, t, s, a = lanes(recipe), recipe.frames, recipe.cue_frames, len(recipe.anchors)
        self.clip, self._recipe = clip, recipe
        self.video = video  # the columns video_path, video_identity, video_fps and video_frames
        self.record = record
        self.slots = {int(p): np.flatnonzero(positions == p) for p in np.unique(positions)}  # not yet decoded
        self._awaited = len(self.slots)  # frames not yet seen, and crops not yet estimated
        self.keypoints = np.zeros((m, t, joints, 2), np.float32)
        self.scores = np.zeros((m, t, joints), np.float32)
        self.boxes = np.zeros((m, t, 4), np.float32)
        self.box_scores = np.zeros((m, t), np.float32)
        self.colours = np.zeros((m, t, 6), np.float32)
        self.frame_index = np.zeros(t, np.int32)
        self.timestamp = np.zeros(t, np.float64)
        self.thumbnail = np.zeros((t, SIDE, SIDE), np.uint8)
        self.size = (0, 0)  # height, width
        self.cue_frame = cue_positions(t, s)
        self._cue_slots = np.zeros(t, bool)
        self._cue_slots[self.cue_frame] = cue_width > 0
        self.cues = np.zeros((m, s, a, cue_width), np.float32)
        self.cue_scores = np.zeros((m, s, a), np.float32)
        self._joints_lost = np.zeros((m, t), np.int32)  # that the pose model gave no finite number for
        self._cues_lost = np.zeros((m, s), np.int32)
        self._crops = self._answered = 0  # crops estimated, and those with any joint not lost

    def place(self, look: Look) -> None:
        """Take in what is known of a frame before the pose model has seen it."""
        self.size = look.size
        self.record.add(look.treatment)
        self.record.lost = look.lost
        self.frame_index[look.slots] = look.position
        self.timestamp[look.slots] = look.time
        self.thumbnail[look.slots] = look.thumbnail
        for person, box, sure, _, pixels in look.crops:
            self.boxes[person, look.slots] = box
            self.box_scores[person, look.slots] = sure
            self.colours[person, look.slots] = clothes(pixels)
        self._awaited += len(look.crops)

    def wants_cues(self, slots: np.ndarray) -> bool:
        """Whether one of the slots is a cue frame."""
        return bool(self._cue_slots[slots].any())

    def settle(self) -> bool:
        """Count off a frame or a crop; true for the last one, when the clip is finished."""
        self._awaited -= 1
        return self._awaited == 0

    def put(self, person: int, slots: np.ndarray, keypoints: np.ndarray, scores: np.ndarray) -> None:
        """Take in keypoints [V, 2] of the frame and scores [V]; a joint that is not finite counts as unseen."""
        known, lost = np.isfinite(keypoints).all(-1) & np.isfinite(scores), lost_joints(keypoints, scores)
        self.keypoints[person, slots] = np.where(known[:, None], keypoints, 0)
        self.scores[person, slots] = np.where(known, np.clip(scores, 0, 1), 0)
        self._joints_lost[person, slots] = lost.sum()
        self._crops, self._answered = self._crops + 1, self._answered + (not lost.all())

    def put_cues(self, person: int, slots: np.ndarray, cues: np.ndarray, cue_scores: np.ndarray) -> None:
        """Take in cues [A, D] and their scores [A]; a cue that is not finite is zero, with score 0."""
        steps = np.flatnonzero(np.isin(self.cue_frame, slots))
        known = np.isfinite(cues).all(-1) & np.isfinite(cue_scores)
        self.cues[person, steps] = np.where(known[:, None], cues, 0)
        self.cue_scores[person, steps] = np.where(known, np.clip(cue_scores, 0, 1), 0)
        self._cues_lost[person, steps] = (~known).sum()

    def row(self) -> dict[str, Any] | Failure:
        """The finished row, a value for every column of the shard; a Failure where a detector found nobody, or the
        pose model gave no finite number.
        """
        if self._crops and not self._answered:
            reason = f"the pose model gives no finite number for any of its {self._crops} crops"
            return Failure(self.clip.clip_id, "pose", reason)
        track_id = self._follow_persons() if self._recipe.boxes == "detector" else None
        if track_id is not None and track_id.max() < 0:
            return Failure(self.clip.clip_id, "track", "no person was found in its frames")
        valid = self.scores.max(-1) > 0  # [M, T]
        repeat_last_valid(self.keypoints, self.scores, self.boxes)
        limit = np.finfo(np.float16).max
        return {
            "clip_id": self.clip.clip_id,
            "keypoints": self.keypoints,
            "scores": self.scores,
            "boxes": self.boxes,
            "person_valid": valid,
            "track_id": np.where(valid.any(-1), np.arange(len(valid)) if track_id is None else track_id, -1),
            "frame_index": self.frame_index,
            "timestamp": self.timestamp,
            "thumbnail": self.thumbnail,
            "cues": np.clip(self.cues, -limit, limit),
            "cue_scores": self.cue_scores,
            "cue_frame": self.cue_frame,
            "video_height": self.size[0],
            "video_width": self.size[1],
            "video_record": replace(
                self.record,
                distinct=len(np.unique(self.frame_index)),
                joints_lost=int(self._joints_lost.sum()),
                cues_lost=int(self._cues_lost.sum()),
            ).to_json(),
            **self.video,
        }

    def _follow_persons(self) -> np.ndarray:
        """Make the arrays those of the clip's main persons instead of its frames' findings; their identities [M]."""
        found = Findings(self.boxes, self.box_scores, self.keypoints, self.scores, self.colours, self.timestamp)
        rows, track_id = main_persons(found, self._recipe.persons, self._recipe.detection_threshold)

        def of_persons(array: np.ndarray, at: np.ndarray) -> np.ndarray:
            """[K, X, ...] of findings to [M, X, ...] of persons, zero where not seen; X are the frames `at`."""
            chosen = array[rows[:, at], np.arange(len(at))]
            chosen[rows[:, at] < 0] = 0
            return chosen

        frames = np.arange(rows.shape[1])
        self.keypoints, self.scores = of_persons(self.keypoints, frames), of_persons(self.scores, frames)
        self.boxes, self._joints_lost = of_persons(self.boxes, frames), of_persons(self._joints_lost, frames)
        self.cues, self.cue_scores = of_persons(self.cues, self.cue_frame), of_persons(self.cue_scores, self.cue_frame)
        self._cues_lost = of_persons(self._cues_lost, self.cue_frame)
        return track_id


def lost_joints(keypoints: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Which joints of [..., V, 2] with scores [..., V] the pose model gave no number for, bool [..., V].

    A joint that was not seen, with score 0, needs no place.
    """
    return ~np.isfinite(scores) | ((scores > 0) & ~np.isfinite(keypoints).all(-1))


def repeat_last_valid(keypoints: np.ndarray, scores: np.ndarray, boxes: np.ndarray) -> None:
    """Give every joint of score 0 its last valid place, or the centre of the box before there is one; in place.

    keypoints [M, T, V, C], scores [M, T, V], boxes [M, T, 2 C]: the low corner, then the extent.
    """
    dimensions = keypoints.shape[3]
    centres = boxes[..., :dimensions] + boxes[..., dimensions:] / 2  # [M, T, C]
    seen = np.zeros((scores.shape[0], scores.shape[2]), bool)  # [M, V]
    for t in range(scores.shape[1]):
        known = scores[:, t] > 0
        fallback = np.where(seen[..., None], keypoints[:, t - 1], centres[:, t, None])
        keypoints[:, t] = np.where(known[..., None], keypoints[:, t], fallback)
        seen |= known


@dataclass
class Look:
    """One frame as one clip sees it: the slots that it fills and the crops of its persons."""

    pending: PendingClip
    slots: np.ndarray
    position: int
    time: float
    size: tuple[int, int]  # height, width
    thumbnail: np.ndarray  # [24, 24] uint8
    treatment: Treatment
    lost: int  # packets of the file so far
    crops: list[tuple[int, np.ndarray, float, np.ndarray, np.ndarray]]  # person, box [4], sure, matrix [2, 3], pixels


class PoseStream:
    """Runs clips through one pose model; decoding goes on in a thread, up to two batches ahead.

    Args:
        boxes: where the persons are; `full_frame` or another source.
        batch_size: crops in one call of the model.
        max_lost: the share of frames that may not decode; see `Video`.
    """

    def __init__(
        self, recipe: Recipe, estimator: Estimator, boxes: BoxSource, batch_size: int, max_lost: float = MAX_LOST
    ):
        self._recipe, self._estimator, self._boxes = recipe, estimator, boxes
        self._batch_size, self._max_lost = batch_size, max_lost
        self._answered = False  # the pose model has given a finite number

    def run(
        self, clips: Sequence[Clip], root: Path, videos: dict[str, VideoRecord]
    ) -> Iterator[dict[str, Any] | Failure]:
        """Yield a row or a Failure for every clip; clips of one video are decoded in one pass.

        `videos` has the record of every path: its identity goes into the row. Raises PosebridgeError where the pose
        model gives no finite number for a whole batch before it has given any.
        """
        batch: list[tuple[PendingClip, np.ndarray, int, np.ndarray, np.ndarray]] = []
        for look in ahead(self._looks(clips, root, videos), 2 * self._batch_size):
            if isinstance(look, Failure):
                yield look
                continue
            pending = look.pending
            pending.place(look)
            for person, _, _, matrix, pixels in look.crops:
                batch.append((pending, look.slots, person, matrix, pixels))
                if len(batch) == self._batch_size:
                    yield from self._estimate(batch)
                    batch.clear()
            if pending.settle():
                yield pending.row()
        yield from self._estimate(batch)

    def _looks(self, clips: Sequence[Clip], root: Path, videos: dict[str, VideoRecord]) -> Iterator[Look | Failure]:
        """Decode video by video; whatever is wrong with one becomes the failures of its clips."""
        by_path = sorted(clips, key=lambda clip: (clip.path, clip.clip_id))
        for path, group in groupby(by_path, key=lambda clip: clip.path):
            segments = list(group)
            begun: list[PendingClip] = []
            try:
                with Video(place_of(root, path)) as video:
                    video.max_lost = self._max_lost
                    if not videos[path].identity:
                        raise VideoError("open", "the file could not be read when the run began; run it again")
                    refuse_changed(segments[0], place_of(root, path), video)
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

    def _begin(self, clip: Clip, video: Video, facts: dict[str, Any]) -> PendingClip:
        positions = video.sample(self._recipe.frames, clip.start, clip.end)
        record = replace(video.record, available=video.available(clip.start, clip.end))
        widths = self._estimator.joints, self._estimator.cue_width
        return PendingClip(clip, facts, record, positions, self._recipe, *widths)

    def _decode(self, video: Video, begun: list[PendingClip]) -> Iterator[Look]:
        """One pass over what the clips want of a video."""
        wanted: defaultdict[int, list[PendingClip]] = defaultdict(list)
        for pending in begun:
            for position in pending.slots:
                wanted[position].append(pending)
        crop_size, most = self._estimator.crop_size, lanes(self._recipe)
        for asked, position, frame in video.frames(sorted(wanted)) if wanted else ():
            height, width = frame.shape[:2]
            small = thumbnail(frame)
            for pending in wanted[asked]:
                crops = []
                boxes, sureness = self._boxes(pending.clip, position, frame)
                for person, (box, sure) in enumerate(zip(boxes[:most], sureness[:most], strict=True)):
                    if np.isfinite(box).all() and box[2] > 0 and box[3] > 0:
                        matrix = crop_matrix(box, crop_size)
                        crops.append((person, box, float(sure), matrix, crop(frame, matrix, crop_size)))
                slots = pending.slots.pop(asked)
                time = float(video.times[position])
                seen = video.treatment, video.record.lost
                yield Look(pending, slots, position, time, (height, width), small, *seen, crops)

    def _estimate(
        self, batch: list[tuple[PendingClip, np.ndarray, int, np.ndarray, np.ndarray]]
    ) -> Iterator[dict[str, Any] | Failure]:
        """Run a batch, hand the answers to their clips, and yield the clips that are finished."""
        if not batch:
            return
        cue_rows = np.array([pending.wants_cues(slots) for pending, slots, *_ in batch])
        estimate = self._estimator.estimate(np.stack([pixels for *_, pixels in batch]), cue_rows)
        self._answered = self._answered or not lost_joints(estimate.keypoints, estimate.scores).all()
        if not self._answered:
            raise PosebridgeError(
                f"The pose model {self._recipe.weights or self._recipe.config!r} gives no finite number for any of its "
                f"first {len(batch)} crops; its weights are damaged, or of another model: bring the right file."
            )
        cue_of_row = np.cumsum(cue_rows) - 1
        for i, (pending, slots, person, matrix, _) in enumerate(batch):
            pending.put(person, slots, to_frame(estimate.keypoints[i], matrix), estimate.scores[i])
            if cue_rows[i]:
                pending.put_cues(person, slots, estimate.cues[cue_of_row[i]], estimate.cue_scores[cue_of_row[i]])
            if pending.settle():
                yield pending.row()


def refuse_changed(clip: Clip, path: Path, video: Video) -> None:
    """Raise VideoError where a file is not the one that the manifest describes: by sha256, else by its header."""
    fps, frames, sides = video.header
    differs = ""
    if clip.sha256:
        try:
            same = sha256_file(path) == clip.sha256
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
