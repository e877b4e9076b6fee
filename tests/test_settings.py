"""A result tells by what settings it was trained, whatever the parameters are by the time it is tested."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import h5py
import pytest
import yaml
from synthetic import FLAGS, PARAMS, PROTOCOL, make_world

from pipeline.cache.sealed import read_sealed, seal
from pipeline.learn import evaluate as evaluation
from pipeline.learn.encode import encode
from pipeline.learn.run import open_run
from pipeline.learn.train import train
from pipeline.params import RunParams
from pipeline.report.runs import read_runs
from pipeline.text.bank import bank_path

pytestmark = pytest.mark.unit
RUN = RunParams(flags=FLAGS)
ENCODE = replace(PARAMS.encode, epochs=1, seeds=(0, 1))
QUICK = replace(PARAMS, encode=ENCODE, train=replace(PARAMS.train, epochs=1))


@pytest.fixture
def world(tmp_path):
    world = make_world(tmp_path, train=5, twins=2)
    encode(world, PROTOCOL, "refined", QUICK.encode)
    train(world, PROTOCOL, "run", RUN, QUICK)
    return world


def test_seeds_of_other_settings_are_not_averaged_though_all_are_tested_with_the_same_parameters(world):
    def told():
        evaluation.evaluate(world, PROTOCOL, "run", RUN, QUICK)
        ((run,), complaints) = read_runs(world.cache / "results")
        return run.seeds, complaints

    assert told() == ((0, 1), [])
    other = replace(QUICK, train=replace(QUICK.train, lr=QUICK.train.lr / 2))
    train(world, PROTOCOL, "run", RUN, other, seeds=(1,))
    seeds, (complaint,) = told()
    assert seeds == (0,) and "section `train` of params.yaml" in complaint
    encode(world, PROTOCOL, "refined", replace(ENCODE, dropout=0.2), seeds=(1,))
    train(world, PROTOCOL, "run", RUN, QUICK, seeds=(1,))
    seeds, (complaint,) = told()
    assert seeds == (0,) and "section `encode` of params.yaml" in complaint
    encode(world, PROTOCOL, "refined", ENCODE, seeds=(1,))
    train(world, PROTOCOL, "run", RUN, QUICK, seeds=(1,))
    assert told() == ((0, 1), [])
    place = world.cache / "results/toy" / PROTOCOL / "run"
    metrics = [json.loads((place / f"seed-{seed}/metrics.json").read_text()) for seed in (0, 1)]
    assert len({one["text_sha256"] for one in metrics}) == len({one["selection"]["trained_on"] for one in metrics}) == 1
    # Other descriptions of unseen classes, which nothing is trained on, when one of them was tested.
    path = bank_path("toy", "minilm", world.cache)
    with h5py.File(path, "r+") as file:
        file.attrs["sources_sha256"] = "of other texts"
    evaluation.evaluate(world, PROTOCOL, "run", RUN, QUICK, seeds=(0,))
    (run,), (complaint,) = read_runs(world.cache / "results")
    assert run.seeds == (0,) and "another set of descriptions than seed 0" in complaint
    with h5py.File(path, "r+") as file:
        del file.attrs["sources_sha256"]
    # A model from before settings were told, tested by parameters of today: its persons were not swapped, its encoder
    # was the light one.
    chosen = world.cache / "models/toy" / PROTOCOL / "run/seed-0/selection.json"
    older = read_sealed(chosen, "train")
    assert older.pop("settings")
    chosen.write_text(json.dumps(seal(older)))
    today = replace(QUICK, encode=replace(ENCODE, encoder="shift_gcn"))
    folder = evaluation.evaluate(world, PROTOCOL, "run", RUN, today, seeds=(0,))
    values = yaml.safe_load((folder / "seed-0/params.yaml").read_text())
    assert today.train.swap_persons and values["train"]["swap_persons"] is False
    assert values["encode"]["encoder"] == "light" and values["train"]["lr"] == today.train.lr


def test_pose_weights_of_skeletons_are_told_of_where_cues_are_of_others(tmp_path):
    """The cues' weights know no word, the skeletons' do: the run does."""
    world = make_world(tmp_path, train=5, twins=2)
    plain = world.readers["refined"]
    worded = copy.copy(plain)
    worded.recipe = replace(plain.recipe, hpe_text="captions")
    plain.recipe = replace(plain.recipe, hpe_text="none")
    both = replace(world, readers=world.readers | {"worded": worded})
    assert open_run(both, PROTOCOL, replace(RUN, skeletons="worded")).hpe_text == "captions"
    assert open_run(both, PROTOCOL, RUN).hpe_text == "none"


def test_a_test_that_is_killed_leaves_no_figures_beside_answers_of_another(world, monkeypatch):
    folder = evaluation.evaluate(world, PROTOCOL, "run", RUN, QUICK, seeds=(0,))
    assert (folder / "seed-0/metrics.json").is_file()

    def kill(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "write_ceiling", kill)  # its answers are written
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(world, PROTOCOL, "run", RUN, QUICK, seeds=(0,))
    assert (folder / "seed-0/predictions.csv").is_file() and not (folder / "seed-0/metrics.json").exists()
    monkeypatch.undo()
    monkeypatch.setattr(evaluation, "write_resolved", kill)  # by what it was trained comes before the figures
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(world, PROTOCOL, "run", RUN, QUICK, seeds=(0,))
    assert not (folder / "seed-0/metrics.json").exists()
