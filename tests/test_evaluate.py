"""Encode, train and evaluate on made-up actions: what is written, what it means, and the ceiling of skeletons alone."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from synthetic import CLASSES, FLAGS, PARAMS, PROTOCOL, UNSEEN, VALIDATION, FakeReader, make_world

from pipeline.bench.confidence import bench_confidence
from pipeline.cache.sealed import read_sealed
from pipeline.errors import PosebridgeError
from pipeline.learn import evaluate as evaluation
from pipeline.learn import loop as training
from pipeline.learn.dataset import Dataset
from pipeline.learn.encode import encode
from pipeline.learn.encoders import load_encoder
from pipeline.learn.evaluate import evaluate
from pipeline.learn.feature_table import FeatureTable, StreamedTable, feature_table
from pipeline.learn.features import load_samples
from pipeline.learn.run import open_run
from pipeline.learn.train import train
from pipeline.params import RunParams
from pipeline.protocol.ceiling import read_attributes
from pipeline.protocol.duplicates import Duplicate
from pipeline.protocol.metrics import tuple_interval
from pipeline.protocol.training_set import training_phase
from pipeline.recipe import BOXES, other_side

pytestmark = pytest.mark.unit
TWO = replace(PARAMS, encode=replace(PARAMS.encode, epochs=10, seeds=(0, 1)))
PARAMS = replace(TWO, encode=replace(TWO.encode, seeds=(0,)))
QUICK = replace(PARAMS, encode=replace(PARAMS.encode, epochs=1), train=replace(PARAMS.train, epochs=1))
RUNS = {
    "posebridge": RunParams(flags=FLAGS),
    "skeleton": RunParams(method="skeleton", flags=FLAGS),
    "skeleton_gt": RunParams(method="skeleton", skeletons="gt", flags=FLAGS),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory, one_thread):
    """With clips enough for every seed to learn it: one that ends anywhere asks for the last bits of a processor."""
    world = make_world(tmp_path_factory.mktemp("world"), train=12)
    for skeletons, name, params in (("refined", "posebridge", TWO), ("gt", "skeleton_gt", PARAMS)):
        encode(world, PROTOCOL, skeletons, params.encode)
        train(world, PROTOCOL, name, RUNS[name], params)
        evaluate(world, PROTOCOL, name, RUNS[name], params)
    return world


def place(world, run, seed=0):
    return world.cache / "results" / "toy" / PROTOCOL / run / f"seed-{seed}"


def metrics(world, run, seed=0):
    return json.loads((place(world, run, seed) / "metrics.json").read_text())


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_metrics_have_the_keys_of_the_contract(world):
    found = metrics(world, "posebridge")
    assert set(found) >= {
        "dataset", "protocol", "run", "method", "flags", "seed", "recipe", "text", "hpe_text", "skeletons",
        "test_variant", "zsl", "gzsl", "adapted", "selection", "ceiling", "params", "gflops", "seconds", "missing",
        "halves", "twins", "boxes", "box_iou", "classes_without_clips",
    }  # fmt: skip
    assert found["zsl"]["top5"] is None, "of four classes all are among the five best"
    assert set(found["zsl"]) == {"top1", "top5", "macro", "n", "ci95"} and found["zsl"]["n"] == 24
    assert {"seen", "unseen", "harmonic", "ausuc", "harmonic_macro"} <= set(found["gzsl"])
    assert set(found["ceiling"]) >= {"skeleton", "cue", "twin_hits_max"}
    low, high = found["zsl"]["ci95"]
    assert 0 <= low < found["zsl"]["top1"] <= high <= 1
    said = rows(place(world, "posebridge") / "predictions.csv")
    right = np.array([row["label"] == row["predicted"] for row in said])
    assert [low, high] == list(tuple_interval(right, [row["tuple"] for row in said])), "twins are no independent clips"
    assert found["boxes"] in BOXES and found["box_iou"] is None
    assert found["adapted"] is None and found["missing"] == 0 and found["gflops"] > 0 and found["params"] > 1000
    assert found["gzsl"]["harmonic"] <= found["gzsl"]["harmonic_best"] <= 1
    assert {"epochs", "alpha", "gamma", "gamma_place", "zsl_top1", "gzsl_harmonic"} <= set(found["selection"])
    assert "confidence" not in found["selection"], "no figure rests on it"


def test_shares_are_learnt_in_the_selection_phase_and_measured_on_test_clips(world):
    path = world.cache / "models/toy" / PROTOCOL / "posebridge/seed-0/selection.json"
    learnt = read_sealed(path, "train")["confidence"]
    pseudo = training_phase("select", world.split(PROTOCOL), world.clips).pseudo_unseen
    assert learnt["words"]["clips"] == len(pseudo) and learnt["words"]["classes"] == 4
    found = bench_confidence(world, PROTOCOL, "posebridge", RUNS["posebridge"], [0])
    assert {(each.scope, each.labels) for each in found} >= {("words", 2), ("words", 3)}
    assert all(each.clips == 24 for each in found if each.scope == "words"), "the unseen classes' test clips"
    assert min(each.ece for each in found) < min(each.ece_before for each in found)


def test_true_skeletons_alone_stay_at_the_ceiling_and_cues_go_beyond(world):
    skeleton = metrics(world, "skeleton_gt")
    assert skeleton["ceiling"]["skeleton"] == skeleton["ceiling"]["cue"] == 0.5
    assert skeleton["ceiling"]["twin_hits_max"] <= 1  # for certain, not on average
    assert skeleton["zsl"]["top1"] <= 0.5
    assert {row["hits"] for row in rows(place(world, "skeleton_gt") / "twins.csv")} <= {"0", "1"}
    assert np.mean([metrics(world, "posebridge", seed)["zsl"]["top1"] for seed in (0, 1)]) > 0.6


def test_twins_have_equal_scores_in_every_bit_where_only_true_skeletons_are_seen(world):
    by_tuple: dict[str, set[str]] = {}
    for row in rows(place(world, "skeleton_gt") / "predictions.csv"):
        name, _, number = row["clip_id"].split("-")
        by_tuple.setdefault(name[0] + number, set()).add(row["scores"])
    assert len(by_tuple) == 12 and all(len(scores) == 1 for scores in by_tuple.values())


def test_predictions_and_confusion_agree_with_the_metrics(world):
    found = rows(place(world, "posebridge") / "predictions.csv")
    unseen = {str(CLASSES.index(name)) for name in UNSEEN}
    for row in found:
        scores = dict(pair.split(":") for pair in row["scores"].split())
        assert set(scores) == unseen and row["predicted"] == max(scores, key=lambda c: float(scores[c]))
    hits = sum(row["label"] == row["predicted"] for row in found)
    assert metrics(world, "posebridge")["zsl"]["top1"] == hits / 24
    confusion = np.array(
        [[int(row[name]) for name in UNSEEN] for row in rows(place(world, "posebridge") / "confusion.csv")]
    )
    assert confusion.sum() == 24 and np.trace(confusion) == hits and confusion.sum(1).tolist() == [6] * 4


def test_the_halves_of_the_answers_agree_with_the_predictions(world):
    found = metrics(world, "posebridge")
    told = rows(place(world, "posebridge") / "predictions.csv")
    answers = [(int(row["label"]), int(row["predicted"])) for row in told]
    named = read_attributes(world.folder / "attributes.csv")
    for k, column in enumerate(("motion", "object")):
        assert found["halves"][column]["right"] == np.mean([named[a][k] == named[b][k] for a, b in answers])
    assert found["twins"]["n"] == 24 and found["twins"]["chance"] == 0.5
    assert found["twins"]["right"] >= found["zsl"]["top1"]


def test_resolved_parameters_lie_beside_every_result(world):
    for kind in ("results", "models"):
        values = yaml.safe_load(
            (world.cache / kind / "toy" / PROTOCOL / "posebridge" / "seed-0" / "params.yaml").read_text()
        )
        assert values["runs"]["posebridge"]["flags"] == FLAGS and values["train"]["lr"] == 0.01
        assert values["encode"]["blocks"] == [1, 1, 1]


def test_the_first_seed_leaves_a_map_and_where_it_looks_for_people_to_look_at(world):
    here = place(world, "posebridge")
    points, looks = rows(here / "map.csv"), rows(here / "attention.csv")
    answered = {row["clip_id"] for row in rows(here / "predictions.csv")}
    assert answered < {row["clip_id"] for row in points} and sum(not row["clip_id"] for row in points) == len(CLASSES)
    shares = Counter()
    for row in looks:
        shares[row["clip_id"]] += float(row["share"])
    assert shares.keys() == answered and all(0 < share <= 1 for share in shares.values())
    label = {row["clip_id"]: row["label"] for row in rows(here / "predictions.csv")}
    assert len({label[clip_id] for clip_id in list(shares)[:3]}) == 3, "of other classes each, before the rest"
    curve = [(float(row["seen"]), float(row["unseen"])) for row in rows(here / "gzsl_curve.csv")]
    assert curve[0][1] == curve[-1][0] == 0 and len(curve) <= 101
    assert not (place(world, "posebridge", 1) / "map.csv").exists()
    assert not (place(world, "skeleton_gt") / "attention.csv").exists()


def test_evaluating_again_gives_the_same_bytes(world):
    before = (place(world, "posebridge") / "predictions.csv").read_bytes()
    evaluate(world, PROTOCOL, "posebridge", RUNS["posebridge"], PARAMS)
    assert (place(world, "posebridge") / "predictions.csv").read_bytes() == before


def test_true_skeletons_are_joined_with_the_cues_of_the_recipe(world):
    ids = ["Ap-test-1", "Cq-train-2"]
    samples = load_samples(ids, world.reader("gt"), world.reader("refined"))
    assert torch.equal(samples.keypoints, torch.from_numpy(world.reader("gt").read(ids, ["keypoints"])["keypoints"]))
    assert torch.equal(samples.cues, torch.from_numpy(world.reader("refined").read(ids, ["cues"])["cues"]))
    with pytest.raises(PosebridgeError, match="no cues"):
        load_samples(ids, world.reader("refined"), world.reader("gt"))


def test_clips_that_failed_or_repeat_one_are_counted_and_the_rest_goes_on(world, monkeypatch):
    full = world.readers["refined"]
    gone = {f"{name}-test-0" for name in UNSEEN}  # the first of each class, which the glimpse would look at
    rest = FakeReader(full.recipe, [c for c in full.clip_ids if c not in gone], full.arrays)
    rest.rows = full.rows
    broken = replace(world, readers=world.readers | {"refined": rest})
    evaluate(broken, PROTOCOL, "posebridge", RUNS["posebridge"], PARAMS)
    found = metrics(world, "posebridge")
    assert found["cues_from"] == "pose model" and metrics(world, "skeleton_gt")["cues_from"] == ""
    assert found["missing"] == 4 and found["zsl"]["n"] == 20 and found["repeated"] is None, "nobody has looked"
    assert found["classes_without_clips"] == [], "some are left of each"
    looked_at = list(dict.fromkeys(row["clip_id"] for row in rows(place(world, "posebridge") / "attention.csv")))
    assert len(looked_at) == 20 and all(clip_id.endswith("-test-1") for clip_id in looked_at[:3])
    same = [("Ap-test-0", "Ar-train-0"), ("Ar-test-0", "Ar-train-1"), ("gone", "Ar-train-2")]
    pairs = [Duplicate(test, train, "same video", 0.0, None, None) for test, train in same]
    monkeypatch.setattr(evaluation, "noted_duplicates", lambda index, clips: pairs)
    evaluate(world, PROTOCOL, "posebridge", RUNS["posebridge"], PARAMS)
    assert metrics(world, "posebridge")["repeated"] == 2, "of the test clips"
    monkeypatch.undo()
    evaluate(world, PROTOCOL, "posebridge", RUNS["posebridge"], PARAMS)


def test_classes_whose_clips_all_failed_are_named(world):
    full = world.readers["refined"]
    left = [c for c in full.clip_ids if not c.startswith(("Aq-test", "Ar-test"))]
    rest = FakeReader(full.recipe, left, full.arrays)
    rest.rows = full.rows
    broken = replace(world, readers=world.readers | {"refined": rest})
    evaluate(broken, PROTOCOL, "posebridge", RUNS["posebridge"], PARAMS)
    found = metrics(world, "posebridge")
    assert found["classes_without_clips"] == ["Ar", "Aq"] and found["zsl"]["n"] == 18
    evaluate(world, PROTOCOL, "posebridge", RUNS["posebridge"], PARAMS)
    assert metrics(world, "posebridge")["classes_without_clips"] == []


@pytest.fixture
def darker(world):
    """The world with a variant `low_light-2` of the unseen classes' clips, in which no cue is seen any more."""

    def add(recipe="refined", only=lambda clip_id: clip_id[:2] in UNSEEN, blind=True, frames=None):
        full = world.readers[recipe]
        kept = [c.clip_id for c in world.clips if c.part == "test" and only(c.clip_id)]
        arrays = {name: a.copy() for name, a in full.arrays.items()}
        if blind:
            arrays["cue_scores"][:] = 0
        reader = FakeReader(replace(full.recipe, frames=frames or full.recipe.frames), kept, arrays)
        reader.rows = full.rows
        return replace(world, readers=world.readers | {f"{recipe}@low_light-2": reader})

    return add


