"""Clearing up, estimating and publishing the cache."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fakes import FakeEstimator, write_video
from safetensors.torch import load_file
from test_cache import RECIPE, make_store

from pipeline.cache.garbage import delete, find_garbage
from pipeline.cache.publish import publish
from pipeline.cache.schema import columns
from pipeline.cache.verify import verify_index, verify_store
from pipeline.errors import PosebridgeError
from pipeline.extract.cost import CORPORA, TEXT_BYTES, Probe, corpus_of, estimate, probe
from pipeline.files.durable import temporary
from pipeline.files.tensors import save_tensors
from pipeline.manifest.clips import Clip
from pipeline.recipe import Recipe
from stages.cli import main

DEAD = 4194400  # above the largest process number of Linux


def age(path: Path, hours: float = 30) -> Path:
    then = time.time() - hours * 3600
    os.utime(path, (then, then))
    return path


def draft(folder: Path, pid: int, host: str = socket.gethostname(), hours: float = 30) -> Path:
    path = folder / f"shard-00000.h5.tmp-{host}-{pid}"
    path.write_bytes(b"x" * 10)
    return age(path, hours)


@pytest.mark.unit
def test_what_nothing_names_is_found_and_nothing_else(tmp_path):
    store, index, _ = make_store(tmp_path)
    root = tmp_path / "store"
    assert find_garbage(root, tmp_path, []) == [], "the index keeps the store, and its shards"
    replaced = store.folder / "shard-00001-abc.h5"
    replaced.write_bytes(b"x" * 7)
    assert find_garbage(root, tmp_path, []) == [], "one that was written just now may get its receipt in a moment"
    age(replaced)
    gone = [draft(store.folder, DEAD), draft(store.folder, 1, "elsewhere-7"), store.folder / "shard-00000.lease"]
    gone[-1].write_bytes(b"x" * 10)
    age(gone[-1])
    kept = [draft(store.folder, os.getpid()), draft(store.folder, DEAD + 1, hours=2)]
    found = find_garbage(root, tmp_path, [])
    assert {(item.path, item.kind, item.bytes) for item in found} == {
        (replaced, "replaced", 7), *((path, "draft", 10) for path in gone)
    }  # fmt: skip
    assert replaced.exists(), "finding deletes nothing"
    delete(found)
    assert not any(path.exists() for path in (replaced, *gone)) and all(path.exists() for path in kept)
    assert verify_store(store.folder) == [] == verify_index(index, root)


@pytest.mark.unit
def test_a_shard_that_is_a_loop_of_links_is_a_problem_among_others(tmp_path):
    store, _, _ = make_store(tmp_path)
    shards = sorted(store.folder.glob("shard-*.h5"))
    for shard in shards:
        shard.unlink()
        shard.symlink_to(shard.name)
    assert len(verify_store(store.folder)) == len(shards) > 1


@pytest.mark.unit
@pytest.mark.parametrize("name", [".", "/dev/posebridge-test", "folder", "pipe"])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("folder").mkdir()
    with pytest.raises(PosebridgeError, match="is a folder, a device or a pipe, no file; name a file"):
        temporary(Path(name))


@pytest.mark.unit
def test_a_shard_that_an_older_index_names_stays(tmp_path):
    store, index, _ = make_store(tmp_path)
    (receipt := store.stem(0).with_suffix(".json")).unlink()
    assert receipt.name and find_garbage(tmp_path / "store", tmp_path, []) == []


@pytest.mark.unit
def test_a_store_goes_when_no_index_and_no_recipe_refers_to_it(tmp_path):
    store, index, _ = make_store(tmp_path)
    root = tmp_path / "store"
    index.unlink()
    wanted = replace(RECIPE, weights="somewhere.pth", weights_sha256="", hpe_text="captions")
    assert find_garbage(root, tmp_path, [wanted]) == [], "a recipe of params.yaml has no hash of its weights yet"
    other = replace(RECIPE, frames=7)
    assert find_garbage(root, tmp_path, [other], whole_stores=False) == []
    (item,) = find_garbage(root, tmp_path, [other])
    assert (item.path, item.kind) == (store.folder, "store") and item.bytes > 1000
    delete([item])
    assert not store.folder.exists()


@pytest.mark.fault
def test_a_damaged_index_stops_the_clearing_up(tmp_path):
    _, index, _ = make_store(tmp_path)
    index.write_text(index.read_text().replace('"clips":3', '"clips":4'))
    with pytest.raises(PosebridgeError, match="damaged.*or delete it"):
        find_garbage(tmp_path / "store", tmp_path, [])


@pytest.mark.unit
def test_the_command_is_a_dry_run_unless_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store, index, _ = make_store(tmp_path)
    index.unlink()
    Path("params.yaml").write_text("recipes: {other: {frames: 7}}\n")
    arguments = ["cache", "gc", "--cache", ".", "--json"]
    said = json.loads(CliRunner().invoke(main, arguments).output)
    assert said["deleted"] is False and [item["kind"] for item in said["garbage"]] == ["store"]
    assert store.folder.exists()
    said = json.loads(CliRunner().invoke(main, [*arguments, "--cache-root", "store", "--delete"]).output)
    assert said["garbage"] == [] and store.folder.exists(), "others may use what lies on a shared disk"
    said = json.loads(CliRunner().invoke(main, [*arguments, "--delete"]).output)
    assert said["deleted"] is True and not store.folder.exists()


@pytest.mark.unit
def test_an_estimate_is_frames_and_crops_by_the_measured_speeds(tmp_path):
    recipe = Recipe(persons=2, frames=10, cue_frames=5)
    ntu120 = next(corpus for corpus in CORPORA if corpus.name == "ntu120")
    assert {(corpus.name, corpus.clips) for corpus in CORPORA} >= {("ntu60", 56_880), ("ntu120", 114_480)}
    found = estimate(ntu120, recipe, Probe(1000.0, 100.0, 17, 512))
    assert found.decode_hours == pytest.approx(114_480 * ntu120.frames * 1.92 * 1.08 / 1000 / 3600)
    assert found.pose_hours == pytest.approx(114_480 * 20 / 100 / 3600)
    assert found.hours == pytest.approx(found.decode_hours + found.pose_hours)
    assert found.bytes == 114_480 * sum(c.row_bytes for c in columns(recipe, 17, 512, TEXT_BYTES))
    full = estimate(ntu120, replace(recipe, frames=32, cue_frames=16), Probe(1000.0, 100.0, 17, 512))
    assert 192 * 1024 < full.bytes_per_clip < 240 * 1024, "192 KiB of cues, as the format's page says"

    video = write_video(tmp_path / "a.mp4", frames=20)
    fake = FakeEstimator()
    measured = probe(recipe, fake, [video], seconds=0.05, batch_size=4)
    assert measured.decoded_megapixels_per_second > 0 and measured.crops_per_second > 0
    assert (measured.joints, measured.cue_width) == (17, 8) and fake.crops >= 8
    clips = [Clip(f"{i}", "a.avi", frames=300, width=640, height=480) for i in range(3)]
    assert corpus_of("mine", clips).frames == 100, "a video of three segments is decoded once"
    with pytest.raises(PosebridgeError, match="no frames noted; run `posebridge ingest --dataset mine --probe`"):
        corpus_of("mine", [Clip("0", "a.avi")])
    with pytest.raises(PosebridgeError, match="cannot be probed"):
        probe(recipe, fake, [tmp_path / "none.mp4"])


@pytest.mark.unit
def test_an_estimate_probes_with_one_video_at_least():
    for count in ("0", "-1"):
        assert CliRunner().invoke(main, ["cache", "estimate", "--dataset", "d", "--clips", count]).exit_code == 2


@pytest.mark.unit
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_weights_are_for_whom_the_umask_says(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        save_tensors({"a": torch.arange(3)}, tmp_path / "a.safetensors", {"x": "y"})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == mode
    assert torch.equal(load_file(tmp_path / "a.safetensors")["a"], torch.arange(3))


@pytest.mark.unit
def test_publishing_tells_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(PosebridgeError, match="make it with `posebridge extract --dataset d --recipe r`"):
        publish("d", "r", project=tmp_path)
    make_store(tmp_path / "cache")
    with pytest.raises(PosebridgeError, match="no DVC project"):
        publish("d", "r", project=tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    with pytest.raises(PosebridgeError, match="no default remote; .*`dvc remote add --default lab PATH`"):
        publish("d", "r", project=tmp_path)
    with pytest.raises(PosebridgeError, match="no remote named 'x'; it has none"):
        publish("d", "r", project=tmp_path, remote="x")
    (tmp_path / ".dvc" / "config").write_text("[core]\nno_scm = true\nremote = x\n['remote \"x\"']\nurl = x\n")
    (tmp_path / "dvc.yaml").write_text("stages: [")
    with pytest.raises(PosebridgeError, match="DVC cannot read this project's stages .*dvc.yaml.*; put them right"):
        publish("d", "r", project=tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PosebridgeError, match="DVC is not installed"):
        publish("d", "r", project=tmp_path)


@pytest.mark.e2e
def test_an_extraction_outside_of_dvc_yaml_gets_pointers_of_its_own(tmp_path):
    make_store(tmp_path / "project" / "cache")
    (tmp_path / "project" / ".dvc").mkdir()
    remote = tmp_path / "remote"
    config = f"[core]\n    no_scm = true\n    remote = lab\n['remote \"lab\"']\n    url = {remote}\n"
    (tmp_path / "project" / ".dvc" / "config").write_text(config)
    done = publish("d", "r", project=tmp_path / "project")
    assert [path.name for path in done.pointers] == [f"{done.store.name}.dvc", "index.json.dvc"]
    assert all(path.is_file() for path in done.pointers) and done.remote == "lab"
    assert len([path for path in remote.rglob("*") if path.is_file()]) >= 7  # two shards, their receipts, layout, index


@pytest.mark.unit
def test_the_list_of_stores_names_the_recipes_that_refer_to_them(tmp_path):
    _, index, _ = make_store(tmp_path)
    (tmp_path / "d" / "damaged").mkdir()
    (tmp_path / "d" / "damaged" / "index.json").write_text("{")
    done = CliRunner().invoke(main, ["cache", "ls", "--cache", str(tmp_path)])
    assert done.exit_code == 0 and f"  {index.parent.name}  " in done.stdout, done.output
    index.unlink()
    assert "  no recipe  " in CliRunner().invoke(main, ["cache", "ls", "--cache", str(tmp_path)]).stdout
