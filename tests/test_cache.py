"""The cache: format, sealing, reading, verification, refusal of what is not ours."""

from __future__ import annotations

import functools
import json
import os
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.cache import checksums
from pipeline.cache import index as index_module
from pipeline.cache import reader as reader_module
from pipeline.cache.index import write_index
from pipeline.cache.inventory import statistics
from pipeline.cache.reader import CacheReader, MappedShard
from pipeline.cache.schema import columns, locate
from pipeline.cache.sealed import canonical_json, read_sealed, remove_abandoned, seal
from pipeline.cache.store import Receipt, Store, rows_hash, shard_of
from pipeline.cache.verify import orphans, verify_index, verify_store
from pipeline.cache.writer import ShardWriter
from pipeline.errors import PosebridgeError
from pipeline.files.durable import temporary, write_durably
from pipeline.files.hashing import fingerprint
from pipeline.manifest.clips import Clip, write_classes, write_clips
from pipeline.recipe import Recipe
from pipeline.video.record import RECORD_BYTES, ClipRecord

RECIPE = Recipe(frames=6, cue_frames=3, persons=2, weights_sha256="0" * 64)
WIDTHS = {"clip_id": 8, "video_path": 8, "video_identity": 8}
JOINTS, WIDTH = 17, 5
FRAME = {
    **dict.fromkeys(("stage", "reason"), "str"),
    **dict.fromkeys(("seen", "joints"), "int64"), "score": "float64", "anchors": "int64",
    "frames": "int64", "fps": "float64", "height": "int64", "width": "int64", "video": "bool", "few_frames": "bool",
    "container": "str", "track": "int64", "tracks": "int64", "orientation": "str", "pixel_aspect": "float64",
    "size_changes": "int64", "lost": "int64", "timing": "str", "tone": "str", "alpha": "bool", "interlaced": "bool",
    "distinct": "int64", "available": "int64", "joints_lost": "int64", "cues_lost": "int64",
    **dict.fromkeys(("class", "part", "subject", "camera"), "str"),
}  # fmt: skip


def make_row(clip_id: str, recipe: Recipe = RECIPE, record: str = "") -> dict:
    random = np.random.default_rng(sum(clip_id.encode()))
    row = {}
    for column in columns(recipe, JOINTS, WIDTH, WIDTHS):
        row[column.name] = clip_id if column.dtype.kind == "S" else random.integers(0, 2, column.shape)
    places = random.normal(size=(recipe.persons, recipe.frames, JOINTS, 2))
    return row | {"clip_id": clip_id, "keypoints": places, "video_record": record}


def make_store(tmp_path, shards: int = 2, recipe: Recipe = RECIPE, record: str = "") -> tuple[Store, object, dict]:
    """A store of three clips a shard, with its index."""
    store = Store(tmp_path / "store", "d", recipe)
    layout = store.create(3 * shards, 3, JOINTS, 0 if recipe.cues == "none" else WIDTH)
    rows, receipts = {}, []
    for shard in range(shards):
        ids = [f"ü{shard}{letter}" for letter in "bca"]
        with ShardWriter(store.stem(shard), store.columns(layout, WIDTHS), ids, {"recipe": "r"}) as writer:
            for clip_id in ids:
                rows[clip_id] = make_row(clip_id, recipe, record)
                writer.write(clip_id, rows[clip_id])
            path, sha256 = writer.seal()
        hashes = {clip_id: clip_id for clip_id in ids}
        file = {"file": path.name, "sha256": sha256, "bytes": writer.size, "checksums": writer.checksums}
        receipts.append(Receipt(shard, recipe.fingerprint, rows_hash(hashes), hashes, {}, (), {}, **file))
        store.commit(receipts[-1])
    index = tmp_path / "d" / "r" / "index.json"
    write_index(index, "d", store, layout, receipts)
    return store, index, rows


