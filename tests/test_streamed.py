"""Clips that stay on the disk: the same samples, scores and weights as of clips in memory, batch by batch."""

from __future__ import annotations

import json
import os
import resource
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from synthetic import ANCHORS, FLAGS, PARAMS, PROTOCOL, FakeReader, make_world
from test_cache import make_store

from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.learn import features
from pipeline.learn.dataset import label_rows
from pipeline.learn.encode import encode, train_encoder
from pipeline.learn.evaluate import evaluate
from pipeline.learn.feature_table import Joints, feature_table
from pipeline.learn.features import Samples, StoredSamples, load_samples, open_samples
from pipeline.learn.loop import Loop, fit
from pipeline.learn.train import train
from pipeline.params import RunParams
from pipeline.protocol.training_set import training_phase
from pipeline.skeleton.light_shift_gcn import LightShiftGCN

pytestmark = pytest.mark.unit
QUICK = replace(PARAMS, encode=replace(PARAMS.encode, epochs=1), train=replace(PARAMS.train, epochs=2))


@pytest.fixture(scope="module")
def world(tmp_path_factory, one_thread):
    return make_world(tmp_path_factory.mktemp("world"))


def both(world, skeletons="refined", cues="refined"):
    """All clips in memory, and on the disk."""
    readers = world.reader(skeletons), world.reader(cues) if cues else None
    ids = [clip.clip_id for clip in world.clips]
    stored = open_samples(ids, *readers, held_bytes=0)
    assert isinstance(stored, StoredSamples)
    return load_samples(ids, *readers), stored


def test_what_fits_is_held_and_what_does_not_is_not_read(world, monkeypatch):
    reader, read = world.reader("refined"), []
    really = FakeReader.read
    monkeypatch.setattr(FakeReader, "read", lambda *given: read.append(given[1]) or really(*given))
    ids, one = [clip.clip_id for clip in world.clips], load_samples(reader.clip_ids[:1], reader, reader).nbytes
    read.clear()
    stored = open_samples(ids, reader, reader, held_bytes=len(ids) * one - 1)
    assert isinstance(stored, StoredSamples) and len(stored) == len(ids) and stored.clip_ids == tuple(ids)
    assert {len(given) for given in read} == {1}
    held = open_samples(ids, reader, reader, held_bytes=len(ids) * one)
    assert isinstance(held, Samples) and held.nbytes == len(ids) * one


def test_samples_are_the_same_from_memory_and_from_the_disk(world):
    held, stored = both(world)
    rows = [5, 0, 17, 5]
    found = stored.take(rows)
    assert found.clip_ids == held.take(rows).clip_ids
    for name in ("keypoints", "scores", "person_valid", "cues", "cue_scores", "quality"):
        assert torch.equal(getattr(found, name), getattr(held.take(rows), name)), name
    assert found.cues.dtype == torch.float16
    assert stored.only(rows).only([2, 0]).clip_ids == held.only(rows).only([2, 0]).clip_ids


@pytest.mark.parametrize(("skeletons", "cues"), [("refined", "refined"), ("gt", "refined"), ("gt", None)])
def test_equal_clips_are_one_from_the_disk_as_from_memory(world, skeletons, cues, monkeypatch):
    """Twins have equal true skeletons; with cues they differ, which is seen only when the cues are looked at."""
    monkeypatch.setattr(features, "CHUNK", 7)
    held, stored = both(world, skeletons, cues)
    distinct, where = held.unique()
    from_disk, from_where = stored.unique()
    assert from_disk.clip_ids == distinct.clip_ids and torch.equal(from_where, where)
    assert (len(distinct) < len(held)) == (cues is None)


def test_encoder_weights_are_the_same_from_memory_and_from_the_disk(world):
    phase = training_phase("final", world.split(PROTOCOL), world.clips)
    found = []
    for held_bytes in (1 << 30, 0):
        samples = open_samples([clip.clip_id for clip in phase.train], world.reader("refined"), None, held_bytes)
        labels = label_rows(phase.train, samples.clip_ids, phase.classes)
        encoder, progress = train_encoder(samples, labels, len(phase.classes), QUICK.encode, 0)
        found.append((encoder.state_dict(), progress.losses))
    (held, losses), (streamed, from_disk) = found
    assert from_disk == pytest.approx(losses, rel=1e-5)
    for key, value in held.items():
        torch.testing.assert_close(streamed[key], value, rtol=1e-4, atol=1e-5)


