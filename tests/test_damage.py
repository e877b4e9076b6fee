"""A damaged or odd store is a sentence, whoever reads it; a disk that fails while a store is written is one too."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from test_cache import make_store

from pipeline.cache import checksums
from pipeline.cache.inventory import statistics
from pipeline.cache.reader import CacheReader
from pipeline.cache.sealed import canonical_json, read_sealed, seal
from pipeline.cache.store import open_store
from pipeline.cache.verify import verify_index, verify_store
from pipeline.errors import PosebridgeError
from pipeline.files.durable import write_durably, write_for_people
from stages.cli import main

pytestmark = pytest.mark.fault


def flip(path: Path, place: int) -> None:
    """Turn one bit around."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def edit(path: Path, change) -> None:
    """Change a sealed file and seal it again, as somebody of ill will can."""
    values = read_sealed(path, "")
    change(values)
    path.write_bytes(canonical_json(seal(values)))


def entry(index: Path) -> dict:
    return json.loads(index.read_bytes())["shards"][0]


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path)


def test_a_flipped_bit_is_noticed_where_it_is_read_and_nowhere_else(store):
    store, index, rows = store
    shard = store.folder / entry(index)["file"]
    places = entry(index)["checksums"]["datasets"]
    keypoints = places["keypoints"]
    flip(shard, keypoints["offset"] + keypoints["bytes"] // 2)
    with CacheReader(index) as reader:
        there = reader.read(["ü0a"], ["cues", "scores"])
        assert np.array_equal(there["cues"][0], rows["ü0a"]["cues"]), "what is sound is read"
        assert reader.read(["ü1a"], ["keypoints"])["keypoints"].shape[0] == 1, "the other shard is sound"
        for _ in range(2):
            with pytest.raises(PosebridgeError, match=f"{shard.name} is damaged.*'keypoints'.*extract --dataset d --"):
                reader.read(["ü0a"], ["cues", "keypoints"])
    with CacheReader(index, verify=False) as reader:
        reader.read(["ü0a"], ["keypoints"])
    flip(shard, places["scores"]["offset"])
    with CacheReader(index) as reader, pytest.raises(PosebridgeError, match="is damaged.*'scores'"):
        statistics(reader)


def test_damage_between_the_datasets_and_in_clip_ids_is_noticed_at_once(store):
    store, index, _ = store
    shard = store.folder / entry(index)["file"]
    whole, parts = shard.read_bytes(), entry(index)["checksums"]["datasets"]
    taken = np.zeros(len(whole), bool)
    for part in parts.values():
        taken[part["offset"] : part["offset"] + part["bytes"]] = True
    ids = parts["clip_id"]["offset"]
    for place in [*np.flatnonzero(~taken)[::97], ids, ids + 1]:
        flip(shard, int(place))
        with CacheReader(index) as reader, pytest.raises(PosebridgeError, match=f"{shard.name} is damaged"):
            reader.read(["ü0a"], ["scores"])
        shard.write_bytes(whole)


def test_checksums_that_stand_for_other_datasets_are_noticed_at_once(store):
    _, index, _ = store

    def exchange(values: dict) -> None:
        parts = values["shards"][0]["checksums"]["datasets"]
        parts["scores"], parts["keypoints"] = parts["keypoints"], parts["scores"]

    edit(index, exchange)
    with CacheReader(index) as reader, pytest.raises(PosebridgeError, match="datasets at other places than its check"):
        reader.read(["ü0a"], ["scores"])


def test_verify_compares_the_sha256_of_a_whole_shard(store):
    """That of the receipt is changed in its last digit, which is not in the shard's name."""
    store, _, _ = store
    path = store.stem(0).with_suffix(".json")

    def change(values: dict) -> None:
        values["sha256"] = values["sha256"][:-1] + ("0" if values["sha256"][-1] != "0" else "1")

    assert verify_store(store.folder) == []
    edit(path, change)
    assert verify_store(store.folder, quick=True) == []
    (problem,) = verify_store(store.folder)
    assert "its sha256 is not the receipt's" in problem.reason


def test_a_shard_is_compared_once_per_process(store, monkeypatch):
    _, index, _ = store
    done, real = [], checksums.Checker._crc32
    monkeypatch.setattr(checksums.Checker, "_crc32", lambda *given: done.append(given[1]) or real(*given))
    monkeypatch.setattr(checksums, "RECENT", 10**18)
    with CacheReader(index) as reader:
        reader.read(reader.clip_ids, ["scores"])
        reader.read(reader.clip_ids, ["scores"])
    assert len(done) == 2 * 3, "two shards: the rest, the ids, the scores"
    with CacheReader(index) as reader:
        reader.read(reader.clip_ids, ["scores"])
    assert len(done) == 4 * 3, "files so young may change within a tick of their clock"
    monkeypatch.setattr(checksums, "RECENT", -(10**18))
    for _ in range(3):
        with CacheReader(index) as reader:
            reader.read(reader.clip_ids, ["scores"])
    assert len(done) == 6 * 3


def test_datasets_that_reach_beyond_the_file_are_told_before_it_is_read(tmp_path):
    """Though the checksum of what lies between the datasets fits."""
    path = tmp_path / "shard.h5"
    path.write_bytes(b"0123456789")

    def checker(size: int) -> checksums.Checker:
        parts = {"a": checksums.Part(2, size, zlib.crc32(b"23456789"))}
        return checksums.Checker(path, checksums.Checksums(zlib.crc32(b"01"), parts), "remedy")

    checker(8).check_rest()
    with pytest.raises(PosebridgeError, match=r"shard.h5 is damaged: its datasets reach beyond its end; remedy"):
        checker(9).check_rest()


@pytest.mark.parametrize("name", ["layout.json", "recipe.json"])
def test_the_small_files_of_a_store_are_sealed(store, name):
    store, index, _ = store
    path = store.folder / name
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        for damaged in (whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :], whole[:place]):
            path.write_bytes(damaged)
            assert verify_store(store.folder) and verify_index(index, store.folder.parent.parent)
    with pytest.raises(PosebridgeError, match=name):
        open_store(store.folder).layout()
    result = CliRunner().invoke(main, ["cache", "ls", "--cache-root", str(store.folder.parent.parent)])
    assert result.exit_code == 1 and name in result.output


