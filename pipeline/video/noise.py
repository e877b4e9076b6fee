"""A video made up for measuring."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_noise(path: Path, frames: int, width: int = 640, height: int = 360) -> None:
    """Write a video that is hard to compress: noise that moves down the picture."""
    noise = np.random.default_rng(0).integers(0, 256, (height + 64, width, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "40"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(noise[i % 64 : i % 64 + height]), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
