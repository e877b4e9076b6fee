"""Time stamps of every oddity, as numbers and in files; packets that do not decode."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from fakes import write_video

from pipeline.video.decode import Video, VideoError
from pipeline.video.probe import probe
from pipeline.video.sampling import sample_positions
from pipeline.video.timeline import NONE, arrange

FAULTS = Path(__file__).parents[2] / "shared/faults/videos"
EVEN = np.arange(60) * 3000  # ticks of 1/90000 s, at 30 fps


def line(pts, dts=None):
    pts = np.asarray(pts, np.int64)
    return arrange(pts, pts if dts is None else np.asarray(dts, np.int64), 1 / 90000, 1 / 30)


@pytest.mark.unit
def test_clean_stamps_stay_as_they_are_also_where_frames_are_reordered():
    pts = np.array([0, 4, 2, 1, 3, 8, 6, 5, 7]) * 3000
    found = line(pts, np.arange(-2, 7) * 3000)
    assert (found.timing, found.order.tolist()) == ("stamps", np.argsort(pts).tolist())
    assert found.times == pytest.approx(np.arange(9) / 30)


@pytest.mark.unit
@pytest.mark.parametrize("hours", [-2, 2])
@pytest.mark.parametrize("place", [1, 30, 58])
def test_a_packet_stamped_hours_away_is_put_where_it_was_found(hours, place):
    stamps = EVEN + 10**9
    stamps[place] += hours * 3600 * 90000
    found = line(stamps)
    assert (found.timing, found.order.tolist()) == ("mended", list(range(60)))
    assert found.times == pytest.approx(np.arange(60) / 30)


@pytest.mark.unit
def test_a_stamp_of_display_alone_that_is_far_away_is_mended_by_that_of_decoding():
    pts = EVEN + 6000
    pts[20] += 3600 * 90000
    found = line(pts, EVEN)
    assert (found.timing, found.order.tolist()) == ("mended", list(range(60)))
    assert found.times == pytest.approx(np.arange(60) / 30)


@pytest.mark.unit
@pytest.mark.parametrize("second", [EVEN, EVEN - 50 * 90000, EVEN + 2000])
def test_what_begins_again_goes_on_one_interval_later(second):
    found = line(np.concatenate([EVEN, second]) + 10**9)
    assert (found.timing, found.order.tolist()) == ("mended", list(range(120)))
    assert found.times == pytest.approx(np.arange(120) / 30)


@pytest.mark.unit
def test_a_wrapped_clock_goes_on():
    found = line((EVEN + 2**33 - 90000) % 2**33)
    assert found.timing == "mended" and found.times == pytest.approx(np.arange(60) / 30)


@pytest.mark.unit
def test_missing_stamps_are_put_between_and_frames_without_any_are_counted():
    some = EVEN.copy()
    some[[0, 7, 8, 59]] = NONE
    assert line(some).timing == "mended" and line(some).times == pytest.approx(np.arange(60) / 30)
    for none in (np.full(60, NONE), np.zeros(60)):
        assert line(none).timing == "counted" and line(none).times == pytest.approx(np.arange(60) / 30)


@pytest.mark.unit
def test_a_pause_stays_in_the_timeline_and_is_left_out_of_the_samples():
    stamps = EVEN.copy()
    stamps[30:] += 3600 * 90000
    found = line(stamps)
    assert found.timing == "stamps" and found.times[30] == pytest.approx(3601)
    duration = found.times[-1] + 1 / 30
    assert sample_positions(found.times, duration, 60).tolist() == list(range(60))
    assert sample_positions(found.times, duration, 15, start=3601.0).tolist() == list(range(31, 60, 2))
    assert set(sample_positions(found.times, duration, 4, start=10.0, end=20.0).tolist()) == {29}


@pytest.mark.unit
def test_a_frame_after_a_pause_that_is_decoded_before_it_stays_after_it():
    """I0 P3 B1 B2 P6 B4 B5 P9 B7 B8, an hour's pause before frame 5: P6 is stamped an hour after it is decoded."""
    shown = np.array([0, 3, 1, 2, 6, 4, 5, 9, 7, 8])
    moments = np.arange(10) * 3000 + (np.arange(10) >= 5) * 3600 * 90000
    found = line(moments[shown], np.concatenate([[-3000], moments[:-1]]))
    assert (found.timing, found.order.tolist()) == ("stamps", np.argsort(shown).tolist())
    assert found.times == pytest.approx(moments / 90000)


