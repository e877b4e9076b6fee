"""What stage two will cost: batches, hours and memory by hand, and the probe of one machine, this one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from fakes import FakeEstimator

import pipeline.extract.cost as stage_one
import pipeline.hpe.factory as factory
import pipeline.hpe.weights as hpe_weights
from pipeline.errors import PosebridgeError
from pipeline.files.memory import resident_bytes
from pipeline.learn.cost import (
    CLIP_BYTES,
    LIKES,
    PROCESS_BYTES,
    Batches,
    Like,
    Steps,
    batches_of,
    count_batches,
    like_of,
    memory_bytes,
    stage_seconds,
    stage_two,
)
from pipeline.learn.probe import method_of, noise, probe_steps
from pipeline.manifest.clips import Clip
from pipeline.params import EncodeParams, Params, RunParams, TrainParams
from pipeline.recipe import Recipe
from stages.cli import main

pytestmark = pytest.mark.unit
RECIPE = Recipe(persons=2, frames=8, cue_frames=2)
PARAMS = Params(
    encode=EncodeParams(epochs=5, batch_size=10, width=4, blocks=(1,), seeds=(0, 1)),
    train=TrainParams(epochs=6, batch_size=20, views=3),
)
STEPS = Steps(2.0, 1.0, 0.5, 7, 100_000, 1_000)


def method(name="posebridge"):
    return method_of(RunParams(name), RECIPE, 8, 4)


def test_batches_are_counted_by_hand():
    """Four values of alpha, six epochs and what is chosen are judged: twelve times."""
    found = count_batches(100, 70, 150, 65, PARAMS, method())
    assert found == Batches(5 * (10 + 15), 6 * (5 + 8), 12 * 2 + 3, 2)
    assert count_batches(100, 70, 150, 65, PARAMS, method("pgfa")).encode == 0, "it has its own encoder"
    like = Like(1_000, 10, 2, 2, 0.5)  # 50 train clips a class, 300 of the phase's own, 100 pseudo-unseen
    assert batches_of(like, PARAMS, method()) == count_batches(240, 160, 400, 500, PARAMS, method())


def test_what_this_process_holds_is_told_in_bytes():
    assert 50_000_000 < resident_bytes() < 1 << 40


def test_hours_are_those_of_all_seeds_and_memory_that_of_clips_that_are_held():
    batches = Batches(100, 30, 8, 4)
    assert stage_seconds("encode", 2.0, 0.5, batches) == 200
    assert stage_seconds("train", 2.0, 0.5, batches) == 64
    assert stage_seconds("evaluate", 0.5, 0.5, batches) == 2
    like = Like(1_000, 10, 2, 2, 0.5)
    counted, found = batches_of(like, PARAMS, method()), stage_two("x", like, PARAMS, RunParams(), method(), STEPS)
    assert found.encode_hours == pytest.approx(2 * counted.encode * 2.0 / 3600)
    assert found.hours == pytest.approx(found.encode_hours + found.train_hours + found.evaluate_hours)
    own = PROCESS_BYTES + 7 + 500 * CLIP_BYTES
    assert found.memory_bytes == own + 500 * (100_000 + 3 * 1_000)
    assert memory_bytes(100_000, 3, STEPS) == PROCESS_BYTES + 7 + 100_000 * CLIP_BYTES, "10 GB stay on the disk"
    wide = replace(STEPS, map_bytes=4 << 30)
    assert memory_bytes(500, 3, wide) == own + 500 * 100_000, "maps that are too large are made batch by batch"


def test_published_data_sets_are_those_of_stage_one_and_others_are_as_listed():
    assert {(corpus.name, corpus.clips) for corpus in stage_one.CORPORA} == {
        (name, like.clips) for name, like in LIKES.items()
    }
    clips = [Clip(f"{i}", f"{i}.mp4", label=i % 5, part="test" if i < 5 else "train") for i in range(20)]
    assert like_of(clips) == Like(20, 5, 1, 1, 0.25)
    assert like_of([Clip("a", "a.mp4")]) is None and like_of(clips[:2]) is None, "two classes cannot be split in three"


@pytest.mark.parametrize("name", ["posebridge", "purls", "pgfa", "skeletoncontext"])
def test_steps_are_probed_where_the_method_is(name):
    """The meta device refuses what was made on the CPU."""
    found = probe_steps(method(name), RECIPE, 8, 4, PARAMS, 0, torch.device("meta"))
    assert (found.encode_seconds == 0) == (name == "pgfa") and found.train_seconds > 0 and found.score_seconds > 0
    assert found.sample_bytes > 2 * 8 * 17 * (2 + 1) * 4 and found.map_bytes > 0


def test_a_method_that_wants_cues_is_refused_where_there_are_none():
    with pytest.raises(PosebridgeError, match="holds no cues; name a run with --run"):
        method_of(RunParams(), RECIPE, 0, 4)
    assert noise(RECIPE, 0, 8).cues is None and method_of(RunParams("purls"), RECIPE, 0, 4) is not None
    assert noise(RECIPE, 8, 8).person_valid.any(-1).sum(0).tolist() == [8, 2]


@pytest.fixture
def machine(monkeypatch):
    """One whose pose model is a fake, and whose stage one has been measured."""
    monkeypatch.setattr(factory, "build_estimator", lambda *_: FakeEstimator())
    monkeypatch.setattr(hpe_weights, "resolve_weights", lambda recipe: recipe)
    monkeypatch.setattr(stage_one, "probe", lambda *_: stage_one.Probe(1000.0, 100.0, 17, 8))


def estimated(folder, cues, *given):
    path = folder / "params.yaml"
    path.write_text(
        f"recipes: {{refined: {{frames: 8, cue_frames: 2, cues: {cues}}}}}\nruns: {{mine: {{method: skeleton}}}}\n"
        "encode: {width: 4, blocks: [1], batch_size: 4}\ntrain: {batch_size: 4}\n"
    )
    done = CliRunner().invoke(main, ["cache", "estimate", "--params", str(path), "--seconds", "0.01", *given])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize(("given", "cues", "taken"), [((), "refined", "posebridge"), ((), "none", "skeleton"),
                                                      (("--run", "mine"), "refined", "mine")])  # fmt: skip
def test_an_estimate_tells_both_stages(tmp_path, machine, given, cues, taken):
    values = json.loads(estimated(tmp_path, cues, "--json", *given))
    told = values["stage_two"]
    assert (told["run"], told["seeds"]) == (taken, 3)
    assert [e["name"] for e in told["estimates"]] == [e["name"] for e in values["estimates"]] == list(LIKES)
    assert told["hours"] == pytest.approx(sum(e["hours"] for e in told["estimates"])) and told["hours"] > 0
    assert all(told["steps"][f"{name}_seconds"] > 0 for name in ("encode", "train", "score"))


def test_an_estimate_is_told_to_people(tmp_path, machine):
    said = estimated(tmp_path, "refined")
    assert "Stage two, run posebridge, seeds: 3." in said and "The whole table: " in said
    assert said.count(" of memory") == len(LIKES)
