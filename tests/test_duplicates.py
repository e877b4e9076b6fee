"""Duplicates between train and test: planted ones are found, others are not listed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from fakes import FakeEstimator
from synthetic import FLAGS, PARAMS, PROTOCOL, FakeReader, make_world

import pipeline.learn.train
import stages.train
from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.extract.extract import extract
from pipeline.ingest.ingest import ingest
from pipeline.learn.dataset import Dataset, open_dataset
from pipeline.learn.encode import encode
from pipeline.manifest.clips import Clip
from pipeline.params import ExtractParams, RunParams
from pipeline.protocol import duplicates, films
from pipeline.protocol.duplicates import (
    Duplicate,
    find_duplicates,
    note_duplicates,
    noted_duplicates,
    same_videos,
)
from pipeline.protocol.neighbours import nearest, projection
from pipeline.protocol.signatures import LIMIT, Signatures, near_duplicates
from pipeline.recipe import Recipe
from pipeline.report.page import templates
from pipeline.report.repeated import read_repeated
from pipeline.synth.dataset import write_video
from pipeline.synth.scene import ClipSpec, render_clip

M, T, V = 2, 16, 17


def made_up(n, seed):
    """N clips: one walking person each, of random shape; the second person is not there."""
    rng = np.random.default_rng(seed)
    pose = rng.normal(size=(n, 1, 1, V, 2)) * 30 + np.arange(T)[None, None, :, None, None]
    valid = np.zeros((n, M, T), bool)
    valid[:, 0] = True
    return {
        "keypoints": np.broadcast_to(pose, (n, M, T, V, 2)).astype(np.float32) + 200,
        "scores": np.full((n, M, T, V), 0.9, np.float16),
        "person_valid": valid,
    }


def planted(train, test, row, of, scale=1.0, noise=0.5, seed=5):
    """Make the test clip `row` a copy of the train clip `of`: of another size and place, seen a little otherwise."""
    rng = np.random.default_rng(seed)
    x = train["keypoints"][of]
    test["keypoints"][row] = x * scale + 40 + noise * rng.normal(size=x.shape)


@pytest.mark.unit
def test_where_all_clips_are_near_only_the_nearest_are_listed():
    """Skeletons that hardly differ within a class."""
    train, test = made_up(60, 0), made_up(40, 1)
    for i in range(40):
        planted(train, test, i, 0, noise=1.0, seed=i)
    planted(train, test, 9, 30, noise=0.1)
    signatures = Signatures.of(**train), Signatures.of(**test)
    assert len(near_duplicates(*signatures, 10 * LIMIT)) == 40
    assert [pair[:2] for pair in near_duplicates(*signatures)] == [(9, 30)]


@pytest.mark.unit
def test_nearness_is_in_units_of_the_spread_of_the_train_part_and_below_a_limit_by_hand():
    """Four train clips, each 2 away from their mean (1, 0); distances .045, .055 and 0, and a clip without a person."""
    train = Signatures(np.float32([[3, 0], [-1, 0], [1, 2], [1, -2], [7, 7]]), np.arange(5) < 4)
    test = Signatures(np.float32([[3.09, 0], [1, 2.11], [7, 7], [-1, 0], [1, -2]]), np.array([1, 1, 1, 1, 0], bool))
    found = near_duplicates(train, test)
    assert [pair[:2] for pair in found] == [(3, 1), (0, 0)] and [pair[2] for pair in found] == pytest.approx([0, 0.045])
    assert [pair[:2] for pair in near_duplicates(train, test, 0.06)] == [(3, 1), (0, 0), (1, 2)]


@pytest.mark.unit
def test_a_limit_is_three_fifths_of_the_upper_quartile_where_twenty_clips_are_near_by_hand():
    train = Signatures(np.float32([[3, 0], [-1, 0], [1, 2], [1, -2]]), np.ones(4, bool))
    away = np.float32([0.023, 0.025, *[0.04] * 18])  # .6 of .04 is .024
    test = Signatures(np.stack([3 + 2 * away, 0 * away], 1), np.ones(20, bool))
    assert [pair[:2] for pair in near_duplicates(train, test)] == [(0, 0)]
    fewer = Signatures(test.skeletons[:19], test.seen[:19])
    assert sorted(pair[0] for pair in near_duplicates(train, fewer)) == list(range(19))


@pytest.mark.unit
@pytest.mark.parametrize("faiss", [True, False])
def test_skeletons_must_be_as_good_as_equal(monkeypatch, faiss):
    """With and without FAISS, which is an extra."""
    if not faiss:
        monkeypatch.setitem(sys.modules, "faiss", None)
    train, test = made_up(60, 0), made_up(20, 1)
    assert near_duplicates(Signatures.of(**train), Signatures.of(**test)) == []
    planted(train, test, 7, 33, scale=0.75, noise=0.0)
    planted(train, test, 3, 4, noise=4.0)
    found = near_duplicates(Signatures.of(**train), Signatures.of(**test))
    assert [pair[:2] for pair in found] == [(7, 33)] and found[0][2] < 1e-3


@pytest.mark.unit
def test_neighbours_are_the_same_with_and_without_faiss(monkeypatch):
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    known, asked = rng.normal(size=(700, 9)), rng.normal(size=(600, 9))
    distances, rows = nearest(known, asked, 3)
    monkeypatch.setitem(sys.modules, "faiss", None)
    without = nearest(known, asked, 3)
    assert np.array_equal(rows, without[1]) and np.allclose(distances, without[0], atol=1e-4)
    assert nearest(known[:2], asked, 3)[1].shape == (600, 2)


@pytest.mark.unit
def test_extract_and_train_are_imported_without_faiss():
    code = "import sys; sys.modules['faiss'] = None; import pipeline.protocol.duplicates, stages.extract, stages.train"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr


@pytest.mark.unit
def test_the_projection_is_made_once():
    assert projection(40, 8) is projection(40, 8)


@pytest.mark.unit
def test_clips_without_a_person_are_like_no_other():
    train, test = made_up(10, 0), made_up(10, 1)
    for arrays in (train, test):
        arrays["person_valid"][:3] = False
    assert near_duplicates(Signatures.of(**train), Signatures.of(**test)) == []
    train["person_valid"][:] = False
    assert near_duplicates(Signatures.of(**train), Signatures.of(**test), 1e9) == []


@pytest.mark.unit
def test_signatures_do_not_depend_on_the_batch():
    arrays = made_up(6, 0)
    whole, part = Signatures.of(**arrays), Signatures.of(**{name: array[2:4] for name, array in arrays.items()})
    assert np.allclose(whole.skeletons[2:4], part.skeletons, atol=1e-5)


@pytest.mark.unit
def test_a_signature_is_of_the_places_of_joints_at_eight_moments():
    """Of 16 frames, those nearest to sevenths of the way from the first to the last."""
    arrays = made_up(1, 0)

    def differs(t, axis):
        keypoints = arrays["keypoints"].copy()
        keypoints[0, 0, t, 9, axis] += 5  # a wrist, in pixels
        return not np.array_equal(Signatures.of(**arrays | {"keypoints": keypoints}).skeletons, plain)

    plain = Signatures.of(**arrays).skeletons
    assert [t for t in range(T) if differs(t, 0)] == [0, 2, 4, 6, 9, 11, 13, 15] and differs(15, 1)
    assert np.array_equal(Signatures.of(**arrays | {"scores": arrays["scores"] / 2}).skeletons, plain)


@pytest.mark.unit
def test_the_same_video_is_found_by_its_hash():
    assert same_videos({"a": "1", "b": "", "c": "2", "d": "2"}, {"x": "2", "y": "", "z": "3"}) == {"x": "c"}


class Shard(dict):
    rows: dict[str, int]


class Extraction:
    """The contract of the cache reader, over arrays in memory; `identity` is of the clips' videos, by their ids."""

    recipe = SimpleNamespace(layout="coco17")

    def __init__(self, clip_ids, arrays, identity=()):
        self.clip_ids, self.arrays, self.names = clip_ids, arrays, tuple(arrays)
        self.held = Shard(video_identity=[dict(identity).get(clip_id, "").encode() for clip_id in clip_ids])
        self.held.rows = {clip_id: row for row, clip_id in enumerate(clip_ids)}

    def read(self, clip_ids, names):
        return {name: self.arrays[name][[self.held.rows[clip_id] for clip_id in clip_ids]] for name in names}

    def shard(self, clip_id):
        assert clip_id in self.clip_ids
        return self.held


