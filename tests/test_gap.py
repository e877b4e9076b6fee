"""What is lost when only skeletons are kept: planted attributes that cues, skeletons or only the group know."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from synthetic import FakeDataset, FakeReader

import stages.gap
from pipeline.errors import PosebridgeError
from pipeline.files.names import own_name
from pipeline.gap.gap import Gap, measure_gap, only_recipe
from pipeline.gap.known import know
from pipeline.gap.linear import grouped_folds, interval, linear_probe, macro_accuracy
from pipeline.gap.picture import draw_gap
from pipeline.gap.question import ask
from pipeline.learn import dataset as datasets
from pipeline.learn.features import Samples
from pipeline.manifest.clips import Clip, write_classes, write_clips
from pipeline.params import Params, RunParams
from pipeline.protocol.metrics import binomial_interval
from pipeline.recipe import Recipe
from pipeline.report.figures import save
from stages.cli import main

pytestmark = pytest.mark.unit
ANCHORS = ("left_hand", "right_hand", "background")
PEOPLE, OF_EACH, WIDTH = 12, 10, 16
WORDS = ("cup", "book", "none")
N = PEOPLE * OF_EACH


def world(root: Path, held: float = 2.0, room: float = 0.0) -> FakeDataset:
    """`N` clips of `PEOPLE` persons. The joints show the movement, the hands' cues the `thing` as far as `held` says,
    and all cues the person's own room as far as `room` says. The `shirt` is the person's, and by chance.
    """
    rng = np.random.default_rng(0)
    folder = root / "manifests/toy"
    write_classes(folder / "classes.csv", ["sit", "stand"])
    (folder / "attributes.csv").write_text("index,height,same\n0,low,one\n1,high,one\n")
    thing, label = rng.integers(0, 3, N), rng.integers(0, 2, N)
    person = np.repeat(np.arange(PEOPLE), OF_EACH)
    shirts = rng.integers(0, 2, PEOPLE)
    clips = [Clip(f"c{i}", f"v{i}.mp4", label=int(label[i]), subject=f"p{person[i]}") for i in range(N)]
    others = {
        f"c{i}": {
            "thing": WORDS[thing[i]], "shirt": "rb"[shirts[person[i]]], "id": str(i), "team": f"t{person[i] % 3}",
            "some": ["x", "y"][thing[i] % 2] if i % 2 else "", "void": "",
            "rare": "only" if i == 7 else WORDS[thing[i]],
        }
        for i in range(N)
    }  # fmt: skip
    write_clips(folder / "clips.csv", clips, others)
    joints = rng.normal(size=(N, 1, 8, 17, 2))
    joints[:, :, :, 9:11, 1] += 6 * label[:, None, None, None]
    cues = rng.normal(size=(N, 1, 4, len(ANCHORS), WIDTH))
    cues[:, :, :, :2] += held * np.eye(3, WIDTH)[thing][:, None, None, None]
    cues += room * rng.normal(size=(PEOPLE, WIDTH))[person][:, None, None, None]
    arrays = {
        "keypoints": joints.astype(np.float32),
        "scores": np.ones((N, 1, 8, 17), np.float16),
        "person_valid": np.ones((N, 1, 8), bool),
        "cues": cues.astype(np.float16),
        "cue_scores": np.ones(cues.shape[:-1], np.float16),
    }
    recipe = Recipe(frames=8, cue_frames=4, anchors=ANCHORS, cues="levels")
    ids = [clip.clip_id for clip in clips]
    reader = FakeReader(recipe, ids, arrays)
    bare = FakeReader(replace(recipe, cues="none"), ids, {k: v for k, v in arrays.items() if "cue" not in k})
    room_arrays = arrays | {name: arrays[name][:, :, :, 2:] for name in ("cues", "cue_scores")}
    control = FakeReader(replace(recipe, anchors=ANCHORS[2:]), ids, room_arrays)
    others_own = FakeReader(replace(recipe, backend="features"), ids, {k: v for k, v in arrays.items() if "cue" in k})
    readers = {"levels": reader, "bare": bare, "control": control, "imported": others_own}
    for each in readers.values():
        each.index = {"clips": {clip_id: i // 16 for i, clip_id in enumerate(ids)}}
    opened = datasets.open_dataset("toy", root / "manifests", root / "cache")
    return FakeDataset(opened.name, opened.manifests, opened.cache, opened.class_names, opened.clips, readers)


def shares(found: Gap) -> dict[str, float]:
    return {each.what: each.accuracy for each in found.knows}


def test_what_only_cues_know_is_lost_with_skeletons_alone(tmp_path):
    found = measure_gap(world(tmp_path), "levels", "thing", level_widths=(3, 13))
    known = shares(found)
    assert list(known) == [
        "skeleton", "cues of level 1", "cues of level 2", "cues at left_hand", "cues at right_hand",
        "cues at background", "cues", "skeleton and cues",
    ]  # fmt: skip
    assert known["cues"] > 0.95 and known["cues of level 1"] > 0.95 and known["cues at left_hand"] > 0.9
    chance = [known["skeleton"], known["cues of level 2"], known["cues at background"]]
    assert found.chance == pytest.approx(1 / 3) and max(chance) < 0.5
    assert found.gap == known["skeleton and cues"] - known["skeleton"] and found.gap_ci95[0] > 0.3
    assert (found.clips, found.groups, found.grouped_by) == (N, PEOPLE, "subject")
    assert sum(found.values.values()) == N and list(found.values) == sorted(WORDS)
    assert all(each.ci95[0] <= each.accuracy <= each.ci95[1] for each in found.knows)


def test_of_several_persons_the_first_two_are_looked_at():
    joints = torch.randn(3, 3, 8, 17, 2, generator=torch.Generator().manual_seed(0))
    seen = torch.ones(3, 3, 8)
    ones = torch.ones(3, 3, 4, 2)

    def of(x):
        return know(Samples(tuple("abc"), x, torch.ones(x.shape[:-1]), seen.bool(), ones[..., None], ones)).skeletons

    plain = of(joints)
    for person, counts in enumerate((True, True, False)):
        moved = joints.clone()
        moved[:, person, :, 0] += 1
        assert torch.equal(of(moved), plain) != counts


def test_what_the_skeleton_knows_is_not_lost(tmp_path):
    for attribute in ("class", "height"):
        found = measure_gap(world(tmp_path), "levels", attribute)
        known = shares(found)
        assert known["skeleton"] > 0.95 and known["cues"] < 0.65 and abs(found.gap) < 0.1
        assert set(found.values) == ({"sit", "stand"} if attribute == "class" else {"low", "high"})
        assert "cues of level 1" not in known, "nobody said where a level ends"


def test_what_a_person_always_wears_is_known_only_where_clips_of_one_person_are_on_both_sides(tmp_path):
    toy = world(tmp_path, held=0, room=3)
    leaked = shares(measure_gap(toy, "levels", "shirt", "path"))
    honest = shares(measure_gap(toy, "levels", "shirt"))
    assert leaked["cues"] > 0.95 and leaked["cues at background"] > 0.95
    assert honest["cues"] < 0.7


def test_a_probe_in_closed_form_is_the_probe_fitted_anew():
    """The held-out answers by which the strength is chosen, too."""
    from pipeline.gap import linear

    rng = torch.Generator().manual_seed(0)
    x, answers = torch.randn(40, 5, generator=rng).double(), torch.arange(40) % 3
    weights, folds = linear._equal_weights(answers), torch.arange(40) // 10
    gram = x @ x.T
    targets = torch.nn.functional.one_hot(answers, 3).double()
    inverse = torch.linalg.inv(gram + torch.diag(2 / weights.double()))
    held_out = linear._held_out(torch.linalg.cholesky(inverse), inverse @ targets, targets, folds)
    for fold in range(4):
        known = folds != fold
        w = weights[known, None].double()
        fitted = torch.linalg.solve(x[known].T @ (w * x[known]) + 2 * torch.eye(5), x[known].T @ (w * targets[known]))
        assert torch.allclose(held_out[~known], x[~known] @ fitted, atol=1e-8)


def test_values_count_alike_and_wide_features_no_more():
    """Nine clips in ten are of one value; shares of blocks count, not their widths or units."""
    rng = torch.Generator().manual_seed(0)
    answers = (torch.arange(200) % 10 == 0).long()
    told = torch.randn(200, 1, generator=rng) + 4 * answers[:, None]
    noise = torch.randn(200, 400, generator=rng) * 1e4
    folds = np.arange(200) // 40
    said = linear_probe({"told": told, "noise": noise}, {"both": {"told": 0.5, "noise": 0.5}}, answers, folds)["both"]
    assert macro_accuracy(said.argmax(1), answers, [str(i) for i in range(200)])[0] > 0.8


def test_every_value_weighs_the_same_and_one_that_is_not_drawn_nothing():
    told, drawn = macro_accuracy(torch.tensor([0, 0, 1, 0]), torch.tensor([0, 0, 0, 1]), ["a", "a", "a", "b"])
    assert told == pytest.approx(1 / 3)  # 2 of 3 and 0 of 1, once each
    assert sorted({round(float(share), 3) for share in drawn}) == [0, 0.333, 0.667]  # b alone, both, a alone


def test_an_interval_of_all_or_none_right_is_that_of_so_many_groups():
    """Forty clips of eight groups, each of the other value: draws of groups are all alike."""
    answers = torch.arange(40) % 2
    for said, hits in ((answers, 8), (1 - answers, 0)):
        accuracy, draws = macro_accuracy(said, answers, [str(clip // 5) for clip in range(40)])
        assert accuracy == hits / 8 and interval(draws, 8) == binomial_interval(hits, 8) != interval(draws)


def test_folds_hold_whole_groups_and_do_not_hang_on_order():
    groups = ["a"] * 7 + ["b"] * 2 + list("cdefg")
    folds = grouped_folds(groups, 3)
    assert np.bincount(folds).tolist() == [7, 4, 3] and len(set(folds[:7].tolist())) == 1
    order = np.random.default_rng(0).permutation(len(groups))
    assert grouped_folds([groups[i] for i in order], 3).tolist() == folds[order].tolist()


def test_of_many_clips_some_are_drawn_by_a_seed_from_few_shards(tmp_path):
    toy = world(tmp_path)
    shard_of = toy.reader("levels").index["clips"]
    drawn = ask(toy, shard_of, "thing", "path", most=40, seed=1)
    assert len(drawn.clip_ids) == 40 and len({shard_of[clip_id] for clip_id in drawn.clip_ids}) == 3
    assert drawn.clip_ids == ask(toy, shard_of, "thing", "path", most=40, seed=1).clip_ids
    assert drawn.clip_ids != ask(toy, shard_of, "thing", "path", most=40, seed=2).clip_ids
    assert drawn.left_out == ("80 of 120 clips, which the draw of seed 1 did not hit",)


def test_clips_that_nothing_can_be_asked_of_are_left_out_and_told(tmp_path):
    toy = world(tmp_path)
    assert measure_gap(toy, "levels", "some").left_out == ("60 clips without a value of some",)
    rare = measure_gap(toy, "levels", "rare")
    assert rare.left_out == ("1 clips of 1 values that are in one fold only, first 'only'",) and rare.clips == N - 1
    assert measure_gap(toy, "levels", "thing", values=("cup", "book")).values.keys() == {"cup", "book"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("levels", "thin"), r"no column 'thin' in clips.csv or attributes.csv; there are class, .*height.*thing"),
        (("levels", "void"), r"attribute 'void' of toy is empty"),
        (("levels", "same"), r"All 120 clips have the same value of same, 'one'"),
        (("levels", "id"), r"Of 120 values of id none is in two folds"),
        (("levels", "thing", "team"), r"are of 3 groups by team, and 5 folds"),
        (("levels", "thing", "some"), r"The clip 'c0' has no some"),
        (("levels", "thing", "", ("pen",)), r"No clip has 'pen' for thing; there are book, cup, none"),
        (("levels", "thing", "", ("cup",)), r"have the same value of thing, 'cup'"),
        (("bare", "thing"), r"recipe bare of toy holds no cues"),
        (("control", "thing"), r"recipe control of toy holds cues only where no body is, a control; name another"),
        (("imported", "thing"), r"recipe imported of toy holds no skeletons but imported features; name"),
        (("", "thing"), r"holds no extraction with cues; make one with `posebridge extract --dataset toy`"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_one_sentence(tmp_path, asked, said):
    with pytest.raises(PosebridgeError, match=said) as told:
        measure_gap(world(tmp_path), *asked)
    assert str(told.value).endswith(".") and "\n" not in str(told.value)
    with pytest.raises(PosebridgeError, match="are 5 wide, but the cues of levels are 16; .* `posebridge extract`"):
        measure_gap(world(tmp_path / "again"), "levels", "thing", level_widths=(5,))


def test_of_several_extractions_the_one_that_has_both_sides_is_taken(tmp_path, monkeypatch):
    toy = world(tmp_path)
    for name in toy.readers:
        (tmp_path / "cache/toy" / name).mkdir(parents=True)
        (tmp_path / "cache/toy" / name / "index.json").touch()
    monkeypatch.setattr("pipeline.gap.gap.read_index", lambda path, _: {"recipe": toy.reader(path.parent.name).recipe})
    assert only_recipe(toy) == "levels"


@pytest.mark.parametrize("widths", [5, "ab", [1.5], [-2, 18], {"a": 1}], ids=str)
def test_widths_of_levels_are_numbers(widths):
    params = Params(runs={"own": RunParams(recipe="levels", flags={"level_widths": widths})})
    with pytest.raises(PosebridgeError, match="The level_widths of the run 'own' should be whole numbers"):
        stages.gap.level_widths(params, "levels")
    assert stages.gap.level_widths(params, "other") == ()


@pytest.mark.parametrize("words", [["gap"], ["bench", "cues", "--recipe", "r"]], ids=str)
def test_no_more_clips_are_asked_about_than_memory_holds(words):
    """The probe keeps a matrix of clips by clips for every look."""
    done = CliRunner().invoke(main, [*words, "--dataset", "toy", "--clips", "240000"])
    assert done.exit_code == 2 and "is not in the range" in done.stderr


def test_the_command_writes_a_table_and_a_picture(tmp_path, monkeypatch):
    toy = world(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "open_dataset", lambda *_, **__: toy)
    (tmp_path / "params.yaml").write_text(
        "recipes: {levels: {cues: levels}}\nruns: {posebridge: {recipe: levels, flags: {level_widths: [2, 14]}}}\n"
    )
    words = ["gap", "--dataset", "toy", "--recipe", "levels", "--attribute", "thing"]
    done = CliRunner().invoke(main, [*words, "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert [each["what"] for each in result["knows"]][1:3] == ["cues of level 1", "cues of level 2"]
    picture = tmp_path / result["picture"]
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000
    written = json.loads(picture.with_suffix(".json").read_text())
    assert written == {key: value for key, value in result.items() if key != "picture"}
    plain = CliRunner().invoke(main, words).stdout
    assert "chance" in plain and "Skeletons alone lose" in plain and "12 whole groups by subject" in plain
    failed = CliRunner().invoke(main, [*words, "--recipe", "bare"])
    assert failed.exit_code == 1 and failed.stderr.startswith("Error: ") and failed.stderr.count("\n") == 1


def test_bench_cues_takes_a_device_for_clips_only(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("stages.bench_taps.probe_dataset", lambda *words: asked.append(words) or ({}, "done"))
    (tmp_path / "params.yaml").write_text("recipes: {}\n")
    words = ["--device", "cpu", "--params", str(tmp_path / "params.yaml")]
    done = CliRunner().invoke(main, ["bench", "cues", "--dataset", "toy", "--recipe", "r", *words])
    assert done.exit_code == 0 and asked[0][-1].type == "cpu"
    done = CliRunner().invoke(main, ["bench", "cues", "--weights", "skelgap-sem", *words])
    assert done.exit_code == 2 and "--device goes with --dataset only" in done.stderr


def test_another_question_has_other_files():
    questions = [("thing", "", (), 1000, 0), ("thing", "shoot", (), 1000, 0), ("thing", "shoot", ("a", "b"), 1000, 0),
                 ("thing", "shoot", ("a",), 1000, 0), ("thing", "", (), 50, 0), ("thing", "", (), 1000, 1)]  # fmt: skip
    names = [stages.gap.name_of(*question) for question in questions]
    assert len(set(names)) == 6 and names[:2] == ["thing", "thing-by-shoot"]
    assert names[2] == stages.gap.name_of("thing", "shoot", ("b", "a"), 1000, 0)


def test_names_of_columns_and_data_are_no_formulas_and_no_paths(tmp_path):
    names = {own_name(column) for column in ("a_b", "a b", "a/b", "a-b", "a" * 61, "a" * 62, "..", "𝄞" * 200)}
    assert len(names) == 8 and {"a_b", "a-b"} < names and own_name("held object/$x$ é").startswith("held-object--x--é-")
    assert all("/" not in name and len(f"{name}.json".encode()) < 256 for name in names)
    found = measure_gap(world(tmp_path), "levels", "thing")
    save(draw_gap(replace(found, attribute="$x^$" + 200 * "é", grouped_by="$x_")), tmp_path / "a.png")