def test_unaugmented_features_are_the_same_and_batches_come_in_order(world):
    held, stored = both(world)
    encoder = LightShiftGCN(17, 2, 8, (1,), 0.0, 3).eval().requires_grad_(False)
    tables = [feature_table(encoder, samples, ANCHORS) for samples in (held, stored)]
    parts = torch.randperm(len(held), generator=torch.Generator().manual_seed(0)).split(9)
    for one, other in zip(*(table.batches(parts) for table in tables), strict=True):
        assert torch.equal(one.cues, other.cues) and torch.equal(one.quality, other.quality)
        torch.testing.assert_close(one.skeleton, other.skeleton, rtol=1e-4, atol=1e-5)


def test_views_are_augmented_batch_by_batch_with_their_cues_and_view_0_is_not(world):
    _, stored = both(world)
    table = feature_table(Joints(), stored, ANCHORS)
    rows, views = torch.arange(12), torch.arange(12) % 3
    plain = table.batch(rows)
    first, again, other = (table.batch(rows, views, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.skeleton, again.skeleton) and torch.equal(first.cues, again.cues)
    seen = views == 0
    assert torch.equal(first.skeleton[seen], plain.skeleton[seen]) and torch.equal(first.cues[seen], plain.cues[seen])
    moved = (first.skeleton != other.skeleton).flatten(1).any(1)
    assert torch.equal(moved, ~seen)
    turned = (first.cues != plain.cues).flatten(1).any(1)
    assert turned.any() and (~turned & ~seen).any()
    assert torch.equal(first.cues[turned], plain.cues[turned][..., [0, 2, 1], :])
    assert torch.equal(first.cue_scores[turned], plain.cue_scores[turned][..., [0, 2, 1]])


def test_a_run_of_clips_on_the_disk_is_the_same_every_time_and_is_tested_as_from_memory(world, monkeypatch):
    run = RunParams(flags=FLAGS, adapt="pgfa")
    monkeypatch.setattr(features, "HELD_BYTES", 0)
    encode(world, PROTOCOL, "refined", QUICK.encode)
    for name in ("once", "twice"):
        train(world, PROTOCOL, name, run, QUICK)
    models = world.cache / "models" / "toy" / PROTOCOL
    weights, again = (load_file(models / name / "seed-0" / "final.safetensors") for name in ("once", "twice"))
    assert all(torch.equal(again[key], value) for key, value in weights.items())
    figures = []
    for held_bytes in (0, 1 << 30):
        monkeypatch.setattr(features, "HELD_BYTES", held_bytes)
        place = evaluate(world, PROTOCOL, "once", run, QUICK) / "seed-0"
        found = json.loads((place / "metrics.json").read_text())
        figures.append([found["zsl"]["top1"], *found["gzsl"].values(), found["adapted"]["top1"]])
    assert figures[0] == pytest.approx(figures[1], abs=1e-6)
    chosen = found["selection"]
    assert (found["device"], chosen["device"], chosen["precision"]) == ("CPU", "CPU", "float32")


def test_batches_are_loaded_in_the_order_in_which_they_are_trained_on_and_once():
    net, loaded, used = torch.nn.Linear(1, 1), [], []

    def load(rows):
        loaded.append(rows.tolist())
        return rows.tolist()

    def loss(rows, generator, data):
        assert rows.tolist() == data
        used.append(data)
        return net.weight.square().sum()

    fit(net, loss, 20, Loop(epochs=3, batch_size=8, lr=0.1), load=load)
    assert loaded == used and len(used) == 3 * 3 * 2  # few clips are gone through twice an epoch
    plain = []
    again = torch.nn.Linear(1, 1)
    fit(again, lambda rows, generator: plain.append(rows.tolist()) or again.weight.square().sum(), 20, Loop(3, 8, 0.1))
    assert plain == used, "the order does not depend on who reads"


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("vanishes", "cannot be read .No such file.*run `posebridge extract"),
        ("changes", "has changed since it was opened; run the same command again"),
        ("is one file too many", "cannot be read .Too many open files.*ulimit"),
    ],
)
def test_a_shard_that_is_lost_during_the_training_ends_it_with_one_sentence(tmp_path, trouble, said):
    _, index, _ = make_store(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with CacheReader(index) as reader:
        shard = reader.folder / reader.index["shards"][0]["file"]
        samples = open_samples(reader.clip_ids, reader, held_bytes=0)

        def lose(progress):
            if trouble == "is one file too many":
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            elif trouble == "changes":
                os.utime(shard, (1, 1))
            else:
                shard.unlink()

        try:
            with pytest.raises(PosebridgeError, match=f"{shard.name} {said}"):
                train_encoder(samples, torch.arange(6) % 2, 2, replace(QUICK.encode, epochs=3), 0, on_epoch=lose)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
