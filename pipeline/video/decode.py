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
from pipeline.video.reader import MAX_LOST, FrameReader
from pipeline.video.record import ClipRecord, Treatment
from pipeline.video.sampling import without_pauses
from pipeline.video.timeline import NONE, arrange
from pipeline.video.truncation import is_cut

SEEK_GAIN = 24  # frames; a seek empties the decoder, so it must save at least so many
# AVI numbers packets in decoding order and MPEG programme streams stamp only some: their frames are counted, and no
# keyframe is jumped to.
UNTIMED = ("avi", "mpeg")
UNTRUE = ("asf", "mxf")  # these do so where the stamps ascend although the decoder reorders
NEAR = 32  # frames; a decoder reorders at most 16
# Decoders that pass over a damaged packet without a word. Each packet shows one picture, so a gap is a loss; not so
# where a packet may show none: hidden frames of VP8, frames that MPEG-4 and Theora repeat, fields of H.264.
SILENT = ("hevc", "vvc", "av1")
RACING = ("theora", "vp3", "vp4")  # with a thread for each frame, FFmpeg gives wrong pictures now and then
TOLERATED_LOSS = 2  # frames at the end that a packed stream may hold back


class _BrokenPacket(Exception):
    """A packet does not decode while several threads are at work."""


class Video(FrameReader):
    """A video file and its timeline; see `FrameReader`.

    A packet that does not decode is counted in `record.lost`, and the frame before it stays on display; where more than
    the share `max_lost` of those looked at are lost, decoding fails.

    Raises VideoError when opened on a file that is unreadable, empty, truncated, without video or without frames.
    """

    def __init__(self, path: Path, max_lost: float = MAX_LOST):
        self._path, self.max_lost = path, max_lost
        self._alone = False  # decode with one thread
        self._lost: set[object] = set()  # what tells the packets apart
        self._looked = 0
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
        if self._alone:
            self._stream.codec_context.thread_count = 1
        several = "SLICE" if self._stream.codec_context.name in RACING else "AUTO"
        self._stream.thread_type = "NONE" if self._alone else several

    def close(self) -> None:
        self._source.close()

    @property
    def treatment(self) -> Treatment:
        return self._pictures.treatment

    def frames(self, positions: Sequence[int]) -> Iterator[tuple[int, int, np.ndarray]]:
        """See `FrameReader.frames`. Stretches without a wanted frame are jumped over where a keyframe allows."""
        wanted = [int(position) for position in positions]
        held: tuple[int, av.VideoFrame] | None = None  # the latest frame before the next wanted one
        done = 0
        for position, frame in self._decode(wanted):
            while done < len(wanted) and wanted[done] < position:
                source, picture = held or (position, frame)
                yield wanted[done], source, self._to_rgb(picture)
                done += 1
            if done < len(wanted) and wanted[done] == position:
                if done == len(wanted) - 1:
                    self._refuse_losses(self._looked + len(self._lost))
                yield position, position, self._to_rgb(frame)
                done += 1
            if done == len(wanted):
                return
            held = (position, frame)
        if held is None:
            raise VideoError("decode", "no frame could be decoded")
        if (lacking := wanted[-1] - held[0]) > TOLERATED_LOSS:
            self.record.lost = max(self.record.lost, lacking)  # those that were told may be among them
            if lacking > self.max_lost * len(self.times):
                raise VideoError("decode", f"decoding ended after {held[0] + 1} of {len(self.times)} frames")
        self._refuse_losses(self._looked + len(self._lost))
        for position in wanted[done:]:
            yield position, held[0], self._to_rgb(held[1])

    def _refuse_losses(self, frames: int) -> None:
        if len(self._lost) > self.max_lost * frames:
            raise VideoError("decode", f"{len(self._lost)} of {frames} frames do not decode")

    def _read_timeline(self) -> None:
        """Walk the packets. Sets times, duration, fps and what seeking needs."""
        pts, dts, spans, keyframes = array("q"), array("q"), array("q"), array("q")
        read, torn, leading = 0, False, False
        self._palettes = False  # a palette comes with a packet, once, and lasts: no packet may be jumped over
        try:
            for packet in self._source.packets():
                if packet.size:
                    read += 1
                    torn = packet.is_corrupt  # of the last packet: a capture may well begin with a torn one
                if packet.size == 0 or packet.is_discard:
                    leading |= packet.is_discard
                    continue
                self._palettes = self._palettes or packet.has_sidedata("palette")
                if packet.is_keyframe:
                    keyframes.append(len(pts))
                pts.append(NONE if packet.pts is None else packet.pts)
                dts.append(NONE if packet.dts is None else packet.dts)
                spans.append(packet.duration or 0)
        except (av.FFmpegError, OSError) as error:
            raise VideoError("open", f"reading failed after {len(pts)} frames ({error.strerror})") from None
        # An mp4 lists every packet in its table, also those that an edit list hides or that only lead in to the others.
        listed = len(self._stream.index_entries) if "mp4" in self._container.format.name else 0
        if torn or read < listed - TOLERATED_LOSS or is_cut(self._source.file, self._container.format.name):
            raise VideoError("open", f"the file is truncated: its data ends after {read} frames")
        if not pts:
            raise VideoError("open", "the video holds no frame")
        tick = float(self._stream.time_base or 1)
        interval = float(np.median(np.frombuffer(spans, np.int64))) * tick or 1 / float(self._stream.average_rate or 25)
        line = arrange(np.frombuffer(pts, np.int64), np.frombuffer(dts, np.int64), tick, interval)
        self.times, self._stamps, self.record.timing = line.times, line.stamps, line.timing
        usual = float(np.median(np.diff(self.times))) if len(self.times) > 1 else interval
        self.duration = float(self.times[-1]) + (usual if usual > 0 else interval)
        self.fps = len(self.times) / (self.duration - float(self.times[-1] - without_pauses(self.times)[-1]))
        kind = self._container.format.name
        reordered = bool(self._stream.codec_context.has_b_frames) and bool((np.diff(line.order) == 1).all())
        self._untimed = kind in UNTIMED or (kind in UNTRUE and reordered)
        # Where stamps do not lead to places, or a palette would be missed, decoding begins at the first frame.
        self._in_order = self._untimed or line.timing != "stamps"
        places = np.empty(len(pts), np.int64)
        places[line.order] = np.arange(len(pts))
        whole = self._in_order or self._palettes
        self._keyframes = np.array([0]) if whole else np.sort(places[np.array(keyframes, np.int64)])
        self._keyframes = self._keyframes[(self._stamps[self._keyframes] >= 0) | (self._keyframes == 0)]
        # FFmpeg seeks to nothing before zero, gives a palette once, and stamps that are odd lead nowhere.
        negative = int(self._stamps[0]) < 0 and not leading
        self._reopens = self._palettes or kind == "mpeg" or line.timing != "stamps" or negative

    def _decode(self, wanted: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (position, frame) in order of display; frames before a wanted one may be left out.

        Several threads may swallow frames that follow a broken packet; so from there on there is only one.
        """
        upcoming = iter(wanted)
        target, seen = next(upcoming), -1  # the latest position that was yielded
        at, jumping = self._seek(target), not self._in_order
        while True:
            landed = False  # the first frame after a jump tells whether the container kept its word
            try:
                for frame in self._decoded():
                    if frame is None:  # lost
                        at += self._in_order and self._keeps_count
                        continue
                    position = self._position(frame, at)
                    if jumping and not landed and position > target:
                        jumping, at = False, self._reopen()
                        break
                    if landed and self._tells_gaps:
                        for missing in range(at + 1, position):
                            self._lose(int(self._stamps[missing]))
                    landed, at = True, position
                    if position <= seen:
                        continue
                    seen = position
                    self._looked += 1
                    yield position, frame
                    while target <= position:
                        if (following := next(upcoming, None)) is None:
                            return
                        target = following
                    if jumping and self._keyframe_before(target) - position > SEEK_GAIN:
                        at = self._seek(target)
                        break
                else:
                    if jumping and not landed:  # the jump led beyond the end
                        jumping, at = False, self._reopen()
                        continue
                    held_back = TOLERATED_LOSS if self._keeps_count else 0  # packed streams do so, threads or not
                    if self._alone or at >= len(self.times) - 1 - held_back:
                        return
                    raise _BrokenPacket  # frames are missing at the end: did threads swallow them?
            except _BrokenPacket:
                self._alone = True
                at = self._reopen()
                if self._keyframe_before(seen):
                    at = self._seek(seen)

    def _seek(self, target: int) -> int:
        """Go to the keyframe at or before a position; returns the position before the one that comes next."""
        keyframe = self._keyframe_before(target)
        if keyframe == 0 and self._reopens:
            return self._reopen()
        try:
            if keyframe == 0:
                self._container.seek(0)
            else:
                self._container.seek(int(self._stamps[keyframe]), stream=self._stream)
        except (av.FFmpegError, OSError):
            return self._reopen()
        return keyframe - 1

    def _reopen(self) -> int:
        """Start afresh, where no seeking leads to the first frame with all that belongs to it; returns -1."""
        self._source.close()
        self._open()
        return -1

    def _keyframe_before(self, position: int) -> int:
        index = int(np.searchsorted(self._keyframes, position, side="right")) - 1
        return int(self._keyframes[index]) if index >= 0 else 0

    @property
    def _keeps_count(self) -> bool:
        """Whether frames are told apart by counting alone, so that a lost one counts, too."""
        return self._untimed or self.record.timing == "counted"

    @property
    def _tells_gaps(self) -> bool:
        """Whether a frame that is missing between two others was lost."""
        return self._stream.codec_context.codec.canonical_name in SILENT and not self._in_order

    def _position(self, frame: av.VideoFrame, at: int) -> int:
        stamp = frame.dts if frame.pts is None else frame.pts
        if stamp is None or self._keeps_count:
            return min(at + 1, len(self.times) - 1)
        if self._in_order:  # stamps may repeat, but not close together
            ahead = np.flatnonzero(self._stamps[at + 1 : at + 1 + NEAR] == stamp)
            return min(at + 1 + (int(ahead[0]) if len(ahead) else 0), len(self.times) - 1)
        return max(int(np.searchsorted(self._stamps, stamp, side="right")) - 1, 0)

    def _decoded(self) -> Iterator[av.VideoFrame | None]:
        """Decode from where the file stands; None for a packet that does not decode, or only to a damaged picture."""
        decoder = alpha_decoder(self._stream)
        try:
            for packet in self._source.packets():
                if not packet.size and packet.dts is not None:
                    continue  # the frame before it stays; only the packet that empties the decoder has no stamp
                try:
                    frames = packet.decode() if decoder is None else decoder.decode(packet if packet.size else None)
                except av.FFmpegError:
                    self._lose(packet.pts if self._tells_gaps else (packet.pts, packet.dts, packet.pos))
                    yield None
                    continue
                for frame in frames:
                    if frame.is_corrupt:
                        self._lose(frame.pts if self._tells_gaps else (frame.pts, frame.dts, -1))
                        yield None
                    else:
                        yield frame
        except (av.FFmpegError, OSError) as error:
            raise VideoError("decode", f"reading failed ({error.strerror})") from None

    def _lose(self, packet: object) -> None:
        """Count a loss, once, however often a stretch is decoded."""
        if not self._alone:
            raise _BrokenPacket
        self._lost.add(packet)
        self.record.lost = len(self._lost)
        self._refuse_losses(len(self.times))

    def _to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        try:
            return self._pictures.rgb(frame)
        except PictureError as error:
            raise VideoError("decode", str(error)) from None


def pictures_of(stream: av.VideoStream) -> Pictures:
    """How the frames of a stream become pictures. To be asked before any frame is decoded: sizes change with frames."""
    codec = stream.codec_context
    return Pictures(codec.width, codec.height, stream.sample_aspect_ratio)
