"""What was odd about a video, or was done to its pictures: nothing of it is silent. One record a clip.

A shard keeps it as the text column `video_record`, in JSON; it is empty where no video was read.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

RECORD_BYTES = 384  # of the column; all fields at their longest take 360


@dataclass(frozen=True)
class Treatment:
    """What was done to one picture; the fields are those of the record."""

    orientation: str = ""
    resized: bool = False
    tone: str = ""
    alpha: bool = False
    interlaced: bool = False


@dataclass
class ClipRecord:
    """How the frames of a clip came out of its file.

    The file's part is filled by `Video` while it opens and decodes, the pictures' part from the clip's own frames, and
    `distinct`, `available` and what was lost by whoever samples and estimates.
    """

    container: str = ""  # FFmpeg's name of the format: "mov,mp4,m4a,3gp,3g2,mj2"
    track: int = 0  # index of the chosen one among the file's streams
    tracks: int = 1  # video tracks that are no cover pictures
    orientation: str = ""  # "" for upright, else what the display matrix asks for: "rotate90", "hflip", "transpose", …
    pixel_aspect: float = 1.0  # width : height of a stored pixel; pictures are given square pixels
    size_changes: int = 0  # sampled frames of another size than the first of the file; scaled to it
    lost: int = 0  # packets that did not decode
    timing: str = "stamps"  # "stamps", "mended" (some were wrong, restarted or wrapped) or "counted" (there were none)
    tone: str = ""  # "pq" or "hlg" where HDR was mapped to SDR
    alpha: bool = False  # composed on black
    interlaced: bool = False  # de-interlaced
    distinct: int = 0  # different frames among the T sampled
    available: int = 0  # frames that the clip's segment has
    joints_lost: int = 0  # that the pose model gave no finite number for: they count as unseen
    cues_lost: int = 0  # that were not finite: they are zero, with score 0

    def add(self, treatment: Treatment) -> None:
        """Take in what was done to one of the clip's pictures."""
        self.orientation = treatment.orientation or self.orientation
        self.size_changes += treatment.resized
        self.tone = treatment.tone or self.tone
        self.alpha |= treatment.alpha
        self.interlaced |= treatment.interlaced

    def shows_few(self, frames: int) -> bool:
        """Whether T = `frames` samples show less than a quarter of the frames that they could have shown."""
        return 4 * self.distinct < min(frames, self.available)

    def to_json(self) -> str:
        """The column's text: at most `RECORD_BYTES` bytes."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ClipRecord | None:
        """The record of a column's text; None for an empty one. Raises ValueError for what is no record."""
        if not text:
            return None
        values = json.loads(text)
        kinds = {field.name: type(field.default) for field in fields(cls)}
        if not isinstance(values, dict) or {name: type(value) for name, value in values.items()} != kinds:
            raise ValueError("not a record of a clip")
        return cls(**values)


def shows_few(text: str, frames: int) -> bool:
    """`ClipRecord.shows_few` of a column's text; never for an empty one."""
    record = ClipRecord.from_json(text)
    return record is not None and record.shows_few(frames)
