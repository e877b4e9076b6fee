"""Pictures as a player shows them: odd little videos written here, and what must come out of each."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from fakes import write_pictures, write_sizes, write_video

from pipeline.video.decode import Video, VideoError
from pipeline.video.picture import STEPS, PictureError, Pictures, lay_down, orientation_of
from pipeline.video.probe import probe
from pipeline.video.tone import to_sdr

FAULTS = Path(__file__).parents[2] / "shared/faults/videos"
ONE = 1 << 16
QUARTERS = {"R": (250, 0, 0), "G": (0, 250, 0), "B": (0, 0, 250), "W": (250, 250, 250)}


def quarters(width: int = 64, height: int = 48, order: str = "RGBW") -> np.ndarray:
    """Red, green / blue, white."""
    picture = np.zeros((height, width, 3), np.uint8)
    for i, letter in enumerate(order):
        rows, columns = slice(i // 2 * height // 2, None), slice(i % 2 * width // 2, None)
        picture[rows, columns] = QUARTERS[letter]
    return picture


def corners(picture: np.ndarray) -> str:
    """The letters of the four corners: top left, top right, bottom left, bottom right."""
    h, w = picture.shape[:2]
    found = ""
    for y in (h // 8, h - h // 8):
        for x in (w // 8, w - w // 8):
            distance = {k: np.abs(np.int32(picture[y, x]) - colour).sum() for k, colour in QUARTERS.items()}
            found += min(distance, key=distance.__getitem__)
    return found


def filled(pix_fmt: str, width: int, height: int, planes: list[np.ndarray]) -> av.VideoFrame:
    """A frame whose planes hold these arrays."""
    frame = av.VideoFrame(width, height, pix_fmt)
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        data = np.ascontiguousarray(values).view(np.uint8).reshape(plane.height, -1)
        rows[:, : data.shape[1]] = data
        plane.update(rows.tobytes())
    return frame


def decoded(path: Path) -> tuple[list[np.ndarray], Video]:
    """All pictures of a file; they and the header agree about the size."""
    with Video(path) as video:
        pictures = [picture for _, _, picture in video.frames(range(len(video.times)))]
    header = probe(path)
    assert {picture.shape for picture in pictures} == {(header.height, header.width, 3)}
    assert sorted((header.height, header.width)) == video.header[2], "or `refuse_changed` would refuse the file"
    assert all(picture.flags.c_contiguous and picture.dtype == np.uint8 for picture in pictures)
    return pictures, video


# what a player shows of the quarters RG / BW; a b c d of FFmpeg's matrix, (p, q) -> (ap + cq, bp + dq), q downwards
MATRICES = {
    "": ((1, 0, 0, 1), "RGBW"),
    "hflip": ((-1, 0, 0, 1), "GRWB"),
    "vflip": ((1, 0, 0, -1), "BWRG"),
    "rotate180": ((-1, 0, 0, -1), "WBGR"),
    "rotate270": ((0, 1, -1, 0), "BRWG"),  # a phone held upright: a quarter turn clockwise
    "rotate90": ((0, -1, 1, 0), "GWRB"),
    "transpose": ((0, 1, 1, 0), "RBGW"),
    "antitranspose": ((0, -1, -1, 0), "WGBR"),
}


def with_matrix(path: Path, numbers: tuple[float, float, float, float]) -> Path:
    """An mp4 of the quarters with a, b, c, d in its track header."""
    write_pictures(path, [quarters()] * 3, "yuv444p", "libx264")
    data, (a, b, c, d) = bytearray(path.read_bytes()), (round(n * ONE) for n in numbers)
    place = data.index(b"tkhd") + 44
    assert struct.unpack_from(">9i", data, place) == (ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, place, a, b, 0, c, d, 0, 64 * ONE * (a < 0), 48 * ONE * (d < 0), 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.e2e
@pytest.mark.parametrize("name", MATRICES)
def test_every_display_matrix_is_applied_as_a_player_does(tmp_path, name):
    matrix, shown = MATRICES[name]
    path = with_matrix(tmp_path / "a.mp4", matrix)
    pictures, video = decoded(path)
    assert [corners(picture) for picture in pictures] == [shown] * 3
    assert pictures[0].shape[:2] == ((64, 48) if matrix[0] == 0 else (48, 64))
    assert video.treatment.orientation == name


@pytest.mark.fault
@pytest.mark.parametrize("matrix", [(0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 0, 0), (0, 1, 0, 0), (1, 0.1, -0.1, 1)])
def test_a_matrix_that_is_none_changes_nothing(tmp_path, matrix):
    """All zero, singular, or a tilt of less than half a quarter turn."""
    pictures, video = decoded(with_matrix(tmp_path / "a.mp4", matrix))
    assert corners(pictures[0]) == "RGBW" and video.treatment.orientation == ""


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (Fraction(2), (48, 128)),
        (Fraction(1, 2), (96, 64)),
        (Fraction(64, 45), (48, 91)),
        (Fraction(1001, 1000), (48, 64)),  # not a pixel's difference
        (Fraction(100), (48, 64)),  # beyond belief
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv"])
def test_pixels_become_square(tmp_path, aspect, size, suffix):
    path = write_pictures(
        tmp_path / f"a.{suffix}", [quarters()] * 20, "yuv444p", "libx264", sample_aspect_ratio=aspect
    )  # fmt: skip
    pictures, video = decoded(path)
    assert pictures[0].shape[:2] == size and corners(pictures[0]) == "RGBW"
    assert video.record.pixel_aspect == pytest.approx(1 if size == (48, 64) else float(aspect), rel=1e-3)


@pytest.mark.e2e
def test_pixels_become_square_before_the_picture_is_turned(tmp_path):
    path = write_pictures(tmp_path / "a.mp4", [quarters()] * 3, "yuv444p", "libx264", sample_aspect_ratio=Fraction(2))
    data = bytearray(path.read_bytes())
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, 0, ONE, 0, -ONE, 0, 0, 48 * ONE, 0, 1 << 30)
    path.write_bytes(data)
    pictures, _ = decoded(path)
    assert pictures[0].shape[:2] == (128, 48) and corners(pictures[0]) == "BRWG"


@pytest.mark.e2e
@pytest.mark.parametrize("second", [(128, 96), (32, 24), (64, 96), (128, 48)])
def test_frames_of_another_size_are_fitted_into_the_first(tmp_path, second):
    sizes = (64, 48), second
    path = write_sizes(tmp_path / "two.ts", [quarters(*sizes[i // 10]) for i in range(20)])
    pictures, video = decoded(path)
    assert len(pictures) == 20
    assert video.treatment.resized
    assert [corners(p) for p in pictures[:10]] == ["RGBW"] * 10
    if second == (64, 96):  # higher than wide: black on both sides, proportions kept
        assert pictures[-1][:, :15].max() < 20 and pictures[-1][:, -15:].max() < 20
        assert corners(pictures[-1][:, 16:48]) == "RGBW"
    elif second == (128, 48):  # twice as wide: black above and below
        assert pictures[-1][:11].max() < 20 and pictures[-1][-11:].max() < 20
        assert corners(pictures[-1][12:36]) == "RGBW"
    else:
        assert [corners(p) for p in pictures[10:]] == ["RGBW"] * 10


@pytest.mark.e2e
@pytest.mark.parametrize(("suffix", "codec"), [("avi", "rawvideo"), ("mov", "rawvideo"), ("mov", "png")])
def test_palettes_have_their_colours(tmp_path, suffix, codec):
    """FFmpeg hands out a palette once for an open file: it is there in a second pass too."""
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 0] = 255
    palette[:4, 1:] = list(QUARTERS.values())
    index = np.zeros((48, 64), np.uint8)
    index[:24, 32:], index[24:, :32], index[24:, 32:] = 1, 2, 3
    frames = [av.VideoFrame.from_ndarray((index, palette), "pal8") for _ in range(40)]
    path = write_pictures(tmp_path / f"a.{suffix}", frames, "pal8", codec)
    with Video(path) as video:
        for wanted in (range(40), [35], [0, 39]):
            assert {corners(picture) for _, _, picture in video.frames(wanted)} == {"RGBW"}
    assert corners(decoded(path)[0][-1]) == "RGBW"


def see_through(pix_fmt: str) -> av.VideoFrame:
    """Hidden red with a white square that is half transparent, rows and columns 16 to 32, in any format with alpha."""
    picture = np.zeros((48, 64, 4), np.uint16)
    picture[..., 0] = 65535
    picture[16:32, 16:32] = (65535, 65535, 65535, 32768)
    return av.VideoFrame.from_ndarray(picture, "rgba64le").reformat(format=pix_fmt, dst_color_range=1)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("pix_fmt", "codec", "suffix"),
    [
        ("rgba", "png", "mov"),
        ("rgba64be", "png", "mov"),
        ("ya8", "png", "mov"),
        ("ya16be", "png", "mov"),
        ("argb", "qtrle", "mov"),
        ("bgra", "ffv1", "mkv"),
        ("yuva444p", "ffv1", "mkv"),
        ("yuva420p10le", "ffv1", "mkv"),
        ("yuva444p10le", "prores_ks", "mov"),
        ("gbrap", "utvideo", "avi"),
        ("yuva420p", "libvpx-vp9", "webm"),
        ("yuva420p", "libvpx", "mkv"),
    ],
)
def test_what_is_hidden_does_not_show(tmp_path, pix_fmt, codec, suffix):
    options = {"auto-alt-ref": "0"} if codec == "libvpx" else {}
    path = write_pictures(tmp_path / f"a.{suffix}", [see_through(pix_fmt)] * 2, pix_fmt, codec, options=options)
    pictures, video = decoded(path)
    assert pictures[0][:8].max() <= 4 and pictures[0][40:].max() <= 4, "hidden red"
    assert pictures[0][20:28, 20:28].mean((0, 1)) == pytest.approx([128] * 3, abs=6)
    assert video.treatment.alpha


@pytest.mark.e2e
def test_an_alpha_that_hides_nothing_is_no_matter(tmp_path):
    opaque = av.VideoFrame.from_ndarray(quarters(), "rgb24").reformat(format="rgba")
    pictures, video = decoded(write_pictures(tmp_path / "a.mov", [opaque], "rgba", "png"))
    assert (pictures[0] == quarters()).all() and not video.treatment.alpha


def graded(signal: np.ndarray, curve: int, primaries: int = 9) -> av.VideoFrame:
    """A 10-bit BT.2020 frame of R'G'B' signals in [0, 1], [H, W, 3], limited range."""
    r, g, b = np.moveaxis(signal, -1, 0)
    y = 0.2627 * r + 0.6780 * g + 0.0593 * b
    planes = [64 + 876 * y, 512 + 896 * (b - y) / 1.8814, 512 + 896 * (r - y) / 1.4746]
    frame = filled("yuv444p10le", y.shape[1], y.shape[0], [plane.round().astype("<u2") for plane in planes])
    frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries = 9, 1, curve, primaries
    return frame


