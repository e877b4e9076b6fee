"""A deterministic pose model without weights, and little videos: what the tests of stage one run on."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.hpe.base import Estimate


class FakeEstimator:
    """Answers from the mean brightness of a crop, so equal frames give equal answers and others do not.

    `crops` counts what it was asked, `calls` how often.
    """

    crop_size = (24, 32)
    joints = 17
    cue_width = 8

    def __init__(self, anchors: int = 6):
        self.anchors, self.crops, self.calls = anchors, 0, 0

    def estimate(self, crops: np.ndarray, cue_rows: np.ndarray) -> Estimate:
        assert crops.dtype == np.uint8 and crops.shape[1:] == (32, 24, 3) and cue_rows.shape == (len(crops),)
        self.crops, self.calls = self.crops + len(crops), self.calls + 1
        brightness = crops[:, 16, 12, 0].astype(np.float32)  # [N], of the centre: the borders are padding
        keypoints = np.zeros((len(crops), 17, 2), np.float32)
        keypoints[..., 0] = 12
        keypoints[..., 1] = 16 + brightness[:, None] / 256
        scores = np.full((len(crops), 17), 0.5, np.float32)
        cues = np.broadcast_to(brightness[cue_rows, None, None], (int(cue_rows.sum()), self.anchors, self.cue_width))
        return Estimate(keypoints, scores, cues.copy(), np.ones(cues.shape[:2], np.float32))


def write_video(
    path: Path,
    frames: int = 20,
    fps: int = 25,
    size: tuple[int, int] = (64, 48),
    stamps: Sequence[int] | None = None,
    rotation: int = 0,
    codec: str = "libx264",
    offset: int = 0,
    keyframe_every: int = 12,
    options: dict[str, str] | None = None,
) -> Path:
    """A grey video of `size` (width, height) whose frame i has the brightness `offset + 5 * i` mod 250.

    The left half is black where rotated. `stamps` are milliseconds for a variable frame rate; `rotation` in degrees
    goes into the display matrix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.thread_count = 1  # the same bytes every time: a video is known by them
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.gop_size = keyframe_every
        base = Fraction(1, fps) if stamps is None else Fraction(1, 1000)
        stream.codec_context.time_base = base
        if rotation:
            stream.set_display_rotation(rotation)
        container.start_encoding()  # so that a video without frames has a header too
        for i in range(frames):
            picture = np.full((size[1], size[0], 3), (offset + 5 * i) % 250, np.uint8)
            if rotation:
                picture[:, : size[0] // 2] = 0
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = (i if stamps is None else stamps[i]), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_audio(path: Path) -> Path:
    """A second of silence in a file named like a video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for i in range(16):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, i * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_pictures(
    path: Path, pictures: Sequence[np.ndarray | av.VideoFrame], pix_fmt: str, codec: str = "ffv1", **settings: Any
) -> Path:
    """Write frames or RGB arrays; `settings` are attributes of the encoder."""
    options = settings.pop("options", {})
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.pix_fmt = pix_fmt
        for i, picture in enumerate(pictures):
            frame = picture if isinstance(picture, av.VideoFrame) else av.VideoFrame.from_ndarray(picture, "rgb24")
            if i == 0:
                stream.width, stream.height = frame.width, frame.height
                for name, value in settings.items():
                    setattr(stream.codec_context, name, value)
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sizes(path: Path, pictures: Sequence[np.ndarray]) -> Path:
    """A TS of RGB arrays in one track, with a new encoder wherever their size changes."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        encoder: Any = stream
        for i, picture in enumerate(pictures):
            height, width = picture.shape[:2]
            if i > 0 and (encoder.width, encoder.height) != (width, height):
                encoder = av.CodecContext.create("libx264", "w")
                encoder.time_base = Fraction(1, 25)
            if i == 0 or encoder is not stream and not encoder.is_open:
                encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            packets = encoder.encode(frame)
            if i + 1 == len(pictures) or pictures[i + 1].shape != picture.shape:
                packets += encoder.encode(None)
            for packet in packets:
                packet.stream, packet.time_base = stream, packet.time_base or Fraction(1, 25)
                container.mux(packet)
    return path


def write_odd(folder: Path) -> None:
    """Three odd videos that get brighter: mirrored.mp4, wide.mp4 (pixels twice as wide as high), two.ts (two sizes)."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [np.full((48, 64, 3), 10 * i, np.uint8) for i in range(20)]
    write_pictures(folder / "wide.mp4", pictures, "yuv420p", "libx264", sample_aspect_ratio=Fraction(2))
    write_sizes(folder / "two.ts", [picture.repeat(1 + i // 10, 0) for i, picture in enumerate(pictures)])
    with av.open(str(folder / "mirrored.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(0, hflip=True)
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
