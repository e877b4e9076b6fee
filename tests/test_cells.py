"""Tables of protocols x runs x seeds through an executor: the same files, wherever a cell is computed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pipeline.bench import scale_store
from pipeline.bench.scale_store import NAME, Like, make_store
from pipeline.errors import PosebridgeError
from pipeline.executors.base import outcome_of
from pipeline.learn import dataset as datasets
from pipeline.learn.cells import Cell, CellsJob, do_cells
from pipeline.learn.encode import encode_cell
from pipeline.learn.evaluate import evaluate_cell
from pipeline.learn.train import train_cell
from pipeline.params import load_params
from pipeline.text.bank import bank_path
from stages import workers
from stages.cli import main

PARAMS = {
    "recipes": {NAME: {}},
    "runs": {"a": {"method": "skeleton", "recipe": NAME}, "b": {"method": "skeleton", "recipe": NAME, "seeds": [1]}},
    "encode": {"epochs": 1, "width": 4, "blocks": [1, 1, 1], "seeds": [0, 1]},
    "train": {"epochs": 1, "views": 1},
}


class Elsewhere:
    """An executor whose work comes through a pickle, as to another machine."""

    here = False

    def __init__(self):
        self.units: list[list[int]] = []

    def run(self, work, units):
        self.units.append(list(units))
        for unit in reversed(units):
            yield outcome_of(pickle.loads(pickle.dumps(work)), unit, "a.log")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A little data set of noise with two protocols, extracted."""
    folder = tmp_path_factory.mktemp("cells")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale_store, "RECIPE", replace(scale_store.RECIPE, persons=1, frames=8, cue_frames=4))
        make_store(folder, Like(60, 8, 2, 2, 0.2), 60, ("global", "one_line", "hands"))
    protocols = folder / "manifests" / NAME / "protocols"
    for suffix in (".txt", ".val.txt"):
        shutil.copy(protocols / f"{NAME}{suffix}", protocols / f"other{suffix}")
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    return folder