def test_a_variant_is_tested_by_the_models_of_the_run_as_they_are(world, darker):
    models = sorted((world.cache / "models").rglob("posebridge/**/*.*"))
    before = {path: path.read_bytes() for path in models}
    folder = evaluate(darker(), PROTOCOL, "posebridge", RUNS["posebridge"], PARAMS, variant="low_light-2")
    assert folder.name == "posebridge@low_light-2" and {path: path.read_bytes() for path in models} == before
    plain, found = metrics(world, "posebridge"), metrics(world, folder.name)
    assert found["test_variant"] == "low_light-2" and plain["test_variant"] == ""
    assert found["run"] == folder.name and found["selection"] == plain["selection"]
    assert found["zsl"]["n"] == 24 and found["missing"] == 0 and found["zsl"]["top1"] < plain["zsl"]["top1"]
    assert found["gzsl"] is None and plain["gzsl"] is not None  # no clip of a seen class is in the variant
    assert yaml.safe_load((folder / "seed-0/params.yaml").read_text())["test_variant"] == "low_light-2"
    assert not (folder / "seed-0/map.csv").exists()


def test_an_unchanged_variant_gives_the_answers_of_the_test_set(world, darker):
    same = darker(only=lambda clip_id: True, blind=False)
    folder = evaluate(same, PROTOCOL, "posebridge", RUNS["posebridge"], PARAMS, variant="low_light-2")
    assert (folder / "seed-0/predictions.csv").read_bytes() == (
        place(world, "posebridge") / "predictions.csv"
    ).read_bytes()
    assert metrics(world, folder.name)["gzsl"] == metrics(world, "posebridge")["gzsl"]


