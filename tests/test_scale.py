"""`bench scale`: a store of noise that is a true one, and stages that are measured over it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from pipeline.bench import scale, scale_stage, scale_store
from pipeline.bench.scale_stage import Enough, Meter
from pipeline.bench.scale_store import NAME, make_store, row_bytes
from pipeline.cache.index import index_path
from pipeline.cache.reader import CacheReader
from pipeline.cache.verify import verify_index
from pipeline.errors import PosebridgeError
from pipeline.learn import cost
from pipeline.learn.cost import Like
from pipeline.learn.dataset import open_dataset
from pipeline.learn.encoders import encoder_folder
from pipeline.learn.features import StoredSamples, load_samples
from pipeline.protocol.training_set import training_phase
from stages.cli import main

TINY = Like(60, 8, 2, 2, 0.2)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale_store, "CLIPS_A_SHARD", 25)
        make_store(folder, TINY, TINY.clips, ("label", "one_line"))
    return folder


@pytest.mark.unit
def test_the_store_is_a_true_one_of_holes(store):
    index = index_path(store / "cache", NAME, NAME)
    assert verify_index(index, store / "cache" / "store") == []
    shards = list(store.rglob("*.h5"))
    shards = [path for path in shards if path.name.startswith("shard-")]
    assert len(shards) == 3 and sum(path.stat().st_size for path in shards) > 60 * row_bytes(dense=True)[1]
    assert sum(path.stat().st_blocks for path in shards) * 512 < 60 * 2 * row_bytes(dense=False)[1]
    with CacheReader(index, store / "cache" / "store") as reader:
        assert len(reader.clip_ids) == 60
        samples = load_samples(reader.clip_ids, reader, reader)
    assert samples.cues.shape == (60, 2, 16, 6, 512) and not samples.cues.any()
    assert len(samples.unique()[0]) == 60, "every clip is another"
    assert samples.person_valid.any(-1).sum(0).tolist() == [60, 3 * 5], "the second one in every fourth of a shard"


@pytest.mark.unit
def test_its_protocol_has_clips_of_every_class_in_both_parts(store):
    dataset = open_dataset(NAME, store / "manifests", store / "cache")
    split = dataset.split(NAME)
    assert (len(split.seen), split.unseen, split.validation) == (6, (6, 7), (4, 5))
    assert {clip.label for clip in dataset.clips if clip.part == "test"} == set(range(8))
    assert len(training_phase("select", split, dataset.clips).classes) == 4


@pytest.mark.fault
def test_a_disk_without_room_is_told_of_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**9))
    with pytest.raises(PosebridgeError, match=r"store of 240,000 clips takes \d+\.\d GB, but .* has 1.0 GB left"):
        make_store(tmp_path, cost.LIKES["kinetics400"], 240_000, ("label",))
    with pytest.raises(PosebridgeError, match="400 classes need 2,400 clips or more, not 100"):
        make_store(tmp_path, cost.LIKES["kinetics400"], 100, ("label",))
    assert not list(tmp_path.iterdir())


@pytest.mark.fault
def test_nothing_stays_after_ctrl_c(tmp_path, monkeypatch):
    def interrupted(arguments):
        assert Path(arguments[1]).is_relative_to(tmp_path) and list(Path(arguments[1]).rglob("*.h5"))
        raise KeyboardInterrupt

    monkeypatch.setitem(cost.LIKES, "tiny", TINY)
    monkeypatch.setattr(scale, "_measure", interrupted)
    done = CliRunner().invoke(main, ["bench", "scale", "--like", "tiny", "--folder", str(tmp_path)])
    assert done.exit_code == 1 and "Measuring" not in done.output
    assert not list(tmp_path.iterdir())


class Clock:
    """Seconds that pass when a test says so; CPU time passes at half that speed."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        for name, share in (("time", 1), ("perf_counter", 1), ("process_time", 0.5)):
            monkeypatch.setattr(scale_stage.time, name, lambda share=share: share * self.now)


