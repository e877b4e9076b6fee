"""Decoding and sampling, on little videos written here."""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from fakes import write_audio, write_video

from pipeline.files.ahead import ahead
from pipeline.video.decode import Video, VideoError
from pipeline.video.identity import GONE, identify
from pipeline.video.probe import probe
from pipeline.video.sampling import SegmentError, cue_positions, sample_positions


def brightness(video: Video, positions) -> list[int]:
    return [int(frame[..., 0].mean()) for _, _, frame in video.frames(sorted(set(map(int, positions))))]


@pytest.mark.e2e
def test_threads_give_the_same_pictures_every_time():
    """data/theora.ogv: 48 frames, frame i is grey 4 i; no encoder of Theora comes with PyAV."""
    for _ in range(12):
        with Video(Path(__file__).parent / "data/theora.ogv") as video:
            shown = [int(picture[36:, 32:].mean()) for *_, picture in video.frames(range(48))]
            assert shown == pytest.approx([4 * i for i in range(48)], abs=4)


@pytest.mark.unit
def test_sampling_takes_the_frames_at_the_centres_of_equal_parts():
    times = np.arange(32) / 25
    assert sample_positions(times, 32 / 25, 32).tolist() == list(range(32))
    assert sample_positions(times, 32 / 25, 16).tolist() == list(range(1, 32, 2))
    assert sample_positions(times, 32 / 25, 4, start=0.4, end=0.8).tolist() == [11, 13, 16, 18]
    assert sample_positions(times, 32 / 25, 4, end=0.4).tolist() == [1, 3, 6, 8]
    assert sample_positions(times[:3], 3 / 25, 6).tolist() == [0, 0, 1, 1, 2, 2], "a short clip repeats frames"
    assert cue_positions(32, 16).tolist() == list(range(1, 32, 2))
    assert cue_positions(4, 4).tolist() == [0, 1, 2, 3]


@pytest.mark.unit
def test_sampling_goes_by_time_where_the_frame_rate_varies():
    times = np.concatenate([np.arange(10) * 0.1, 1 + np.arange(10) * 0.01])  # ten slow frames, ten fast ones
    assert sample_positions(times, 1.1, 11).tolist() == [*range(10), 15]


@pytest.mark.unit
@pytest.mark.parametrize(("start", "end"), [(2.0, 3.0), (0.5, 0.5), (1.0, 0.2), (None, 0.0)])
def test_a_segment_without_frames_is_refused(start, end):
    with pytest.raises(SegmentError, match="segment"):
        sample_positions(np.arange(25) / 25, 1.0, 4, start, end)


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts", "a.mov", "a.mpg"])
def test_every_wanted_frame_is_the_right_one_also_across_jumps(tmp_path, name):
    """Keyframes every 6 frames and B-frames; AVI tells no display order, MPEG no exact seeking."""
    codec = "mpeg2video" if name == "a.mpg" else "libx264"
    path = write_video(tmp_path / name, frames=200, keyframe_every=6, codec=codec)
    with Video(path) as video:
        assert len(video.times) == 200
        assert video.duration == pytest.approx(8.0, abs=0.01)
        wanted = [0, 1, 60, 61, 130, 199]
        assert brightness(video, wanted) == pytest.approx([5 * i % 250 for i in wanted], abs=3)
        assert [got for _, got, _ in video.frames(wanted)] == wanted, "a second pass over the open file"


@pytest.mark.e2e
def test_a_variable_frame_rate_is_sampled_by_timestamps(tmp_path):
    stamps = [i * 40 for i in range(20)] + [800 + i * 120 for i in range(20)]
    with Video(write_video(tmp_path / "v.mp4", frames=40, stamps=stamps)) as video:
        assert video.times[[0, 19, 20, 39]] == pytest.approx([0, 0.76, 0.8, 3.08], abs=0.002)
        assert (video.sample(10) < 20).sum() == 3, "the fast half of the frames is a quarter of the time"


@pytest.mark.e2e
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied_to_frames_and_header(tmp_path, degrees):
    path = write_video(tmp_path / "r.mp4", rotation=degrees, offset=200, frames=4)
    turned = degrees % 180 == 90
    with Video(path) as video:
        (_, _, frame) = next(video.frames([0]))
    header = probe(path)
    assert frame.shape == ((64, 48, 3) if turned else (48, 64, 3))
    assert (header.height, header.width) == frame.shape[:2]
    # The left half was black before; a display matrix turns it counter-clockwise.
    dark = {90: frame[-8:], 180: frame[:, -8:], 270: frame[:8]}[degrees]
    bright = {90: frame[:8], 180: frame[:, :8], 270: frame[-8:]}[degrees]
    assert dark.mean() < 30 < 150 < bright.mean()


@pytest.mark.fault
def test_headers_that_lie_are_not_believed(tmp_path):
    mkv = write_video(tmp_path / "a.mkv", frames=50)
    data = bytearray(mkv.read_bytes())
    place = data.index(b"\x44\x89\x88") + 3  # the element Duration, a float64 in milliseconds
    data[place : place + 8] = struct.pack(">d", 20000.0)
    mkv.write_bytes(data)
    with av.open(str(mkv)) as container:
        assert container.duration == 20 * av.time_base, "the lie is in place"
    with Video(mkv) as video:
        assert (len(video.times), video.duration, video.fps) == (50, pytest.approx(2.0), pytest.approx(25))
        assert video.sample(5).tolist() == [5, 15, 25, 35, 45]
    avi = write_video(tmp_path / "b.avi", frames=50, codec="mpeg4")
    data = bytearray(avi.read_bytes())
    place = data.index(b"avih") + 8 + 16  # dwTotalFrames
    data[place : place + 4] = struct.pack("<I", 5000)
    place = data.index(b"strh") + 8 + 32  # dwLength
    data[place : place + 4] = struct.pack("<I", 5000)
    avi.write_bytes(data)
    assert probe(avi).frames == 5000, "the lie is in place"
    with Video(avi) as video:
        assert len(video.times) == 50