@pytest.mark.unit
def test_what_is_read_equals_h5py_and_what_was_written(tmp_path):
    store, index, rows = make_store(tmp_path)
    order = ["ü1c", "ü0a", "ü1a", "ü0a"]
    with CacheReader(index) as reader:
        assert reader.recipe.fingerprint == reader.fingerprint == RECIPE.fingerprint
        assert reader.clip_ids == sorted(rows) and reader.failures == []
        batch = reader.read(order, reader.names)
        for i, clip_id in enumerate(order):
            for name, values in batch.items():
                assert (values[i] == np.asarray(rows[clip_id][name]).astype(values.dtype)).all(), name
        arrays = reader.shard("ü1a")
        with h5py.File(reader.folder / reader.index["shards"][1]["file"]) as file:
            assert set(file) == set(arrays)
            for name, array in arrays.items():
                assert (file[name][:] == array).all() and file[name].chunks is None, name
            assert file["cues"].attrs["axes"] == "clip person cue_frame anchor feature"
            assert file["keypoints"].attrs["unit"] == "pixel"
        with pytest.raises(ValueError, match="read-only"):
            arrays["keypoints"][0] = 0
    assert {c.name: c.unit for c in columns(Recipe(dimensions=3), 25, 0)}["keypoints"] == "metre"


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.unit
def test_there_may_be_more_shards_than_a_process_may_have_files(tmp_path):
    _, index, rows = make_store(tmp_path, shards=40)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with CacheReader(index) as reader:
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 8, hard))
        try:
            batch = reader.read(reader.clip_ids, ["scores"])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (batch["scores"] == np.stack([rows[clip_id]["scores"] for clip_id in reader.clip_ids])).all()


@pytest.mark.fault
def test_too_few_files_for_a_process_are_no_damage(tmp_path):
    _, index, _ = make_store(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with CacheReader(index) as reader:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(PosebridgeError, match="Too many open files.*ulimit") as error:
                reader.read(["ü0a"], ["scores"])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "delete" not in str(error.value)


@pytest.mark.unit
def test_of_persons_who_are_not_asked_for_nothing_is_read(tmp_path, monkeypatch):
    _, index, _ = make_store(tmp_path)
    order, persons = ["ü1c", "ü0a", "ü1a"], np.array([[False, True], [False, False], [True, True]])
    sizes, preadv = [], os.preadv
    with CacheReader(index) as reader:
        whole = reader.read(order, ("cues", "scores"))
        monkeypatch.setattr(os, "preadv", lambda *given: sizes.append(preadv(*given)) or sizes[-1])
        some = reader.read(order, ("cues", "scores"), persons)
    for name, array in some.items():
        assert (array[persons] == whole[name][persons]).all() and not array[~persons].any()
    assert sum(sizes) == sum(array[persons].nbytes for array in some.values()) > 0


@pytest.mark.unit
@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system reads nothing without waiting")
@pytest.mark.parametrize("held", [0, 5, 12], ids=["nothing in memory", "some", "all"])
def test_the_disk_is_asked_for_all_that_is_not_in_memory_before_it_is_waited_for(tmp_path, monkeypatch, held):
    _, index, _ = make_store(tmp_path)
    preadv, open_file = os.preadv, os.open
    asked, waited, opened, tried = [], [], [], []

    def read(handle, goals, start, flags=0):
        if flags & os.RWF_NOWAIT:
            tried.append(start)
            if len(tried) > held:
                if len(tried) % 2:
                    raise BlockingIOError  # none of it
                return preadv(handle, [goals[0][:1]], start)  # or the beginning
        else:
            waited.append((len(asked), start))
        return preadv(handle, goals, start)

    def advise(handle, start, size, advice):
        asked.extend([(start, size)] * (advice == os.POSIX_FADV_WILLNEED))

    with CacheReader(index) as reader:
        before = reader.read(reader.clip_ids, ("scores", "boxes"))
        monkeypatch.setattr(os, "posix_fadvise", advise)
        monkeypatch.setattr(os, "preadv", read)
        monkeypatch.setattr(os, "open", lambda *given: opened.append(given) or open_file(*given))
        after = reader.read(reader.clip_ids, ("scores", "boxes"))
    assert len(tried) == 12 and len(asked) == 12 - held, "two datasets of six clips in two shards"
    assert waited == [(12 - held, start) for start, _ in asked], "each once, when all had been asked for"
    assert held or sum(size for _, size in asked) == sum(array.nbytes for array in after.values())
    assert len(opened) == {0: 4, 5: 4, 12: 2}[held], "a shard is opened once, and once more where the disk was asked"
    assert all((after[name] == before[name]).all() for name in after)


@pytest.mark.unit
def test_mapped_shards_are_let_go_of_beyond_a_number(tmp_path, monkeypatch):
    _, index, rows = make_store(tmp_path, shards=12)
    monkeypatch.setattr(reader_module, "_mapped", functools.lru_cache(3)(reader_module._mapped.__wrapped__))
    with CacheReader(index) as reader:
        before = open_files()
        for clip_id in 2 * reader.clip_ids:
            shard = reader.shard(clip_id)
            assert (shard["scores"][shard.rows[clip_id]] == rows[clip_id]["scores"]).all()
        assert open_files() <= before + 3


@pytest.mark.fault
@pytest.mark.parametrize("change", ["vanishes", "shrinks", "is replaced"])
def test_a_shard_that_changes_while_it_is_in_use_is_a_sentence(tmp_path, change):
    _, index, _ = make_store(tmp_path)
    with CacheReader(index) as reader:
        reader.read(["ü0a"], ["scores"])
        shard = reader.folder / reader.index["shards"][0]["file"]
        content = shard.read_bytes()
        shard.unlink()
        if change == "shrinks":
            shard.write_bytes(content[:-1000])
        elif change == "is replaced":
            shard.write_bytes(content)
            os.utime(shard, (1, 1))
        with pytest.raises(PosebridgeError, match=f"{shard.name} (cannot be read|has changed)"):
            reader.read(["ü0a"], ["scores"])
        assert reader.read(["ü1a"], ["scores"])["scores"].shape[0] == 1


@pytest.mark.unit
def test_an_index_is_read_once_while_it_stays_as_it_is(tmp_path, monkeypatch):
    _, index, rows = make_store(tmp_path)
    monkeypatch.setattr(checksums, "RECENT", -(10**18))
    read = []
    monkeypatch.setattr(index_module, "read_sealed", lambda *given: read.append(given) or read_sealed(*given))
    for _ in range(3):
        with CacheReader(index) as reader:
            assert reader.clip_ids == sorted(rows)
    assert len(read) == 1
    _, index, rows = make_store(tmp_path, shards=3)
    with CacheReader(index) as reader:
        assert reader.clip_ids == sorted(rows) and len(read) == 2


@pytest.mark.unit
def test_who_asks_for_a_clip_that_failed_is_told_why_it_did(tmp_path):
    _, index, _ = make_store(tmp_path)
    with CacheReader(index) as reader:
        reader.failures += [{"clip_id": f"x{i}", "stage": "decode", "reason": f"reason {i}"} for i in range(3)]
        with pytest.raises(PosebridgeError, match="'x1' is not in the cache .*; its extraction failed: reason 1."):
            reader.read(["x1"], ["scores"])
        with pytest.raises(PosebridgeError, match="'y' is not in the cache .*; bring it in with `posebridge extract"):
            reader.read(["y"], ["scores"])


@pytest.mark.unit
def test_a_recipe_without_cues_has_none(tmp_path):
    _, index, _ = make_store(tmp_path, recipe=Recipe(backend="ground_truth", cues="none", frames=6))
    with CacheReader(index) as reader, pytest.raises(PosebridgeError, match="no dataset 'cues'"):
        reader.read(reader.clip_ids, ["cues"])


@pytest.mark.unit
def test_a_fingerprint_does_not_depend_on_the_order_of_names():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 2, "b": 1})


