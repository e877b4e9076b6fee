"""What every video offers, be it a file or a folder of images: a timeline, and its frames in one pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np

from pipeline.video.record import ClipRecord, Treatment
from pipeline.video.sampling import sample_positions

MAX_LOST = 0.1  # share of the frames that may not decode; see `ExtractParams.max_lost_frames`


class FrameReader(ABC):
    """A video and its timeline.

    Attributes:
        times: [n] float64, seconds from the first frame, ascending; one for each frame that the video holds.
        duration: seconds; the end of the last frame.
        fps: mean frame rate over the timeline, without its pauses.
        record: what is odd about the video; it grows while frames are decoded.
        max_lost: the share of the frames looked at that may not decode.
        header: (fps, frames, the two sides in ascending order) as the header tells them; None where it does not.
    """

    times: np.ndarray
    duration: float
    fps: float
    record: ClipRecord
    max_lost: float
    header: tuple[float | None, int | None, list[int]]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027 (a folder has nothing to close)
        """Close what is open; it may be closed already."""

    @property
    @abstractmethod
    def treatment(self) -> Treatment:
        """What was done to the latest picture that `frames` yielded."""

    @abstractmethod
    def frames(self, positions: Sequence[int]) -> Iterator[tuple[int, int, np.ndarray]]:
        """Decode the frames at `positions` (ascending, distinct) in one pass.

        Yields:
            (position asked for, position really decoded, uint8 RGB [H, W, 3] as a player shows it). The two positions
            differ where a frame does not decode; the frame before it is then still on display.

        Raises:
            VideoError: more than the share `max_lost` of the frames looked at do not decode, or none does.
        """

    def sample(self, count: int, start: float | None = None, end: float | None = None) -> np.ndarray:
        """[count] int32 positions on the timeline; see `sampling.sample_positions`."""
        return sample_positions(self.times, self.duration, count, start, end)

    def available(self, start: float | None = None, end: float | None = None) -> int:
        """How many frames are on display within a segment."""
        first = max(int(np.searchsorted(self.times, start or 0.0, side="right")) - 1, 0)
        return (len(self.times) if end is None else int(np.searchsorted(self.times, end))) - first
