"""What was odd about a video, or was done to its pictures: nothing of it is silent. One record a clip."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ClipRecord:
    """How the frames of a clip came out of its file.

    All but `distinct` is filled by `Video` while it opens and decodes; `distinct` by whoever samples.
    """

    container: str = ""  # FFmpeg's name of the format: "mov,mp4,m4a,3gp,3g2,mj2"
    track: int = 0  # index of the chosen one among the file's streams
    tracks: int = 1  # video tracks that are no cover pictures
    orientation: str = ""  # "" for upright, else what the display matrix asks for: "rotate90", "hflip", "transpose", …
    pixel_aspect: float = 1.0  # width : height of a stored pixel; pictures are given square pixels
    size_changes: int = 0  # frames of another size than the first; scaled to it
    lost: int = 0  # packets that did not decode
    timing: str = "stamps"  # "stamps", "mended" (some were wrong, restarted or wrapped) or "counted" (there were none)
    tone: str = ""  # "pq" or "hlg" where HDR was mapped to SDR
    alpha: bool = False  # composed on black
    interlaced: bool = False  # de-interlaced
    distinct: int = 0  # different frames among the T sampled