def test_a_variant_may_hold_some_classes_and_the_candidates_stay(world, darker):
    some = darker(only=lambda clip_id: clip_id.startswith(("Ap", "Aq", "Ar")))
    folder = evaluate(some, PROTOCOL, "posebridge", RUNS["posebridge"], PARAMS, variant="low_light-2")
    found = metrics(world, folder.name)
    assert found["zsl"]["n"] == 12 and found["gzsl"] is None and not found["classes_without_clips"]
    assert found["ceiling"]["twin_tuples"] == 6 and len(rows(folder / "seed-0/twins.csv")) == 6
    answers = rows(folder / "seed-0/predictions.csv")
    assert all(len(row["scores"].split()) == len(UNSEEN) for row in answers)
    assert {row["tuple"] for row in answers} == {f"A-{i}" for i in range(6)}


def test_where_no_clip_of_an_unseen_class_was_extracted_there_is_no_figure(world, darker):
    """An accuracy of no clips would be written as NaN."""
    seen = darker(only=lambda clip_id: clip_id.startswith("Ar"))
    with pytest.raises(PosebridgeError, match="refined@low_light-2 holds no test clip of a class that is unseen"):
        evaluate(seen, PROTOCOL, "posebridge", RUNS["posebridge"], PARAMS, variant="low_light-2")