def listed(count, part, **sha256):
    names = [f"{part}{i}" for i in range(count)]
    return [Clip(name, f"{name}.mp4", label=i, part=part, sha256=sha256.get(name, "")) for i, name in enumerate(names)]


@pytest.mark.unit
def test_without_pictures_copies_are_found_by_hash_then_by_identity_then_by_skeleton(monkeypatch):
    """Of test2, which repeats two clips, the same video is told. Clips of no part, or not extracted, do not count."""
    monkeypatch.setattr(duplicates, "BATCH", 16)
    train, test = made_up(40, 0), made_up(4, 1)
    planted(train, test, 0, 33, scale=0.75, noise=0.0)
    planted(train, test, 2, 9, noise=0.0)
    both = {name: np.concatenate([train[name], test[name], train[name][:1]]) for name in train}
    clips = [*listed(40, "train", train5="a"), *listed(4, "test", test1="a", test3="b"), *listed(1, "")]
    gone = Clip("gone", "gone.mp4", part="train", sha256="b")
    same = {"train7": "v", "test2": "v", "0": "w", "test3": "w"}
    reader = Extraction([clip.clip_id for clip in clips], both, same)
    found = find_duplicates(reader, [gone, *clips[::-1]])
    assert found == [
        Duplicate("test1", "train5", "same video", 0.0, 1, 5),
        Duplicate("test2", "train7", "same video", 0.0, 2, 7),
        Duplicate("test0", "train33", "near-duplicate", 0.0, 0, 33),
    ]
    for part in ("train", "test"):
        assert find_duplicates(reader, [clip for clip in clips if clip.part == part]) == []


