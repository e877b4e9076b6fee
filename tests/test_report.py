"""The report on made-up results: what it says, what it refuses, and that the page stands alone."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from PIL import Image

from pipeline.errors import PosebridgeError
from pipeline.manifest.variants import strength
from pipeline.protocol.metrics import binomial_interval
from pipeline.protocol.spread import spread_of
from pipeline.report import figures
from pipeline.report.answers import read_answers
from pipeline.report.leaderboard import filled, rows
from pipeline.report.prices import read_prices
from pipeline.report.report import make_report
from pipeline.report.results import results as frame_of
from pipeline.report.runs import chosen_before_test, read_confusion, read_runs
from stages.report import command

pytestmark = pytest.mark.unit
MANIFESTS = Path(__file__).parent.parent / "manifests"
UNSEEN = ["lift a bottle overhead", "lift an umbrella overhead", "lift a book overhead",
          "strike with a bottle", "strike with an umbrella", "strike with a book"]  # fmt: skip
NOBODY = '{"a": {"right": 0, "macro": 0, "values": {"b": [0, 0]}}}'  # halves of an answer, of no clip


def write_result(root: Path, run: str, seed: int, **changes: Any) -> Path:
    """A made-up result of 180 clips on skelgap-mini; `right` of 30 clips a class are right."""
    right = changes.pop("right", 20)
    counts = np.full((6, 6), 0, int)
    for row in range(6):
        counts[row, row] = right
        counts[row, (row + 1) % 3 + row // 3 * 3] += 30 - right  # the rest falls on the same motion
    hits, n = int(np.trace(counts)), int(counts.sum())
    data: dict[str, Any] = {
        "dataset": "skelgap-mini", "protocol": "compositional_18_6", "run": run, "method": "posebridge", "flags": {},
        "seed": seed, "recipe": "refined", "text": "minilm", "hpe_text": "captions", "skeletons": "estimated",
        "test_variant": "",
        "zsl": {"top1": hits / n, "macro": hits / n, "n": n, "ci95": list(binomial_interval(hits, n))},
        "gzsl": {"seen": 0.7, "unseen": 0.4, "harmonic": 0.509, "ausuc": 0.35}, "adapted": None,
        "selection": {"epochs": 24, "alpha": 0.5, "gamma": 0.3 + seed / 10, "zsl_top1": 0.987, "seconds": 77.0,
                      "trained_on": "9f" * 32},
        "ceiling": {"skeleton": 1 / 3, "cue": 0.5, "twin_hits_max": 3}, "params": 1_234_567, "gflops": 0.031,
        "seconds": 41.0, "missing": 0,
    }  # fmt: skip
    folder = root / data["dataset"] / data["protocol"] / run / f"seed-{seed}"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(data | changes))
    (folder / "params.yaml").write_text("encode: {}\ntrain: {}\n")
    with (folder / "confusion.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["class", *UNSEEN])
        writer.writerows([name, *row] for name, row in zip(UNSEEN, counts.tolist(), strict=True))
    return folder / "metrics.json"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three runs as the demo has them: 3 seeds, 3 seeds, and a single run on true skeletons."""
    root = tmp_path / "results"
    for seed, right in enumerate((20, 19, 22)):
        write_result(root, "posebridge", seed, right=right)
    for seed, right in enumerate((11, 10, 12)):
        write_result(root, "skeleton", seed, right=right, method="skeleton")
    write_result(root, "skeleton_gt", 0, right=10, method="skeleton", skeletons="gt", gzsl=None,
                 ceiling={"skeleton": 1 / 3, "cue": 0.5, "twin_hits_max": 1})  # fmt: skip
    return root


def test_means_and_deviations_over_seeds(results: Path) -> None:
    runs, complaints = read_runs(results)
    assert [run.first.run for run in runs] == ["posebridge", "skeleton", "skeleton_gt"] and not complaints
    top1 = [20 / 30, 19 / 30, 22 / 30]
    spread = runs[0].spread("zsl", "top1")
    assert spread is not None and spread.mean == pytest.approx(statistics.fmean(top1))
    assert spread.std == pytest.approx(np.std(top1, ddof=1))
    single = runs[2].spread("zsl", "top1")
    assert single is not None and single.std is None and runs[2].single
    assert runs[2].spread("gzsl", "harmonic") is None


def test_a_mean_that_is_rounded_at_a_5_is_the_same_in_any_order_of_seeds() -> None:
    told = {spread_of([hits / 400 for hits in order]).percent for order in itertools.permutations((361, 126, 210, 75))}
    assert len(told) == 1 and told.pop().startswith("48.2 ± ")


def test_leakage_is_the_excess_of_the_skeleton_run_on_estimated_skeletons_only(results: Path) -> None:
    posebridge, skeleton, skeleton_gt = read_runs(results)[0]
    told = [result.zsl["ci95"] for result in skeleton.results]  # with twins, and without answers to draw from
    low, high = np.mean(told, axis=0)
    assert skeleton.leakage == pytest.approx((11 / 30 - 1 / 3, low - 1 / 3, high - 1 / 3))
    assert posebridge.leakage is None and skeleton_gt.leakage is None
    assert skeleton_gt.twin_hits_max == 1