def test_twins_of_seen_classes_do_not_count(world):
    path = world.cache / "videos/toy/twins.csv"
    before = path.read_text()
    path.write_text(before + "As-test-0,A-0\nCp-test-0,C-0\n")
    evaluate(world, PROTOCOL, "skeleton_gt", RUNS["skeleton_gt"], PARAMS)
    path.write_text(before)
    ceiling = metrics(world, "skeleton_gt")["ceiling"]
    assert ceiling["twin_hits_max"] <= 1 and ceiling["twin_tuples"] == 12


def test_a_variant_by_another_recipe_is_refused(darker):
    other = darker(frames=5)
    with pytest.raises(PosebridgeError, match="extract --dataset toy --recipe refined --variant low_light-2"):
        evaluate(other, PROTOCOL, "posebridge", RUNS["posebridge"], PARAMS, variant="low_light-2")


def test_a_run_may_have_seeds_of_its_own(world):
    one = replace(RUNS["posebridge"], seeds=(0,))
    more = replace(QUICK, encode=replace(QUICK.encode, seeds=(0, 1, 2)))
    assert more.seeds(one) == (0,) and more.seeds(RUNS["posebridge"]) == (0, 1, 2)
    train(world, PROTOCOL, "one", one, more)
    folder = evaluate(world, PROTOCOL, "one", one, more)
    assert [path.name for path in folder.iterdir()] == ["seed-0"]


