"""One video file, decoded in a single pass with bounded memory.

Reads any container and codec that FFmpeg knows, through PyAV. What a header says of the number of frames or the
duration is not believed: opening a `Video` walks the packets once (no decoding), and their timestamps are the timeline
that frames are chosen from. While decoding, at most two frames are held.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np

from pipeline.video.open import OpenVideo, VideoError
from pipeline.video.picture import PictureError, Pictures, alpha_decoder
from pipeline.video.record import ClipRecord, Treatment
from pipeline.video.sampling import sample_positions
from pipeline.video.truncation import is_cut

SEEK_GAIN = 24  # frames; a seek empties the decoder, so it must save at least so many
# AVI numbers packets in decoding order and MPEG programme streams stamp only some: their frames are counted, and no
# keyframe is jumped to.
UNTIMED = ("avi", "mpeg")
TOLERATED_LOSS = 2  # frames at the end that a packed stream may hold back


class Video:
    """A video file and its timeline.

    Attributes:
        times: [n] float64, seconds from the first frame, ascending; one for each frame that the file holds.
        duration: seconds; the end of the last frame.
        fps: mean frame rate over the timeline.
        record: what is odd about the file; it grows while frames are decoded.
        header: (fps, frames, the two sides in ascending order) as the header tells them; None where it does not.

    Raises VideoError when opened on a file that is unreadable, empty, truncated, without video or without frames.
    """

    def __init__(self, path: Path):
        self._path = path
        self._open()
        try:
            self._pictures = pictures_of(self._stream)
            self.record = ClipRecord(
                container=self._container.format.name,
                track=self._stream.index,
                tracks=self._source.tracks,
                pixel_aspect=self._pictures.aspect,
            )
            rate = float(self._stream.average_rate) if self._stream.average_rate else None
            self.header = (rate, self._stream.frames or None, sorted(self._pictures.shape()))
            self._read_timeline()
        except BaseException:
            self._source.close()
            raise

    def _open(self) -> None:
        self._source = OpenVideo(self._path)
        self._container, self._stream = self._source.container, self._source.stream
        self._stream.thread_type = "AUTO"

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *exception: object) -> None:
        self._source.close()

    @property
    def treatment(self) -> Treatment:
        """What was done to the latest picture that `frames` yielded."""
        return self._pictures.treatment

    def sample(self, count: int, start: float | None = None, end: float | None = None) -> np.ndarray:
        """[count] int32 positions on the timeline; see `sampling.sample_positions`."""
        return sample_positions(self.times, self.duration, count, start, end)

    def available(self, start: float | None = None, end: float | None = None) -> int:
        """How many frames are on display within a segment."""
        first = max(int(np.searchsorted(self.times, start or 0.0, side="right")) - 1, 0)
        return (len(self.times) if end is None else int(np.searchsorted(self.times, end))) - first

    def frames(self, positions: Sequence[int]) -> Iterator[tuple[int, int, np.ndarray]]:
        """Decode the frames at `positions` (ascending, distinct) in one pass.

        Stretches without a wanted frame are jumped over where a keyframe allows.

        Yields:
            (position asked for, position really decoded, uint8 RGB [H, W, 3] as a player shows it). The two positions
            differ where the decoder gave no frame for a packet; the frame before it is then still on display.

        Raises:
            VideoError: a packet does not decode, or the stream ends before the last wanted frame.
        """
        wanted = [int(position) for position in positions]
        held: tuple[int, av.VideoFrame] | None = None  # the latest frame before the next wanted one
        done = 0
        for position, frame in self._decode(wanted):
            while done < len(wanted) and wanted[done] < position:
                source, picture = held or (position, frame)
                yield wanted[done], source, self._to_rgb(picture)
                done += 1
            if done < len(wanted) and wanted[done] == position:
                yield position, position, self._to_rgb(frame)
                done += 1
            if done == len(wanted):
                return
            held = (position, frame)
        if held is None:
            raise VideoError("decode", "no frame could be decoded")
        if wanted[-1] - held[0] > TOLERATED_LOSS:
            raise VideoError("decode", f"decoding ended after {held[0] + 1} of {len(self.times)} frames")
        for position in wanted[done:]:
            yield position, held[0], self._to_rgb(held[1])

    def _read_timeline(self) -> None:
        """Walk the packets. Sets times, duration, fps and what seeking needs."""
        stamps, keyframes = array("q"), array("q")
        read, span, torn = 0, 0, False
        self._palettes = False  # a palette comes with a packet, once, and lasts: no packet may be jumped over
        try:
            for packet in self._container.demux(self._stream):
                stamp = packet.dts if packet.pts is None else packet.pts
                if packet.size:
                    read += 1
                    torn = packet.is_corrupt  # of the last packet: a capture may well begin with a torn one
                if packet.size == 0 or packet.is_discard or stamp is None:
                    continue
                self._palettes = self._palettes or packet.has_sidedata("palette")
                stamps.append(stamp)
                span = packet.duration or span
                if packet.is_keyframe:
                    keyframes.append(stamp)
        except (av.FFmpegError, OSError) as error:
            raise VideoError("open", f"reading failed after {len(stamps)} frames ({error.strerror})") from None
        # An mp4 lists every packet in its table, also those that an edit list hides or that only lead in to the others.
        listed = len(self._stream.index_entries) if "mp4" in self._container.format.name else 0
        if torn or read < listed - TOLERATED_LOSS or is_cut(self._source.file, self._container.format.name):
            raise VideoError("open", f"the file is truncated: its data ends after {read} frames")
        if not stamps:
            raise VideoError("open", "the video holds no frame")
        self._pts = np.sort(np.frombuffer(stamps, dtype=np.int64))
        time_base = float(self._stream.time_base or 1)
        self.times = (self._pts - self._pts[0]) * time_base  # [n]
        rate = float(self._stream.average_rate or 25)
        interval = float(np.median(np.diff(self.times))) if len(self.times) > 1 else span * time_base
        self.duration = float(self.times[-1]) + (interval if interval > 0 else 1 / rate)
        self.fps = len(self.times) / self.duration
        self._counted = self._container.format.name in UNTIMED
        whole = self._counted or self._palettes
        self._keyframes = np.array([0]) if whole else np.searchsorted(self._pts, np.sort(np.array(keyframes)))

    def _decode(self, wanted: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (position, frame) in order of display; frames before a wanted one may be left out."""
        upcoming = iter(wanted)
        target = next(upcoming)
        at, jumping = self._seek(target), not self._counted
        while True:
            landed = False  # the first frame after a jump tells whether the container kept its word
            for frame in self._decoded():
                position = at + 1 if self._counted else self._position(frame, at)
                if jumping and not landed and position > target and at >= 0:
                    jumping, at = False, self._seek(0)
                    break
                landed = True
                at = position
                yield position, frame
                while target <= position:
                    if (following := next(upcoming, None)) is None:
                        return
                    target = following
                if jumping and self._keyframe_before(target) - position > SEEK_GAIN:
                    at = self._seek(target)
                    break
            else:
                return

    def _seek(self, target: int) -> int:
        """Go to the keyframe at or before a position; returns the position before the one that comes next."""
        keyframe = 0 if self._counted else self._keyframe_before(target)
        try:
            if keyframe == 0 and self._palettes:
                self._reopen()
                return -1
            if keyframe == 0:
                self._container.seek(0)
                return -1
            self._container.seek(int(self._pts[keyframe]), stream=self._stream)
        except (av.FFmpegError, OSError) as error:
            raise VideoError("decode", f"seeking to {self.times[keyframe]:.2f} s failed ({error.strerror})") from None
        return keyframe - 1

    def _reopen(self) -> None:
        """Start afresh: FFmpeg gives a palette once for an open file, and reading the timeline took it."""
        self._source.close()
        self._open()

    def _keyframe_before(self, position: int) -> int:
        index = int(np.searchsorted(self._keyframes, position, side="right")) - 1
        return int(self._keyframes[index]) if index >= 0 else 0

    def _position(self, frame: av.VideoFrame, at: int) -> int:
        stamp = frame.dts if frame.pts is None else frame.pts
        if stamp is None:
            return at + 1
        return max(int(np.searchsorted(self._pts, stamp, side="right")) - 1, 0)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        try:
            if (decoder := alpha_decoder(self._stream)) is None:
                yield from self._container.decode(self._stream)
                return
            for packet in self._container.demux(self._stream):
                yield from decoder.decode(packet if packet.size else None)
        except (av.FFmpegError, OSError) as error:
            raise VideoError("decode", f"a frame does not decode ({error.strerror})") from None

    def _to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        try:
            return self._pictures.rgb(frame)
        except PictureError as error:
            raise VideoError("decode", str(error)) from None


def pictures_of(stream: av.VideoStream) -> Pictures:
    """How the frames of a stream become pictures. To be asked before any frame is decoded: sizes change with frames."""
    codec = stream.codec_context
    return Pictures(codec.width, codec.height, stream.sample_aspect_ratio)
