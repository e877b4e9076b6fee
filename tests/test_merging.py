"""Ingest again: what people wrote into clips.csv stays, and names of any bytes are names."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.errors import PosebridgeError
from pipeline.files.names import check_name, name_of, place_of, text_of, why_outside
from pipeline.files.tables import open_table
from pipeline.ingest.ingest import Ingestion, ingest
from pipeline.ingest.merge import gone_csv
from pipeline.manifest.clips import read_clips
from stages.cli import main

pytestmark = [pytest.mark.unit, pytest.mark.fault]


def fill(root: Path, *names: str | bytes) -> None:
    for name in names:
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no video")


@pytest.fixture
def root(tmp_path):
    fill(tmp_path / "videos", "bow/a.mp4", "wave/a.mp4", "wave/b.mp4")
    return tmp_path / "videos"


def go(root: Path, **options) -> Ingestion:
    options.setdefault("read_headers", False)
    return ingest("mine", root, manifests=root.parent / "m", **options)


def edit(path: Path, **cells: str) -> None:
    """Write into the second row, new columns at the end."""
    lines = [line.split(",") for line in path.read_text().splitlines()]
    for name, text in cells.items():
        if name not in lines[0]:
            for line in lines:
                line.append(name if line is lines[0] else "")
        lines[2][lines[0].index(name)] = text
    path.write_text("".join(",".join(line) + "\n" for line in lines))


def row(path: Path, clip_id: str, *columns: str) -> list[str]:
    return next([r.raw(c) for c in columns] for r in open_table(path, ("clip_id",)) if r.raw("clip_id") == clip_id)


def test_what_people_wrote_stays(root):
    path = go(root).clips_csv
    edit(path, part="test", subject="Ann", camera="c1", note="left handed", mood="")
    for _ in range(2):
        fill(root, "bow/new.mp4")
        result = go(root)
        assert row(path, "wave/a", "part", "subject", "camera", "note") == ["test", "Ann", "c1", "left handed"]
        assert [c.clip_id for c in read_clips(path)] == ["bow/a", "bow/new", "wave/a", "wave/b"]
        assert not result.remarks and not gone_csv(path).exists()
    assert not list(path.parent.glob("*.tmp*"))


def test_what_the_labels_say_counts_and_the_change_is_said(root):
    path = go(root).clips_csv
    edit(path, part="test", subject="Ann", note="x")
    (root / "labels.csv").write_text("path,label,part\nwave/a.mp4,wave,train\nwave/b.mp4,wave,\n")
    result = go(root)
    assert row(path, "wave/a", "part", "subject", "note") == ["train", "Ann", "x"]
    assert "1 clips had another part in the former list, first 'wave/a'; the new one counts." in result.remarks


def test_rows_of_videos_that_are_gone_come_back_with_them(root):
    path = go(root).clips_csv
    edit(path, subject="Ann", note="x")
    (root / "wave/a.mp4").rename(root.parent / "away.mp4")
    result = go(root)
    assert [c.clip_id for c in read_clips(path)] == ["bow/a", "wave/b"]
    remark, = result.remarks
    assert "1 clips of the former list are not found now, first 'wave/a'" in remark
    go(root)
    (root.parent / "away.mp4").rename(root / "wave/a.mp4")
    assert not go(root).remarks
    assert row(path, "wave/a", "subject", "note") == ["Ann", "x"] and not gone_csv(path).exists()


def test_labels_by_hand_are_not_taken_for_those_of_other_classes(root):
    fill(root, "c.mp4")
    path = go(root).clips_csv
    edit(path, label="1", note="x")
    (root / "c.mp4").rename(root / "bow/c.mp4")
    assert go(root).clips == 4 and row(gone_csv(path), "c", "label", "note") == ["1", "x"]
    (path.parent / "classes.csv").unlink()
    fill(root, "about/a.mp4")
    go(root)
    (root / "bow/c.mp4").rename(root / "c.mp4")
    go(root)
    assert row(path, "c", "label", "note") == ["", "x"], "class 1 is another one now"


def test_labels_by_hand_that_are_dropped_are_told(root):
    fill(root, "c.mp4")
    path = go(root).clips_csv
    path.write_text(path.read_text().replace("c,c.mp4,,,", "c,c.mp4,,,1"))
    (path.parent / "classes.csv").unlink()
    remark, = go(root).remarks
    assert remark.startswith("1 clips had a label, first 'c', and have none now; classes.csv was made anew")


def test_labels_by_hand_stay_where_nothing_tells_classes(tmp_path):
    fill(tmp_path / "videos", "a.mp4", "b.mp4", "c.mp4")
    path = go(tmp_path / "videos").clips_csv
    edit(path, label="7")
    assert not go(tmp_path / "videos").remarks and row(path, "b", "label") == ["7"]


def test_what_a_list_does_not_tell_is_peoples(root):
    """A labels.csv may have columns that are empty; what stands in them in clips.csv was written by hand."""
    (root / "labels.csv").write_text("path,label,subject\nwave/a.mp4,wave,\nwave/b.mp4,wave,\nbow/a.mp4,bow,\n")
    path = go(root).clips_csv
    edit(path, subject="Ann")
    (root / "wave/b.mp4").unlink()
    assert "1 clips of the former list are not found now, first 'wave/b'" in go(root).remarks[0]
    assert row(gone_csv(path), "wave/b", "subject") == ["Ann"]


def test_a_clip_that_is_gone_is_kept_only_where_people_wrote_of_it(root):
    path = go(root).clips_csv
    edit(path, subject="Ann")
    for name in ("wave/a.mp4", "wave/b.mp4"):
        (root / name).unlink()
    assert go(root).remarks[0].startswith("1 clips") and [c.clip_id for c in read_clips(gone_csv(path))] == ["wave/a"]


def test_a_clip_is_known_again_by_its_segment(root):
    (root / "labels.csv").write_text("path,label,start,end\nwave/a.mp4,wave,0,1.5\nwave/a.mp4,bow,1.5,3\n")
    path = go(root).clips_csv
    edit(path, subject="Ann")
    (root / "labels.csv").write_text("path,label,start,end,clip_id\nwave/a.mp4,bow,1.5,3,second\n")
    go(root)
    assert row(path, "second", "subject", "start") == ["Ann", "1.5"]


def test_a_list_with_an_error_stays_and_is_named(root):
    path = go(root).clips_csv
    path.write_text(path.read_text().replace("wave/b.mp4", "../b.mp4"))
    before = path.read_bytes()
    with pytest.raises(PosebridgeError, match="clips.csv, line 4, column path: the path '../b.mp4' lies outside"):
        go(root)
    assert path.read_bytes() == before


def test_a_crash_leaves_the_list_as_it_was(root, monkeypatch):
    path = go(root).clips_csv
    before = path.read_bytes()

    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", broken)
    fill(root, "bow/new.mp4")
    with pytest.raises(PosebridgeError, match="cannot be written"):
        go(root)
    assert path.read_bytes() == before and not list(path.parent.glob("*.tmp*"))


def test_names_of_any_bytes_are_clips(root):
    names = [b"wave/\xff\xfe.mp4", b"wave/cr\rnl\n.mp4", 'wave/a, "b".mp4', "wave/-x.mp4", "wave/12:30 squat.mp4",
             "wave/\\x0a.mp4", " .mp4", "wave/ü.mp4"]  # fmt: skip
    fill(root, *names)
    path = go(root).clips_csv
    before = path.read_bytes()
    clips = read_clips(path)
    found = {os.fsencode(clip.file(root)) for clip in clips}
    assert {os.fsencode(root) + b"/" + os.fsencode(name) for name in names} <= found
    assert all(clip.file(root).is_file() for clip in clips) and len(clips) == 3 + len(names)
    assert {"wave/\\xff\\xfe", "wave/cr\\x0dnl\\x0a", "wave/\\x5cx0a"} < {clip.clip_id for clip in clips}
    json.dumps([clip.path for clip in clips]).encode()
    assert all(clip.path.encode() for clip in clips)
    assert go(root).clips_csv.read_bytes() == before


def test_a_folder_that_is_no_utf8_is_a_class(root):
    fill(root, b"caf\xe9/a.mp4")
    path = go(root).clips_csv
    assert (path.parent / "classes.csv").read_text() == "index,name\n0,bow\n1,caf\\xe9\n2,wave\n"
    assert [c.label for c in read_clips(path)] == [0, 1, 2, 2]


def test_names_composed_otherwise_are_the_same_clip(root):
    composed, apart = (unicodedata.normalize(form, "wave/é.mp4") for form in ("NFC", "NFD"))
    fill(root, apart)
    path = go(root).clips_csv
    assert "wave/é" in {c.clip_id for c in read_clips(path)}
    edit(path, subject="x")
    (root / apart).rename(root / composed)
    before = path.read_bytes()
    assert go(root).clips_csv.read_bytes() == before, "a copy from a Mac is the same list"
    assert all(clip.file(root).is_file() for clip in read_clips(path))
    (root / "labels.csv").write_text(f"path,label\n{apart},wave\n")
    go(root)
    assert [c.clip_id for c in read_clips(path)] == ["wave/é"]
    fill(root, apart)
    result = go(root)
    assert [reason for _, reason in result.left_out] == [
        f"the same name in another Unicode form is there already, as {min(composed, apart)!a}"
    ]


def test_a_folder_composed_otherwise_than_its_file_is_found(tmp_path):
    fill(tmp_path, unicodedata.normalize("NFD", "é") + "/" + unicodedata.normalize("NFC", "é.mp4"))
    for form in ("NFC", "NFD"):
        assert place_of(tmp_path, unicodedata.normalize(form, "é/é.mp4")).is_file()
    assert not place_of(tmp_path, "é/ü.mp4").exists()


def test_videos_of_one_name_have_ids_that_stay(root):
    path = go(root).clips_csv
    fill(root, "wave/a.avi", "wave/A.mp4", "wave/a.mp4.mkv", "wave/a.MP4")
    go(root)
    ids = {clip.path: clip.clip_id for clip in read_clips(path)}
    assert ids["wave/a.mp4"] == "wave/a" and len(set(ids.values())) == len(ids) == 7
    fill(root.parent / "new/videos", "a.avi", "a.mp4", "a.mp4.mkv")
    again = {c.path: c.clip_id for c in read_clips(go(root.parent / "new/videos").clips_csv)}
    assert again == {"a.avi": "a.avi", "a.mp4": "a.mp4", "a.mp4.mkv": "a.mp4.mkv"}


def test_segments_that_differ_late_have_different_ids(root):
    (root / "labels.csv").write_text(
        "path,label,start,end\nwave/a.mp4,wave,10000.01,10000.02\nwave/a.mp4,wave,10000.03,10000.04\n"
    )
    ids = [clip.clip_id for clip in read_clips(go(root).clips_csv)]
    assert ids == ["wave/a@10000-10000", "wave/a.mp4@10000-10000"]


def test_what_cannot_be_read_is_a_row(root, monkeypatch):
    (root / "loop.mp4").symlink_to("loop.mp4")
    (root / "ring").symlink_to(root)
    (root / "dead.mp4").symlink_to("nothing.mp4")
    os.mkfifo(root / "pipe.mp4")
    (root / "closed").mkdir()
    handle = os.open(root, os.O_RDONLY)
    for _ in range(30):  # longer than any path may be
        os.mkdir("d" * 200, dir_fd=handle)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    scandir = os.scandir

    def closed(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr("os.scandir", closed)
    (root / "labels.csv").write_text(f"path,label\nwave/a.mp4,wave\n{'x' * 5000}.mp4,wave\npipe.mp4,wave\n")
    result = go(root, hash_files=True, read_headers=True)
    reasons = dict(result.left_out)
    assert reasons["closed"] == "the folder cannot be read (Permission denied)"
    assert [reason for path, reason in reasons.items() if path.startswith("dddd")] == [
        "the folder cannot be read (File name too long)"
    ]
    assert "cannot be read (Too many levels of symbolic links)" in reasons["loop.mp4"]
    assert reasons[f"{'x' * 5000}.mp4"] == "the file does not exist"
    assert {"dead.mp4", "pipe.mp4"} < set(reasons) and result.clips == 1


def test_a_path_written_otherwise_is_the_same_video(root):
    path = go(root).clips_csv
    edit(path, subject="Ann")
    path.write_text(path.read_text().replace("wave/a.mp4", "./wave//a.mp4").replace("wave/a,", "mine,"))
    (root / "labels.csv").write_text("path,label\n./wave/./a.mp4,wave\nwave//b.mp4,wave\n")
    clips = read_clips(go(root).clips_csv)
    assert [(c.clip_id, c.path, c.subject) for c in clips] == [
        ("mine", "./wave//a.mp4", "Ann"), ("wave/b", "wave/b.mp4", "")
    ], "what the cache knows by its path stays"  # fmt: skip
    (root / "labels.csv").write_text("path,label\nwave/a.mp4,wave\n./wave/a.mp4,bow\n")
    with pytest.raises(PosebridgeError, match="would occur twice; give every segment its own clip_id"):
        go(root)


def test_absolute_paths_in_the_root_are_read_and_others_refused(root):
    (root / "labels.csv").write_text(f"path,label\n{root / 'wave/a.mp4'},wave\n")
    assert [c.path for c in read_clips(go(root).clips_csv)] == ["wave/a.mp4"]
    (root / "labels.csv").write_text("path,label\nwave/a.mp4,wave\n/etc/passwd,wave\n")
    with pytest.raises(PosebridgeError, match="labels.csv, line 3, column path: the path '/etc/passwd' lies outside"):
        go(root)


def test_labels_of_a_spreadsheet_are_read_and_said(root):
    (root / "labels.csv").write_bytes("Path;Label;Start;Part\r\nwave/a.mp4;grün;0,5;Test\r\n;;;\r\n".encode("cp1252"))
    result = go(root)
    clip, = read_clips(result.clips_csv)
    assert (clip.clip_id, clip.start, clip.part) == ("wave/a@0.5-", 0.5, "test")
    assert (result.clips_csv.parent / "classes.csv").read_text() == "index,name\n0,grün\n"
    assert "was read as Windows-1252" in result.remarks[0]


@pytest.mark.parametrize("name", ["", ".", "..", "../..", "a/b", "/etc", "a\\b", "a b", "a\0", "a\n", "x" * 101])
def test_names_are_names(root, name):
    with pytest.raises(PosebridgeError, match="cannot be the name of a data set"):
        ingest(name, root, manifests=root.parent / "m")
    assert not (root.parent / "m").exists()
    assert check_name("skelgap-mini_2.0@blur-1+x", "data set")


def test_a_path_in_text_leads_nowhere_else():
    for text in ("a\\x2f..\\x2fb", "\\x2e\\x2e/a", "a\\x00"):
        assert name_of(text) == text and not why_outside(text)
    assert not why_outside("a/")
    assert all(why_outside(text) for text in ("..", "a/../b", "/a", "", "/", "./", "//a"))
    for name in ("a\\xffb", "\\\\x5c", "\udc80\udcff", "\\x5cx5c", "a\tb", "ü"):
        assert name_of(text_of(name)) == name


@pytest.mark.parametrize("name", ["../..", "/etc", ".", ".x", "a b", "a\nb", "x" * 300])
def test_names_of_commands_are_names(tmp_path, monkeypatch, name):
    (tmp_path / "manifests/toy").mkdir(parents=True)
    (tmp_path / "manifests/toy/classes.csv").write_text("index,name\n0,a\n")
    (tmp_path / "manifests/toy/clips.csv").write_text("clip_id,path\n")
    (tmp_path / "params.yaml").write_text("recipes: {r: {}}\nruns: {r: {recipe: r}}\n")
    monkeypatch.chdir(tmp_path)
    for words in (
        ("cache", "stats", "--dataset", name, "--recipe", "r"),
        ("cache", "stats", "--dataset", "toy", "--recipe", name),
        ("cache", "export", "x.pkl", "--dataset", name, "--recipe", "r"),
        ("cache", "verify", "--dataset", name),
        ("encode", "--dataset", "toy", "--protocol", name, "--skeletons", "r"),
        ("train", "--dataset", "toy", "--protocol", name, "--run", "r"),
        ("evaluate", "--dataset", "toy", "--protocol", name, "--run", "r"),
    ):
        done = CliRunner().invoke(main, list(words))
        assert done.exit_code == 1 and "cannot be the name of a" in done.stderr, (words, done.output)
        assert len(done.stderr) < 300 and len(done.stderr.splitlines()) == 1, done.stderr