def worked_on(meter, batches, clock):
    """The batches that a stage works on for 10 s each until the meter has enough. One that is read takes 3 s to come
    from the disk and 1 s from the page cache; and reading it makes the work 2 s or 1 s longer that is done meanwhile:
    on the batch two before, so that the second work on a batch is the longest.
    """
    seen = []

    def ahead(items, depth):
        for item, source in items:
            clock.now += {"disk": 3, "pages": 1, "memory": 0}[source]
            yield item, source

    with pytest.raises(Enough):
        for item in meter.around(ahead)(batches, 1):
            clock.now += (10, 12, 11)[seen.count(item)]
            seen.append(item)
    return seen


@pytest.mark.unit
def test_the_meter_sets_a_step_from_the_disk_and_from_the_page_cache_beside_the_same_from_memory_by_hand(monkeypatch):
    meter = Meter(steps=2)
    seen = worked_on(meter, range(100), Clock(monkeypatch))
    assert seen == [0, 1, 2, 3, 3, 3, 4, 4, 4, 5], "three that nobody counts, then each three times"
    values = meter.values()
    assert values["first"] == 3 and values["opening"] == 0
    assert values["steps"] == [15] * 2 and values["waits"] == [3] * 2
    assert values["disk"] == [[1.5, 1.5]] * 2 and values["pages"] == [[1.2, 1.2]] * 2


@pytest.mark.unit
def test_batches_that_only_open_shards_are_no_steps_and_no_more_are_given_than_there_is_a_place_for(monkeypatch):
    meter = Meter(steps=4, most=8, dropped=5)
    seen = worked_on(meter, range(100), Clock(monkeypatch))
    assert seen == [0, 6, 7, 8, 8, 8, 9, 9], "three that nobody counts, and two whose next ones are read no more"
    values = meter.values()
    assert (values["first"], values["opening"]) == (3, 15)
    assert values["steps"] == [15] and len(values["disk"]) == len(values["pages"]) == 1


@pytest.mark.unit
def test_a_batch_is_read_from_the_disk_read_again_and_taken_from_memory(store, monkeypatch):
    """All three are equal, and nothing that was computed of one is found in another."""
    reader, reads, found = CacheReader(index_path(store / "cache", NAME, NAME)), [], []
    really = CacheReader.read
    monkeypatch.setattr(CacheReader, "read", lambda *given: reads.append(given[2]) or really(*given))
    meter = Meter(steps=1)
    monkeypatch.setattr(StoredSamples, "take", meter.remembering(StoredSamples.take))
    stored = StoredSamples(tuple(reader.clip_ids), reader, reader)
    batches = ((torch.tensor(rows), stored.take(rows)) for rows in ([0], [1], [2], [7, 3], [5, 4], [6, 8]))
    with pytest.raises(Enough):
        for rows, samples in meter.around(lambda items, depth: items)(batches, 1):
            assert not {"inputs", "quality"} & set(vars(samples))
            assert samples.inputs and samples.quality is samples.quality
            found.append((rows, samples))
    assert meter.sources == ["disk"] * 3 + ["disk", "pages", "memory"] + ["disk", "pages"]
    assert len(reads) == 2 * (meter.sources.count("disk") + meter.sources.count("pages"))
    rows, batch = found[3]
    for same_rows, same in found[4:6]:
        assert torch.equal(same_rows, rows) and same.clip_ids == batch.clip_ids
        for name in ("keypoints", "scores", "person_valid", "cues", "cue_scores"):
            assert torch.equal(getattr(same, name), getattr(batch, name)), name
            assert getattr(same, name).data_ptr() != getattr(batch, name).data_ptr(), name