def test_confusion_is_summed_over_seeds(results: Path) -> None:
    found = read_confusion(read_runs(results)[0][0])
    assert found is not None and list(found) == list(found.index) == UNSEEN
    assert found.to_numpy().sum() == 3 * 180 and np.trace(found) == 6 * (20 + 19 + 22)


def test_report_writes_tables_pictures_and_a_page_that_stands_alone(results: Path, tmp_path: Path) -> None:
    resolved = {"encode": {"epochs": 20}, "train": {"lr": 0.002}}
    recipe_of = {"posebridge": "refined", "skeleton": "refined", "skeleton_gt": "gt"}
    for place in (results / "skelgap-mini/compositional_18_6").glob("*/seed-*"):
        told = json.dumps({"seed": 0} | resolved) if place.parent.name == "posebridge" else "train: ["
        (place / "params.yaml").write_text(told)
    report = make_report(results, tmp_path / "report", MANIFESTS)
    with report.csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["posebridge", "skeleton", "skeleton_gt"]
    assert float(rows[0]["zsl_top1_mean"]) == pytest.approx(61 / 90, abs=1e-5)
    assert float(rows[0]["chance"]) == pytest.approx(1 / 6, abs=1e-5)
    costs = {"params": 1_234_567, "gflops": 0.031, "seconds": 41.0, "training_seconds": 77.0}
    assert {name: float(rows[0][name]) for name in costs} == pytest.approx(costs, rel=1e-5)
    assert json.loads(rows[0]["settings"]) == resolved and rows[1]["settings"] == rows[2]["settings"] == ""
    assert rows[2]["seeds"] == "1" and rows[2]["zsl_top1_std"] == "" and rows[2]["gzsl_harmonic_mean"] == ""
    assert "67.8 ± 5.1" in report.markdown.read_text() and "single run" in report.markdown.read_text()
    page = report.html.read_text()
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)\"", page)
    assert addresses and all(address.startswith(("data:image/png;base64,", "#")) for address in addresses)
    assert "://" not in page and "url(" not in page
    for text in ("33.3 %", "50.0 %", "Chance is 16.7 %", "single run", "alpha 0.5, gamma 0.3 / 0.4 / 0.5", "1.23 M"):
        assert text in page, text
    bars = re.findall(r'<div class="scroll">\s*<img', page)
    assert len(bars) == 2, "bars and dots with names are not shrunk to a phone's width"
    assert "0.987" not in page, "a score of the selection phase is no result"
    assert "9f9f9f" not in page, "a hash is no chosen value"
    settings = page[page.index("Settings and cost</h3>") :]
    recipes = {run: re.search(f"<td>{run}</td><td[^>]*>[^<]*</td><td[^>]*>([^<]*)</td>", settings) for run in recipe_of}
    assert {run: found and found[1] for run, found in recipes.items()} == recipe_of, "what is read, not what could be"
    low, high = np.mean([result.zsl["ci95"] for result in report.runs[0].results], axis=0)
    assert f"{100 * low:.1f} to {100 * high:.1f}" in page, "the interval of the mean beside it"
    pictures = sorted(path.name for path in (tmp_path / "report").rglob("*.png"))
    confusions = [f"{run}-confusion.png" for run in ("posebridge", "skeleton", "skeleton_gt")]
    assert pictures == ["cost.png", *confusions, "top1.png"]


def test_the_page_says_when_twins_on_true_skeletons_leak(results: Path, tmp_path: Path) -> None:
    assert "something leaks" not in make_report(results, tmp_path / "report", MANIFESTS).html.read_text()
    write_result(results, "skeleton_gt", 1, method="skeleton", skeletons="gt", gzsl=None,
                 ceiling={"skeleton": 1 / 3, "cue": 0.5, "twin_hits_max": 2})  # fmt: skip
    assert "something leaks" in make_report(results, tmp_path / "report", MANIFESTS).html.read_text()


def test_the_row_to_quote_is_chosen_by_the_selection_phase_whatever_the_test_says(tmp_path: Path) -> None:
    """Planted: the row that tests best is another one, then those of true skeletons, of a reference, of a variant."""
    told, test = {"a": 0.5, "b": 0.7, "c": 0.9}, {"a": 25, "b": 20, "c": 10}
    for turned in (False, True):
        root = tmp_path / f"{turned}/results"
        for run, top1 in told.items():
            right = test[run] if not turned else 30 - test[run]
            both = {"epochs": 1, "zsl_top1": 1 - top1, "gzsl_ausuc": top1}  # it chose by the area
            write_result(root, run, 0, right=right, selection=both)
        sure = {"selection": {"epochs": 1, "gzsl_ausuc": 1.0}, "right": 30}
        write_result(root, "true", 0, skeletons="gt", **sure)
        write_result(root, "other", 0, cues_from="image-text", **sure)
        write_result(root, "c@blur-1", 0, test_variant="blur-1", **sure)
        report = make_report(root, tmp_path / f"{turned}/report", MANIFESTS)
        shown = dict(rows(report.runs)[["run", "phase one"]].to_numpy().tolist())
        assert {run: shown[run] for run in told} == {"a": "50.0", "b": "70.0", "c": "90.0 ◂"}
        assert not any("◂" in shown[run] for run in ("true", "other", "c@blur-1"))
        with report.csv.open(newline="") as file:
            said = {row["run"]: row["chosen_before_test"] for row in csv.DictReader(file)}
        assert [run for run, one in said.items() if one == "True"] == ["c"]
        assert "90.0 ◂" in report.html.read_text() and "90.0 ◂" in report.markdown.read_text()
    assert not chosen_before_test(read_runs(root)[0][:1]), "of one there is nothing to choose"