@pytest.mark.unit
def test_all_clips_are_one_table(tmp_path):
    record = ClipRecord("matroska,webm", tracks=2, timing="mended", distinct=1, available=20, cues_lost=3)
    store, index, rows = make_store(tmp_path, record=record.to_json())
    values = read_sealed(index, "")
    values["failures"] = [{"clip_id": "lost", "stage": "open", "reason": "it is no video"}]
    index.write_bytes(canonical_json(seal(values)))
    manifest = tmp_path / "manifest"
    write_classes(manifest / "classes.csv", ["wave", "kick"])
    listed = [Clip("ü0a", "a.mp4", label=1, subject="Ann", part="train"), Clip("lost", "b.mp4", label=0, part="test")]
    write_clips(manifest / "clips.csv", [*listed, Clip("new", "c.mp4", label=0)])
    with CacheReader(index) as reader:
        alone, found = reader.frame(), reader.frame(manifest)
    assert found.index.to_list() == [*sorted(rows), "lost"] and found.index.name == "clip_id"
    assert found[alone.columns].equals(alone) and found.columns[-4:].to_list() == ["class", "part", "subject", "camera"]
    assert found.dtypes.astype(str).to_dict() == FRAME
    for clip_id, row in rows.items():
        valid, scores = row["person_valid"] > 0, np.asarray(row["scores"], float)
        there = found.loc[clip_id]
        assert (there["seen"], there["joints"]) == (valid[0].sum(), valid.sum() * JOINTS)
        assert there["score"] == scores[valid].sum() and there["anchors"] == (row["cue_scores"][0] > 0).sum()
        assert there["frames"] == row["video_frames"] and there["fps"] == row["video_fps"]
        assert ClipRecord(**there[list(vars(record))]) == record and there["video"] and there["few_frames"]
        assert there["stage"] == there["reason"] == ""
    assert found.loc["ü0a", ["class", "part", "subject", "camera"]].to_list() == ["kick", "train", "Ann", ""]
    assert found.loc["ü0b", ["class", "part", "subject", "camera"]].to_list() == ["", "", "", ""]
    lost = found.loc["lost"]
    assert (lost["stage"], lost["reason"], lost["class"]) == ("open", "it is no video", "wave")
    assert not lost["video"] and not found.loc["lost", "seen":"few_frames"].any()
    recipe, cue_scores = reader.recipe, np.stack([row["cue_scores"] for row in rows.values()])
    assert cue_scores.shape[2:] == (recipe.cue_frames, len(recipe.anchors))
    with CacheReader(index) as reader:
        assert statistics(reader)["anchors_seen"] == pytest.approx((cue_scores[:, 0] > 0).mean())