@pytest.mark.unit
@pytest.mark.parametrize("paper", ["ntu-synse", "kinetics", "pku"])
def test_the_papers_encoder_is_measured_where_its_params_are_named(store, paper):
    params = Path(__file__).parents[1] / "params" / f"paper-{paper}.yaml"
    batches = scale_stage.main("prepare", store, params, "posebridge", 4)
    assert all(count > 0 for count in batches.values())
    for phase in ("select", "final"):
        told = json.loads((encoder_folder(store / "cache", NAME, NAME, NAME) / "seed-0" / f"{phase}.json").read_bytes())
        assert (told["encoder"], told["width"], told["blocks"]) == ("shift_gcn", 64, [4, 3, 3])


@pytest.mark.unit
def test_a_store_that_memory_keeps_is_judged_warm_and_any_other_cold(monkeypatch):
    found = {"steps": [1.0], "waits": [0.0], "disk": [[1.2, 1.3]], "pages": [[1.02, 1.03]], "first": 0, "opening": 0}
    measured = scale._Measured(found, 0.0, 1.0, None)
    monkeypatch.setattr(scale, "machine_bytes", lambda: 1000)
    for stage, size, later in (("train", 500, [1.02, 1.03]), ("train", 501, [1.2, 1.3]), ("evaluate", 1, [1.2, 1.3])):
        each = scale._stage(stage, measured, measured, cost.Batches(1, 1, 1, 1), 1.0, 1, size)
        assert [each.cache_over_memory, each.cpu_over_memory] == later, (stage, size)
        assert (each.cold_over_memory, each.warm_over_memory) == (1.2, 1.02)


@pytest.mark.unit
def test_what_an_epoch_reads_is_what_the_reader_reads(store, monkeypatch):
    reader, sizes, preadv = CacheReader(index_path(store / "cache", NAME, NAME)), [], os.preadv
    for _ in reader.shards():
        pass  # opened
    monkeypatch.setattr(os, "preadv", lambda *given: sizes.append(preadv(*given)) or sizes[-1])
    for stage, cues in (("encode", None), ("train", reader)):
        sizes.clear()
        load_samples(reader.clip_ids, reader, cues)
        assert sum(size for size in sizes) == pytest.approx(
            scale._read_bytes(stage, replace(TINY, tested=0), 60), rel=0.01
        )


@pytest.mark.e2e
@pytest.mark.slow
def test_the_true_stages_are_measured(tmp_path, monkeypatch):
    monkeypatch.setitem(cost.LIKES, "tiny", replace(TINY, clips=1200, tested=0.45))
    params = tmp_path / "params.yaml"
    params.write_text("runs: {posebridge: {}}\nencode: {width: 4, blocks: [1], batch_size: 16, seeds: [0, 1]}\n")
    folder = tmp_path / "folder"
    folder.mkdir()
    command = ["bench", "scale", "--like", "tiny", "--steps", "4", "--folder", str(folder), "--json"]
    command += ["--params", str(params)]
    for limit in ("memory", "first", "waiting", "ratio"):
        command += [f"--limit-{limit}", "1e9"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert [each["stage"] for each in result["stages"]] == ["encode", "train", "evaluate"]
    for each in result["stages"]:
        assert each["first_step_seconds"] > 0 and each["step_seconds"] > 0 and each["hours"] > 0
        assert (
            each["cache_over_memory"] == each["cold_over_memory" if each["stage"] == "evaluate" else "warm_over_memory"]
        )
        assert each["cpu_over_memory"] > 0 and each["fits"]
        assert 0 <= each["waiting_share"] <= 1 and each["peak_mb"] > 100 and each["grown_mb"] in (0, None)
    assert (result["clips"], result["seeds"]) == (1200, 2)
    assert result["hours"] == pytest.approx(sum(each["hours"] for each in result["stages"]))
    assert not list(folder.iterdir())


@pytest.mark.fault
def test_a_stage_that_fails_is_one_sentence(tmp_path):
    missing = tmp_path / "params.yaml"
    with pytest.raises(PosebridgeError, match=rf"^Measuring train failed: {missing} .*\.$"):
        scale._measure(("train", str(tmp_path), str(missing), "posebridge", "4", "cpu"))