@pytest.mark.parametrize("right", [(25, 10), (10, 25)])
def test_of_rows_that_the_selection_phase_likes_as_well_none_is_chosen_by_the_test(tmp_path: Path, right) -> None:
    for run, hits in zip(("a", "b"), right, strict=True):
        write_result(tmp_path, run, 0, right=hits, selection={"epochs": 1, "zsl_top1": 0.5})
        write_result(tmp_path, f"imported_{run}", 0, right=hits, selection={"zsl_top1": 0.9}, skeletons="imported",
                     features="imported")  # fmt: skip
    write_result(tmp_path, "cues", 0, selection={"zsl_top1": 0.4}, features="imported")
    assert [run.first.run for run in chosen_before_test(read_runs(tmp_path)[0])] == ["a", "imported_a"]


def test_an_ablation_that_the_selection_phase_likes_best_is_named_on_the_page(tmp_path: Path) -> None:
    for run, top1, flags in (("posebridge", 0.6, {}), ("gate", 0.7, {"gate": True})):
        write_result(tmp_path / "results", run, 0, flags=flags, selection={"epochs": 1, "zsl_top1": top1})
    page = make_report(tmp_path / "results", tmp_path / "report", MANIFESTS).html.read_text()
    assert "Here that is gate, below." in page and "60.0 ◂" not in page


def test_missing_and_repeated_test_clips_are_counted_in_the_table(tmp_path: Path) -> None:
    write_result(tmp_path / "results", "posebridge", 0)
    write_result(tmp_path / "results", "posebridge", 1, missing=4, repeated=3, classes_without_clips=["wave"])
    write_result(tmp_path / "results", "skeleton", 0, repeated=0)
    write_result(tmp_path / "results", "nobody", 0)  # has looked
    report = make_report(tmp_path / "results", tmp_path / "report", MANIFESTS)
    page = report.html.read_text()
    assert "4 test clips are missing" in page and "None is left</span> of &#39;wave&#39;, so" in page
    assert rows(report.runs)["text"].tolist() == ["minilm"] * 3, "who made the text stands in every row"
    shown = rows(report.runs)[["run", "failed clips", "repeated clips"]]
    assert sorted(shown.to_numpy().tolist()) == [
        ["nobody", "0", "unknown"],
        ["posebridge", "4, all of 1 class", "3"],
        ["skeleton", "0", "0"],
    ]
    assert "failed clips" in report.markdown.read_text() and "repeated clips" in report.markdown.read_text()
    with report.csv.open(newline="") as file:
        names = ("missing", "repeated", "classes_without_clips")
        told = {row["run"]: tuple(row[name] for name in names) for row in csv.DictReader(file)}
    assert told == {"posebridge": ("4", "3", '["wave"]'), "skeleton": ("0", "0", ""), "nobody": ("0", "", "")}
    assert "repeated clips" in filled(rows([run for run in report.runs if run.first.run == "skeleton"]))


def test_runs_of_other_descriptions_are_told_apart(results: Path, tmp_path: Path) -> None:
    write_result(results, "reworded", 0, text_sha256="0f3a19c2" + 56 * "7")
    report = make_report(results, tmp_path / "report", MANIFESTS)
    assert dict(rows(report.runs)[["run", "text"]].to_numpy().tolist())["reworded"] == "minilm 0f3a19c2"
    assert all("minilm 0f3a19c2" in path.read_text() for path in (report.markdown, report.html))
    with report.csv.open(newline="") as file:
        told = {row["run"]: row["text_sha256"] for row in csv.DictReader(file)}
    assert told["reworded"] == "0f3a19c2" + 56 * "7" and told["posebridge"] == ""


def test_a_report_of_one_data_set_holds_no_other(results: Path, tmp_path: Path) -> None:
    write_result(tmp_path / "one", "posebridge", 0, dataset="mine")
    shutil.copytree(tmp_path / "one/skelgap-mini", results / "mine")
    report = make_report(results, tmp_path / "report", MANIFESTS, datasets=["mine", "mine"])
    assert [run.first.dataset for run in report.runs] == ["mine"]
    assert report.csv == tmp_path / "report/leaderboard.csv" and not (results / "leaderboard.csv").exists()
    with pytest.raises(PosebridgeError, match="results/nobody has no readable metrics.json"):
        make_report(results, tmp_path / "report", MANIFESTS, datasets=["nobody"])