@pytest.mark.unit
def test_a_table_of_clips_without_videos_or_without_clips(tmp_path):
    _, index, rows = make_store(tmp_path, recipe=Recipe(backend="ground_truth", cues="none", frames=6))
    with CacheReader(index) as reader:
        found, values = reader.frame(), statistics(reader)
    assert len(found) == len(rows) and not found["video"].any() and not found["anchors"].any()
    assert values["anchors_seen"] is None and values["videos"]["clips_of_videos"] == 0
    values = read_sealed(index, "") | {"shards": [], "clips": {}}
    index.write_bytes(canonical_json(seal(values)))
    with CacheReader(index) as reader:
        assert reader.frame().empty and reader.frame().columns.to_list() == found.columns.to_list()
        values = statistics(reader)
    assert values["first_person_seen"] is values["mean_score"] is None and values["bytes_by_dataset"] == {}
    assert values["failures"] == {} and values["videos"]["few_frames_first"] == []


@pytest.mark.fault
def test_a_record_that_is_none_names_the_clip(tmp_path):
    """A cache without videos has empty records; text that is no record may come with a file of somebody else."""
    _, index, rows = make_store(tmp_path, record="no record")
    clip_id = next(iter(rows))
    with CacheReader(index) as reader, pytest.raises(PosebridgeError, match=f"record of '{clip_id}'"):
        reader.record(clip_id)
    odd = ['{"track":1}', "[]", "null", "[" * 200, '{"track":', ClipRecord().to_json().replace("0", '"0"', 1)]
    for text in odd:
        with pytest.raises((ValueError, RecursionError)):
            ClipRecord.from_json(text)
    assert ClipRecord.from_json("") is None
    assert len(ClipRecord("x" * 40, *[2**31] * 2, "antitranspose", 2 / 3).to_json()) < RECORD_BYTES


@pytest.mark.unit
def test_unused_rows_leave_no_gap_and_an_unsealed_draft_leaves_no_file(tmp_path):
    expected = columns(RECIPE, JOINTS, WIDTH, WIDTHS)
    with ShardWriter(tmp_path / "s", expected, ["a", "b", "c"], {}) as writer:
        writer.write("c", make_row("c"))
        writer.write("a", make_row("a"))
        path, _ = writer.seal()
    assert list(MappedShard(path, expected, "").rows) == ["a", "c"]
    with ShardWriter(tmp_path / "t", expected, ["a", "c"], {}) as writer:
        for clip_id in "ac":
            writer.write(clip_id, make_row(clip_id))
        again, _ = writer.seal()
    assert again.read_bytes() == path.read_bytes(), (
        "the same clips give the same bytes, whatever the order and the gaps"
    )
    with pytest.raises(RuntimeError), ShardWriter(tmp_path / "u", expected, ["a"], {}):
        raise RuntimeError
    assert sorted(tmp_path.iterdir()) == sorted([path, again])


