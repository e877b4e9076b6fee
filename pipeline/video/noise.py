"""Videos made up for measuring."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.video.decode import Video, VideoError


def write_noise(path: Path, frames: int, width: int = 640, height: int = 360) -> None:
    """Write a video that is hard to compress: noise that moves down the picture."""
    noise = np.random.default_rng(0).integers(0, 256, (height + 64, width, 3), np.uint8)
    _write(path, (noise[i % 64 : i % 64 + height] for i in range(frames)), width, height)


def write_again(path: Path, frames: int, width: int, height: int, video: Path) -> None:
    """Write one that shows `video` over and over, in this size. Raises PosebridgeError for one that cannot be read."""
    try:
        _write(path, (cv2.resize(frame, (width, height)) for frame in islice(_again(video), frames)), width, height)
    except VideoError as error:
        raise PosebridgeError(f"{video} cannot be measured with ({error}); name another one.") from None


def _again(path: Path) -> Iterator[np.ndarray]:
    while True:
        with Video(path) as video:
            for *_, frame in video.frames(range(len(video.times))):
                yield frame


def _write(path: Path, pictures: Iterable[np.ndarray], width: int, height: int) -> None:
    """uint8 RGB pictures [H, W, 3]."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "40"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