@pytest.mark.unit
def test_the_usual_interval_is_that_of_the_stamps_and_the_headers_where_they_tell_none():
    twice = line(np.concatenate([EVEN, EVEN]) * 2)
    assert twice.times == pytest.approx(np.arange(120) / 15), "though the header says 30 a second"
    stopped = line(EVEN, np.zeros(60))
    assert stopped.timing == "stamps" and stopped.times == pytest.approx(np.arange(60) / 30)


@pytest.mark.unit
def test_random_clocks_end_in_an_ascending_timeline():
    random = np.random.default_rng(0)
    for _ in range(300):
        stamps = random.integers(-(2**40), 2**40, random.integers(1, 40))
        stamps[random.random(len(stamps)) < 0.2] = NONE
        found = line(stamps, np.where(random.random(len(stamps)) < 0.5, NONE, stamps))
        assert sorted(found.order) == list(range(len(stamps)))
        assert np.isfinite(found.times).all() and (np.diff(found.times) >= 0).all() and found.times[0] == 0


def brightness(video: Video) -> list[int]:
    return [int(frame[..., 0].mean()) for _, _, frame in video.frames(range(len(video.times)))]


@pytest.mark.e2e
def test_recordings_put_together_are_read_in_order(tmp_path):
    parts = [write_video(tmp_path / f"{i}.ts", frames=20, offset=100 * i).read_bytes() for i in range(2)]
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    with Video(tmp_path / "a.ts") as video:
        assert video.record.timing == "mended" and len(video.times) == 40
        assert brightness(video) == pytest.approx([100 * (i // 20) + 5 * (i % 20) for i in range(40)], abs=4)


@pytest.mark.e2e
def test_an_elementary_stream_is_counted(tmp_path):
    with Video(write_video(tmp_path / "a.h264", frames=30)) as video:
        assert video.record.timing == "counted" and video.duration == pytest.approx(30 / 25)
        assert brightness(video) == pytest.approx([5 * i for i in range(30)], abs=4)


@pytest.mark.e2e
@pytest.mark.parametrize(("name", "first"), [("a.mkv", -1000), ("a.mkv", -40), ("a.mkv", 7000), ("a.ts", 7000)])
def test_a_video_that_begins_before_or_after_zero_is_read_whole(tmp_path, name, first):
    stamps = [first + 40 * i for i in range(100)]
    options = {"avoid_negative_ts": "disabled"} if name == "a.mkv" else {}
    with Video(write_video(tmp_path / name, frames=100, stamps=stamps, options=options)) as video:
        assert len(video.times) == 100
        for wanted in (range(100), [3, 60, 99], [80]):
            got = list(video.frames(wanted))
            assert [position for _, position, _ in got] == list(wanted)
            assert [int(f[..., 0].mean()) for *_, f in got] == pytest.approx([5 * i % 250 for i in wanted], abs=4)


def break_packets(path: Path, places: list[int]) -> Path:
    """Fill the bodies of some packets (in decoding order) with what no decoder takes."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for place in places:
        position, size = packets[place]
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    return path


@pytest.mark.fault
@pytest.mark.parametrize("place", [1, 20, 58, 59])
def test_one_broken_packet_is_a_loss_and_no_end(tmp_path, place):
    path = write_video(tmp_path / "a.mp4", frames=60)
    with Video(path) as video:
        clean = brightness(video)
    with Video(break_packets(path, [place])) as video:
        got = list(video.frames(range(60)))
        assert video.record.lost == 1 and sum(asked != position for asked, position, _ in got) == 1
        assert [int(f[..., 0].mean()) for a, p, f in got if a == p][:1] == clean[:1]
        list(video.frames(range(60)))
        assert video.record.lost == 1, "a second pass counts no loss again"


@pytest.mark.fault
@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4")])
def test_packets_that_are_broken_at_the_end_are_counted_once(tmp_path, name, codec):
    path = break_packets(write_video(tmp_path / name, frames=60, codec=codec), [55, 56, 57, 58, 59])
    with Video(path) as video:
        for _ in range(2):
            got = [position for _, position, _ in video.frames(range(60))]
            assert len(got) == 60 and len(set(got)) == 55
            assert video.record.lost == 5


@pytest.mark.fault
@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx265"), ("a.mkv", "libx265"), ("a.mp4", "libsvtav1")])
def test_a_packet_that_its_decoder_passes_over_is_a_loss_too(tmp_path, name, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    options = {"x265-params": "log-level=none:keyint=10:bframes=0", "preset": "8" if "av1" in codec else "fast"}
    path = write_video(tmp_path / name, frames=40, codec=codec, options=options)
    with Video(path) as video:
        whole = len(list(video.frames(range(40))))
        assert (whole, video.record.lost) == (40, 0)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][25]
    data = path.read_bytes()
    body = data.rindex(bytes(packet))
    half = body + packet.size // 4
    path.write_bytes(data[:half] + bytes(body + packet.size - half) + data[body + packet.size :])
    with Video(path, max_lost=1) as video:
        got = list(video.frames(range(40)))
        lost = sum(asked != position for asked, position, _ in got)
        assert lost >= 1 and video.record.lost == lost


@pytest.mark.fault
def test_an_empty_packet_says_that_nothing_moved_and_is_no_loss(tmp_path):
    with av.open(str(tmp_path / "a.nut"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 100
        for i in range(30):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90 + 4 * i, np.uint8), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            for packet in stream.encode(frame):
                sent = av.Packet(b"") if 5 <= i < 15 else packet
                sent.pts, sent.dts, sent.time_base, sent.stream = packet.pts, packet.dts, packet.time_base, stream
                container.mux(sent)
    with Video(tmp_path / "a.nut") as video:
        assert len(list(video.frames(range(20)))) == len(video.times) == 20 and video.record.lost == 0


@pytest.mark.fault
def test_a_broken_first_packet_does_not_hide_a_header(tmp_path):
    path = break_packets(write_video(tmp_path / "a.mp4", frames=60), [0])
    assert (probe(path).frames, probe(path).width) == (60, 64)


@pytest.mark.fault
def test_a_header_is_not_looked_for_behind_many_broken_packets(tmp_path):
    path = break_packets(write_video(tmp_path / "a.mp4", frames=80), list(range(79)))
    with pytest.raises(VideoError, match="the first frames do not decode"):
        probe(path)


@pytest.mark.fault
def test_too_many_broken_packets_fail_above_the_share(tmp_path):
    path = break_packets(write_video(tmp_path / "a.mp4", frames=60), list(range(3, 60, 4)))
    with Video(path) as video, pytest.raises(VideoError, match=r"of \d+ frames do not decode"):
        list(video.frames(range(60)))
    with Video(path, max_lost=0.5) as video:
        assert len(list(video.frames(range(60)))) == 60 and video.record.lost == 15


@pytest.mark.fault
@pytest.mark.skipif(not FAULTS.is_dir(), reason="no ../shared/faults")
def test_the_odd_stamps_of_others():
    for name, frames, timing in (
        ("cat.ts", 120, "mended"), ("raw.h264", 60, "counted"), ("gap.mp4", 60, "stamps"), ("bad2.mp4", 60, "stamps"),
        ("corrupt_mid.ts", 97, "mended"),
    ):  # fmt: skip
        with Video(FAULTS / name) as video:
            assert (len(video.times), video.record.timing) == (frames, timing), name
            assert len(set(video.sample(32).tolist())) == 32, name
            got = [position for _, position, _ in video.frames(range(frames))]
            assert name != "bad2.mp4" or (len(set(got)), video.record.lost) == (59, 1)
