"""The price of each leak: clean figures are those of evaluation, and no product path comes near a leaky one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from synthetic import FLAGS, PARAMS, PROTOCOL, make_world
from test_purls import give_eight_slots

from pipeline.benchmarks import leaks
from pipeline.encoding import encode
from pipeline.errors import PosebridgeError
from pipeline.evaluation import evaluate
from pipeline.methods.purls import Purls
from pipeline.params import RunParams
from pipeline.phases import train
from pipeline.report.prices import read_prices
from pipeline.report.results import read_runs
from pipeline.runs import open_run
from pipeline.text.bank import bank_path

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parent.parent
QUICK = replace(PARAMS, train=replace(PARAMS.train, epochs=6))
RUNS = {
    "posebridge": RunParams(flags=FLAGS | {"text_slots": ["hands", "global"]}, adapt="pgfa"),
    "purls": RunParams("purls", {"width": 8, "hidden": 32}),
    "pgfa": RunParams("pgfa", {"hidden": [8], "out": 16, "epochs": 4, "text_slots": ["global"]}),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    torch.set_num_threads(1)
    world = make_world(tmp_path_factory.mktemp("price"))
    give_eight_slots(bank_path("toy", "minilm", world.cache))
    encode(world, PROTOCOL, "refined", PARAMS.encode)
    for name, run in RUNS.items():
        train(world, PROTOCOL, name, run, QUICK)
    return world


def metrics(world, name):
    folder = evaluate(world, PROTOCOL, name, RUNS[name], QUICK)
    return json.loads((folder / "seed-0/metrics.json").read_text())


@pytest.mark.parametrize("name", RUNS)
def test_clean_figures_are_those_of_evaluation(world, name):
    found = metrics(world, name)
    reported = {"top-1": found["zsl"]["top1"], "H": found["gzsl"]["harmonic"]}
    if found["adapted"]:
        reported["adapted top-1"] = found["adapted"]["top1"]
    rows = leaks.prices(leaks.open_tested(open_run(world, PROTOCOL, RUNS[name]), PROTOCOL, name, 0))
    assert {row["figure"] for row in rows} == set(reported)
    for row in rows:
        assert row["clean"] == pytest.approx(reported[row["figure"]], abs=1e-12), row
        assert 0 <= row["leaky"] <= 1
        if "chosen on test" in row["leak"]:
            assert row["leaky"] >= row["clean"], row
    by_name = {row["leak"] for row in rows}
    assert ("pooled by the true class" in by_name) == (name == "purls")
    assert ("values chosen on test" in by_name) == ("adaptation chosen on test" in by_name) == (name == "posebridge")


def test_pooling_by_the_true_class_pays(world, monkeypatch):
    """A method that sees nothing but what it is pooled by: each candidate confirms itself, or the true one."""
    tested = leaks.open_tested(open_run(world, PROTOCOL, RUNS["purls"]), PROTOCOL, "purls", 0)
    blind = lambda method, features, text: method.describe(text).expand(len(features.quality), -1, -1)  # noqa: E731
    monkeypatch.setattr(Purls, "keep", blind)
    row = next(row for row in leaks.prices(tested) if row["leak"] == "pooled by the true class")
    assert row["clean"] <= 0.25 and row["leaky"] == 1.0


def test_the_best_epoch_on_test_is_compared_with_the_chosen_one(world):
    found = metrics(world, "pgfa")
    opened = open_run(world, PROTOCOL, RUNS["pgfa"])
    row = leaks.price_of_the_best_epoch(opened, 0, found["selection"]["epochs"], QUICK)
    assert row["clean"] == found["zsl"]["top1"] <= row["leaky"]


def test_the_table_of_a_run_is_read_by_the_report(world):
    run = RUNS["purls"]
    evaluate(world, PROTOCOL, "purls", run, QUICK)
    told = []
    path = leaks.price_run(world, PROTOCOL, "purls", run, QUICK, lambda seeds: told.extend(seeds) or seeds)
    assert path == world.cache / "leaks" / world.name / PROTOCOL / "purls.csv" and told == list(QUICK.encode.seeds)
    runs, _ = read_runs(world.cache / "results")
    runs = [found for found in runs if found.first.run == "purls"]
    prices = read_prices(path.parent, runs)
    assert {price.leak for price in prices} > {"pooled by the true class", "epoch chosen on test"}
    assert all(len(price.clean) == len(told) for price in prices)
    assert [price.gain.mean for price in prices][0] == max(price.gain.mean for price in prices)
    path.write_text("leak,figure\nnone,top-1\n")
    with pytest.raises(PosebridgeError, match="bench leaks"):
        read_prices(path.parent, runs)


def test_nothing_but_the_experiment_imports_it():
    """Neither training nor evaluation can leak by a switch: the leaks are in a file that they do not know."""
    for folder in ("pipeline", "stages"):
        for path in (ROOT / folder).rglob("*.py"):
            known = "pipeline.benchmarks.leaks" in path.read_text() or "import leaks" in path.read_text()
            assert not known or path.name in ("leaks.py", "bench.py"), path