@pytest.mark.fault
@pytest.mark.parametrize(
    "kind",
    [
        "soft link",
        "external link",
        "external data",
        "virtual",
        "gzip",
        "chunked",
        "object",
        "float64",
        "extra",
        "shape",
        "schema",
        "text",
    ],
)
def test_files_from_others_are_refused(tmp_path, kind):
    expected = columns(RECIPE, JOINTS, WIDTH, WIDTHS)
    with ShardWriter(tmp_path / "s", expected, ["a"], {}) as writer:
        writer.write("a", make_row("a"))
        path, _ = writer.seal()
    locate(path, expected, "remedy")
    with h5py.File(path, "r+") as file:
        shape, data = file["scores"].shape, file["scores"][:]
        if kind not in ("extra", "schema", "text"):
            del file["scores"]
        if kind == "soft link":
            file["scores"] = h5py.SoftLink("/keypoints")
        elif kind == "external link":
            file["scores"] = h5py.ExternalLink("/etc/passwd", "/scores")
        elif kind == "external data":
            file.create_dataset("scores", shape, "f2", external=[("/etc/passwd", 0, data.nbytes)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape, "f2")
            layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "x", shape)
            file.create_virtual_dataset("scores", layout)
        elif kind == "gzip":
            file.create_dataset("scores", data=data, compression="gzip")
        elif kind == "chunked":
            file.create_dataset("scores", data=data, chunks=True)
        elif kind == "object":
            file.create_dataset("scores", data=["x"], dtype=h5py.string_dtype())
        elif kind == "float64":
            file.create_dataset("scores", data=data.astype("f8"))
        elif kind == "extra":
            file.create_dataset("more", data=data)
        elif kind == "shape":
            file.create_dataset("scores", data=data[:, :1])
        elif kind == "schema":
            file.attrs["schema"] = 99
    if kind == "text":
        path.write_text("not HDF5")
    with pytest.raises(PosebridgeError, match="is not a shard of this recipe: .*; remedy"):
        locate(path, expected, "remedy")


@pytest.mark.fault
def test_verify_names_the_damaged_shard(tmp_path):
    store, index, _ = make_store(tmp_path)
    assert verify_store(store.folder) == [] == verify_index(index, tmp_path / "store")
    assert orphans(store, store.receipts(store.layout())) == []
    victim = sorted(store.folder.glob("shard-00001-*.h5"))[0]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    assert verify_store(store.folder, quick=True) == [], "the quick check compares sizes"
    (problem,) = verify_store(store.folder)
    assert victim.name in problem.reason and "posebridge extract" in problem.reason
    victim.write_bytes(data[:-1])
    assert victim.name in verify_store(store.folder, quick=True)[0].reason
    with pytest.raises(PosebridgeError, match="has not the size that its index says.*extract --dataset d --recipe r"):
        CacheReader(index)
    victim.unlink()
    assert victim.name in verify_store(store.folder, quick=True)[0].reason
    with pytest.raises(PosebridgeError, match="is missing; bring it .*posebridge extract --dataset d --recipe r"):
        CacheReader(index)


@pytest.mark.fault
def test_a_damaged_receipt_or_index_is_noticed(tmp_path):
    store, index, _ = make_store(tmp_path)
    receipt = store.stem(0).with_suffix(".json")
    receipt.write_text(receipt.read_text().replace("ü0a", "ü0x"))
    assert store.receipt(0) is None, "a shard whose receipt is damaged is to be made again"
    assert orphans(store, store.receipts(store.layout())) == [], "nobody can tell which shard it named"
    assert "damaged" in verify_store(store.folder)[0].reason
    index.write_text(index.read_text().replace('"clips":3', '"clips":4'))
    with pytest.raises(PosebridgeError, match="damaged.*posebridge extract --dataset d --recipe r"):
        CacheReader(index)
    with pytest.raises(PosebridgeError, match="missing; make it with `posebridge extract"):
        CacheReader(tmp_path / "d" / "other" / "index.json")


@pytest.mark.unit
def test_sealed_json_and_durable_files(tmp_path):
    path = tmp_path / "a.json"
    write_durably(path, json.dumps(seal({"x": 1})).encode())
    assert read_sealed(path, "")["x"] == 1
    assert list(tmp_path.iterdir()) == [path], "no draft stays"


@pytest.mark.fault
def test_only_old_drafts_of_dead_processes_of_this_host_go(tmp_path):
    own = temporary(tmp_path / "a.json")
    assert own != temporary(tmp_path / "a.json"), "two containers may have one host name and one process number"
    stem, pid, token = own.name.rsplit("-", 2)
    nobody = "4194400"  # above the largest process number of Linux
    dead, fresh = own.with_name(f"{stem}-{nobody}-{token}"), own.with_name(f"{stem}-{nobody}-0123abcd")
    abroad = own.with_name(f"a.json.tmp-another-host-{nobody}-{token}")
    for draft in (own, dead, fresh, abroad):
        draft.touch()
    for draft in (own, dead, abroad):
        os.utime(draft, (0, 0))
    remove_abandoned(tmp_path)
    assert set(tmp_path.iterdir()) == {own, fresh, abroad}, "a process that is not to be seen here may live elsewhere"


@pytest.mark.unit
def test_shards_are_chosen_by_the_video_alone():
    chosen = [shard_of(f"videos/{i}.mp4", 8) for i in range(400)]
    assert set(chosen) == set(range(8)) and max(map(chosen.count, range(8))) < 90
    assert shard_of("videos/0.mp4", 8) == chosen[0]
