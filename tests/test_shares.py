"""Shares of the shards for the tasks of a cluster, how far all of them are, and the command's options for it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from test_extraction import Corridor, write_ground_truth

from pipeline.cache import shard as shard_module
from pipeline.cache.sealed import canonical_json, seal
from pipeline.errors import PosebridgeError
from pipeline.extract.share import array_of, read_share, share_of_array
from pipeline.recipe import Recipe
from stages import extract as stage
from stages.cli import main

SLURM = "SLURM_ARRAY_TASK_"


@pytest.mark.unit
def test_a_share_is_i_of_n():
    assert read_share("0/1") == (0, 1) and read_share(" 7 / 8 ") == (7, 8)
    for odd in ("8/8", "1", "-1/8", "0/0", "1/8/2", "", "x/y", "1" * 20 + "/8"):
        with pytest.raises(PosebridgeError, match="should be i/N, like 0/8 to 7/8"):
            read_share(odd)


@pytest.mark.unit
def test_a_task_of_an_array_has_its_share():
    def task(number: str, least: str, most: str, count: str):
        values = {"ID": number, "MIN": least, "MAX": most, "COUNT": count}
        return share_of_array({SLURM + name: value for name, value in values.items()})

    assert task("0", "0", "7", "8") == (0, 8) and task("8", "1", "8", "8") == (7, 8)
    assert share_of_array({}) is None and share_of_array({SLURM + "ID": "3"}) is None
    with pytest.raises(PosebridgeError, match="numbers from 3 to 40, with gaps; name the share with"):
        task("17", "3", "40", "3")


@pytest.mark.unit
def test_numbers_become_an_array():
    assert array_of([]) == "" and array_of([5]) == "5" and array_of([9, 0, 1, 2, 7, 10]) == "0-2,7,9-10"


@pytest.fixture
def corridor(tmp_path, monkeypatch):
    """A data set whose skeletons are known, so that no process needs a pose model; and the command's options for it."""
    recipe = Recipe(backend="ground_truth", cues="none", frames=8, boxes="manifest", weights="", hpe_text="none")
    made = Corridor(tmp_path, recipe=recipe)
    write_ground_truth(made.root, list("543210"))
    params = tmp_path / "params.yaml"
    params.write_text(
        f"datasets: {{d: {{root: {made.root}}}}}\nextract: {{clips_per_shard: 2}}\n"
        "recipes: {r: {backend: ground_truth, cues: none, frames: 8, boxes: manifest}}\n"
    )
    monkeypatch.chdir(tmp_path)
    return made


def run(*options: str, cache: str = "cache", code: int = 0):
    words = ["extract", "--dataset", "d", "--recipe", "r", "--cache", cache, "--json", *options]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if code == 0 else result.stderr


@pytest.mark.e2e
def test_the_command_with_two_workers_gives_what_it_gives_with_one(corridor):
    one, two = run(cache="one"), run("--workers", "2", "--executor", "local", cache="two")
    assert (one["estimated"], one["complete"]) == (two["estimated"], two["complete"]) == (6, True)
    (left,), (right,) = ((corridor.folder / name / "store/d").iterdir() for name in ("one", "two"))
    shards = sorted(path.name for path in left.glob("*.h5"))
    assert shards == sorted(path.name for path in right.glob("*.h5")) and len(shards) > 1
    assert len({(corridor.folder / name / "d/r/index.json").read_bytes() for name in ("one", "two")}) == 1