def test_skeletons_of_another_recipe_come_with_its_encoder(world):
    run = RunParams(flags=FLAGS, recipe="refined", skeletons="gt")
    opened = open_run(world, PROTOCOL, run)
    samples = opened.samples([clip for clip in world.clips if clip.clip_id == "Ap-test-1"])
    assert opened.skeletons == "gt"
    assert torch.equal(samples.keypoints, load_samples(["Ap-test-1"], world.reader("gt")).keypoints)
    assert samples.cues is not None


def test_unique_samples_keep_their_clips_apart(world):
    ids = ["Ap-test-0", "Bp-test-0", "Aq-test-0", "Ap-test-1"]
    distinct, where = load_samples(ids, world.reader("gt")).unique()
    assert len(distinct) == 3 and where.tolist() == [0, 1, 0, 2]
    distinct, where = load_samples(ids, world.reader("gt"), world.reader("refined")).unique()
    assert len(distinct) == 4  # with cues, twins differ


def test_augmented_views_swap_the_hands_with_the_skeleton(world):
    samples = load_samples(["Ap-test-0", "Bq-test-3", "Cp-train-0"], world.reader("refined"), world.reader("refined"))
    encoder = load_encoder(world, PROTOCOL, "refined", 0, "final")
    table = feature_table(encoder, samples, ("body", "left_hand", "right_hand"), views=6, seed=1)
    plain = table.batch(torch.arange(3))
    assert torch.equal(plain.cues, samples.cues)
    view = next(v for v in range(1, 6) if table.mirrored[v, 0])
    turned = table.batch(torch.tensor([0]), torch.tensor([view]))
    assert torch.equal(turned.cues[0], samples.cues[0][..., [0, 2, 1], :])
    assert torch.equal(turned.cue_scores[0], samples.cue_scores[0][..., [0, 2, 1]])
    assert [other_side(name) for name in ("left_hand", "right_hand", "body")] == ["right_hand", "left_hand", "body"]


