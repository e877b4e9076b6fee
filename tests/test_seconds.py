"""What an extraction cost: kept with the receipt of each shard, told by `cache stats` and on the page, in no shard."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes import write_video
from test_extraction import Corridor
from test_look import PLACE, looked  # noqa: F401

from pipeline.cache.reader import CacheReader
from pipeline.cache.sealed import canonical_json, seal
from pipeline.cache.seconds import Cost, cost_of
from pipeline.extract.stopwatch import Stopwatch
from pipeline.report.cost import draw_cost
from pipeline.report.extraction import read_extractions, seconds_a_clip
from pipeline.report.runs import Run, read_runs
from stages.cli import main

TIMES = {"wall": 4.0, "cpu": 6.0, "decode": 1.0, "boxes": 0.5, "pose": 2.0}


@pytest.fixture
def corridor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corridor:
    monkeypatch.setattr(Stopwatch, "read", lambda watch: dict(TIMES))  # by any clock, tests would be of the machine
    found = Corridor(tmp_path, videos=2)
    found.run(clips_per_shard=9)
    return found


def receipt_of(folder: Path) -> tuple[Path, dict]:
    (path,) = folder.rglob("shard-*.json")
    return path, json.loads(path.read_text())


@pytest.mark.unit
def test_a_stopwatch_adds_up_what_its_parts_take(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(100))
    monkeypatch.setattr("time.monotonic", lambda: float(next(now)))
    watch = Stopwatch()
    with watch.part("pose"):
        pass
    assert list(watch.each("decode", "ab")) == ["a", "b"]
    told = watch.read()
    assert (told["pose"], told["decode"]) == (1.0, 3.0), "the end has to be asked for, too"
    assert told["wall"] == 9.0 and told["cpu"] >= 0
    watch.restart()
    assert watch.read().keys() == {"wall", "cpu"}
    with pytest.raises(OSError), watch.part("pose"):
        raise OSError
    assert watch.read()["pose"] == 1.0, "what fails took its time"


@pytest.mark.e2e
def test_seconds_stand_in_the_receipt_and_add_up_over_what_is_copied(corridor: Corridor) -> None:
    (shard,) = (corridor.folder / "cache").rglob("shard-*.h5")
    content, index = shard.read_bytes(), corridor.index.read_bytes()
    assert receipt_of(corridor.folder)[1]["seconds"] == TIMES and receipt_of(corridor.folder)[1]["estimated"] == 2
    write_video(corridor.root / "2.mp4", offset=14)
    corridor.ingest()
    corridor.run(clips_per_shard=9)
    _, receipt = receipt_of(corridor.folder)
    assert receipt["estimated"] == 3 and receipt["seconds"]["wall"] == 8.0, "two were copied, with what they had cost"
    (corridor.root / "2.mp4").unlink()
    corridor.ingest()
    corridor.run(clips_per_shard=9)
    assert receipt_of(corridor.folder)[1]["seconds"]["wall"] == 8.0, "nothing was estimated"
    assert corridor.index.read_bytes() == index and shard.read_bytes() == content


@pytest.mark.e2e
def test_real_seconds_of_every_part_are_taken(tmp_path: Path) -> None:
    corridor = Corridor(tmp_path, videos=1)
    corridor.run()
    told = receipt_of(tmp_path)[1]["seconds"]
    assert told.keys() == TIMES.keys() and min(told.values()) >= 0 and told["wall"] > 0


@pytest.mark.e2e
def test_stats_and_page_tell_what_a_clip_cost(corridor: Corridor) -> None:
    options = ["cache", "stats", "--dataset", "d", "--recipe", "r", "--cache", str(corridor.folder / "cache")]
    told = json.loads(CliRunner().invoke(main, [*options, "--json"]).stdout)["extraction"]
    assert told["estimated"] == 2 and told["seconds_per_clip"] == 3.0 and told["seconds"] == TIMES
    table = CliRunner().invoke(main, options).stdout
    assert "4.0 s of a worker, 6.0 s of CPU, 2 clips" in table and "decoding" in table and "500 ms a clip" in table
    ((one,), _) = read_extractions(corridor.folder / "cache", None, "d", {"r": None})
    assert one.cells["seconds a clip"] == "3" and one.cells["decode, boxes, pose"] == "0.5 / 0.25 / 1"
    assert seconds_a_clip(corridor.folder / "cache", None, "d", ["r", "absent"]) == {"r": 3.0}


@pytest.mark.e2e
def test_receipts_of_earlier_versions_tell_no_seconds_and_are_read(corridor: Corridor) -> None:
    path, receipt = receipt_of(corridor.folder)
    for later in ("seconds", "estimated", "computed"):
        del receipt[later]
    path.write_bytes(canonical_json(seal(receipt)))
    with CacheReader(corridor.index) as reader:
        assert cost_of(reader, 9) is None
    options = ["cache", "stats", "--dataset", "d", "--recipe", "r", "--cache", str(corridor.folder / "cache")]
    shown = CliRunner().invoke(main, options)
    assert shown.exit_code == 0 and "estimated in" not in shown.stdout
    ((one,), _) = read_extractions(corridor.folder / "cache", None, "d", {"r": None})
    assert one.cells["seconds a clip"] == "–"
    shutil.rmtree(corridor.folder / "cache/store")


@pytest.mark.e2e
def test_an_extraction_in_which_every_clip_failed_has_no_seconds_to_tell(tmp_path: Path) -> None:
    corridor = Corridor(tmp_path, videos=1)
    (corridor.root / "0.mp4").write_bytes(b"no video")
    corridor.ingest()
    corridor.run()
    options = ["cache", "stats", "--dataset", "d", "--recipe", "r", "--cache", str(tmp_path / "cache")]
    shown = CliRunner().invoke(main, options)
    assert shown.exit_code == 0 and "not a readable video" in shown.stdout and "estimated in" not in shown.stdout


@pytest.mark.unit
def test_where_a_gpu_took_part_the_clock_counts() -> None:
    assert Cost(2, TIMES, {"CPU": 3}).a_clip == 3.0 and Cost(2, TIMES, {"CPU": 3, "NVIDIA H200": 1}).a_clip == 2.0
    assert Cost(2, {"wall": 1.0, "cpu": 1.0, "pose": 1.0}, {}).parts == {"pose": 0.5}


@pytest.mark.unit
def test_the_picture_of_costs_has_the_extraction_where_it_is_known(looked: Path) -> None:  # noqa: F811
    runs = read_runs(looked / PLACE)[0]
    runs = [*runs, Run(tuple(replace(result, run="other", recipe="levels") for result in runs[0].results))]
    recipe = runs[1].first.recipe
    titles = [{axes.get_xlabel() for axes in figure.axes} for figure in
              map(partial(draw_cost, runs), ({}, {recipe: 3.0}, {recipe: 3.0, "levels": 5.0})) if figure]  # fmt: skip
    assert titles[0] == titles[1], "of one recipe it tells nothing"
    assert titles[2] - titles[0] == {"seconds of extraction a clip"}