def pq(nits):
    y = (np.asarray(nits) / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)


@pytest.mark.e2e
@pytest.mark.parametrize(("curve", "name"), [(16, "pq"), (18, "hlg")])
def test_hdr_comes_out_as_sdr(tmp_path, curve, name):
    """Greys stay grey and in their order, white of HDR is bright but not cut, and no colour is washed out."""
    signal = np.repeat(np.repeat(np.linspace(0, 0.75 if name == "pq" else 1, 16), 4)[None, :, None], 48, 0).repeat(3, 2)
    tags = {"colorspace": 9, "color_range": 1, "color_trc": curve, "color_primaries": 9}
    path = write_pictures(tmp_path / "a.mkv", [graded(signal, curve)] * 2, "yuv444p10le", **tags)
    pictures, video = decoded(path)
    greys = pictures[0][24, 2::4].astype(int)  # [16, 3]
    assert np.ptp(greys, axis=1).max() <= 2 and (np.diff(greys.mean(1)) > 0).all()
    assert greys[0].max() == 0 and greys[-1].min() >= 253
    assert video.treatment.tone == name


@pytest.mark.unit
def test_both_curves_of_hdr_agree_with_the_standards():
    """BT.2408: white of HDR is 203 cd/m2, 58 % of PQ and 75 % of HLG; below 96 cd/m2 the light is that of SDR."""
    white = [
        to_sdr(np.full((2, 2, 3), round(65535 * signal), np.uint16), curve, 9)[0, 0].tolist()
        for curve, signal in (("pq", pq(203)), ("hlg", 0.75))
    ]
    assert np.ptp(white) <= 3 and 215 < np.min(white) < 240, white
    for nits in (1, 10, 50, 90):
        expected = 255 * (nits / 203) ** (1 / 2.4)
        assert to_sdr(np.full((1, 1, 3), round(65535 * pq(nits)), np.uint16), "pq", 9)[0, 0] == pytest.approx(
            [expected] * 3, abs=1.5
        )
    red = np.array([0.6274, 0.0691, 0.0164]) * 80  # BT.709 red of 80 cd/m2, in BT.2020 (BT.2087)
    shown = to_sdr(np.round(65535 * pq(red)).astype(np.uint16)[None, None], "pq", 9)[0, 0]
    assert shown[0] == pytest.approx(255 * (80 / 203) ** (1 / 2.4), abs=2) and shown[1:].max() < 25
    same = to_sdr(np.full((300, 2, 3), 40000, np.uint16), "hlg", 9)
    assert (same == same[0, 0]).all(), "in bands, without a seam"