@pytest.mark.parametrize(
    "change",
    [
        {"shards": 1},
        {"shards": 3},
        {"shards": 0},
        {"shards": 10**8},
        {"shards": "2"},
        {"shards": None},
        {"joints": -1},
        {"schema": 1},
        {"more": 1},
    ],
    ids=str,
)
def test_a_layout_that_does_not_fit_its_store_is_noticed_though_it_is_sealed(store, change):
    store, index, _ = store
    edit(store.folder / "layout.json", lambda values: values.update(change))
    assert verify_store(store.folder)
    assert verify_index(index, store.folder.parent.parent)
    if change != {"shards": 3}:
        with pytest.raises(PosebridgeError, match="layout.json"):
            store.create(6, 3, 17, 5)


def test_a_lost_layout_is_not_planned_anew(store):
    store, _, _ = store
    (store.folder / "layout.json").unlink()
    with pytest.raises(PosebridgeError, match="layout.json is missing.*from a copy"):
        store.create(6, 3, 17, 5)
    assert len(verify_store(store.folder)) == 1


ODD_INDEXES = {
    "file above": lambda v: v["shards"][0].update(file="../../secret"),
    "absolute file": lambda v: v["shards"][0].update(file="/etc/passwd"),
    "hash as path": lambda v: v["shards"][0].update(file="shard-00000-../../../abc.h5", sha256="../../../abc"),
    "file of none": lambda v: v["shards"][0].update(file=None),
    "store above": lambda v: v.update(store="../.."),
    "dataset above": lambda v: v.update(dataset=".."),
    "absolute dataset": lambda v: v.update(dataset="/tmp"),
    "dataset a number": lambda v: v.update(dataset=3),
    "negative size": lambda v: v["shards"][0].update(bytes=-1),
    "size a text": lambda v: v["shards"][0].update(bytes="1"),
    "other count": lambda v: v["shards"][0].update(clips=7),
    "shard twice": lambda v: v["shards"].append(v["shards"][0]),
    "shard missing": lambda v: v["shards"].pop(),
    "no shards": lambda v: v.update(shards={}),
    "clips a list": lambda v: v.update(clips=list(v["clips"])),
    "clip of another name": lambda v: v["clips"].update(x=v["clips"].pop("ü0b")),
    "clip in no shard": lambda v: v["clips"].update(x=77),
    "clip in a text": lambda v: v["clips"].update(x="0"),
    "clip in true": lambda v: v["clips"].update(x=True),
    "failures of texts": lambda v: v.update(failures=["a"]),
    "failure without reason": lambda v: v.update(failures=[{"clip_id": "a", "stage": "open"}]),
    "recipe a list": lambda v: v.update(recipe=[]),
    "recipe of texts": lambda v: v["recipe"].update(frames="6"),
    "recipe of more": lambda v: v["recipe"].update(nonsense=1),
    "recipe of less": lambda v: v["recipe"].pop("frames"),
    "other frames": lambda v: v["recipe"].update(frames=10**9),
    "layout a text": lambda v: v.update(layout="a"),
    "layout of zero": lambda v: v["layout"].update(shards=0),
    "other fingerprint": lambda v: v.update(fingerprint="0" * 64),
    "no fingerprint": lambda v: v.pop("fingerprint"),
    "other schema": lambda v: v.update(schema=99),
    "schema a list": lambda v: v.update(schema=[]),
    "no checksums": lambda v: v["shards"][0].pop("checksums"),
    "checksum a text": lambda v: v["shards"][0]["checksums"].update(rest="a"),
    "negative offset": lambda v: v["shards"][0]["checksums"]["datasets"]["cues"].update(offset=-5),
    "offset beyond": lambda v: v["shards"][0]["checksums"]["datasets"]["cues"].update(offset=10**15),
    "a number": lambda v: 3,
}


