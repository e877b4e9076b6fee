"""Published figures beside ours: what is printed, what is marked, and that nothing is guessed."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.errors import PosebridgeError
from pipeline.methods import METHODS
from pipeline.protocol.metrics import binomial_interval
from pipeline.report.leaderboard import NONE
from pipeline.report.published import MARK, MEASURES, compare, defects, read_published, text_table
from pipeline.report.runs import read_runs
from stages.report import command

pytestmark = pytest.mark.unit
MANIFESTS = Path(__file__).parent.parent / "manifests"
HEADER = "dataset,protocol,measure,method,ours,value,source,note\n"


def write_result(
    root: Path, dataset: str, protocol: str, run: str, seed: int, hits: int, n: int = 200, **changes: object
) -> None:
    """A made-up metrics.json: `hits` of `n` unseen test clips are right."""
    data = {
        "dataset": dataset, "protocol": protocol, "run": run, "method": "posebridge", "flags": {}, "seed": seed,
        "recipe": "refined", "text": "minilm", "hpe_text": "none", "skeletons": "estimated", "test_variant": "",
        "zsl": {"top1": hits / n, "macro": hits / n, "n": n, "ci95": list(binomial_interval(hits, n))},
        "gzsl": {"seen": 0.6, "unseen": 0.4, "harmonic": 0.48, "ausuc": 0.3}, "adapted": None,
        "selection": {"epochs": 3, "gamma": 0.1}, "ceiling": None, "params": 1000, "gflops": 0.1, "seconds": 1.0,
    }  # fmt: skip
    folder = root / dataset / protocol / run / f"seed-{seed}"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(data | changes))
    (folder / "params.yaml").write_text("encode: {}\ntrain: {}\n")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """PoseBridge on one of SynSE's splits, three seeds; an ablation with a test variant; the skeleton alone."""
    root = tmp_path / "results"
    for seed, hits in enumerate((170, 160, 174)):
        write_result(root, "ntu60", "synse_55_5", "posebridge", seed, hits, text_sha256="0f3a19c2" * 8)
        write_result(root, "ntu60", "synse_55_5", "mirrored", seed, 150, test_variant="mirrored")
        write_result(root, "ntu60", "synse_55_5", "skeleton", seed, 120, method="skeleton")
    return root


def test_ours_stands_beside_the_published_figure_of_the_same_method(results: Path) -> None:
    found = compare(read_runs(results)[0], MANIFESTS)
    rows = [(c.figure.protocols, c.figure.measure, c.figure.method) for c in found if c.run]
    assert rows == [(("synse_55_5",), "zsl_top1", "PoseBridge")], "no skeleton-only run, and no test variant"
    (ours,) = (c for c in found if c.run)
    assert ours.difference == pytest.approx(statistics.fmean((0.85, 0.8, 0.87)) - 0.888)
    assert ours.interval == pytest.approx(binomial_interval(168, 200)), "of the mean, not of one seed"
    cells = ours.cells()
    assert (cells["published"], cells["ours"], cells["difference"]) == ("88.8", "84.0 ± 3.6", "−4.8")
    assert cells["seeds"] == "3" and cells["95 % interval"].startswith("78.2 to")
    assert cells["text"] == "minilm 0f3a19c2", "which descriptions ours was told"
    assert "one prompt" in cells["source"] or "project page" in cells["source"]


def test_what_we_have_not_is_a_dash_and_other_data_sets_are_not_shown(results: Path) -> None:
    found = compare(read_runs(results)[0], MANIFESTS)
    assert {c.figure.dataset for c in found} == {"ntu60"}
    alone = [c.cells() for c in found if not c.run]
    assert {"synse_55_5", "synse_48_12"} <= {cells["protocol"] for cells in alone}
    assert all(cells["ours"] == cells["difference"] == cells["95 % interval"] == NONE for cells in alone)
    assert compare([], MANIFESTS) == []