@pytest.mark.e2e
def test_combing_is_removed_where_the_frame_is_interlaced(tmp_path):
    """A bar that moves 8 pixels between two fields; one field is shown, and progressive frames stay as they are."""
    picture = np.full((48, 64, 3), 20, np.uint8)
    picture[0::2, 16:32], picture[1::2, 24:40] = 230, 230
    fields = {"options": {"x264-params": "tff=1", "qp": "0"}}
    still, video = decoded(write_pictures(tmp_path / "p.mp4", [picture] * 3, "yuv444p", "libx264"))
    assert np.abs(np.diff(still[0][12:36, 18:22, 0].astype(int), axis=0)).min() > 150, "combed, as it is stored"
    assert not video.treatment.interlaced
    shown, video = decoded(write_pictures(tmp_path / "i.mp4", [picture] * 3, "yuv444p", "libx264", **fields))
    assert video.treatment.interlaced
    assert np.abs(np.diff(shown[0][12:36, :, 0].astype(int), axis=0)).max() < 30, "no combing"
    lit = np.flatnonzero(shown[0][24, :, 0] > 125)
    assert lit.tolist() in (list(range(16, 32)), list(range(24, 40))), "one of the fields, whole"


def constant(pix_fmt: str, colour: tuple[int, int, int]) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.full((48, 64, 3), colour, np.uint8), "rgb24").reformat(format=pix_fmt)