@pytest.mark.fault
def test_files_without_frames_are_refused_with_a_reason(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("This is not a video.\n" * 50)
    write_audio(tmp_path / "audio.mp4")
    write_video(tmp_path / "none.mp4", frames=0)  # FFmpeg drops a track without samples
    write_video(tmp_path / "frameless.avi", frames=0, codec="mpeg4")
    whole = write_video(tmp_path / "whole.mp4", frames=60).read_bytes()
    (tmp_path / "headless.mp4").write_bytes(whole[: len(whole) // 2])
    front = write_video(tmp_path / "front.mp4", frames=60, options={"movflags": "faststart"}).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(front[: len(front) - 400])
    (tmp_path / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:1,\nhttp://localhost:9/a.ts\n#EXT-X-ENDLIST\n")
    reasons = {
        "empty": "empty",
        "text": "not a readable video",
        "audio": "no video stream",
        "none": "no video stream",
        "frameless.avi": "no frame",
        "headless": "not a readable video: the file is truncated, its table of contents is missing",
        "cut": "truncated",
        "playlist": "not a readable video",
        "gone": "does not exist",
    }
    for name, reason in reasons.items():
        with pytest.raises(VideoError, match=reason) as caught:
            Video(tmp_path / (name if "." in name else f"{name}.mp4"))
        assert str(tmp_path) not in str(caught.value), "reasons go into the index, which knows no paths of a machine"


@pytest.mark.fault
def test_garbage_inside_a_stream_fails_or_yields_frames_but_never_hangs_or_crashes(tmp_path):
    data = bytearray(write_video(tmp_path / "a.mp4", frames=60, codec="mpeg4").read_bytes())
    start = data.index(b"mdat") + 600
    data[start : start + 2000] = bytes(2000)
    (tmp_path / "a.mp4").write_bytes(data)
    try:
        with Video(tmp_path / "a.mp4") as video:
            assert sum(1 for _ in video.frames(range(60))) == 60
    except VideoError as error:
        assert error.stage == "decode"


@pytest.mark.unit
def test_identity_is_of_the_content(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(bytes(5 << 20))
    second.write_bytes(bytes(5 << 20))
    record = identify(first)
    assert identify(second).identity == record.identity, "a copy is the same video"
    second.write_bytes(bytes((5 << 20) - 1) + b"x")
    assert identify(second).identity != record.identity
    assert identify(tmp_path / "none") == GONE
    assert identify(first, record) is record


@pytest.mark.unit
def test_reformatting_is_shared_and_frames_are_plain_arrays(tmp_path, monkeypatch):
    made = []
    real = av.video.reformatter.VideoReformatter
    monkeypatch.setattr("pipeline.video.picture.VideoReformatter", lambda: made.append(1) or real())
    with Video(write_video(tmp_path / "a.mp4")) as video:
        frames = [frame for _, _, frame in video.frames(range(20))]
    assert made == [1]
    assert all(frame.flags.c_contiguous and frame.dtype == np.uint8 for frame in frames)


@pytest.mark.unit
def test_working_ahead_is_bounded_keeps_the_order_and_passes_errors_on():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i
        raise KeyError("at the end")

    stream = ahead(items(), 4)
    assert [next(stream) for _ in range(10)] == list(range(10))
    assert len(made) <= 10 + 4 + 1
    stream.close()
    assert not any(thread.name == "ahead" for thread in threading.enumerate()), "leaving the loop stops the thread"
    with pytest.raises(KeyError, match="at the end"):
        list(ahead(items(), 4))


@pytest.mark.real
def test_real_videos_decode(tmp_path):
    folder = Path(__file__).parents[2] / "shared/real/videos"
    if not folder.is_dir():
        pytest.skip("no ../shared/real")
    for path in sorted(folder.glob("*.*")) + sorted(folder.glob("*/*.avi"))[:5]:
        with Video(path) as video:
            wanted = sorted(set(video.sample(32).tolist()))
            frames = list(video.frames(wanted))
            header = probe(path)
        assert [asked for asked, _, _ in frames] == wanted
        assert [position for _, position, _ in frames[:-1]] == wanted[:-1]
        assert wanted[-1] - frames[-1][1] <= 2, "old AVIs hold a packet or two more than frames"
        assert frames[0][2].shape == (header.height, header.width, 3)
        assert header.frames == len(video.times)


@pytest.mark.e2e
def test_a_packed_stream_that_holds_frames_back_at_its_end_is_decoded_once(tmp_path, monkeypatch):
    """Packets that hold no picture stand at the end of such an AVI; counting its frames a second time finds no more."""
    path = write_video(tmp_path / "a.avi", frames=40, codec="mpeg4")
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][-2:]
    data = bytearray(path.read_bytes())
    for place, size in places:  # a picture that is not coded: its type, no time, and the bit that says so
        body = data.index(b"\0\0\1\xb6", place)
        data[body + 4 : place + size] = b"\x50\x40".ljust(place + size - body - 4, b"\x7f")
    path.write_bytes(data)
    opened = []
    monkeypatch.setattr(Video, "_open", lambda video, really=Video._open: opened.append(really(video)))
    with Video(path) as video:
        shown = list(video.frames(range(40)))
        assert (len(shown), len(opened)) == (40, 1)