def test_maps_that_would_not_fit_are_made_batch_by_batch_and_are_the_same(world):
    samples = load_samples(["Ap-test-0", "Bq-test-3", "Cp-train-0"], world.reader("refined"), world.reader("refined"))
    encoder = load_encoder(world, PROTOCOL, "refined", 0, "final")
    anchors = ("body", "left_hand", "right_hand")
    held, made = (feature_table(encoder, samples, anchors, 4, 1, most) for most in (1 << 30, 0))
    assert isinstance(held, FeatureTable) and isinstance(made, StreamedTable)
    rows = torch.tensor([2, 0, 1, 0])
    assert torch.allclose(held.batch(rows).skeleton, made.batch(rows).skeleton, atol=1e-5)
    assert torch.equal(held.batch(rows).cues, made.batch(rows).cues)


def test_a_killed_training_goes_on_with_equal_results(world, monkeypatch):
    """Killed in the middle of either phase, wherever that is on this machine."""
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    run, folder = RUNS["posebridge"], world.cache / "models" / "toy" / PROTOCOL
    whole = read_sealed(folder / "posebridge/seed-0/selection.json", "train")
    first, final, calls = len(whole["scores_by_epoch"]), whole["epochs"], []

    def kill(what, progress):
        calls.append(what)
        if len(calls) in (max(1, first // 2), first + max(1, final // 2)):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(world, PROTOCOL, "again", run, PARAMS, kill)
    assert not (folder / "again/seed-0/final.safetensors").exists()
    train(world, PROTOCOL, "again", run, PARAMS, kill)
    assert calls == ["seed 0, select"] * first + ["seed 0, final"] * final, "no epoch is trained twice"
    for name in ("select", "final"):
        a, b = (load_file(folder / r / "seed-0" / f"{name}.safetensors") for r in ("posebridge", "again"))
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    again = read_sealed(folder / "again/seed-0/selection.json", "train")
    assert whole | {"seconds": 0} == again | {"seconds": 0}
    assert not list((world.cache / "state").rglob("*.safetensors"))


def test_what_has_learnt_from_clips_that_are_for_testing_now_is_refused(tmp_path):
    world, run = make_world(tmp_path), RUNS["skeleton"]
    encode(world, PROTOCOL, "refined", QUICK.encode)
    train(world, PROTOCOL, "skeleton", run, QUICK)
    evaluate(world, PROTOCOL, "skeleton", run, QUICK)
    for change in ({"label": CLASSES.index("As")}, {"part": "test"}):
        clips = tuple(replace(clip, **change) if clip.clip_id == "Ar-train-0" else clip for clip in world.clips)
        now = replace(world, clips=clips)
        for stage in (train, evaluate):
            with pytest.raises(PosebridgeError, match="posebridge encode .* again"):
                stage(now, PROTOCOL, "skeleton", run, QUICK)
    encode(now, PROTOCOL, "refined", QUICK.encode)
    with pytest.raises(PosebridgeError, match="posebridge train .* --run skeleton. again"):
        evaluate(now, PROTOCOL, "skeleton", run, QUICK)
    train(now, PROTOCOL, "skeleton", run, QUICK)
    evaluate(now, PROTOCOL, "skeleton", run, QUICK)
    encode(now, PROTOCOL, "refined", replace(QUICK.encode, lr=2e-2))  # of the same clips, but others than it stands on
    with pytest.raises(PosebridgeError, match="another skeleton encoder.*posebridge train .* --run skeleton. again"):
        evaluate(now, PROTOCOL, "skeleton", run, QUICK)


def test_seeds_side_by_side_give_what_they_give_one_after_another(tmp_path, one_thread):
    """After one epoch: the processes have other numbers of threads, which sum in another order, and last bits grow."""
    world, two = make_world(tmp_path), replace(QUICK, encode=replace(QUICK.encode, seeds=(0, 1)))
    folder = encode(world, PROTOCOL, "refined", two.encode, jobs=2)
    losses = [json.loads((folder / f"seed-{seed}" / "final.json").read_text())["losses"] for seed in (0, 1)]
    train(world, PROTOCOL, "alone", RUNS["posebridge"], two)
    told = []
    train(world, PROTOCOL, "together", RUNS["posebridge"], two, lambda what, _: told.append(what), jobs=2)
    assert losses[0] != losses[1] and {what.split(",")[0] for what in told} == {"seed 0", "seed 1"}
    models = world.cache / "models" / "toy" / PROTOCOL
    alone, together = (
        [load_file(models / run / f"seed-{seed}" / "final.safetensors")["head.weight"] for seed in (0, 1)]
        for run in ("alone", "together")
    )
    for seed in (0, 1):
        torch.testing.assert_close(alone[seed], together[seed], atol=1e-3, rtol=0)
    assert (alone[0] - alone[1]).abs().max() > 0.1, "seeds differ by far more"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "pgfb"}, ["no method named 'pgfb'"]),
        ({"recipe": "gt"}, ["'gt' holds no cues"]),
        ({"text": "mpnet"}, ["mpnet", "posebridge text"]),
        ({"flags": {"bridges": True}}, ["'bridges'"]),
        ({"flags": {"text_slots": ["feet"]}}, ["no slot 'feet'"]),
    ],
)
def test_a_run_that_cannot_be_is_one_sentence(world, change, words):
    with pytest.raises(PosebridgeError) as error:
        train(world, PROTOCOL, "wrong", replace(RUNS["posebridge"], **change), PARAMS)
    assert all(word in str(error.value) for word in words), error.value