@pytest.mark.unit
@pytest.mark.parametrize(
    "pix_fmt",
    ["yuv420p", "yuv420p10le", "yuv422p12le", "yuv444p16le", "nv12", "p010le", "yuyv422", "gbrp", "gbrp10le",
     "gbrpf32le", "rgb48be", "bgr0", "rgb565le"],
)  # fmt: skip
def test_other_formats_give_the_same_colour(pix_fmt):
    shown = Pictures(64, 48, None).rgb(constant(pix_fmt, (200, 100, 50)))
    assert shown[24, 32].tolist() == pytest.approx([200, 100, 50], abs=8)


@pytest.mark.unit
@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le", "gray16le", "gray16be", "grayf32le"])
def test_grey_of_any_depth_is_grey(pix_fmt):
    shown = Pictures(64, 48, None).rgb(constant(pix_fmt, (90, 90, 90)))
    assert shown[24, 32].tolist() == pytest.approx([90] * 3, abs=3)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("matrix", "kr", "kb"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114), (2, 0.299, 0.114), (9, 0.2627, 0.0593)]
)
@pytest.mark.parametrize("full", [False, True])
def test_matrix_and_range_are_those_of_the_frame(matrix, kr, kb, full):
    y, u, v = 120, 90, 170
    frame = filled("yuv444p", 64, 48, [np.full((48, 64), value, np.uint8) for value in (y, u, v)])
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    light, blue, red = (y / 255, (u - 128) / 255, (v - 128) / 255) if full else (
        (y - 16) / 219, (u - 128) / 224, (v - 128) / 224)  # fmt: skip
    r, b = light + 2 * (1 - kr) * red, light + 2 * (1 - kb) * blue
    g = (light - kr * r - kb * b) / (1 - kr - kb)
    assert Pictures(64, 48, None).rgb(frame)[24, 32].tolist() == pytest.approx([255 * c for c in (r, g, b)], abs=2)


