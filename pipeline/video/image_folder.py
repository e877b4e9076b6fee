"""A folder of images as a video: `0.jpg 1.jpg …`, `img_00001.jpg …` (mmaction2's rawframes), a frame each.

Frames come in the natural order of their names, at a rate that `ingest` notes from the parameters. Images of another
size than the first are fitted into that one, as frames of a video are. What is no image (Thumbs.db, notes) does not
count; a folder that cannot be told (a video among the images, two images for one frame) is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline.files.names import is_folder, text_of
from pipeline.params import IMAGE_FPS
from pipeline.video.decode import Video
from pipeline.video.image import image_shape, read_image
from pipeline.video.names import images_of, is_named_as_video, natural
from pipeline.video.open import VideoError
from pipeline.video.picture import PictureError, fit
from pipeline.video.reader import MAX_LOST, FrameReader
from pipeline.video.record import ClipRecord, Treatment


def open_video(path: Path, max_lost: float = MAX_LOST, image_fps: float | None = None) -> FrameReader:
    """The reader of a file or of a folder of images; `image_fps` is a folder's rate, IMAGE_FPS where it is None.

    Raises VideoError as the two readers do.
    """
    return ImageFolder(path, max_lost, image_fps or IMAGE_FPS) if is_folder(path) else Video(path, max_lost)


class ImageFolder(FrameReader):
    """A folder of images; see `FrameReader`. An image that does not decode counts as a frame's lost packet does.

    Attributes:
        shape: (height, width) of all pictures, those of the first image.

    Raises VideoError when opened on a folder that is unreadable, without images, or cannot be told.
    """

    def __init__(self, path: Path, max_lost: float = MAX_LOST, fps: float = IMAGE_FPS):
        self._path, self.max_lost, self.fps = path, max_lost, fps
        self._names = _frames_of(path)
        self._lost: dict[int, str] = {}  # position -> why
        self._looked = 0  # pictures decoded
        self._held: tuple[int, np.ndarray, Treatment] | None = None  # the latest picture
        self.times = np.arange(len(self._names)) / fps
        self.duration = len(self._names) / fps
        self.record = ClipRecord(container="images", timing="counted")
        self.shape = self._first_shape()
        self.header = (fps, len(self._names), sorted(self.shape))

    @property
    def treatment(self) -> Treatment:
        return self._held[2] if self._held else Treatment()

    def frames(self, positions: Sequence[int]) -> Iterator[tuple[int, int, np.ndarray]]:
        wanted = [int(position) for position in positions]
        for done, asked in enumerate(wanted, start=1):
            shown, picture, _ = self._held = self._on_display(asked)
            if done == len(wanted):
                self._refuse_losses(self._looked + len(self._lost))
            yield asked, shown, picture

    def _first_shape(self) -> tuple[int, int]:
        for position, name in enumerate(self._names):
            try:
                return image_shape(self._path / name)
            except PictureError as error:
                self._lose(position, error)
        raise VideoError("open", f"none of its images can be read; first {self._told()}")

    def _on_display(self, asked: int) -> tuple[int, np.ndarray, Treatment]:
        """(position, picture, treatment): of the image itself, or else of the nearest before it, or after it."""
        for position in (*range(asked, -1, -1), *range(asked + 1, len(self._names))):
            if self._held and self._held[0] == position:
                return self._held
            if position not in self._lost:
                try:
                    picture, treatment = read_image(self._path / self._names[position])
                except PictureError as error:
                    self._lose(position, error)
                    continue
                self._looked += 1
                if picture.shape[:2] != self.shape:
                    picture, treatment = fit(picture, *self.shape), replace(treatment, resized=True)
                return position, picture, treatment
        raise VideoError("decode", f"no image can be read; first {self._told()}")

    def _lose(self, position: int, error: PictureError) -> None:
        self._lost[position] = str(error)
        self.record.lost = len(self._lost)
        self._refuse_losses(len(self._names))

    def _refuse_losses(self, frames: int) -> None:
        if len(self._lost) > self.max_lost * frames:
            raise VideoError("decode", f"{len(self._lost)} of {frames} images cannot be read; first {self._told()}")

    def _told(self) -> str:
        position, reason = next(iter(self._lost.items()))
        return f"{text_of(self._names[position])}: {reason}"


def _frames_of(folder: Path) -> list[str]:
    """The names of the images in order. Raises VideoError."""
    try:
        names = images_of(folder)
        videos = sorted(path.name for path in folder.iterdir() if is_named_as_video(path.name))
    except OSError as error:
        raise VideoError("open", f"the folder cannot be read ({error.strerror})") from None
    if not names:
        raise VideoError("open", "the folder holds no images")
    if videos:
        raise VideoError("open", f"the folder holds images and a video ({text_of(videos[0])}); keep them apart")
    stems: dict[tuple[str | int, ...], str] = {}
    for name in names:
        other = stems.setdefault(natural(PurePosixPath(name).stem), name)
        if other != name:
            both = f"{text_of(other)} and {text_of(name)}"
            raise VideoError("open", f"the folder holds two images for one frame, {both}; keep one of them")
    return names