def posebridge(*arguments: str) -> dict:
    done = CliRunner().invoke(main, [*arguments, "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def products(folder: Path) -> dict[str, bytes]:
    """What is computed: weights, predictions and resolved parameters, without what names times."""
    found = [path for kind in ("encoders", "models", "results") for path in (folder / "cache" / kind).rglob("*.*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.suffix != ".json"}


@pytest.mark.e2e
def test_a_table_is_the_same_wherever_its_cells_are_computed(project, tmp_path, monkeypatch, one_thread):
    table = ("--dataset", NAME, "--protocol", NAME, "--protocol", "other")
    runs = ("--run", "a", "--run", "b")
    told, made = [], []
    elsewhere = Elsewhere()
    for name in ("here", "there"):
        shutil.copytree(project, tmp_path / name)
        monkeypatch.chdir(tmp_path / name)
        if name == "there":
            monkeypatch.setattr(workers, "build_executor", lambda *given: elsewhere)
        told.append([
            posebridge("encode", *table, "--skeletons", NAME),
            posebridge("train", *table, *runs),
            posebridge("evaluate", *table, *runs),
        ])  # fmt: skip
        made.append(products(tmp_path / name))
    assert made[0] == made[1] and len(made[0]) > 2 * 3 * 3
    assert [len(units) for units in elsewhere.units] == [2 * 2, 2 * 3, 2 * 3]
    assert told[0][:2] == told[1][:2]
    assert [(each["models"], each["seeds"]) for each in told[1][1]["table"]] == [
        (f"cache/models/{NAME}/{protocol}/{run}", seeds)
        for protocol in (NAME, "other") for run, seeds in (("a", [0, 1]), ("b", [1]))
    ]  # fmt: skip
    shown = [[(r["results"], [m["seed"] for m in r["metrics"]]) for r in each[2]["table"]] for each in told]
    assert shown[0] == shown[1] and len(shown[0]) == 4
    assert not list((tmp_path / "there/cache/state").rglob("*.safetensors")), "no state of a training stays"
    for path in [*Path("cache/encoders").rglob("seed-0"), *Path("cache/models").rglob("seed-0")]:
        shutil.rmtree(path)
    for do in (train_cell, evaluate_cell):  # a cell asks for nothing of other seeds
        CellsJob(do, (Cell(NAME, "a", 1),), NAME, load_params(Path("params.yaml")), "cpu")(0)


@pytest.mark.unit
def test_a_cell_that_fails_is_named_with_its_log_and_the_others_are_done(project, monkeypatch):
    monkeypatch.chdir(project)
    cells = (Cell(NAME, "nobody", 0), Cell(NAME, NAME, 1), Cell("nothing", NAME, 1))
    job, told = CellsJob(encode_cell, cells, NAME, load_params(Path("params.yaml")), "cpu"), []
    with pytest.raises(PosebridgeError) as caught:
        do_cells(job, Elsewhere(), lambda *count: told.append(count))
    assert str(caught.value).startswith(f"{NAME}, nobody, seed 0 (and 1 more) failed: ")
    assert "; its log is a.log; put this right" in str(caught.value)
    assert told == [(1, 3), (2, 3), (3, 3)] and list(Path("cache/encoders").rglob("seed-1/final.safetensors"))
    shutil.rmtree("cache/encoders")


@pytest.mark.unit
def test_a_process_reads_texts_once_as_long_as_they_are_the_same(project, monkeypatch):
    monkeypatch.chdir(project)
    read, load = [], datasets.load_bank
    monkeypatch.setattr(datasets, "load_bank", lambda *given: read.append(given) or load(*given))
    opened = datasets.open_dataset(NAME)
    banks = [dataset.bank("minilm") for dataset in (opened, opened.of(NAME), opened)]
    assert len(read) == 1 and banks[0] is banks[1] is banks[2]
    os.utime(bank_path(NAME, "minilm"), ns=(1, 1))
    assert opened.bank("minilm") is not banks[0] and len(read) == 2, "it may be another by now"
    with pytest.raises(PosebridgeError, match="another classes.csv"):
        replace(opened, class_names=opened.class_names[:-1]).bank("minilm")


@pytest.mark.unit
def test_what_is_missing_is_told_before_anything_is_sent(project, monkeypatch):
    monkeypatch.chdir(project)
    elsewhere = Elsewhere()
    monkeypatch.setattr(workers, "build_executor", lambda *given: elsewhere)
    done = CliRunner().invoke(main, ["train", "--dataset", NAME, "--protocol", NAME, "--run", "a", "--device", "cpu"])
    assert done.exit_code == 1 and "posebridge encode" in done.output and not elsewhere.units


@pytest.mark.unit
@pytest.mark.parametrize("there", [("--executor", "slurm"), ("--executor", "local", "--workers", "2")])
@pytest.mark.parametrize("stage", [("encode", "--skeletons", NAME), ("train", "--run", "a")])
def test_jobs_of_this_machine_and_workers_of_an_executor_exclude_each_other(project, monkeypatch, stage, there):
    monkeypatch.chdir(project)
    monkeypatch.setattr(workers, "build_executor", lambda *given: Elsewhere())
    done = CliRunner().invoke(main, [*stage, "--dataset", NAME, "--protocol", NAME, "--jobs", "2", *there])
    assert done.exit_code == 2 and "give --workers instead of --jobs" in done.output.replace("\n", " ")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("stage", "looks", "options"),
    [("encode", "require_for_encoding", ("--skeletons", NAME)), ("train", "require_for_training", ("--run", "a"))],
)
def test_what_the_last_of_a_table_lacks_is_told_before_the_first_is_trained(
    project, monkeypatch, stage, looks, options
):
    def lacking(opened, protocol, *_):
        if protocol == "other":
            raise PosebridgeError("Something is missing.")

    monkeypatch.chdir(project)
    monkeypatch.setattr(f"pipeline.learn.{stage}.{looks}", lacking)
    monkeypatch.setattr(f"pipeline.learn.{stage}.{stage}", lambda *_: pytest.fail("it trained"))
    table = ("--dataset", NAME, "--protocol", NAME, "--protocol", "other", *options, "--device", "cpu")
    done = CliRunner().invoke(main, [stage, *table])
    assert done.exit_code == 1 and "Something is missing." in done.output
