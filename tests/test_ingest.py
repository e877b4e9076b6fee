"""From a folder of videos to clips.csv."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from fakes import write_audio, write_video

from pipeline.errors import PosebridgeError
from pipeline.ingest.ingest import ingest
from pipeline.manifest.clips import read_classes, read_clips, write_classes
from pipeline.video.probe import Header
from stages.ingest import command


@pytest.fixture
def videos(tmp_path):
    root = tmp_path / "videos"
    for path in ("wave/s01_train.mp4", "wave/s02_test.mp4", "bow/s01_train.mkv"):
        write_video(root / path, frames=5)
    return root


@pytest.fixture
def go(tmp_path, videos):
    return lambda **options: ingest("mine", videos, manifests=tmp_path / "m", **options)


@pytest.mark.e2e
def test_labels_from_sub_folders(tmp_path, videos, go):
    result = go()
    clips = read_clips(result.clips_csv)
    assert read_classes(tmp_path / "m/mine/classes.csv") == ["bow", "wave"] and result.new_classes == 2
    assert [(c.clip_id, c.label, c.fps, c.height, c.width) for c in clips] == [
        ("bow/s01_train", 0, 25, 48, 64),
        ("wave/s01_train", 1, 25, 48, 64),
        ("wave/s02_test", 1, 25, 48, 64),
    ]
    assert [c.frames for c in clips] == [None, 5, 5], "a header that does not tell leaves the field empty"
    before = result.clips_csv.read_bytes()
    assert go().clips_csv.read_bytes() == before and b"," * 4 in before
    assert all(not c.sha256 for c in clips)
    assert all(len(c.sha256) == 64 for c in read_clips(go(hash_files=True).clips_csv))


@pytest.mark.e2e
def test_labels_from_the_file_names(tmp_path, videos, go):
    write_video(videos / "odd.mp4", frames=2)
    result = go(pattern=r"(?P<label>\w+)/(?P<subject>s\d+)_(?P<part>train|test)")
    assert [(c.label, c.subject, c.part) for c in read_clips(result.clips_csv)] == [
        (0, "s01", "train"),
        (1, "s01", "train"),
        (1, "s02", "test"),
    ]
    assert result.left_out == (("odd.mp4", "the name does not fit the pattern"),)
    for pattern, complaint in (
        ("(", "not a regular expression"), ("a{99999999999}", "not a regular expression"),
        ("(" * 5000 + ")" * 5000, "not a regular expression"), ("(?P<class>a)", "group 'class' is unknown"),
    ):  # fmt: skip
        with pytest.raises(PosebridgeError, match=complaint):
            go(pattern=pattern)


@pytest.mark.e2e
def test_labels_and_segments_from_a_csv(tmp_path, videos, go):
    labels = videos / "labels.csv"
    labels.write_text(
        "path,label,start,end,subject\n"
        "wave/s01_train.mp4,wave,0,0.1,s01\nwave/s01_train.mp4,bow,0.1,0.2,s01\nbow/s01_train.mkv,,,,\nno.mp4,bow,,,\n"
    )
    write_classes(tmp_path / "m/mine/classes.csv", ["wave", "stand", "bow"])
    result = go()
    assert [(c.clip_id, c.start, c.end, c.label) for c in read_clips(result.clips_csv)] == [
        ("wave/s01_train@0-0.1", 0, 0.1, 0),
        ("wave/s01_train@0.1-0.2", 0.1, 0.2, 2),
        ("bow/s01_train", None, None, None),
    ]
    assert result.videos == 2 and result.left_out == (("no.mp4", "the file does not exist"),)
    assert read_classes(tmp_path / "m/mine/classes.csv") == ["wave", "stand", "bow"], "people's file is left alone"


@pytest.mark.unit
@pytest.mark.parametrize("name", ["class", "Class"])
def test_no_class_is_called_as_the_first_column_of_a_confusion(tmp_path, videos, go, name):
    """`class,bow,class` has two columns of one name, so the report could not read it, after all training."""
    with pytest.raises(PosebridgeError, match=f"'{name}' cannot be a class: .*rename it"):
        (videos / "labels.csv").write_text(f"path,label\nwave/s01_train.mp4,{name}\n")
        go()
    assert not (tmp_path / "m/mine/classes.csv").exists()
    path = write_classes(tmp_path / "classes.csv", ["bow", name])
    with pytest.raises(PosebridgeError, match="line 3, column name: results have a column `class`"):
        read_classes(path)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("path,label\nwave/s01_train.mp4,wavee\n", "The class 'wavee' is not in .*did you mean 'wave'"),
        ("path,label,colour\n", "it should have path and label"),
        ("path,label,start\nwave/s01_train.mp4,wave,soon\n", "line 2, column start: .*seconds"),
        ("path,label,start,end\nwave/s01_train.mp4,wave,2,1\n", "line 2, column end: the segment"),
        ("path,label\n../secret.mp4,wave\n", "line 2, column path: .*outside"),
        ("path,label,clip_id\nwave/s01_train.mp4,wave,a\nwave/s02_test.mp4,wave,a\n", "'a' would occur twice"),
    ],
)
def test_a_wrong_csv_is_one_sentence_and_writes_nothing(tmp_path, videos, go, text, complaint):
    write_classes(tmp_path / "m/mine/classes.csv", ["wave", "bow"])
    (videos / "labels.csv").write_text(text)
    with pytest.raises(PosebridgeError, match=complaint):
        go()
    assert not (tmp_path / "m/mine/clips.csv").exists()


@pytest.mark.fault
def test_unreadable_files_are_listed_and_do_not_stop_the_rest(tmp_path, videos):
    (videos / "wave/text.mp4").write_text("no video")
    (videos / "wave/empty.mp4").touch()
    write_audio(videos / "wave/audio.mp4")
    params = tmp_path / "params.yaml"
    params.write_text(f"datasets: {{mine: {{root: {videos}}}}}\n")
    arguments = ["--dataset", "mine", "--manifests", str(tmp_path / "m"), "--params", str(params), "--json"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert {entry["path"] for entry in values["unreadable"]} == {"wave/text.mp4", "wave/empty.mp4", "wave/audio.mp4"}
    assert all(entry["path"] in result.stderr for entry in values["unreadable"])
    clips = read_clips(tmp_path / "m/mine/clips.csv")
    assert len(clips) == 6, "they stay in the list, so that extract reports them clip by clip"
    assert CliRunner().invoke(command, ["--dataset", "yours", "--params", str(params)]).exit_code == 1


@pytest.mark.unit
def test_a_header_that_lies_does_not_spoil_the_list(go, monkeypatch):
    monkeypatch.setattr("pipeline.ingest.ingest.probe", lambda *_: Header(2e9, None, 48, 64))
    assert [(c.fps, c.width) for c in read_clips(go().clips_csv)] == [(None, 64)] * 3


@pytest.mark.unit
def test_a_path_of_any_length_is_told_in_a_sentence(tmp_path, videos):
    (tmp_path / "labels.csv").write_text(f"path,label\n{'x' * 5000},bow\n")
    with pytest.raises(PosebridgeError, match="can be listed") as error:
        ingest("mine", videos, labels=tmp_path / "labels.csv", manifests=tmp_path / "m")
    assert len(str(error.value)) < 1000