def test_what_is_missing_names_the_command_that_makes_it(world):
    with pytest.raises(PosebridgeError, match="posebridge train --dataset toy .* --run untrained"):
        evaluate(world, PROTOCOL, "untrained", RUNS["posebridge"], PARAMS)
    for changed in ({"width": 32}, {"additive": False}):  # the latter with weights of the same shapes
        with pytest.raises(PosebridgeError, match="another method or flags than .*run `posebridge train` again"):
            evaluate(world, PROTOCOL, "posebridge", replace(RUNS["posebridge"], flags=FLAGS | changed), PARAMS)
    more = replace(PARAMS, encode=replace(PARAMS.encode, seeds=(7,)))
    with pytest.raises(PosebridgeError, match="posebridge encode --dataset toy .* --skeletons refined"):
        train(world, PROTOCOL, "posebridge", RUNS["posebridge"], more)
    with pytest.raises(PosebridgeError, match="posebridge extract --dataset toy --recipe refined"):
        Dataset(world.name, world.manifests, world.cache, world.class_names, world.clips).reader("refined")


def test_a_protocol_without_unseen_classes_has_no_zsl_figure(world):
    lines = [f"{CLASSES.index(name)} {name}" for name in VALIDATION]
    (world.folder / "protocols/all_seen.txt").write_text("# nobody\n")
    (world.folder / "protocols/all_seen.val.txt").write_text("\n".join(lines) + "\n")
    clips = tuple(replace(c, part="train" if c.clip_id.endswith(("0", "1", "2", "3")) else c.part) for c in world.clips)
    everyone = replace(world, clips=clips)
    encode(everyone, "all_seen", "refined", QUICK.encode)
    train(everyone, "all_seen", "posebridge", RUNS["posebridge"], QUICK)
    folder = evaluate(everyone, "all_seen", "posebridge", RUNS["posebridge"], QUICK)
    found = json.loads((folder / "seed-0/metrics.json").read_text())
    assert found["zsl"] is None and found["gzsl"] is None and found["ceiling"] is None
    assert rows(folder / "seed-0/map.csv") and not rows(folder / "seed-0/attention.csv")