@pytest.mark.unit
def test_by_pictures_the_nearest_copy_comes_first_also_a_mirrored_one(monkeypatch):
    monkeypatch.setattr(duplicates, "BATCH", 4)
    rng = np.random.default_rng(0)
    pictures = cv2.resize(rng.normal(128, 60, (6, 6, 13 * 8)), (24, 24), interpolation=cv2.INTER_CUBIC)
    pictures = pictures.reshape(24, 24, 13, 8).transpose(2, 3, 0, 1).clip(10, 245)  # 13 clips of 8 frames
    noisy = pictures[9, :, :, ::-1] + rng.normal(0, 8, (8, 24, 24))
    films_ = np.concatenate([pictures[:10], noisy[None], pictures[2:3], pictures[12:]]).astype(np.uint8)
    arrays = {"thumbnail": films_, "timestamp": np.tile(np.arange(8) / 8, (13, 1))}
    clips = [*listed(10, "train"), *listed(3, "test")]
    reader = Extraction([clip.clip_id for clip in clips], arrays)
    exact, mirrored = find_duplicates(reader, clips)
    assert (exact.test, exact.train, exact.kind) == ("test1", "train2", "near-duplicate")
    assert (mirrored.test, mirrored.train) == ("test0", "train9")
    assert exact.distance < 0.001 < mirrored.distance < films.LIMIT
    assert find_duplicates(reader, clips, mirrored.distance / 2) == [exact]
    assert len(find_duplicates(reader, clips, 9.0)) == 3


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Twelve train clips and four test clips, of which one is a copy and one a mirrored, brighter re-encoding."""
    root = tmp_path_factory.mktemp("world")
    for i in range(14):
        spec = ClipSpec("wave" if i % 2 else "clap", "none", i, i, i, i, i, i)
        write_video(root / f"v/{'train' if i < 12 else 'test'}/{i:02d}.mp4", render_clip(spec, 8, 96).frames)
    shutil.copy(root / "v/train/03.mp4", root / "v/test/copy.mp4")
    with av.open(str(root / "v/train/05.mp4")) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    brighter = np.clip(np.stack(frames)[:, :, ::-1] * 1.08 + 4, 0, 255).astype(np.uint8)
    write_video(root / "v/test/encoded.mp4", brighter)
    ingest("d", root / "v", pattern="(?P<part>train|test)/", manifests=root / "m")
    recipe = Recipe(config="fake", weights="w", weights_sha256="0" * 64, boxes="full_frame", frames=8, cue_frames=4)
    extract(
        "d", "fake", recipe, root / "v", params=ExtractParams(), build_estimator=lambda recipe: FakeEstimator(),
        manifests=root / "m", cache=root / "c",
    )  # fmt: skip
    (root / "m/d/classes.csv").write_text("index,name\n0,wave\n")
    return open_dataset("d", root / "m", root / "c")


@pytest.mark.e2e
def test_copies_are_found_in_a_cache(world):
    with CacheReader(world.cache / "d/fake/index.json") as reader:
        found = find_duplicates(reader, world.clips)
    assert [(pair.test, pair.train, pair.kind) for pair in found] == [
        ("test/copy", "train/03", "same video"),
        ("test/encoded", "train/05", "near-duplicate"),
    ]
    assert 0 < found[1].distance < films.LIMIT
    assert (found[1].test_label, found[1].train_label) == (None, None)


@pytest.mark.e2e
def test_duplicates_are_noted_until_the_extraction_or_a_part_changes(world, monkeypatch):
    index = world.cache / "d/fake/index.json"
    index.with_name("duplicates.json").unlink(missing_ok=True)
    assert noted_duplicates(index, world.clips) is None
    found = note_duplicates(index, world.clips)
    assert len(found) == 2 and noted_duplicates(index, world.clips) == found
    monkeypatch.setattr("pipeline.protocol.duplicates.find_duplicates", lambda *_: pytest.fail("they are known"))
    assert note_duplicates(index, world.clips) == found
    other = [replace(clip, part="train" if clip.clip_id == "test/copy" else clip.part) for clip in world.clips]
    assert noted_duplicates(index, other) is None
    content = index.read_text()
    index.write_text(content + " ")
    assert noted_duplicates(index, world.clips) is None
    index.write_text(content)


@pytest.mark.e2e
@pytest.mark.fault
def test_a_note_that_is_damaged_or_no_file_is_made_again(world):
    index, clips = world.cache / "d/fake/index.json", world.clips
    found = note_duplicates(index, clips)
    note = index.with_name("duplicates.json")
    whole = note.read_bytes()
    flipped = whole.replace(b"test/encoded", b"test/encodee")
    for content in (b"[" * 200_000, b"\xff", whole[:-9], b"null", flipped):
        note.write_bytes(content)
        assert noted_duplicates(index, clips) is None and note_duplicates(index, clips) == found
    note.unlink()
    os.mkfifo(note)
    assert noted_duplicates(index, clips) is None
    with pytest.raises(PosebridgeError, match="duplicates.json is a folder, a device or a pipe"):
        note_duplicates(index, clips)
    note.unlink()
    assert note_duplicates(index, clips) == found and note.read_bytes() == whole


@pytest.mark.e2e
def test_the_report_shows_each_pair_with_pictures(world, tmp_path):
    index = world.cache / "d/fake/index.json"
    note_duplicates(index, world.clips)
    runs = [SimpleNamespace(first=SimpleNamespace(dataset="d", recipe=recipe)) for recipe in ("fake", "fake", "gone")]
    names = ("wave", "clap")
    ((found,), complaints) = read_repeated(world.cache, None, world.manifests, runs, names, tmp_path)
    assert [pair.test for pair in found.pairs] == ["test/copy", "test/encoded"] and len(found.strips) == 2
    assert not complaints
    template = templates().get_template("repeated.html")

    def shown(**changes):
        return template.render(section=SimpleNamespace(repeated=[replace(found, **changes)]))

    text = shown(pairs=tuple(replace(pair, test_label=0, train_label=1) for pair in found.pairs))
    assert "1 test clip repeats a train clip" in shown(pairs=found.pairs[:1], strips=found.strips[:1])
    captions = [f"<figcaption>{pair.train} | {pair.test}</figcaption>" for pair in found.pairs]
    assert all(caption in text for caption in captions), "a picture is told apart from the next"
    assert "2 test clips repeat" in text and text.count("data:image/png") == 2 and "same video" in text
    assert all(word in text for word in ("test/encoded", "train/05", "wave", "clap", "0.000"))
    assert "No test clip was found" in shown(pairs=())
    assert "posebridge extract" in shown(pairs=None)
    assert not template.render(section=SimpleNamespace(repeated=[])).strip()


@pytest.mark.e2e
def test_the_pictures_of_pairs_are_found_in_another_store_and_missed_aloud(world, tmp_path):
    index = world.cache / "d/fake/index.json"
    note_duplicates(index, world.clips)
    runs = [SimpleNamespace(first=SimpleNamespace(dataset="d", recipe=recipe)) for recipe in ("fake", "../odd")]
    elsewhere = (world.cache / "store").rename(world.cache / "elsewhere")
    try:
        ((found,), complaints) = read_repeated(world.cache, elsewhere, world.manifests, runs, (), tmp_path)
        assert len(found.strips) == 2 and not complaints
        ((found,), (said,)) = read_repeated(world.cache, None, world.manifests, runs, (), tmp_path)
        assert len(found.pairs) == 2 and not found.strips and "(d, fake)" in said and said.endswith(".")
        (tmp_path / "full/fake-repeated-2.png").mkdir(parents=True)  # where nothing can be written
        ((found,), (said,)) = read_repeated(world.cache, elsewhere, world.manifests, runs, (), tmp_path / "full")
        assert len(found.pairs) == 2 and not found.strips and "fake-repeated-2.png failed" in said
        (tmp_path / "d").mkdir()
        (tmp_path / "d/clips.csv").write_text("clip_id\n")
        (nothing, (said,)) = read_repeated(world.cache, elsewhere, tmp_path, runs, (), tmp_path)
        assert not nothing and "(d, fake)" in said and "lacks the column path" in said
        assert read_repeated(world.cache, elsewhere, tmp_path / "d", runs, (), tmp_path) == ([], [])
    finally:
        elsewhere.rename(world.cache / "store")


@pytest.fixture
def command(monkeypatch, tmp_path):
    """The command `train` on a noted list, with a training that only says that it was called."""
    trained = []
    dataset = Dataset("d", tmp_path / "manifests", tmp_path, ("wave", "clap"), ())
    (tmp_path / "d" / "refined").mkdir(parents=True)
    (tmp_path / "d" / "refined" / "index.json").touch()
    monkeypatch.setattr("pipeline.learn.dataset.open_dataset", lambda name, **options: dataset)
    monkeypatch.setattr(pipeline.learn.train, "train", lambda *arguments: trained.append(arguments) or tmp_path)
    (tmp_path / "params.yaml").write_text("runs: {r: {}}\n")
    base = ["--dataset", "d", "--protocol", "p", "--run", "r", "--params", str(tmp_path / "params.yaml")]

    def call(pairs, *options):
        monkeypatch.setattr("pipeline.protocol.duplicates.noted_duplicates", lambda index, clips: pairs)
        return CliRunner().invoke(stages.train.command, [*base, *options]), len(trained)

    return call


@pytest.mark.unit
def test_train_lists_duplicates_before_it_trains(command):
    """The command: warns, fails or looks away."""
    pairs = [Duplicate(f"t{i}", f"s{i}", "near-duplicate", 0.1, 0, 1) for i in range(12)]
    result, trained = command(pairs, "--json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["duplicates"]) == 12 and trained == 1
    assert "s0 (clap) | t0 (wave) (distance 0.100)" in result.stderr and "2 more" in result.stderr
    result, trained = command(pairs, "--duplicates", "fail")
    assert result.exit_code == 1 and trained == 1 and "first s0 (clap) | t0 (wave)" in result.stderr
    result, trained = command(pairs, "--duplicates", "ignore")
    assert result.exit_code == 0 and trained == 2 and "t0" not in result.output


@pytest.mark.unit
def test_train_says_where_nobody_has_looked(command):
    result, trained = command(None, "--json")
    assert result.exit_code == 0 and trained == 1 and "posebridge extract" in result.stderr
    assert json.loads(result.stdout)["duplicates"] is None
    result, trained = command(None, "--duplicates", "fail")
    assert result.exit_code == 1 and trained == 1 and "posebridge extract" in result.stderr


@pytest.mark.unit
def test_training_opens_no_test_clip(tmp_path, monkeypatch):
    """Every read of features while encoders and methods are trained is of train clips."""
    world = make_world(tmp_path)
    test = {clip.clip_id for clip in world.clips if clip.part == "test"}
    for reader in world.readers.values():
        reader.clip_ids = sorted(reader.clip_ids, key=lambda clip_id: clip_id not in test)
    asked: set[str] = set()
    monkeypatch.setattr(FakeReader, "read", noting(FakeReader.read, asked))
    few = replace(PARAMS, encode=replace(PARAMS.encode, epochs=1), train=replace(PARAMS.train, epochs=1))
    encode(world, PROTOCOL, "refined", few.encode)
    pipeline.learn.train.train(world, PROTOCOL, "r", RunParams(flags=FLAGS), few)
    assert asked and not asked & test


def noting(read, asked):
    def wrapped(self, clip_ids, *wanted):
        asked.update(clip_ids)
        return read(self, clip_ids, *wanted)

    return wrapped