@pytest.mark.parametrize("kind", ODD_INDEXES)
def test_an_odd_index_is_a_sentence(store, kind):
    store, index, _ = store
    values = read_sealed(index, "")
    changed = ODD_INDEXES[kind](values)
    index.write_bytes(b"3" if changed == 3 else canonical_json(seal(values)))
    with pytest.raises(PosebridgeError, match="index.json|shard-00000"), CacheReader(index) as reader:
        reader.read(["ü0a"], ["cues"])
    assert verify_index(index, store.folder.parent.parent)


@pytest.mark.parametrize(
    "content", [b"", b"[", b"[" * 100_000, b"\xff\xfe", b'{"self_sha256": NaN}', b'{"a":"\\ud800"}'], ids=range(6)
)
def test_what_is_no_json_is_a_sentence(store, content):
    store, index, _ = store
    for path in (index, store.folder / "layout.json", store.folder / "recipe.json", store.stem(0).with_suffix(".json")):
        path.write_bytes(content)
        with pytest.raises(PosebridgeError, match=path.name):
            read_sealed(path, "remedy")
    assert verify_store(store.folder) and verify_index(index, store.folder.parent.parent)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(PosebridgeError, match="no plain file"):
        read_sealed(path, "remedy")


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(file="../../../../etc/passwd"),
        lambda v: v.update(file="/etc/passwd"),
        lambda v: v.update(sha256="../../../etc", file="shard-00000-../../../etc.h5"),
        lambda v: v.update(file=7),
        lambda v: v.update(bytes=None),
        lambda v: v.update(clips=[]),
        lambda v: v.update(clips={}),
        lambda v: v.update(failed={"x": "y"}),
        lambda v: v.update(failures=[1]),
        lambda v: v.update(videos={"a": {"identity": 1}}),
        lambda v: v.update(shard="0"),
        lambda v: v.update(shard=1),
        lambda v: v.update(fingerprint="0" * 64),
        lambda v: v.update(checksums=None),
        lambda v: v.pop("time"),
    ],
    ids=range(15),
)
def test_an_odd_receipt_is_a_sentence_and_its_shard_is_made_again(store, change):
    store, _, _ = store
    path = store.stem(0).with_suffix(".json")
    edit(path, change)
    with pytest.raises(PosebridgeError, match="shard-00000.json"):
        store.read_receipt(path)
    assert store.receipt(0) is None and len(verify_store(store.folder)) == 1


def test_a_store_without_its_recipe_is_not_overlooked(store, tmp_path):
    store, _, _ = store
    (store.folder / "recipe.json").unlink()
    arguments = ["cache", "verify", "--cache", str(tmp_path), "--cache-root", str(tmp_path / "store")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1 and "recipe.json is missing" in result.output


def test_a_shard_of_another_making_under_the_right_name_is_refused(store):
    """The ids are valid UTF-8 once each, whatever the checksums say."""
    store, index, _ = store
    shard = store.folder / entry(index)["file"]
    with h5py.File(shard, "r+") as file:
        file["clip_id"][:2] = file["clip_id"][0]
    with pytest.raises(PosebridgeError, match="holds a clip twice"), CacheReader(index, verify=False) as reader:
        reader.shard("ü0a")
    with h5py.File(shard, "r+") as file:
        offset = file["clip_id"].id.get_offset()
    content = bytearray(shard.read_bytes())
    content[offset] = 0xFF
    shard.write_bytes(content)
    with pytest.raises(PosebridgeError, match="cannot be read"), CacheReader(index, verify=False) as reader:
        reader.shard("ü0a")


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for write in (write_durably, write_for_people):
        with pytest.raises(PosebridgeError, match="Not a directory|File exists"):
            write(file / "below.json", b"x")
    with pytest.raises(
        PosebridgeError, match=r"Writing .* failed \((Not a directory|File exists)\).*run the same command again"
    ):
        make_store(file)
    arguments = ["cache", "export", str(file / "x.pkl"), "--dataset", "d", "--recipe", "r", "--cache", str(file)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1 and result.output.startswith("Error: ") and result.output.count("\n") == 1


def test_the_commands_that_read_a_cache_can_be_told_to_trust_it():
    for command in ("encode", "train", "evaluate"):
        assert "--no-verify" in CliRunner().invoke(main, [command, "--help"]).output