def test_text_from_results_is_escaped(tmp_path: Path) -> None:
    write_result(tmp_path / "results", "posebridge", 0, test_variant="<script>alert(1)</script>")
    assert "<script>alert" not in make_report(tmp_path / "results", tmp_path / "report", MANIFESTS).html.read_text()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda text: "{", "is not readable as JSON"),
        (lambda text: "[]", "is not as it should be"),
        (lambda text: text.replace('"recipe"', '"recepi"'), "lacks recipe"),
        (lambda text: text.replace('"seed": 1', '"seed": 7'), "does not belong there"),
        (lambda text: text.replace('"macro"', '"makro"'), "lacks zsl.macro"),
        (lambda text: text.replace('"cue"', '"qeu"'), "lacks ceiling.cue"),
        (lambda text: text.replace('"top1": 0.6', '"top1": NaN, "was": 0.6'), "zsl.top1: Input should be a finite"),
        (lambda text: text.replace('"top1": 0.6', '"top1": 60.6'), "zsl.top1: Input should be less than or equal to 1"),
        (lambda text: text.replace('"params"', f'"halves": {NOBODY}, "params"'), "halves.a.values.b.1: Input should"),
        (lambda text: text.replace('"captions"', '"none"'), "another hpe_text than seed 0"),
    ],
)
def test_a_spoilt_result_is_named_and_the_rest_goes_on(
    results: Path, tmp_path: Path, spoil: Callable[[str], str], sentence: str
) -> None:
    spoilt = results / "skelgap-mini" / "compositional_18_6" / "posebridge" / "seed-1" / "metrics.json"
    spoilt.write_text(spoil(spoilt.read_text()))
    report = make_report(results, tmp_path / "report", MANIFESTS)
    (complaint,) = report.complaints
    assert str(spoilt) in complaint and sentence in complaint and complaint.count(". ") == 0
    assert report.runs[0].seeds == (0, 2) and len(report.runs) == 3
    assert sentence in report.html.read_text()


@pytest.mark.parametrize(
    ("theirs", "n", "other"),
    [
        ("encode: {seeds: [1]}\ntrain: {lr: 0.002}\n", 180, ""),
        ("encode: {seeds: [0]}\ntrain: {lr: 0.02}\n", 180, "section `train` of params.yaml"),
        ("encode: {seeds: [0], width: 9}\ntrain: {lr: 0.002}\n", 180, "section `encode` of params.yaml"),
        ("encode: {seeds: [1], tf32: false}\ntrain: {lr: 0.002, tf32: false}\n", 180, ""),
        ("encode: {seeds: [1], tf32: true}\ntrain: {lr: 0.002}\n", 180, "section `encode` of params.yaml"),
        ("encode: {seeds: [1]}\ntrain: {lr: 0.002, tf32: true}\n", 180, "section `train` of params.yaml"),
        ("encode: {seeds: [1]}\ntrain: {lr: 0.002, swap_persons: true}\n", 180, "section `train` of params.yaml"),
        ("encode: {seeds: [1], encoder: light}\ntrain: {lr: 0.002, swap_persons: false}\n", 180, ""),
        ("encode: {seeds: [1], encoder: shift_gcn}\ntrain: {lr: 0.002}\n", 180, "section `encode` of params.yaml"),
        ("encode: 5\ntrain: [\n", 180, "params.yaml, for all we know (one of the two can be read),"),
        ("encode: {seeds: [0]}\ntrain: {lr: 0.002}\n", 170, "number of test clips"),
    ],
)
def test_seeds_that_were_trained_or_tested_otherwise_are_not_averaged(
    tmp_path: Path, theirs: str, n: int, other: str
) -> None:
    for seed, text in enumerate(("encode: {seeds: [0]}\ntrain: {lr: 0.002}\n", theirs)):
        path = write_result(tmp_path, "posebridge", seed)
        path.with_name("params.yaml").write_text(text)
    path.write_text(path.read_text().replace('"n": 180', f'"n": {n}'))
    ((run,), complaints) = read_runs(tmp_path)
    assert run.seeds == ((0,) if other else (0, 1)) and len(complaints) == bool(other)
    assert not other or f"another {other} than seed 0" in complaints[0] and str(path) in complaints[0]