@pytest.mark.fault
def test_colours_that_are_not_converted_are_a_reason_and_no_traceback(tmp_path):
    reserved = constant("yuv420p", (200, 100, 50))
    reserved.colorspace = 3  # what some encoders write for unknown
    assert Pictures(64, 48, None).rgb(reserved)[24, 32].tolist() == pytest.approx([200, 100, 50], abs=4)
    path = write_pictures(tmp_path / "a.mkv", [quarters()] * 2, "yuv444p", colorspace=8)  # YCgCo
    with Video(path) as video, pytest.raises(VideoError, match="not converted"):
        list(video.frames([0]))
    with pytest.raises(VideoError, match="not converted"):
        probe(path)
    for width, height, aspect in ((8000, 8000, Fraction(4)), (40000, 16, None)):
        with pytest.raises(PictureError, match="too large"):
            Pictures(width, height, aspect).rgb(av.VideoFrame(width, height, "monob"))
    fatal = av.VideoFrame(64, 48, "yaf32le")  # swscale would end the process
    with pytest.raises(PictureError, match="not converted"):
        Pictures(64, 48, None).rgb(fatal)


@pytest.mark.e2e
def test_an_ordinary_picture_is_what_one_call_of_swscale_gives(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", frames=5)
    with av.open(str(path)) as container:
        plain = [frame.reformat(format="rgb24", threads=1).to_ndarray() for frame in container.decode(video=0)]
    for name in ("deinterlace", "to_sdr", "lay_down", "fit"):
        monkeypatch.setattr(f"pipeline.video.picture.{name}", None)
    pictures, _ = decoded(path)
    assert all((one == other).all() for one, other in zip(plain, pictures, strict=True))


@pytest.mark.unit
def test_pixels_are_square_where_nothing_believable_is_said():
    for said, applied in ((None, 1), (Fraction(0), 1), (Fraction(4), 4), (Fraction(1, 4), 0.25), (Fraction(17, 4), 1)):
        assert Pictures(64, 48, said).aspect == applied, said
    assert Pictures(64, 48, None).shape() == (48, 64) and Pictures(64, 48, Fraction(2)).shape("rotate90") == (128, 48)


@pytest.mark.unit
def test_orientations_by_name_are_what_numpy_calls_them():
    picture = quarters()
    assert (lay_down(picture, "rotate90") == np.rot90(picture)).all()
    assert (lay_down(picture, "rotate270") == np.rot90(picture, 3)).all()
    assert (lay_down(picture, "antitranspose") == np.rot90(picture, 2).swapaxes(0, 1)).all()
    assert orientation_of(constant("yuv420p", (0, 0, 0))) == ""


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "shape", "corner"),
    [
        ("hflip.mp4", (48, 64), (slice(0, 6), slice(-6, None))),
        ("sar.mp4", (48, 128), (slice(0, 6), slice(0, 10))),
        ("two2.ts", (48, 64), (slice(0, 6), slice(0, 6))),
    ],
)
def test_the_red_square_of_the_shared_files_is_where_it_should_be(name, shape, corner):
    path = FAULTS / name
    if not path.is_file():
        pytest.skip("no ../shared/faults")
    for picture in decoded(path)[0][:30]:
        assert picture.shape[:2] == shape
        r, g, b = picture[corner].reshape(-1, 3).mean(0)
        assert r > 200 and max(g, b) < 60


@pytest.mark.fault
@pytest.mark.parametrize(("turn", "name"), [(1, ""), (2, "hflip"), (5, "transpose"), (6, "rotate270")])
def test_what_a_camera_notes_in_each_picture_is_no_traceback_and_lays_it_down(tmp_path, turn, name):
    picture = np.full((48, 64, 3), 100, np.uint8)
    picture[:12, :16] = 250
    tiff = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x112, 3, 1, turn, 0) + bytes(4)
    exif = b"Exif\0\0" + tiff
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuvj420p")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            for packet in stream.encode(frame):
                data = bytes(packet)
                marked = av.Packet(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
                marked.pts, marked.dts, marked.time_base = packet.pts, packet.dts, packet.time_base
                marked.stream, marked.is_keyframe = stream, True
                container.mux(marked)
    steps = STEPS[name]
    with Video(tmp_path / "a.avi") as video:
        for *_, shown in video.frames([0, 2]):
            assert video.treatment.orientation == name
            assert shown.shape[:2] == ((64, 48) if steps[0] else (48, 64))
            assert np.abs(shown.astype(int) - lay_down(picture, name)).mean() < 8
    header = probe(tmp_path / "a.avi")
    assert (header.height, header.width) == shown.shape[:2]
