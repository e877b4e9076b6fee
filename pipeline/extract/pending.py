"""A clip on its way through the pose model: from what each frame shows of it to the finished row of arrays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipeline.extract.boxes import lanes
from pipeline.hpe.base import Estimate
from pipeline.hpe.crops import to_frame
from pipeline.manifest.clips import Clip
from pipeline.manifest.failure import Failure
from pipeline.recipe import Recipe
from pipeline.skeleton.unseen import repeat_last_valid
from pipeline.tracking.clothes import clothes
from pipeline.tracking.persons import main_persons
from pipeline.tracking.tracks import Findings
from pipeline.video.record import ClipRecord, Treatment
from pipeline.video.sampling import cue_positions
from pipeline.video.thumbnail import SIDE


@dataclass
class Look:
    """One frame as one clip sees it: the slots that it fills and the crops of its persons, once they are found."""

    pending: PendingClip
    slots: np.ndarray
    position: int
    time: float
    size: tuple[int, int]  # height, width
    thumbnail: np.ndarray  # [24, 24] uint8
    treatment: Treatment
    lost: int  # packets of the file so far
    crops: list[tuple[int, np.ndarray, float, np.ndarray, np.ndarray]] = field(default_factory=list)
    # person, box [4], sure, matrix [2, 3], pixels
    whole: np.ndarray | None = None  # the frame in a square, where the estimator wants it


@dataclass(frozen=True)
class Answers:
    """What the pose model said of a batch: keypoints [N, V, 2] in pixels of the frames, scores [N, V], cues [K, A, D]
    and their scores [K, A]; 0 where it gave no finite number, and of how many joints [N] and cues [K] that was.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    joints_lost: np.ndarray
    cues: np.ndarray
    cue_scores: np.ndarray
    cues_lost: np.ndarray

    @classmethod
    def of(cls, estimate: Estimate, matrices: np.ndarray) -> Answers:
        """`matrices` [N, 2, 3] map the frames' pixels to the crops'."""
        keypoints, scores = to_frame(estimate.keypoints, matrices), estimate.scores
        known = np.isfinite(keypoints).all(-1) & np.isfinite(scores)
        told = np.isfinite(estimate.cues).all(-1) & np.isfinite(estimate.cue_scores)
        return cls(
            np.where(known[..., None], keypoints, 0),
            np.where(known, np.clip(scores, 0, 1), 0),
            lost_joints(keypoints, scores).sum(-1),
            np.where(told[..., None], estimate.cues, 0),
            np.where(told, np.clip(estimate.cue_scores, 0, 1), 0),
            (~told).sum(-1),
        )


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

    def put(self, person: int, slots: np.ndarray, answers: Answers, row: int) -> None:
        """Take in keypoints and scores of one crop of a batch."""
        self.keypoints[person, slots] = answers.keypoints[row]
        self.scores[person, slots] = answers.scores[row]
        lost = int(answers.joints_lost[row])
        self._joints_lost[person, slots] = lost
        self._crops, self._answered = self._crops + 1, self._answered + (lost < self.scores.shape[-1])

    def put_cues(self, person: int, slots: np.ndarray, answers: Answers, cue: int) -> None:
        """Take in the cues of one crop of a batch."""
        steps = (self.cue_frame[:, None] == slots).any(1)
        self.cues[person, steps] = answers.cues[cue]
        self.cue_scores[person, steps] = answers.cue_scores[cue]
        self._cues_lost[person, steps] = answers.cues_lost[cue]

    def row(self) -> dict[str, Any] | Failure:
        """The finished row, a value for every column of the shard; a Failure where there was nobody, or the pose model
        gave no finite number.
        """
        if self._crops and not self._answered:
            reason = f"the pose model gives no finite number for any of its {self._crops} crops"
            return Failure(self.clip.clip_id, "pose", reason)
        track_id = self._follow_persons() if self._recipe.boxes == "detector" else None
        if not self._crops or track_id is not None and track_id.max() < 0:
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