def test_figures_with_known_defects_are_marked_by_measure(results: Path) -> None:
    found = compare(read_runs(results)[0], MANIFESTS)
    marked = {(c.figure.method, c.figure.measure) for c in found if c.cells()["published"].endswith(MARK)}
    assert {("SynSE", "zsl_top1"), ("PURLS", "zsl_top1"), ("Neuron", "gzsl_harmonic")} <= marked
    assert not {method for method, _ in marked} & {"PoseBridge", "CADA-VAE", "FS-VAE", "PURLS, Global"}
    (neuron,) = (sentence for sentence in defects(found) if "Neuron" in sentence)
    assert "either of two branches" in neuron and "calibration" in neuron
    of_zsl = next(c.figure for c in found if (c.figure.method, c.figure.measure) == ("Neuron", "zsl_top1"))
    assert not any("calibration" in defect for defect in of_zsl.defects)


def test_a_mean_over_splits_needs_all_of_them_and_the_same_seeds(tmp_path: Path) -> None:
    root = tmp_path / "results"
    adapted = [{"top1": top1, "ci95": [top1 - 0.1, top1 + 0.1], "by": "pgfa"} for top1 in (0.7, 0.5)]
    for split in (1, 2, 3):
        for seed in (0, 1):
            write_result(root, "ntu120", f"smie_{split}", "pgfa", seed, 90, method="pgfa", adapted=adapted[seed])
    (mean,) = (c for c in compare(read_runs(root)[0], MANIFESTS) if c.run)
    assert mean.figure.printed == "71.38" and mean.interval is None
    assert mean.ours is not None and (mean.ours.mean, mean.ours.std) == pytest.approx((0.6, 0.1 * 2**0.5))
    (root / "ntu120/smie_2/pgfa/seed-1/metrics.json").unlink()
    assert not [c for c in compare(read_runs(root)[0], MANIFESTS) if c.run], "a seed of one split is missing"


def test_an_inductive_figure_never_stands_beside_an_adapted_one(tmp_path: Path) -> None:
    root = tmp_path / "results"
    write_result(root, "ntu60", "synse_55_5", "pgfa", 0, 180, method="pgfa")
    assert not [c for c in compare(read_runs(root)[0], MANIFESTS) if c.run], "published is with adaptation, ours not"
    other = {"top1": 0.7, "ci95": [0.6, 0.8], "by": "dynapurls"}
    write_result(root, "ntu120", "synse_96_24", "pgfa", 0, 180, method="pgfa", adapted=other)
    assert not [c for c in compare(read_runs(root)[0], MANIFESTS) if c.run], "another adaptation"


def test_another_system_of_the_method_stands_beside_none(tmp_path: Path) -> None:
    root = tmp_path / "results"
    write_result(root, "ntu60", "synse_55_5", "purls", 0, 140, method="purls", gzsl=None)
    write_result(root, "ntu60", "synse_55_5", "purls_cues", 0, 150, method="purls", gzsl=None, flags={"cues": True})
    assert [c.run.first.run for c in compare(read_runs(root)[0], MANIFESTS) if c.run] == ["purls"]


def test_a_run_that_was_not_tested_on_all_classes_stands_beside_no_such_figure(tmp_path: Path) -> None:
    write_result(tmp_path, "ntu60", "synse_55_5", "mine", 0, 140, method="skeletoncontext", gzsl=None)
    assert [c.figure.measure for c in compare(read_runs(tmp_path)[0], MANIFESTS) if c.run] == ["zsl_top1"]


