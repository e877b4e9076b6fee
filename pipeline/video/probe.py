"""What a video's header says, for `ingest`. Decodes the first frame only, since its display matrix is told there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av

from pipeline.files.names import is_folder
from pipeline.params import IMAGE_FPS
from pipeline.video.decode import pictures_of
from pipeline.video.image_folder import ImageFolder
from pipeline.video.open import OpenVideo, VideoError
from pipeline.video.picture import PictureError

MOST_BROKEN = 64  # packets


@dataclass(frozen=True)
class Header:
    """`fps` and `frames` are None where the container does not tell; the sides are as shown."""

    fps: float | None
    frames: int | None
    height: int
    width: int


def probe(path: Path, image_fps: float = IMAGE_FPS) -> Header:
    """Read a header, of a folder of images with its rate. Raises VideoError for what is unreadable, empty, without
    video or without a first frame.
    """
    if is_folder(path):
        with ImageFolder(path, fps=image_fps) as folder:
            return Header(image_fps, len(folder.times), *folder.shape)
    with OpenVideo(path) as source:
        stream = source.stream
        stream.codec_context.thread_count = 1
        pictures = pictures_of(stream)
        frame = _first_frame(source)
        if frame is None:
            raise VideoError("open", "the video holds no frame")
        try:
            height, width, _ = pictures.rgb(frame).shape
        except PictureError as error:
            raise VideoError("open", str(error)) from None
        fps = float(stream.average_rate) if stream.average_rate else None
        return Header(fps, stream.frames or None, height, width)


def _first_frame(source: OpenVideo) -> av.VideoFrame | None:
    """The first that decodes within MOST_BROKEN packets that do not; None where there is none."""
    broken = 0
    try:
        for packet in source.packets():
            try:
                if frames := packet.decode():
                    return frames[0]
            except av.FFmpegError as error:
                broken += 1
                if broken > MOST_BROKEN:
                    raise VideoError("open", f"the first frames do not decode ({error.strerror})") from None
    except (av.FFmpegError, OSError) as error:
        raise VideoError("open", f"reading the first frame failed ({error.strerror})") from None
    return None
