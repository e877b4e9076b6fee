"""Opening a video file: that file and no other, by its content and not by its name, and the right track of it.

FFmpeg is handed an open file instead of a name, and no protocol to open others with. So a name with a colon or a
pattern in it is only a name; and playlists, scripts and references to other files (HLS, DASH, ffconcat, SDP, numbered
pictures, external tracks) lead nowhere. They are refused by their format, too: only FORMATS are read.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
from av.stream import Disposition

from pipeline.files.plain_file import open_plain
from pipeline.video.truncation import is_cut, likely_format

# Demuxers that read pictures from the file itself: containers, streams without container, and single pictures.
FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,live_flv,asf,ogg,wtv,mxf,gxf,nut,ivf,rm,dv,nsv,dhav,amv,swf,4xm,flic,gif,"
    "apng,mpegvideo,m4v,h261,h263,h264,hevc,vvc,evc,vc1,vc1test,obu,av1,avs2,avs3,cavsvideo,dirac,dnxhd,mjpeg,mjpeg_2000,"
    "mpjpeg,yuv4mpegpipe,smjpeg,film_cpk,roq,smk,bink,pmp,bmp_pipe,jpeg_pipe,jpegxl_pipe,jpegxl_anim,j2k_pipe,png_pipe,"
    "tiff_pipe,webp_pipe"
)
OPTIONS = {"protocol_whitelist": "none", "format_whitelist": FORMATS}
PREVIEWS = Disposition.attached_pic | Disposition.timed_thumbnails


class VideoError(Exception):
    """A file that cannot yield its frames. `stage` is `open` or `decode`; the message is the reason, without a path."""

    def __init__(self, stage: str, reason: str):
        super().__init__(reason)
        self.stage = stage


class OpenVideo:
    """An open file and the chosen one of its video tracks.

    Attributes:
        container, stream: of PyAV.
        tracks: how many video tracks there are that are no cover pictures or previews.

    Raises VideoError (stage `open`) for what is no plain file, no video of a known format, or has no video track.
    """

    def __init__(self, path: Path):
        try:
            self.file = open_plain(path)
        except (FileNotFoundError, NotADirectoryError):
            raise VideoError("open", "the file does not exist") from None
        except OSError as error:
            raise VideoError("open", f"the file cannot be read ({error.strerror})") from None
        try:
            self.container = _container(self.file, path.suffix)
        except BaseException:
            self.file.close()
            raise
        try:
            streams = [s for s in self.container.streams.video if not s.disposition & PREVIEWS]
            if not streams:
                if is_cut(self.file, self.container.format.name):
                    raise VideoError("open", "the file is truncated: it ends before its frames begin")
                kinds = {"video": "a cover picture"}
                there = sorted({kinds.get(s.type, s.type) for s in self.container.streams}) or ["nothing"]
                raise VideoError("open", f"no video stream (there is {' and '.join(there)})")
            self.tracks = len(streams)
            self.stream = choose_track(streams)
        except BaseException:
            self.close()
            raise

    def packets(self) -> Iterator[av.Packet]:
        """The packets of the chosen track from where the file stands, and one without data that empties the decoder."""
        with suppress(IndexError):  # PyAV's, after all of these, where another track turned up behind the beginning
            yield from self.container.demux(self.stream)

    def close(self) -> None:
        """Close the file; it may be closed already."""
        self.container.close()
        self.file.close()

    def __enter__(self) -> OpenVideo:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _container(file: io.FileIO, suffix: str) -> av.container.InputContainer:
    if os.fstat(file.fileno()).st_size == 0:
        raise VideoError("open", "the file is empty")
    try:
        return av.open(_Named(file, suffix), "r", options=OPTIONS, metadata_errors="replace")
    except av.FFmpegError as error:
        if error.errno == errno.EINVAL:
            reason = "not a readable video: it is of no known format, or a list or script that names other files"
        elif is_cut(file, kind := likely_format(file)):
            missing = "its table of contents is missing" if kind == "mov" else "its beginning is not whole"
            reason = f"not a readable video: the file is truncated, {missing}"
        else:
            reason = f"not a readable video ({error.strerror})"
        raise VideoError("open", reason) from None
    except OSError as error:
        raise VideoError("open", f"the file cannot be read ({error.strerror})") from None


def choose_track(streams: list[av.VideoStream]) -> av.VideoStream:
    """Of several video tracks: one that can be decoded, then one marked as default, then the largest, then the first.

    Raises VideoError where FFmpeg has no decoder for any.
    """

    def rank(stream: av.VideoStream) -> tuple[bool, int]:
        return bool(stream.disposition & Disposition.default), stream.codec_context.width * stream.codec_context.height

    decodable = [stream for stream in streams if stream.codec_context is not None]
    if not decodable:
        raise VideoError("open", "the video is of a codec that FFmpeg cannot decode here")
    return max(decodable, key=rank)  # the first of equals


class _Named:
    """An open file under another name: FFmpeg guesses formats of no plain content by the suffix, and needs no more."""

    def __init__(self, file: io.FileIO, suffix: str):
        self._file, self.read, self.tell = file, file.read, file.tell
        self.name = "video" + (suffix if suffix.isascii() and suffix[1:].isalnum() else "")

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """The new position, or -1 for a place that no file has: only a damaged index leads there."""
        try:
            return self._file.seek(place, whence)
        except OSError:
            return -1