def test_the_report_of_one_table_shows_its_runs_only(results: Path, tmp_path: Path) -> None:
    write_result(results, "skelgap-mini", "compositional_18_6", "posebridge", 0, 100)
    params = tmp_path / "table.yaml"
    params.write_text("datasets: {ntu60: {root: a}}\nruns: {posebridge: {}, skeleton: {method: skeleton}}\n")
    out = tmp_path / "out"
    arguments = ["--results", str(results), "--out", str(out), "--manifests", str(MANIFESTS), "--params", str(params)]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    assert "published | ours | difference" in done.stdout and "84.0 ± 3.6" in done.stdout and "−4.8" in done.stdout
    assert "skelgap-mini" not in done.stdout and "mirrored" not in done.stdout
    assert not (results / "leaderboard.csv").exists(), "the leaderboard of everything is another's"
    with (out / "leaderboard.csv").open(newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["posebridge", "skeleton"]
    page = (out / "index.html").read_text()
    for text in ("Published figures", "84.0 ± 3.6", "−4.8", "no verdict", "users reproduce about 48", "† Neuron:"):
        assert text in page, text
    assert "minilm 0f3a19c2" in done.stdout and "minilm 0f3a19c2" in page
    answered = json.loads(CliRunner().invoke(command, [*arguments, "--json"]).stdout)
    assert {row["text_sha256"] for row in answered["published"]} == {"", "0f3a19c2" * 8}
    assert {"method": "PoseBridge", "published": "73.2", "ours": NONE}.items() <= {
        key: value for row in answered["published"] if row["published"] == "73.2" for key, value in row.items()
    }.items()


def test_without_published_figures_nothing_is_said(tmp_path: Path) -> None:
    write_result(tmp_path / "results", "skelgap-mini", "compositional_18_6", "posebridge", 0, 100)
    arguments = ["--results", str(tmp_path / "results"), "--out", str(tmp_path / "o"), "--manifests", str(MANIFESTS)]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0 and "difference" not in done.stdout
    assert "Published" not in (tmp_path / "o/index.html").read_text() and text_table([]) == ""
    assert read_published(tmp_path / "none.csv", tmp_path / "neither.csv") == []


def test_the_shipped_figures_are_of_protocols_that_exist_and_have_sources() -> None:
    figures = read_published(MANIFESTS / "published.csv", MANIFESTS / "published_defects.csv")
    assert len(figures) == 112
    for figure in figures:
        for protocol in figure.protocols:
            assert (MANIFESTS / figure.dataset / "protocols" / f"{protocol}.txt").is_file(), figure
        assert figure.ours in {"", "posebridge", "pgfa", "purls", "skeletoncontext", *METHODS}, figure
    places = [(f.dataset, f.protocols, f.measure, f.method) for f in figures]
    assert len(set(places)) == len(places), "a figure stands twice"
    own = {(f.dataset, f.protocols[0]): f.printed for f in figures if f.method == "PoseBridge"}
    assert len(own) == 12 and own["kinetics200", "purls_180_20"] == "55.6" and own["ntu120", "synse_96_24"] == "70.9"
    with (MANIFESTS / "published_defects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} <= {figure.method for figure in figures}
    assert {row["measure"] for row in rows} <= {"", *MEASURES}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("a,p,top1,M,,50,s,", "line 2, column measure: the measure 'top1' is unknown"),
        ("a,p,zsl_top1,M,,about 50,s,", "line 2, column value: 'about 50' is not a percentage"),
        ("a,p,zsl_top1,M,,500,s,", "line 2, column value: '500' is not a percentage"),
        ("a,,zsl_top1,M,,50,s,", "line 2, column protocol: the cell is empty"),
        ("a,p,zsl_top1,M,,50,,", "line 2, column source: the cell is empty"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, row: str, complaint: str) -> None:
    (tmp_path / "published.csv").write_text(f"{HEADER}{row}\n")
    with pytest.raises(PosebridgeError, match="published_defects.csv is missing"):
        read_published(tmp_path / "published.csv", tmp_path / "published_defects.csv")
    (tmp_path / "published_defects.csv").write_text("method,measure,defect\n")
    with pytest.raises(PosebridgeError, match=complaint):
        read_published(tmp_path / "published.csv", tmp_path / "published_defects.csv")