@pytest.mark.e2e
def test_the_plan_counts_shards_and_names_the_missing_ones(corridor, monkeypatch):
    assert run("--plan") | {"store": ""} == {
        "store": "", "shards": 3, "done": 0, "leased": 0, "missing": 3, "failed": 0, "clips": 6, "clips_left": 6,
        "clips_failed": 0, "hours_left": None, "tasks": 3, "array": "0-2",
    }  # fmt: skip
    assert not (corridor.folder / "cache").exists(), "a plan writes nothing"
    for name, value in {"ID": "2", "MIN": "1", "MAX": "3", "COUNT": "3"}.items():
        monkeypatch.setenv(SLURM + name, value)
    assert run()["complete"] is False
    (store,) = (corridor.folder / "cache/store/d").iterdir()
    assert [path.name for path in store.glob("shard-?????.json")] == ["shard-00001.json"]
    (store / "shard-00002.lease").write_text('{"machine": "elsewhere", "pid": 1, "version": ""}')
    plan = run("--plan")
    assert (plan["done"], plan["leased"], plan["missing"], plan["array"]) == (1, 1, 1, "0")
    said = CliRunner().invoke(main, ["extract", "--dataset", "d", "--recipe", "r", "--plan"]).stdout
    assert "sbatch --array=0 with `posebridge extract --dataset d --recipe r --shard $SLURM_ARRAY_TASK_ID/3`" in said


@pytest.mark.e2e
def test_hours_left_are_those_between_the_shards_that_are_done(corridor):
    params = corridor.folder / "params.yaml"
    params.write_text(params.read_text().replace("clips_per_shard: 2", "clips_per_shard: 1"))
    run()
    receipts = sorted(corridor.folder.glob("cache/store/d/*/shard-?????.json"))
    assert len(receipts) >= 5
    for hour, receipt in enumerate(receipts):
        told = {"time": f"2026-01-01T{2 * hour:02}:00:00+00:00"}
        receipt.write_bytes(canonical_json(seal(json.loads(receipt.read_text()) | told)))
    for receipt in receipts[-2:]:
        receipt.unlink()
    plan = run("--plan")
    assert (plan["missing"], plan["hours_left"]) == (2, 4.0)


@pytest.mark.e2e
def test_a_receipt_of_an_odd_time_disturbs_no_plan(corridor):
    run()
    receipt = next(corridor.folder.glob("cache/store/d/*/shard-00001.json"))
    receipt.write_bytes(canonical_json(seal(json.loads(receipt.read_text()) | {"time": "yesterday"})))
    assert run("--plan")["done"] == 3


@pytest.mark.e2e
def test_the_index_is_written_by_the_last_share_or_by_finish(corridor):
    index = corridor.folder / "cache/d/r/index.json"
    assert "3 of 3 shards" in run("--finish", code=1)
    assert not run("--shard", "0/2")["complete"] and not index.exists()
    said = CliRunner().invoke(main, ["extract", "--dataset", "d", "--recipe", "r", "--shard", "0/2"])
    assert said.exit_code == 0 and "not written: other shares are not done" in said.stdout
    assert run("--shard", "1/2")["complete"] and index.exists()
    index.unlink()
    assert run("--finish")["changed"] and index.exists()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("options", "share"),
    [("", (0, 2)), ("--workers 2", (0, 2)), ("--workers 2 --shard 2/5", (2, 5)), ("--finish", (0, 1))],
)
def test_a_task_of_an_array_makes_its_share_by_one_worker_or_several(corridor, monkeypatch, options, share):
    def called(*given, share, **named):
        raise PosebridgeError(f"share {share}")

    monkeypatch.setattr("pipeline.extract.extract.extract", called)
    for name, value in {"ID": "1", "MIN": "1", "MAX": "2", "COUNT": "2"}.items():
        monkeypatch.setenv(SLURM + name, value)
    assert f"share {share}" in run(*options.split(), code=1)


@pytest.mark.e2e
def test_a_plan_reads_no_shard(corridor, monkeypatch):
    run()
    listed = corridor.folder / "manifests/d/clips.csv"
    lines = listed.read_text().splitlines()
    listed.write_text("\n".join(lines[:-1]) + "\n")  # one shard is to be made anew, of clips that it has
    monkeypatch.setattr(shard_module, "sha256_file", lambda path: pytest.fail(f"reads {path}"))
    assert (run("--plan")["done"], run("--plan")["clips_left"]) == (2, 0)


@pytest.mark.unit
def test_wrong_calls(monkeypatch):
    for words in (["--shard", "3/3"], ["--workers", "0"], ["--executor", "cloud"], ["--plan", "--finish"]):
        assert CliRunner().invoke(stage.command, ["--dataset", "d", *words]).exit_code == 2, words