def test_seeds_of_which_nobody_knows_how_they_were_trained_are_not_averaged(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_result(tmp_path, "posebridge", seed).with_name("params.yaml").unlink()
    ((run,), (complaint,)) = read_runs(tmp_path)
    assert run.seeds == (0,) and "(neither can be read), than seed 0" in complaint


@pytest.mark.parametrize(("one", "other", "said"), [
    ({"text_sha256": "a"}, {"text_sha256": "b"}, "another set of descriptions than seed 0"),
    ({"trained_on": "a"}, {"trained_on": "b"}, "another set of train clips, descriptions or extractions than seed 0"),
    ({"text_sha256": "a"}, {}, ""),
    ({"trained_on": "a"}, {"trained_on": ""}, ""),
])  # fmt: skip
def test_seeds_that_learnt_from_or_were_asked_by_something_else_are_not_averaged(
    tmp_path: Path, one: dict[str, str], other: dict[str, str], said: str
) -> None:
    for seed, told in enumerate((one, other)):
        path = write_result(tmp_path, "posebridge", seed)
        metrics = json.loads(path.read_text())
        metrics["selection"] |= {name: value for name, value in told.items() if name == "trained_on"}
        metrics |= {name: value for name, value in told.items() if name == "text_sha256"}
        path.write_text(json.dumps(metrics))
    ((run,), complaints) = read_runs(tmp_path)
    assert run.seeds == ((0,) if said else (0, 1)) and len(complaints) == bool(said)
    assert not said or said in complaints[0]


@pytest.mark.parametrize(("settings", "averaged"), [
    ({}, False), ({"features": "imported", "skeletons": "imported"}, True), ({"features": "imported"}, False),
    ({"method": "pgfa"}, True), ({"method": "somebody's"}, False),
])  # fmt: skip
def test_a_run_without_an_encoder_of_encode_has_seeds_whatever_that_section_says(
    tmp_path: Path, settings: dict[str, str], averaged: bool
) -> None:
    for seed, epochs in enumerate((3, 99)):
        path = write_result(tmp_path, "posebridge", seed, **settings)
        path.with_name("params.yaml").write_text(f"encode: {{epochs: {epochs}}}\ntrain: {{lr: 0.002}}\n")
    ((run,), complaints) = read_runs(tmp_path)
    assert run.seeds == ((0, 1) if averaged else (0,)) and len(complaints) != averaged
    assert averaged or "run `posebridge encode`, `train` and `evaluate` for all seeds" in complaints[0]


def test_seeds_of_other_devices_are_averaged_and_each_names_its_own(tmp_path: Path) -> None:
    for seed, name in enumerate(("CPU", "NVIDIA H100", "")):
        path = write_result(tmp_path, "posebridge", seed)
        told = json.loads(path.read_text())
        if name:  # the last one is older than the field
            told |= {"device": name, "selection": told["selection"] | {"device": name, "precision": "float32"}}
        path.write_text(json.dumps(told))
    ((run,), complaints) = read_runs(tmp_path)
    assert run.seeds == (0, 1, 2) and not complaints
    table = frame_of(tmp_path)
    assert table["device"].tolist() == ["CPU", "NVIDIA H100", ""]
    assert table["selection_device"].tolist()[:2] == ["CPU", "NVIDIA H100"]


def test_every_figure_of_every_seed_is_a_cell_of_one_frame(results: Path) -> None:
    write_result(results, "cued", 0, flags={"cues": True}, adapted={"top1": 0.5, "by": "pgfa", "values": {"t": 2}})
    write_result(results, "spoilt", 0, seconds="long")
    with pytest.warns(UserWarning, match="spoilt/seed-0/metrics.json is not as it should be: seconds"):
        table = frame_of(results)
    assert list(table)[:4] == ["dataset", "protocol", "run", "seed"] and len(table) == 8
    row = table.set_index(["run", "seed"]).loc["posebridge", 2]
    assert row.zsl_top1 == pytest.approx(22 / 30) and row.gzsl_harmonic == 0.509 and row.selection_gamma == 0.5
    cued = table[table.run == "cued"].iloc[0]
    assert (cued.flags_cues, cued.adapted_by, cued.adapted_values_t) == (True, "pgfa", 2)
    means = table.groupby("run").zsl_top1.agg(["mean", "std", "count"])
    assert means["mean"]["posebridge"] == pytest.approx(61 / 90) and means["count"]["skeleton_gt"] == 1
    assert list(frame_of(results / "nowhere")) == ["dataset", "protocol", "run", "seed"]


def test_a_notebook_has_them_under_the_projects_name(results: Path) -> None:
    root = Path(__file__).parent.parent
    packages = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    places = os.pathsep.join(str(root / where) for where in packages["where"])
    code = f"import posebridge; print(len(posebridge.results({str(results)!r})))"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": places}, capture_output=True)
    assert done.stdout == b"7\n" and "posebridge" in packages["include"], done.stderr


def test_a_protocol_without_unseen_classes_is_no_row_and_no_fault(results: Path) -> None:
    before, _ = read_runs(results)
    write_result(results, "trained_on_all", 0, zsl=None, gzsl=None)
    after, complaints = read_runs(results)
    assert not complaints and [run.first.run for run in after] == [run.first.run for run in before]


def test_a_spoilt_confusion_is_named_and_the_rest_goes_on(results: Path, tmp_path: Path) -> None:
    spoilt = results / "skelgap-mini" / "compositional_18_6" / "skeleton" / "seed-1" / "confusion.csv"
    spoilt.write_text("class,a,b\na,1,2\n")
    with pytest.raises(PosebridgeError, match="is not a square table"):
        read_confusion(read_runs(results)[0][1])
    spoilt.write_text("class,a,b\na,1,2\nb,1,2\n")
    report = make_report(results, tmp_path / "report", MANIFESTS)
    assert len(report.complaints) == 1 and f"{spoilt} is of other classes than" in report.complaints[0]
    assert len(report.runs) == 3 and len(list((tmp_path / "report").rglob("*-confusion.png"))) == 2


ODD = {
    "empty": "", "cut": '{"dataset": "skelgap-mini", ', "list": "[]", "deep": "[" * 100_000, "number": "7",
    "no Unicode": "\udcff", "nul": "\0",
    **{f"{key}: {value}": {key: value} for key, value in [
        ("seed", "0"), ("seed", None), ("seed", 0.5), ("flags", None), ("flags", [1]), ("method", ["x"]),
        ("recipe", {}),
        ("zsl", 5), ("zsl", []), ("zsl", {"top1": 0.5, "macro": 0.5, "n": "x", "ci95": [0, 1]}),
        ("zsl", {"top1": 0.5, "macro": 0.5, "n": 0, "ci95": [0, 1]}),
        ("zsl", {"top1": 0.5, "macro": 0.5, "n": 9, "ci95": [0]}), ("zsl", {"top1": float("nan")}),
        ("zsl", {"top1": 0.5, "macro": 0.5, "n": 10**400, "ci95": [0, 1]}), ("missing", 10**40),
        ("ceiling", {"skeleton": 0.1, "cue": 0.2, "twin_hits_max": 10**20}),
        ("zsl", {"top1": True, "macro": [], "n": 9, "ci95": 0.5}),
        ("zsl", {"top1": [0.5], "macro": 0.5, "n": 9, "ci95": [0, 1]}),
        ("gzsl", "x"), ("gzsl", {"seen": 2}), ("adapted", {"top1": 0.5, "by": 5}), ("selection", None),
        ("selection", {"seconds": "x"}), ("selection", {"adapt": 5}), ("ceiling", {"skeleton": 0.1, "cue": "y"}),
        ("ceiling", {"skeleton": 0.1, "cue": 0.2, "twin_hits_max": "3"}), ("params", "many"), ("seconds", -1),
        ("gflops", float("inf")), ("missing", None), ("missing", "x"), ("test_variant", None),
    ]},
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_result_is_named_and_the_rest_goes_on(tmp_path: Path, kind: str) -> None:
    write_result(tmp_path, "good", 0)
    path, odd = write_result(tmp_path, "odd", 0), ODD[kind]
    text = odd if isinstance(odd, str) else json.dumps(json.loads(path.read_text()) | odd)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    runs, complaints = read_runs(tmp_path)
    assert [run.first.run for run in runs] == ["good"]
    (said,) = complaints
    assert str(path) in said and said.endswith("run `posebridge evaluate` again or remove it.") and "\n" not in said


def test_what_lies_in_the_place_of_a_result_and_is_no_file_is_named(tmp_path: Path) -> None:
    write_result(tmp_path, "good", 0)
    path = write_result(tmp_path, "odd", 0)
    path.unlink()
    os.mkfifo(path)
    runs, complaints = read_runs(tmp_path)
    assert len(runs) == 1 and len(complaints) == 1 and str(path) in complaints[0]


def test_names_of_any_letters_and_length_fit_into_a_confusion(tmp_path: Path) -> None:
    names = [r"costs $5 or \frac$", "w" * 300]
    figure = figures.confusion(pd.DataFrame(np.eye(2, dtype=int), names, names), "run")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [r"costs \$5 or \frac\$", "w" * 27 + "…"]
    assert figures.save(figure, tmp_path / "a.png").is_file()


def test_a_confusion_of_many_classes_shows_those_with_most_errors() -> None:
    names, counts = [f"class {number}" for number in range(1200)], 8 * np.eye(1200, dtype=int)
    counts[5, 1100] = 8
    counts[[7, 9], [8, 10]] = 1
    figure = figures.confusion(pd.DataFrame(counts, names, names), "many", names)
    assert max(figure.get_size_inches()) * figures.dots(figure) < 4000
    (axes,) = figure.axes
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == [*names[:59], names[1100]] and len(axes.patches) == 60
    assert axes.get_title(loc="left") == "many: the 60 of 1200 classes with most errors"
    share = np.asarray(axes.images[0].get_array())
    assert (share[5, 59], share[7, 8]) == (1 / 2, 1 / 9), "of all clips of a class"
    few = figures.confusion(pd.DataFrame([[1, 0], [2, 3]], ["a", "b"], ["a", "b"]), "few")
    assert [label.get_text() for label in few.axes[0].get_xticklabels()] == ["a", "b"]
    assert few.axes[0].get_title(loc="left") == "few"


def test_classes_of_one_motion_are_boxed_where_there_is_a_ceiling_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of real people nobody knows that two movements look alike."""
    boxed: dict[str, Any] = {}
    monkeypatch.setattr(figures, "confusion", lambda table, title, groups: boxed.update({title: groups}) or Figure())
    write_result(tmp_path / "results", "made", 0)
    write_result(tmp_path / "results", "real", 0, ceiling=None)
    make_report(tmp_path / "results", tmp_path / "report", MANIFESTS)
    assert len(boxed["made (single run)"]) == 6 and boxed["real (single run)"] is None


def test_a_picture_of_many_runs_is_no_larger_than_memory() -> None:
    assert 200 * figures.dots(Figure(figsize=(8, 200))) == pytest.approx(figures.LARGEST)
    assert figures.dots(Figure(figsize=(8, 20))) == figures.DOTS


def test_the_ground_of_a_picture_is_as_white_as_the_page(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(9)]
    figure = figures.confusion(pd.DataFrame(np.arange(81).reshape(9, 9), names, names), "some colours")
    with Image.open(figures.save(figure, tmp_path / "a.png")) as picture:
        shown = picture.convert("RGB")
    assert shown.getpixel((0, 0)) == (255, 255, 255) and len(shown.getcolors(1 << 16)) > 30


def test_only_pictures_of_an_earlier_report_are_deleted(results: Path, tmp_path: Path) -> None:
    own = tmp_path / "thesis/figures/own.png"
    own.parent.mkdir(parents=True)
    own.touch()
    make_report(results, tmp_path / "thesis", MANIFESTS)
    assert own.is_file() and (old := tmp_path / "thesis/figures/skelgap-mini/compositional_18_6/top1.png").is_file()
    shutil.move(old, old.with_name("gone.png"))
    make_report(results, tmp_path / "thesis", MANIFESTS)
    assert own.is_file() and old.is_file() and not old.with_name("gone.png").exists()


TABLES = {"empty": b"", "nul": b"a\0b", "no text": b"\xff\xfe\xff", "huge": b"class,a\na," + b"9" * 40 + b"\n",
          "negative": b"class,a\na,-1\n", "digits": b"class,a\na," + b"9" * 9999 + b"\n", "quote": b'class,"a\na,1\n',
          "long": b"class,a\na," + b"x" * 200_000 + b"\n", "ragged": b"class,a,b\na,1\nb,1,2,3\n",
          "cut": b"clip_id,label,pre", "other": b"clip_id,label,predicted,tuple\na,1,x,\n",
          "twice": b"clip_id,label,predicted,tuple\na,1,1,\na,1,2,\n",
          "no answer": b"clip_id,label,predicted,tuple\na,1,,\n",
          "names": b"class,a,b\na,1,2\nc,3,4\n"}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_odd_tables_beside_a_result_are_a_sentence(tmp_path: Path, kind: str) -> None:
    folder = write_result(tmp_path, "odd", 0).parent
    (folder / "confusion.csv").write_bytes(TABLES[kind])
    (folder / "predictions.csv").write_bytes(TABLES[kind])
    ((run,), _) = read_runs(tmp_path)
    with pytest.raises(PosebridgeError, match=r"confusion.csv.*\.$"):
        read_confusion(run)
    with pytest.raises(PosebridgeError, match=r"predictions.csv is not as .*run it again\.$"):
        read_answers(run.first.folder / "predictions.csv")


def test_a_folder_of_any_bytes_and_a_variant_of_any_number_are_told(tmp_path: Path) -> None:
    for variant in ("blur-1", "blur-2000000000", "blur-²"):
        write_result(tmp_path, f"posebridge@{variant}", 0, test_variant=variant)
    write_result(tmp_path, "posebridge", 0)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xff/metrics.json"))
    odd.parent.mkdir()
    odd.write_text("{")
    report = make_report(tmp_path, tmp_path / "report", MANIFESTS)
    assert "r\\udcff/metrics.json is not readable as JSON" in report.html.read_text()
    assert [strength(f"blur-{end}") for end in ("2", "2000000000", "²")] == [
        ("blur", 2), ("blur-2000000000", 0), ("blur-²", 0)
    ]  # fmt: skip


def test_a_place_where_no_report_can_be_written_is_one_sentence(results: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PosebridgeError, match="Writing .*file/report failed"):
        make_report(results, tmp_path / "file" / "report", MANIFESTS)
    (tmp_path / "report/figures/skelgap-mini/compositional_18_6/top1.png").mkdir(parents=True)
    with pytest.raises(PosebridgeError, match=r"Writing .*/top1.png failed"):
        make_report(results, tmp_path / "report", MANIFESTS)


def test_a_protocol_with_an_error_is_named_and_the_rest_goes_on(results: Path, tmp_path: Path) -> None:
    for path in ("classes.csv", "protocols/compositional_18_6.val.txt", "protocols/compositional_18_6.txt"):
        copy = tmp_path / "manifests/skelgap-mini" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(MANIFESTS / "skelgap-mini" / path, copy)
    attributes = copy.parents[1] / "attributes.csv"
    attributes.write_text("index,motion,object\n999,drink,cup\n")
    for spoilt in (attributes, copy):
        report = make_report(results, tmp_path / "report", tmp_path / "manifests")
        assert len(report.complaints) == 1 and str(spoilt) in report.complaints[0] and len(report.runs) == 3
        assert "Chance is" not in report.html.read_text()
        copy.write_text("30\nthirty\n")
    assert not make_report(results, tmp_path / "report", tmp_path / "elsewhere").complaints


def test_without_results_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(PosebridgeError, match="run `posebridge evaluate` first"):
        make_report(tmp_path, tmp_path / "report", MANIFESTS)


def test_command_prints_the_table_and_where_the_report_lies(results: Path, tmp_path: Path) -> None:
    arguments = ["--results", str(results), "--out", str(tmp_path / "report"), "--manifests", str(MANIFESTS)]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0
    assert "67.8 ± 5.1" in done.stdout and str(tmp_path / "report" / "index.html") in done.stdout
    done = CliRunner().invoke(command, [*arguments, "--json"])
    assert json.loads(done.stdout)["runs"] == 3


def test_what_a_leak_adds_to_a_skeleton_only_run_is_set_against_its_ceiling(tmp_path: Path) -> None:
    """Only true skeletons have an exact ceiling, and only whoever is shown nothing else is held to it."""
    root = tmp_path / "results"
    for name, settings in {
        "purls_gt": {"method": "purls", "skeletons": "gt"},
        "purls_cues_gt": {"method": "purls", "skeletons": "gt", "flags": {"cues": True}},
        "purls": {"method": "purls"},
    }.items():
        for seed in (0, 1):
            write_result(root, name, seed, right=10, **settings)
        folder = tmp_path / "leaks/skelgap-mini/compositional_18_6"
        folder.mkdir(parents=True, exist_ok=True)
        rows = ["0,pooled by the true class,top-1,0.3333,0.5833", "1,pooled by the true class,top-1,0.3333,0.8833",
                "0,gamma chosen on test,H,0.509,0.6", "1,gamma chosen on test,H,0.509,0.6"]  # fmt: skip
        (folder / f"{name}.csv").write_text("\n".join(["seed,leak,figure,clean,leaky", *rows]) + "\n")
    runs, _ = read_runs(root)
    assert {run.first.run: run.takes_cues for run in runs} == {
        "purls_gt": False, "purls_cues_gt": True, "purls": False
    }  # fmt: skip
    prices = {(price.run, price.leak): price for price in read_prices(folder, runs)[0]}
    dear = prices["purls_gt", "pooled by the true class"]
    assert dear.gain.mean == pytest.approx(0.4) and dear.gain.std == pytest.approx(statistics.stdev([0.25, 0.55]))
    assert dear.above_ceiling == pytest.approx(0.4, abs=1e-4)
    assert prices["purls_gt", "gamma chosen on test"].above_ceiling is None
    assert prices["purls", "pooled by the true class"].above_ceiling is None
    assert prices["purls_cues_gt", "pooled by the true class"].above_ceiling is None
    html = make_report(root, tmp_path / "report", MANIFESTS).html.read_text()
    assert "The price of each leak" in html and "+40.0 ± 21.2" in html and "+40.0<" in html
    assert "purls_gt</b> (skeleton only, true skeletons)" in html and "HPE leakage</b> (purls:" in html
    for text in ("nonsense\n1\n", "seed,leak,figure,clean,leaky\n0,epoch chosen on test,top-1,.5,50\n"):
        (folder / "purls.csv").write_text(text)
        (said,) = read_prices(folder, runs)[1]
        assert "purls.csv is no table of leaks" in said and "bench leaks" in said
    assert said in make_report(root, tmp_path / "report", MANIFESTS).complaints


def test_dvc_has_a_line_of_figures_and_plots_of_each_run(tmp_path: Path) -> None:
    """Where dvc.yaml declares them; those of runs that are gone do not stay, and variants are in the report alone."""
    results, out = tmp_path / "cache" / "results", tmp_path / "cache" / "report"
    scores = [0.1, 0.4, 0.2]
    for seed, right in enumerate((20, 26)):
        write_result(results, "posebridge", seed, right=right, selection={"scores_by_epoch": scores[: 3 - seed]})
    write_result(results, "gone", 0)
    make_report(results, out, MANIFESTS)
    shutil.rmtree(results / "skelgap-mini" / "compositional_18_6" / "gone")
    write_result(results, "posebridge@blur-1", 0, test_variant="blur-1")
    make_report(results, out, MANIFESTS)
    place = "skelgap-mini/compositional_18_6/posebridge"
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.suffix in (".csv", ".json")}
    kinds = ("classes", "confusion", "epochs")
    assert written == {f"metrics/{place}.json", *(f"plots/{kind}/{place}.csv" for kind in kinds)}
    found = json.loads((out / "metrics" / f"{place}.json").read_text())
    assert found["seeds"] == 2 and found["zsl_top1"] == pytest.approx(23 / 30, abs=1e-6)
    assert found["zsl_top1_std"] == pytest.approx(statistics.stdev((20 / 30, 26 / 30)), abs=1e-6)
    assert {"gzsl_seen", "gzsl_unseen", "gzsl_harmonic"} <= set(found) and "adapted_top1" not in found
    classes, confusion, epochs = (pd.read_csv(out / "plots" / kind / f"{place}.csv") for kind in kinds)
    assert list(classes["class"]) == UNSEEN and list(classes.accuracy) == pytest.approx([23 / 30] * 6, abs=1e-6)
    assert (confusion.actual == confusion.predicted).sum() == 6 * 77, "of a hundred clips of a class"
    assert list(epochs.epoch) == [1, 2, 3] and list(epochs.score) == [0.1, 0.4, 0.2]
