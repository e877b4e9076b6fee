"""From a decoded frame to the picture that a player shows: upright, of square pixels, in the colours of a usual screen.

The rules, each only where a frame calls for it; an ordinary frame is converted by one call of swscale and no more:
  * Interlaced (the frame says so): one of its fields stays, the other's lines are interpolated (w3fdif of the BBC).
    One frame in, one out, without a look at its neighbours: a picture never depends on which others are asked for.
  * Transparent: straight alpha, composed on black. What is hidden does not show.
  * HDR: mapped to SDR, see tone.py.
  * Pixels that are not square: the side that is too short is enlarged, so that nothing is thrown away.
  * Display matrix: the nearest of the eight ways to lay down a picture; a matrix that is singular (all zero) is none.
  * Another size than the file's first frame: scaled to fit into that one, its proportions kept, black around it.
Matrix coefficients and range of YUV are swscale's business, which goes by what the frame says (unsaid: BT.601).
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.format import VideoFormat
from av.video.reformatter import VideoReformatter

from pipeline.video.record import Treatment
from pipeline.video.tone import CURVES, to_sdr

MOST_ASPECT = 4.0  # pixels that are said to be longer than this are square ones under a damaged header
FATAL = ("yaf32be", "yaf32le")  # swscale ends the process over these
RESERVED, UNSAID = 3, 2  # matrix coefficients; swscale refuses what no standard has
MOST_PIXELS = 1 << 27  # of a picture; 16K has as many
MOST_SIDE = (1 << 15) - 2  # OpenCV cuts no crop out of a longer one
FEWEST_LINES = 4  # w3fdif wants three

# by whether rows and columns are swapped, then rows reversed, then columns reversed; turns are counter-clockwise
ORIENTATIONS = {
    (False, False, False): "",
    (False, False, True): "hflip",
    (False, True, False): "vflip",
    (False, True, True): "rotate180",
    (True, False, False): "transpose",
    (True, True, False): "rotate90",
    (True, False, True): "rotate270",
    (True, True, True): "antitranspose",
}
STEPS = {name: steps for steps, name in ORIENTATIONS.items()}


def _unlisted(cls: type[Type], value: object) -> Type:
    kind: Any = object.__new__(cls)
    kind._name_, kind._value_ = f"UNLISTED_{value}", value
    return kind


# PyAV lists fewer kinds of side data than FFmpeg has (Exif, views of stereo) and gives none where a frame has others.
setattr(Type, "_missing_", classmethod(_unlisted))  # noqa: B010 (mypy takes no assignment to a method)


class PictureError(Exception):
    """A frame that cannot be shown; the message is the reason."""


class Pictures:
    """Converts the frames of one video, all to one size.

    Args:
        width, height: of the file's first frame as it is stored; 0 where the header does not tell.
        aspect: width : height of a stored pixel; None where unknown.

    Attributes:
        aspect: what is applied; 1 for square pixels.
        treatment: what was done to the latest picture.
    """

    def __init__(self, width: int, height: int, aspect: Fraction | None):
        self._stored = (width, height)
        self.aspect = sane_aspect(aspect, width, height)
        self.treatment = Treatment()
        self._shape: tuple[int, int] | None = None  # height, width of all pictures
        self._reformatter = VideoReformatter()  # one for all frames: making it costs more than using it

    def shape(self, orientation: str = "") -> tuple[int, int]:
        """(height, width) of the pictures of a video whose display matrix asks for `orientation`."""
        width, height = square_size(*self._stored, self.aspect)
        return (width, height) if STEPS[orientation][0] else (height, width)

    def rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """uint8 RGB [H, W, 3], C-contiguous, of the same shape for every frame. Raises PictureError."""
        if not all(self._stored):
            self._stored = (frame.width, frame.height)
        size = square_size(frame.width, frame.height, self.aspect)
        if size[0] * size[1] > MOST_PIXELS or max(size) > MOST_SIDE:
            raise PictureError(f"its pictures of {size[0]} x {size[1]} pixels are too large")
        tone = CURVES.get(frame.color_trc, "")
        orientation = orientation_of(frame)
        interlaced = frame.interlaced_frame and frame.height >= FEWEST_LINES
        try:
            if interlaced:
                frame = deinterlace(frame)
            alpha = False
            if has_alpha(frame.format.name):
                frame, alpha = self._on_black(frame, bool(tone))
            picture = self._convert(frame, "rgb48le" if tone else "rgb24", size)
        except (av.FFmpegError, OSError, ValueError):
            raise PictureError(f"its pictures are of a kind that is not converted ({frame.format.name})") from None
        if tone:
            picture = to_sdr(picture, tone, frame.color_primaries)
        if orientation:
            picture = lay_down(picture, orientation)
        self._shape = self._shape or self.shape(orientation)
        resized = picture.shape[:2] != self._shape
        if resized:
            picture = fit(picture, *self._shape)
        self.treatment = Treatment(orientation, resized, tone, alpha, interlaced)
        return picture

    def _convert(self, frame: av.VideoFrame, format_name: str, size: tuple[int, int]) -> np.ndarray:
        """[H, W, C] in another format and size (width, height)."""
        if frame.format.name in FATAL:
            raise ValueError("swscale cannot")
        if frame.colorspace == RESERVED:
            frame.colorspace = UNSAID
        # One thread: the conversion takes less time than waking others, and decoding has its own threads.
        converted = self._reformatter.reformat(frame, *size, format=format_name, threads=1)
        return np.ascontiguousarray(converted.to_ndarray())  # rows of an odd width are padded

    def _on_black(self, frame: av.VideoFrame, deep: bool) -> tuple[av.VideoFrame, bool]:
        """The frame without its alpha, and whether anything was transparent."""
        kind, most = ("rgba64le", 65535) if deep else ("rgba", 255)
        picture = self._convert(frame, kind, (frame.width, frame.height))  # [H, W, 4]
        alpha = picture[..., 3:]
        empty = frame.format.name == "pal8" and alpha.max() == 0  # a palette whose alpha nobody has filled in
        transparent = alpha.min() < most and not empty
        shown = picture[..., :3]
        if transparent:
            shown = on_black(picture)
        flat = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), "rgb48le" if deep else "rgb24")
        flat.color_primaries = frame.color_primaries
        return flat, bool(transparent)


def on_black(picture: np.ndarray) -> np.ndarray:
    """[H, W, 3] of a picture [H, W, 4] of 8 or 16 bits a channel, straight alpha the last, composed on black."""
    most = np.iinfo(picture.dtype).max
    alpha = picture[..., 3:].astype(np.uint16 if most == 255 else np.uint32)
    return ((picture[..., :3] * alpha + most // 2) // most).astype(picture.dtype)


def sane_aspect(aspect: Fraction | None, width: int, height: int) -> float:
    """The aspect of a pixel; 1 where it is unknown, beyond belief, or so near to 1 that the size stays."""
    value = float(aspect or 1)
    stays = width > 0 and square_size(width, height, value) == (width, height)
    return value if 1 / MOST_ASPECT <= value <= MOST_ASPECT and not stays else 1.0


def square_size(width: int, height: int, aspect: float) -> tuple[int, int]:
    """(width, height) of a picture after its pixels were made square, by enlarging the side that is too short."""
    return (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))


def orientation_of(frame: av.VideoFrame) -> str:
    """What the display matrix asks for: a key of `STEPS`.

    FFmpeg's matrix [a b u; c d v; x y w] puts the pixel (p, q) at (ap + cq, bp + dq), q downwards.
    """
    side_data: Any = frame.side_data
    if not len(side_data) or Type.DISPLAYMATRIX not in side_data:
        return ""
    data = side_data[Type.DISPLAYMATRIX]
    a, b, _, c, d = (int(number) for number in np.frombuffer(data, np.int32)[:5])
    if a * d == b * c:
        return ""
    swapped = abs(b) + abs(c) > abs(a) + abs(d)
    return ORIENTATIONS[(swapped, b < 0, c < 0) if swapped else (False, d < 0, a < 0)]


def lay_down(picture: np.ndarray, orientation: str) -> np.ndarray:
    """[H, W, 3] turned or mirrored, C-contiguous."""
    swapped, rows, columns = STEPS[orientation]
    picture = picture.swapaxes(0, 1) if swapped else picture
    return np.ascontiguousarray(picture[:: -1 if rows else 1, :: -1 if columns else 1])


def fit(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """[height, width, 3]: the whole picture in its proportions, centred on black."""
    scale = min(height / picture.shape[0], width / picture.shape[1])
    h, w = max(round(picture.shape[0] * scale), 1), max(round(picture.shape[1] * scale), 1)
    top, left = (height - h) // 2, (width - w) // 2
    framed = np.zeros((height, width, 3), np.uint8)
    scaled = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(w, h, threads=1)
    framed[top : top + h, left : left + w] = scaled.to_ndarray()
    return framed


def deinterlace(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame with the lines of one of its fields, the others interpolated."""
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 25)
    )
    graph.link_nodes(source, graph.add("w3fdif", "filter=simple:mode=frame:deint=all"), graph.add("buffersink"))
    graph.configure()
    graph.vpush(frame)
    graph.vpush(None)
    return graph.vpull()


@cache
def has_alpha(format_name: str) -> bool:
    """Whether frames of this format may be transparent."""
    return format_name == "pal8" or any(c.is_alpha for c in VideoFormat(format_name).components)


def alpha_decoder(stream: av.VideoStream) -> av.VideoCodecContext | None:
    """A decoder that sees the alpha of a VP8 or VP9 stream which has one; that of the stream itself does not."""
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name)
    if name is None or stream.metadata.get("alpha_mode") != "1" or name not in av.codecs_available:
        return None
    decoder = av.CodecContext.create(name, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    return decoder
