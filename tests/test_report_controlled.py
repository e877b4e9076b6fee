"""What the report makes of a controlled benchmark: ablations, harder tests and the counterfactual swap, on made-up
results whose truth is known.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from fabricated import CEILING, CLASSES, write_benchmark, write_run
from fakes import write_video
from PIL import Image
from scipy.stats import ttest_rel

from pipeline.files.tables import open_table
from pipeline.manifest.clips import Clip, write_clips
from pipeline.params import DatasetParams, Params, RunParams
from pipeline.protocol.metrics import binomial_interval, tuple_interval
from pipeline.report.answers import read_answers
from pipeline.report.clip_frames import ClipFrames
from pipeline.report.controlled import _ablations
from pipeline.report.curves import curves
from pipeline.report.helped import MOST, OF_A_CLASS, ends, helped, helped_clips, pictures
from pipeline.report.kinds import changes, difference, sort_out, true_and_estimated, with_cues
from pipeline.report.leaderboard import points
from pipeline.report.parts import parts_of, table
from pipeline.report.report import make_report
from pipeline.report.runs import Run, read_runs
from pipeline.report.swap import rate, twin_swap, twins, variant_swap
from stages.report import command

pytestmark = pytest.mark.unit
MANIFESTS = Path(__file__).parent.parent / "manifests"
PLACE = Path("skelgap") / "compositional_30_10"


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("benchmark") / "results"
    write_benchmark(results, tuples=6)
    return results


def by_name(results: Path) -> dict[str, Run]:
    runs, complaints = read_runs(results)
    assert not complaints
    return {run.first.run: run for run in runs}


def test_the_interval_of_a_run_is_over_tuples_and_no_narrower_with_seeds(tmp_path: Path) -> None:
    """Twins that are answered alike are one trial: the interval is that of as many tuples, not of as many clips."""
    write_run(tmp_path, "alike", 1.0, 0.5, tuples=20, twins_alike=True)
    ((run,), _) = read_runs(tmp_path)
    low, high = run.ci95() or (0.0, 0.0)
    n, top1 = run.first.zsl["n"], run.spread("zsl", "top1")
    exact = binomial_interval(round((top1.mean if top1 else 0) * n), n)
    right = sum((one.answers.predicted == one.answers.label).astype(float) for one in run.results) / len(run.results)
    assert (low, high) == tuple_interval(right.to_numpy(), run.first.answers.tuple)
    assert low < (top1.mean if top1 else 0) < high and exact != (low, high)


def grey_frames(dataset: str, variant: str, clip_ids: list[str], count: int, recipe: str) -> dict[str, np.ndarray]:
    return {clip_id: np.full((count, 32, 32, 3), 90, np.uint8) for clip_id in clip_ids}


def test_runs_are_sorted_out(benchmark: Path) -> None:
    kinds = sort_out(list(by_name(benchmark).values()))
    assert {run.first.run for run in kinds.methods} == {"posebridge", "posebridge_gt", "skeleton", "skeleton_gt"}
    full, *others = kinds.ablations["posebridge"]
    assert full.first.run == "posebridge" and list(kinds.ablations) == ["posebridge"]
    changed = {run.first.run: changes(run, full) for run in others}
    assert changed == {
        "cues_only": "skeleton off", "no_bridge": "bridge off", "no_additive": "additive off",
        "gate": "gate on", "no_adaptation": "adaptation none", "body_only": "anchors body", "skeleton": "cues off",
        "levels_sem": "level_widths 48 96 192 384, recipe levels",
    }  # fmt: skip
    gate = next(run for run in others if run.first.run == "gate")
    on_true = Run(tuple(replace(result, skeletons="gt") for result in gate.results))
    assert changes(on_true, full) == "gate on, skeletons of gt"
    assert set(kinds.variants) == {"posebridge", "gate", "skeleton"} and len(kinds.variants["gate"]) == 9
    assert kinds.variants["skeleton"]["blur-2"].first.run == "skeleton@blur-2"
    pairs = [(truth.first.run, other.first.run) for truth, other in true_and_estimated(kinds.methods)]
    assert sorted(pairs) == [("posebridge_gt", "posebridge"), ("skeleton_gt", "skeleton")]


def test_what_an_ablation_loses_is_negative(benchmark: Path) -> None:
    runs = by_name(benchmark)
    full, bare = runs["posebridge"], runs["skeleton"]
    row = _ablations((full, bare)).set_index("run").loc["skeleton"]
    for column, *measure in (("difference", "zsl", "top1"), ("difference of H", "gzsl", "harmonic")):
        gap = 100 * (bare.spread(*measure).mean - full.spread(*measure).mean)
        assert gap < -5 and float(row[column].replace("\u2212", "-")) == pytest.approx(gap, abs=0.051)


def test_a_method_with_cues_stands_beside_itself_without(tmp_path: Path) -> None:
    write_run(tmp_path, "posebridge", 0.9, 0.9)
    write_run(tmp_path, "skeleton", 0.9, 0.0, method="skeleton")
    write_run(tmp_path, "purls", 0.9, 0.0, method="purls", flags={"hidden": 256})
    write_run(tmp_path, "purls_cues", 0.9, 0.8, method="purls", flags={"hidden": 256, "cues": True})
    write_run(tmp_path, "purls_gt", 0.9, 0.0, method="purls", flags={"hidden": 256}, skeletons="gt")
    write_run(tmp_path, "purls_static", 0.9, 0.0, method="purls", flags={"hidden": 256, "partition": "static"})
    kinds = sort_out(list(by_name(tmp_path).values()))
    names = [(plain.first.run, cued.first.run) for plain, cued in with_cues(kinds.methods)]
    assert sorted(names) == [("purls", "purls_cues"), ("skeleton", "posebridge")]
    alone = sort_out([run for run in by_name(tmp_path).values() if run.first.run == "purls_cues"])
    named = Run(tuple(replace(result, run="purls") for result in alone.methods[0].results))
    assert sort_out([named]).methods == (named,), "a default run with cues is a method all the same"
    assert [run.first.run for run in kinds.ablations["purls"]] == ["purls", "purls_static"]
    html = make_report(tmp_path, tmp_path / "report", MANIFESTS).html.read_text()
    assert "What cues add" in html


def test_which_half_of_an_answer_is_right(benchmark: Path) -> None:
    runs = by_name(benchmark)
    known = {name: parts_of([run]) for name, run in runs.items() if "@" not in name}
    assert known["skeleton_gt"].right["motion"] == 1 and known["posebridge"].right["motion"] > 0.9
    assert known["posebridge"].right["object"] > 0.7 > known["cues_only"].right["motion"] + 0.05
    for name, found in known.items():
        assert found.right["motion"] >= runs[name].spread("zsl", "top1").mean - 1e-9, name
    older = replace(runs["skeleton"].first, halves=None)
    assert parts_of([Run((older,))]) is None
    one, other = runs["skeleton"].results[:2]  # attributes.csv was mended between two seeds
    changed = replace(other, halves={"motion": one.halves["motion"], "object": {**one.halves["object"], "values": {}}})
    assert parts_of([Run((one, changed))]) is None and parts_of([Run((changed, one))]) is None
    assert parts_of([Run((one,)), Run((replace(other, halves={"equipment": one.halves["object"]}),))]) is None
    printed = table([(runs[name], known[name]) for name in ("cues_only", "skeleton_gt", "posebridge")])
    assert printed.shown.tolist() == ["cues", "skeletons", "both"]
    above = runs["posebridge"].spread("zsl", "top1").mean - CEILING["cue"]  # type: ignore[union-attr]
    assert printed["above the cue-only ceiling"].tolist()[2] == points(above)


def test_the_classes_that_cues_help_and_hurt_most(benchmark: Path) -> None:
    """By hand from the answers: 1 where a clip is right, 1 / 2 where it is not."""
    runs, names = by_name(benchmark), [f"name {c}" for c in range(30)] + [CLASSES[c][2] for c in CLASSES]
    found = helped(runs["skeleton"], runs["posebridge"], names)
    for row in found.itertuples():
        for side, name in (("without", "skeleton"), ("_4", "posebridge")):
            answers = [r.answers[r.answers.label == row.label] for r in runs[name].results]
            wanted = np.mean([np.where(a.label == a.predicted, 1, 1 / 2).mean() for a in answers])
            assert getattr(row, side) == pytest.approx(wanted)
    assert list(found.change) == sorted(found.change, reverse=True) and len(found) == 10
    better, worse = ends(found)
    assert (better.change > 0).all() and (worse.change < 0).all()
    clips, worst = ends(helped_clips(runs["skeleton"], runs["posebridge"], names))
    shown = pictures(clips, (runs["skeleton"], runs["posebridge"]), names, grey_frames)  # type: ignore[arg-type]
    assert shown[0].title == clips["class"].iloc[0] and len(shown[0].frames) == 2 and len(shown) == MOST
    for row in pd.concat([clips, worst]).itertuples():
        places = {name: [r.answers["rank"][row.clip_id] for r in run.results] for name, run in runs.items()}
        means = {name: np.mean([1 / place for place in found]) for name, found in places.items()}
        assert row.change == pytest.approx(means["posebridge"] - means["skeleton"])
    assert clips.change.is_monotonic_decreasing and clips.label.value_counts().max() <= OF_A_CLASS
    answers = runs["posebridge"].results[0].answers
    assert shown[0].said[1][2] == (answers.predicted == answers.label)[clips.clip_id.iloc[0]], "the first seed's answer"
    older = [replace(r) for r in runs["skeleton"].results]
    for each in older:
        each.__dict__["_answers"] = (each.answers.assign(rank=0), "")
    assert helped(Run(tuple(older)), runs["posebridge"], names).empty
    assert helped_clips(Run(tuple(older)), runs["posebridge"], names).empty


def test_a_variant_without_its_own_run_is_shown_by_itself(benchmark: Path) -> None:
    runs = by_name(benchmark)
    kinds = sort_out([runs["posebridge"], runs["skeleton@blur-2"]])
    assert kinds.methods == (runs["posebridge"], runs["skeleton@blur-2"]) and not kinds.variants


def test_a_difference_is_paired_by_seed(benchmark: Path) -> None:
    runs = by_name(benchmark)
    full, other = runs["posebridge"], runs["no_bridge"]  # five seeds and three
    found = difference(other, full)
    assert found is not None and found.interval is not None and found.seeds == 3
    ours, theirs = ([r.zsl["top1"] for r in run.results[:3]] for run in (other, full))
    assert found.mean == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert found.interval == pytest.approx(tuple(ttest_rel(ours, theirs).confidence_interval(0.95)))
    single = difference(replace(other, results=other.results[2:]), full)
    assert single is not None and single.seeds == 1 and single.interval is None
    assert single.mean == pytest.approx(other.results[2].zsl["top1"] - full.results[2].zsl["top1"])
    assert difference(replace(other, results=other.results[:1]), replace(full, results=full.results[3:])) is None


def test_whoever_sees_true_skeletons_only_never_changes_its_answer(benchmark: Path) -> None:
    swap = twin_swap(by_name(benchmark)["skeleton_gt"])
    assert swap is not None and swap.changes.value == swap.to_right.value == 0
    assert swap.changes.groups == 18 and swap.changes.n == 3 * 6 * (12 + 6 + 6)  # seeds, tuples, ordered pairs
    assert (swap.changes.low, swap.changes.high) == pytest.approx(binomial_interval(0, 18))


def test_whoever_knows_motion_and_object_always_changes_to_the_right_class(tmp_path: Path) -> None:
    write_run(tmp_path, "posebridge", 1.0, 1.0, tuples=4)
    write_run(tmp_path, "guess", 1.0, 0.0, tuples=200)
    runs = by_name(tmp_path)
    perfect, guess = twin_swap(runs["posebridge"]), twin_swap(runs["guess"])
    assert perfect is not None and perfect.changes.value == perfect.to_right.value == 1
    # guessing within a group of k: other than before 1 - 1/k, and right then 1/k * (1 - 1/k); weighted by ordered pairs
    weights, k = np.array([12, 6, 6]) / 24, np.array([4, 3, 3])
    assert guess is not None and guess.changes.value == pytest.approx(float(weights @ (1 - 1 / k)), abs=0.02)
    assert guess.to_right.value == pytest.approx(float(weights @ ((1 - 1 / k) / k)), abs=0.02)
    assert guess.changes.low < guess.changes.value < guess.changes.high


def test_the_interval_knows_that_comparisons_of_a_tuple_hang_together() -> None:
    groups = pd.Series(np.repeat(np.arange(30), 20))
    alike, apart = rate(groups % 2 == 0, groups), rate(pd.Series(np.arange(600)) % 2 == 0, groups)
    assert alike.value == apart.value == 0.5 and alike.n == apart.n == 600
    assert (alike.low, alike.high) == pytest.approx(binomial_interval(15, 30), abs=0.03)
    assert (apart.low, apart.high) == binomial_interval(15, 30), "where no group tells more than another"
    agreed = rate(pd.Series([True] * 10), pd.Series(["a"] * 9 + ["b"]))
    assert (agreed.low, agreed.high) == pytest.approx(binomial_interval(2, 2))


def test_a_clip_that_is_answered_alike_on_a_variant_has_not_changed(tmp_path: Path) -> None:
    write_run(tmp_path, "posebridge", 0.9, 0.6, tuples=5)
    write_run(tmp_path, "posebridge", 0.9, 0.6, tuples=4, variant="background")  # the same draws, up to the number
    write_run(tmp_path, "posebridge", 0.0, 0.0, tuples=5, variant="subject")
    runs = by_name(tmp_path)
    plain = runs["posebridge"]
    copied = {r.seed: r for r in runs["posebridge@background"].results}
    for result in plain.results:  # make the variant's answers those of the run, but for one clip of each seed
        answers = result.answers
        kept = answers[answers.index.isin(read_answers(copied[result.seed].folder / "predictions.csv").index)]
        path = copied[result.seed].folder / "predictions.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["clip_id", "label", "predicted", "tuple", "scores"])
            for i, said in enumerate(kept.itertuples()):
                predicted = said.predicted if i else (30 if said.predicted != 30 else 31)
                writer.writerow([said.Index, said.label, predicted, said.tuple, ""])
    found = variant_swap(plain, runs["posebridge@background"])
    assert found is not None and found.n == 3 * 4 * 10 and found.value == pytest.approx(3 / 120)
    other = variant_swap(plain, runs["posebridge@subject"])
    assert other is not None and other.value > 0.5


def test_a_curve_starts_on_the_clips_that_its_variant_has(tmp_path: Path) -> None:
    write_run(tmp_path, "posebridge", 0.9, 0.6, seeds=(0, 1), tuples=5)
    write_run(tmp_path, "posebridge", 0.5, 0.3, seeds=(0, 1), tuples=2, variant="blur-1")
    write_run(tmp_path, "posebridge", 0.4, 0.2, seeds=(0, 1), tuples=2, variant="blur-3")
    kinds = sort_out(list(by_name(tmp_path).values()))
    (curve,) = curves(kinds.methods, kinds.variants)["blur"]
    assert [level for level, _ in curve.points] == [0, 1, 3]
    answers = [result.answers for result in kinds.methods[0].results]
    first = [[a.label == a.predicted for a in said.itertuples() if int(a.Index.split("-")[2]) < 2] for said in answers]
    assert curve.points[0][1].mean == pytest.approx(np.mean([np.mean(seed) for seed in first]))
    assert curve.points[0][1].mean != pytest.approx(kinds.methods[0].spread("zsl", "top1").mean)  # type: ignore[union-attr]
    assert curve.points[2][1] == kinds.variants["posebridge"]["blur-3"].spread("zsl", "top1")


def test_the_page_shows_all_of_it(benchmark: Path, tmp_path: Path) -> None:
    report = make_report(benchmark, tmp_path, MANIFESTS, frames_of=grey_frames)
    assert not report.complaints
    page = report.html.read_text()
    for title in ("Ablations of posebridge", "True and estimated skeletons", "As tests get harder",
                  "only the held object changes", "something else changes", "Only the held object differs",
                  "Something else differs: the answers of skeleton", "low light, strength 3",
                  "posebridge − gate (95 %)", "level_widths 48 96 192 384, recipe levels"):  # fmt: skip
        assert title in page, title
    pictures = {path.name for path in (tmp_path / "figures" / PLACE).iterdir()}
    assert {"top1.png", "posebridge-ablations.png", "degradation.png", "twins-1.jpg", "cost.png",
            "posebridge-counterfactual-1.jpg", "skeleton-counterfactual-1.jpg"} <= pictures  # fmt: skip
    assert "gate-confusion.png" not in pictures and "posebridge@blur-1-confusion.png" not in pictures
    assert "://" not in page and page.count("<img") == page.count(";base64,") == len(pictures)
    with report.csv.open(newline="") as file:
        assert {row["test_variant"] for row in csv.DictReader(file)} >= {"", "blur-1", "subject"}


def test_without_videos_there_are_no_pictures_of_clips(benchmark: Path, tmp_path: Path) -> None:
    report = make_report(benchmark, tmp_path, MANIFESTS)
    pictures = {path.name for path in (tmp_path / "figures" / PLACE).iterdir()}
    assert "degradation.png" in pictures and not any("twins" in name or "counter" in name for name in pictures)
    assert "whatever was answered" not in report.html.read_text()


def test_predictions_of_another_form_are_named_once_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[Path] = Counter()
    monkeypatch.setattr(
        "pipeline.report.answers.open_table", lambda path, *names: read.update([path]) or open_table(path, *names)
    )
    write_run(tmp_path / "results", "posebridge", 0.9, 0.6)
    write_run(tmp_path / "results", "skeleton", 0.9, 0.0, method="skeleton")
    old = tmp_path / "results" / PLACE / "skeleton/seed-1/predictions.csv"
    old.write_text("clip_id,label,predicted\na,30,31\n")
    report = make_report(tmp_path / "results", tmp_path / "report", MANIFESTS)
    assert len(report.complaints) == 1 and f"{old} is not as `posebridge evaluate`" in report.complaints[0]
    assert len(report.runs) == 2 and "only the held object changes" in report.html.read_text()
    assert read[old] == 1 and set(read.values()) == {1}, "at full size a file takes a second"


def test_the_terminal_has_no_variants_and_one_table_of_params_has(benchmark: Path, tmp_path: Path) -> None:
    arguments = ["--results", str(benchmark), "--out", str(tmp_path / "out"), "--manifests", str(MANIFESTS)]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0 and "\ngate" in done.stdout and "@" not in done.stdout
    assert json.loads(CliRunner().invoke(command, [*arguments, "--json"]).stdout)["runs"] == 11 + 27 + 6
    only = Params(datasets={"skelgap": DatasetParams("v")}, runs={"skeleton": RunParams(method="skeleton")})
    report = make_report(benchmark, tmp_path / "one", MANIFESTS, only)
    assert len(report.runs) == 1 + 9 + 3 and {run.first.method for run in report.runs} == {"skeleton"}


def test_frames_are_those_of_the_variant(tmp_path: Path) -> None:
    clips = [Clip("a", "test/a.mp4"), Clip("b", "test/b.mp4"), Clip("c", "test/c.mp4")]
    write_clips(tmp_path / "manifests/toy/clips.csv", clips)
    write_video(tmp_path / "videos/toy/test/a.mp4", offset=40)
    write_video(tmp_path / "videos/toy@dark/test/a.mp4", offset=0)
    (tmp_path / "videos/toy/test/c.mp4").write_text("no video")
    frames_of = ClipFrames(tmp_path / "videos", tmp_path / "manifests")
    found = frames_of("toy", "", ["a", "b", "c", "d"], 3)
    assert list(found) == ["a"] and found["a"].shape == (3, 48, 64, 3) and found["a"].dtype == np.uint8
    (tmp_path / "manifests/toy/clips.csv").unlink()  # a list is read once
    dark = frames_of("toy", "dark", ["a"], 3)
    assert dark["a"].mean() < found["a"].mean() - 30
    assert ClipFrames(tmp_path / "videos", tmp_path / "elsewhere")("toy", "", ["a"], 1) == {}


def test_frames_of_folders_of_images_come_from_the_root_of_their_data_set(tmp_path: Path) -> None:
    parts = {"a": {}, "b": {"start": 1.0, "end": 2.0}, "beyond": {"start": 9.0}}
    clips = [Clip(name, "frames/a/", fps=1.0, **part) for name, part in parts.items()]
    write_clips(tmp_path / "manifests/toy/clips.csv", clips)
    folder = tmp_path / "root/frames/a"
    folder.mkdir(parents=True)
    for name in ("0", "1"):
        Image.fromarray(np.full((48, 64, 3), 90 + int(name), np.uint8)).save(folder / f"{name}.png")
    manifests, roots = tmp_path / "manifests", {"toy": tmp_path / "root"}
    assert ClipFrames(tmp_path / "videos", manifests, roots)("toy", "", ["a"], 2)["a"].shape == (2, 48, 64, 3)
    segments = ClipFrames(tmp_path / "videos", manifests, roots)("toy", "", ["b", "beyond"], 2)
    assert list(segments) == ["b"] and (segments["b"] == 91).all(), "of what is the clip, not of all its video"
    assert ClipFrames(tmp_path / "videos", manifests)("toy", "", ["a"], 2) == {}


def test_tuples_are_those_with_two_twins_or_more(benchmark: Path) -> None:
    answers = by_name(benchmark)["posebridge"].results[0].answers
    sizes = twins(answers.sample(frac=1, random_state=0)).groupby("tuple", sort=False).size()
    assert len(sizes) == 18 and set(sizes) == {3, 4} and sizes.index.is_monotonic_increasing
    assert twins(answers[answers.label == min(CLASSES)]).empty
