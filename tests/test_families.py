"""Splits that repeat one another, as one figure."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from fabricated import write_run
from test_report import write_result

from pipeline.protocol.metrics import binomial_interval
from pipeline.report.families import families, family_of
from pipeline.report.parts import parts_of
from pipeline.report.runs import Run, read_runs

pytestmark = pytest.mark.unit


def test_random_splits_are_a_family_and_differing_sizes_are_not() -> None:
    assert family_of("smie_1") == family_of("smie_3") != family_of("sa_dvae_1")
    assert family_of("hugging_kicking") == family_of("kicking_pushing")
    assert family_of("synse_55_5") != family_of("synse_48_12")
    assert len({family_of(name) for name in ("compositional_30_10", "novel_object_30_10", "motion_only")}) == 3


def write(results: Path, protocol: str, seed: int, top1: float) -> None:
    """The result of 10 clips where `evaluate` would put it."""
    zsl = {"top1": top1, "macro": top1, "n": 10, "ci95": list(binomial_interval(round(10 * top1), 10))}
    path = write_result(results.parent / f"made-{protocol}", "posebridge", seed, protocol=protocol, zsl=zsl)
    path.parent.rename(results / path.parts[-5] / protocol / "posebridge" / f"seed-{seed}")


def test_each_split_counts_once_whatever_its_seeds(tmp_path: Path) -> None:
    results = tmp_path / "results"
    top1 = {"smie_1": (0.5, 0.7), "smie_2": (0.9,), "smie_3": (0.3, 0.3), "synse_55_5": (1.0,)}
    for protocol, values in top1.items():
        (results / "skelgap-mini" / protocol / "posebridge").mkdir(parents=True)
        for seed, value in enumerate(values):
            write(results, protocol, seed, value)
    (found,) = families(read_runs(results)[0])
    assert (found.name, found.splits, found.clips) == ("smie", 3, 30)
    assert found.top1.mean == pytest.approx(statistics.fmean([0.6, 0.9, 0.3]))
    assert found.top1.std == pytest.approx(statistics.stdev([0.6, 0.9, 0.3]))
    assert (found.low, found.high) == pytest.approx((0.3, 0.9))
    assert found.ci95 == pytest.approx(binomial_interval(6 + 9 + 3, 30))
    assert found.harmonic is not None and found.harmonic.mean == pytest.approx(0.509)
    runs = read_runs(results)[0]
    changes = {"run": "x", "gzsl": None}
    better = [Run(tuple(replace(r, zsl=r.zsl | {"top1": 1.0}, **changes) for r in run.results)) for run in runs]
    first, second = families([*runs, *better])
    assert (first.run, first.harmonic, second) == ("x", None, found), "the best first"


def test_twins_hang_together_within_a_split_and_clips_across_splits(tmp_path: Path) -> None:
    twins = {"right": 0.6, "chance": 0.5, "n": 40, "ci95": [0.5, 0.8]}
    for protocol in ("draw_1", "draw_2"):
        write_run(tmp_path / protocol, "skeleton", 0.9, 0.0, (0,), twins_alike=True, twins=twins)
        made = tmp_path / protocol / "skelgap/compositional_30_10"
        for path in made.rglob("metrics.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"protocol": protocol}))
        (tmp_path / "results/skelgap").mkdir(parents=True, exist_ok=True)
        made.rename(tmp_path / "results/skelgap" / protocol)
    runs = read_runs(tmp_path / "results")[0]
    (found,) = families(runs)
    assert found.ci95 == pytest.approx(runs[0].ci95()), "both splits ask about the same clips, and so tell no more"
    exact = binomial_interval(round(found.top1.mean * found.clips), found.clips)
    assert found.ci95[1] - found.ci95[0] < (exact[1] - exact[0]) / 2, "one of a set of twins is right, whatever else"
    of_one, of_both = parts_of(runs[:1]), parts_of(runs)
    assert of_one.twins_ci95 == pytest.approx((0.5, 0.8))
    assert of_both.twins_ci95 == pytest.approx((0.6 - 0.1 / 2**0.5, 0.6 + 0.2 / 2**0.5)) and of_both.twins[2] == 80
    alone = [Run(tuple(replace(result, folder=tmp_path) for result in run.results)) for run in runs]
    assert families(alone)[0].ci95 == pytest.approx(exact), "where nobody knows the answers"


def test_what_splits_keep_together_hangs_together(tmp_path: Path) -> None:
    for protocol in ("shoot_1", "shoot_2"):
        (tmp_path / "results/skelgap-mini" / protocol / "posebridge").mkdir(parents=True)
        for seed in (0, 1):
            write(tmp_path / "results", protocol, seed, 0.5)
            folder = tmp_path / "results/skelgap-mini" / protocol / f"posebridge/seed-{seed}"
            rows = [f"{protocol}-{k},{k},{k if k < 5 else 0},,1" for k in range(10)]
            (folder / "predictions.csv").write_text("\n".join(["clip_id,label,predicted,tuple,rank", *rows]) + "\n")
    runs = read_runs(tmp_path / "results")[0]
    apart, room = families(runs), dict.fromkeys(range(5), "bright") | dict.fromkeys(range(5, 10), "dark")
    kept = {("skelgap-mini", f"shoot_{k}"): {c: f"{value} {k}" for c, value in room.items()} for k in (1, 2)}
    together = families(runs, kept)
    assert (apart[0].kept, together[0].kept) == (0, 4)
    assert apart[0].ci95 == pytest.approx(binomial_interval(10, 20))
    assert together[0].ci95 == (0, 1), "of four rooms all or nothing is right, so they tell of four answers"
    assert families(runs, {("skelgap-mini", "shoot_1"): room}) == apart, "of one split alone nobody knows it"
