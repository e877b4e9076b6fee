"""More shards than a process may have files: none of them is kept open, whatever goes through the store."""

from __future__ import annotations

import resource
from dataclasses import replace

import pytest

from pipeline.bench import scale_store
from pipeline.bench.cache import bench_cache
from pipeline.bench.scale_store import NAME, RECIPE, make_store
from pipeline.cache.index import index_path
from pipeline.cache.inventory import statistics
from pipeline.cache.reader import CacheReader
from pipeline.learn import features
from pipeline.learn.cost import Like
from pipeline.learn.dataset import open_dataset
from pipeline.learn.encode import encode
from pipeline.learn.evaluate import evaluate
from pipeline.learn.train import train
from pipeline.params import EncodeParams, Params, RunParams, TrainParams
from pipeline.protocol.duplicates import find_duplicates
from pipeline.report.report import make_report

pytestmark = pytest.mark.unit
SHARDS, FILES = 300, 256
PARAMS = Params(
    encode=EncodeParams(epochs=1, batch_size=256, width=4, blocks=(1,), seeds=(0,)),
    train=TrainParams(epochs=1, batch_size=256, views=2),
)
RUN = RunParams(recipe=NAME, flags={"width": 8, "heads": 2, "layers": 1, "text_slots": ["label"]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of as many shards as clips, and no more files than FILES."""
    folder = tmp_path_factory.mktemp("shards")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale_store, "CLIPS_A_SHARD", 1)
        patch.setattr(scale_store, "CUE_WIDTH", 8)
        patch.setattr(scale_store, "RECIPE", replace(RECIPE, persons=1, frames=4, cue_frames=2))
        patch.setattr(features, "HELD_BYTES", 0)
        make_store(folder, Like(SHARDS, 8, 2, 2, 0.2), SHARDS, ("label",))
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, hard))
        yield folder
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_run_is_trained_tested_and_reported(folder, one_thread):
    dataset = open_dataset(NAME, folder / "manifests", folder / "cache")
    encode(dataset, NAME, NAME, PARAMS.encode)
    train(dataset, NAME, NAME, RUN, PARAMS)
    place = evaluate(dataset, NAME, NAME, RUN, PARAMS)
    assert len((place / "seed-0" / "predictions.csv").read_text().splitlines()) > 10
    make_report(folder / "cache" / "results", folder / "cache" / "report", folder / "manifests")


def test_a_store_is_told_of_measured_and_searched(folder):
    index = index_path(folder / "cache", NAME, NAME)
    assert bench_cache(index, rounds=1).clips == 128
    with CacheReader(index) as reader:
        assert statistics(reader)["shards"] == SHARDS and len(reader.frame(folder / "manifests" / NAME)) == SHARDS
        clips = open_dataset(NAME, folder / "manifests", folder / "cache").clips
        find_duplicates(reader, clips)
