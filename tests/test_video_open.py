"""Opening: the named file and no other, by content, plain files only, the right track, and cut files found out."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from fakes import write_pictures, write_video

from pipeline.files.hashing import sha256_file
from pipeline.video.decode import Video, VideoError
from pipeline.video.identity import GONE, UNREADABLE, VideoRecord, identify
from pipeline.video.probe import probe
from pipeline.video.truncation import is_cut

FAULTS = Path(__file__).parents[2] / "shared/faults/videos"


@pytest.mark.fault
@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile secret.mp4\n",
        "#EXTM3U\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "v=0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    ],
)
def test_a_script_that_names_another_file_is_refused(tmp_path, text):
    write_video(tmp_path / "secret.mp4", frames=3)
    (tmp_path / "a.mp4").write_text(text)
    for read in (Video, probe):
        with pytest.raises(VideoError, match="not a readable video"):
            read(tmp_path / "a.mp4")


@pytest.mark.fault
@pytest.mark.parametrize("name", ["12:30 squat.mp4", "img%03d.mp4", "-i.mp4", "concat:a|b.mp4", b"caf\xe9.mp4"])
def test_a_name_is_only_a_name(tmp_path, name, monkeypatch):
    path = write_video(tmp_path / "plain.mp4", frames=3)
    monkeypatch.chdir(tmp_path)
    odd = Path(os.fsdecode(name))
    path.rename(odd)
    with Video(odd) as video:
        assert len(video.times) == 3
    assert probe(odd).frames == 3


@pytest.mark.fault
def test_pictures_numbered_by_a_pattern_are_not_opened(tmp_path):
    for i in range(3):
        with av.open(str(tmp_path / f"img{i:03d}.png"), "w", format="image2", options={"update": "1"}) as container:
            stream = container.add_stream("png", rate=1)
            stream.width, stream.height, stream.pix_fmt = 16, 16, "rgb24"
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 80 * i, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
    (tmp_path / "img%03d.png").write_bytes((tmp_path / "img002.png").read_bytes())
    try:
        with Video(tmp_path / "img%03d.png") as video:
            assert [frame[0, 0, 0] for *_, frame in video.frames(range(len(video.times)))] == [160]
    except VideoError as error:
        assert error.stage == "open"


@pytest.mark.fault
def test_only_plain_files_are_opened_and_nothing_waits(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    for name, kind in (("pipe", "a named pipe"), ("folder", "(a|the) folder"), ("device", "a device")):
        for read in (Video, probe):
            with pytest.raises(VideoError, match=kind):
                read(tmp_path / f"{name}.mp4")
        assert identify(tmp_path / f"{name}.mp4") == UNREADABLE
        with pytest.raises(OSError, match=kind):
            sha256_file(tmp_path / f"{name}.mp4")


@pytest.mark.fault
def test_a_file_that_cannot_be_read_is_told_from_one_that_is_gone(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", frames=3)
    record = identify(path)
    assert identify(path, VideoRecord("", record.size, record.mtime_ns)) == record, "an unknown content is read again"

    def refuse(path, *rest, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pipeline.files.plain_file.os.open", refuse)
    assert identify(path) == UNREADABLE
    assert identify(tmp_path / "none.mp4") == GONE
    with pytest.raises(VideoError, match=r"cannot be read \(Permission denied\)"):
        Video(path)


def write_tracks(path: Path, tracks: list[tuple[int, int, bool]]) -> Path:
    """A video with a track for each (width, frames, default)."""
    with av.open(str(path), "w") as container:
        streams = []
        for width, _, default in tracks:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
            stream.disposition = av.stream.Disposition.default if default else av.stream.Disposition(0)
            streams.append(stream)
        for stream, (width, frames, _) in zip(streams, tracks, strict=True):
            for _ in range(frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, width, 3), np.uint8), "rgb24")))
            container.mux(stream.encode())
    return path


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("tracks", "chosen"),
    [
        ([(32, 2, False), (64, 9, True)], 1),
        ([(96, 2, False), (64, 9, True)], 1),
        ([(32, 2, False), (64, 9, False)], 1),
        ([(64, 9, False), (64, 2, False)], 0),
    ],
)
def test_the_default_track_is_taken_then_the_largest(tmp_path, tracks, chosen):
    path = write_tracks(tmp_path / "a.mkv", tracks)
    width, frames, _ = tracks[chosen]
    with Video(path) as video:
        assert (video.record.track, video.record.tracks, len(video.times)) == (chosen, 2, frames)
    assert probe(path).width == width


@pytest.mark.fault
def test_a_song_with_a_cover_has_no_video(tmp_path):
    path = write_tracks(tmp_path / "a.mkv", [(64, 1, False)])
    with av.open(str(path)) as video, av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as song:
        picture = next(video.decode(video=0))
        cover, sound = song.add_stream("png"), song.add_stream("aac", rate=16000, layout="mono")
        cover.width, cover.height, cover.pix_fmt = picture.width, picture.height, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        song.mux(cover.encode(picture.reformat(format="rgb24")))
        for i in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, i * 1024
            song.mux(sound.encode(frame))
    for read in (Video, probe):
        with pytest.raises(VideoError, match=r"no video stream \(there is a cover picture and audio\)"):
            read(tmp_path / "song.m4a")


CONTAINERS = {
    "a.mp4": {},
    "front.mp4": {"movflags": "faststart"},
    "fragments.mp4": {"movflags": "frag_keyframe+empty_moov"},
    "a.mov": {},
    "a.mkv": {},
    "live.mkv": {"live": "1"},
    "a.webm": {},
    "a.ts": {},
    "a.m2ts": {"mpegts_m2ts_mode": "1"},
    "a.mpg": {},
    "a.avi": {},
    "a.wmv": {},
    "a.flv": {},
}
CODECS = {"webm": "libvpx", "mpg": "mpeg2video", "avi": "mpeg4", "wmv": "wmv2"}


@pytest.mark.fault
@pytest.mark.parametrize("name", CONTAINERS)
def test_a_file_cut_in_two_is_truncated_in_every_container(tmp_path, name):
    codec = CODECS.get(name.rpartition(".")[2], "libx264")
    path = write_video(tmp_path / name, frames=100, codec=codec, options=CONTAINERS[name])
    with Video(path) as video:
        assert len(video.times) == 100
    data = path.read_bytes()
    for size in (len(data) // 2 + 1, len(data) * 4 // 5 - 1):
        path.write_bytes(data[:size])
        with pytest.raises(VideoError, match="truncated"):
            Video(path)


@pytest.mark.fault
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.avi", "a.wmv", "a.mxf"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
def test_a_file_cut_anywhere_is_truncated_whether_or_not_it_can_be_opened(tmp_path, name, share):
    codec = {**CODECS, "mxf": "mpeg2video"}.get(name[2:], "libx264")
    path = write_video(tmp_path / name, frames=100, codec=codec)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(VideoError, match="truncated"):
        Video(path)


@pytest.mark.fault
def test_a_cut_gif_is_truncated_and_one_without_its_last_byte_is_not(tmp_path):
    pictures = [np.full((48, 64, 3), 6 * i, np.uint8) for i in range(40)]
    path = write_pictures(tmp_path / "a.gif", pictures, "rgb8", "gif")
    data = path.read_bytes()
    for content in (data, data[:-1], data + b"\0\0"):
        path.write_bytes(content)
        with Video(path) as video:
            assert len(video.times) == 40
    for size in (len(data) // 2, len(data) * 4 // 5, len(data) - 2):
        path.write_bytes(data[:size])
        with pytest.raises(VideoError, match="truncated"):
            Video(path)


@pytest.mark.fault
def test_every_part_of_an_avi_beyond_a_gigabyte_is_looked_at(tmp_path):
    path = write_video(tmp_path / "a.avi", frames=40, codec="mpeg4")
    more = b"LIST" + (4 + 808).to_bytes(4, "little") + b"movi" + b"00dc" + (800).to_bytes(4, "little") + bytes(800)
    data = path.read_bytes() + b"RIFF" + (4 + len(more)).to_bytes(4, "little") + b"AVIX" + more
    for size, cut in ((len(data), False), (len(data) - 300, True)):
        path.write_bytes(data[:size])
        with path.open("rb", buffering=0) as file:
            assert is_cut(file, "avi") == cut


@pytest.mark.fault
def test_a_track_that_turns_up_late_is_no_end_of_the_run(tmp_path):
    """PyAV looks for it in a list that it has made at the beginning."""
    path = write_video(tmp_path / "a.flv", frames=300)
    sound = b"\x2e\xff\xfb\x90\0" + bytes(200)
    length = len(sound).to_bytes(3)
    tag = b"\x08" + length + (12000).to_bytes(3) + bytes(4) + sound + (11 + len(sound)).to_bytes(4)
    path.write_bytes(path.read_bytes() + 3 * tag)
    with Video(path) as video:
        assert [position for _, position, _ in video.frames(range(len(video.times)))] == list(range(300))
    assert probe(path).width == 64


@pytest.mark.fault
def test_an_end_that_cannot_be_read_is_no_end_of_the_run(tmp_path, monkeypatch):
    def refuse(file, place, count):
        raise OSError(5, "Input/output error")

    path = write_video(tmp_path / "a.mkv", frames=5)
    monkeypatch.setattr("pipeline.video.truncation._at", refuse)
    with Video(path) as video:
        assert len(video.times) == 5
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(VideoError, match="not a readable video"):
        Video(path)


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.flv", "a.mov", "a.wmv", "a.mxf", "a.nut"])
def test_one_frame_is_a_video_also_where_no_jump_leads_back_to_it(tmp_path, name):
    codec = {**CODECS, "mxf": "mpeg2video"}.get(name[2:], "libx264")
    with Video(write_video(tmp_path / name, frames=1, codec=codec)) as video:
        for _ in range(2):
            assert [position for position, *_ in video.frames(range(len(video.times)))] == [0]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.wmv", "libx264"), ("a.wmv", "wmv2"), ("a.mxf", "libx264"), ("a.mxf", "mpeg2video"), ("a.mpg", "mpeg2video")],
)
def test_every_frame_is_at_its_place_also_where_stamps_are_of_decoding(tmp_path, name, codec):
    with Video(write_video(tmp_path / name, frames=60, codec=codec)) as video:
        for wanted in (range(60), [0], [3, 30], [50]):
            got = list(video.frames(wanted))
            assert [position for _, position, _ in got] == list(wanted)
            assert [int(f[..., 0].mean()) for *_, f in got] == pytest.approx([5 * i % 250 for i in wanted], abs=6)


@pytest.mark.fault
def test_a_jump_to_the_beginning_that_leads_behind_it_is_noticed(tmp_path):
    """Packets of several sizes make FFmpeg date the first one before zero, where no jump leads."""
    path, count = tmp_path / "a.ts", 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
        for width, height in ((64, 48), (96, 80)):
            encoder = av.CodecContext.create("mpeg2video", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            encoder.time_base, encoder.framerate, encoder.thread_count = Fraction(1, 25), Fraction(25), 1
            frames = [av.VideoFrame.from_ndarray(np.full((height, width, 3), 8 * i, np.uint8)) for i in range(20)]
            for packet in [p for frame in [*frames, None] for p in encoder.encode(frame)]:
                sent = av.Packet(bytes(packet))
                sent.pts = sent.dts = count
                sent.time_base, sent.stream, sent.is_keyframe = Fraction(1, 25), stream, packet.is_keyframe
                container.mux(sent)
                count += 1
    with Video(path) as video:
        got = [(position, int(picture[..., 0].mean())) for _, position, picture in video.frames([0, 3])]
        assert got == [(0, pytest.approx(0, abs=4)), (3, pytest.approx(24, abs=4))]


@pytest.mark.fault
def test_an_index_that_leads_nowhere_is_no_fault_of_the_disk(tmp_path):
    path = write_video(tmp_path / "a.nut", frames=30)
    data = path.read_bytes()
    with Video(path) as video:
        assert len(video.times) == 30
    path.write_bytes(data[: len(data) * 4 // 5])
    for size in range(len(data) // 2, len(data), 97):
        path.write_bytes(data[:size])
        try:
            with Video(path) as video:
                assert len(list(video.frames(range(len(video.times))))) <= 30
        except VideoError as error:
            assert "cannot be read" not in str(error)


@pytest.mark.fault
@pytest.mark.skipif(not FAULTS.is_dir(), reason="no ../shared/faults")
def test_the_odd_files_of_others():
    with Video(FAULTS / "trim13.mp4") as video:
        first = next(video.frames([0]))[2]
        assert len(video.times) == 47 and abs(float(first[24:, 32:].mean()) - 4 * 13) < 4
    with Video(FAULTS / "twotracks.mp4") as video:
        assert (video.record.track, video.record.tracks, len(video.times)) == (1, 2, 60)
    for name, reason in (("trunc.mkv", "truncated"), ("ffconcat_named.mp4", "names other files")):
        with pytest.raises(VideoError, match=reason):
            Video(FAULTS / name)
