"""Training on one data set and testing on another, of other joints, dimensions and clips, through the real stages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from synthetic import SEEN, FakeReader, make_world
from test_common_form import stand
from test_interchange import WITHOUT_CUES as METHODS_FLAGS

from pipeline.errors import PosebridgeError
from pipeline.interchange.importing import import_skeletons
from pipeline.learn.across import Across, AcrossReader, beside, under
from pipeline.learn.dataset import Dataset, open_dataset
from pipeline.learn.encode import encode, train_encoder
from pipeline.learn.evaluate import evaluate
from pipeline.learn.features import StoredSamples, load_samples, open_samples
from pipeline.learn.run import open_run
from pipeline.learn.train import train
from pipeline.manifest.clips import read_clips, write_classes, write_clips
from pipeline.methods.partition import SLOTS
from pipeline.params import EncodeParams, Params, RunParams, TrainParams
from pipeline.protocol.across import in_words, merge_classes
from pipeline.protocol.draw import make_across
from pipeline.protocol.exposure import exposed
from pipeline.protocol.splits import read_split, told_overlap
from pipeline.protocol.training_set import PHASES, training_phase
from pipeline.recipe import Recipe
from pipeline.report.leaderboard import text_table
from pipeline.report.results import read_results
from pipeline.report.runs import read_runs
from pipeline.skeleton.graph import graph_of
from pipeline.text.bank import TextBank, save_bank
from stages.cli import main

pytestmark = pytest.mark.unit

T = 8
PROTOCOL, BOTH = "from_lab", "ntu25_3d+coco17_2d"
# limb, direction of its movement; a name is spelt otherwise in the data set that is tested
TRAINED = {"Lift hands": "hs", "lift feet": "fs", "wave hands": "ho", "wave feet": "fo", "nod": "ds", "drop": "hd"}
TESTED = {"lift-hands": "hs", "waving feet": "fo", "shake head": "do", "Let feet fall": "fd"}
UNSEEN = ["shake head", "Let feet fall"]
LIMBS = {"h": ("wrist", "hand", "hand_tip", "thumb"), "f": ("ankle", "foot"), "d": ("head", "nose", "ear", "eye")}
RECIPES = {
    "ntu25_3d": Recipe(backend="import", cues="none", layout="ntu25", dimensions=3, persons=2, frames=T),
    "coco17_2d": Recipe(backend="import", cues="none", layout="coco17", dimensions=2, persons=2, frames=T),
}
PARAMS = Params(
    recipes=RECIPES,
    encode=EncodeParams(epochs=2, batch_size=16, lr=1e-2, width=8, blocks=(1, 1, 1), seeds=(0,)),
    train=TrainParams(epochs=2, batch_size=16, lr=1e-2, views=2),
)
QUICK = replace(PARAMS, encode=replace(PARAMS.encode, epochs=1), train=replace(PARAMS.train, epochs=1))
RUN = RunParams(method="skeleton", flags={"width": 16, "heads": 2, "layers": 1}, recipe=BOTH)


def body(layout: str, action: str, rng: np.random.Generator) -> np.ndarray:
    """[T, V, 3] in metres in Kinect's space: a limb goes up and down, out and in, or once down."""
    x = np.repeat(stand(layout, rng.uniform(-0.4, 0.4))[None], T, 0)
    phase = np.linspace(0, 2 * np.pi, T) + rng.uniform(0, 0.5)
    way = {"s": (0, np.sin(phase)), "o": (np.cos(phase), 0), "d": (0, -np.linspace(0, 2, T))}[action[1]]
    for joint, name in enumerate(graph_of(layout).joints):
        side = -1 if name.startswith("left") else 1
        if name.removeprefix("left_").removeprefix("right_") in LIMBS[action[0]]:
            x[:, joint, 0] += 0.3 * side * way[0] if action[0] != "d" else 0.3 * way[0]
            x[:, joint, 1] += 0.3 * way[1]
    return x + rng.normal(size=x.shape) * 0.01


def make_dataset(root: Path, name: str, classes: dict[str, str], recipe_name: str, per_class: int) -> None:
    """Classes, texts, a text bank and imported skeletons; the camera's are pixels with scores of their own."""
    rng, recipe = np.random.default_rng(len(name)), RECIPES[recipe_name]
    folder, ids = root / "manifests" / name, []
    arrays = {"keypoint": [], "keypoint_score": [], "label": [], "split": []}
    write_classes(folder / "classes.csv", list(classes))
    for label, action in enumerate(classes.values()):
        for i in range(per_class):
            x = body(recipe.layout, action, rng)
            score = np.ones(x.shape[:2])
            if recipe.dimensions == 2:
                x, score = x[..., :2] * [-180, -180] + [320, 240], rng.uniform(0.3, 0.9, x.shape[:2])
            ids.append(f"{label}-{i}")
            arrays["keypoint"].append(x[None])
            arrays["keypoint_score"].append(score[None])
            arrays["label"].append(label)
            arrays["split"].append("val" if i % 3 == 2 else "train")
    file = root / f"{name}.npz"
    np.savez(file, frame_dir=np.array(ids), **{key: np.array(value) for key, value in arrays.items()})
    import_skeletons(
        name, recipe_name, recipe, file, manifests=root / "manifests", cache=root / "cache", clips_per_shard=7
    )
    slots = ("label", "one_line", *SLOTS)
    words = {"environment": "a hall", "used_object": "none", "target_object": "none", "key_parts": "legs"}
    rows = [f"{c},{slot},{slot} of {known}" for c, known in enumerate(classes) for slot in slots]
    rows += [f"{c},{slot},{text}" for c in range(len(classes)) for slot, text in words.items()]
    (folder / "texts.csv").write_text("\n".join(["index,slot,text", *rows]) + "\n")
    parts = {letter: np.random.default_rng(ord(letter)).normal(size=32) for letter in "hfdso"}
    vectors = np.stack([parts[limb] + parts[way] for limb, way in classes.values()])
    vectors = vectors[:, None] + 0.3 * rng.normal(size=(len(classes), len(slots), 32))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    bank = TextBank(
        torch.from_numpy(vectors).float(), torch.ones(len(classes), len(slots), dtype=torch.bool), slots,
        tuple(classes), "minilm", "0" * 64,
    )  # fmt: skip
    save_bank(bank, name, root / "cache")


@pytest.fixture(scope="module")
def made(tmp_path_factory, one_thread):
    """A lab with a Kinect, and a camera elsewhere, whose data set has two of the lab's six actions and two others."""
    root = tmp_path_factory.mktemp("across")
    make_dataset(root, "lab", TRAINED, "ntu25_3d", 12)
    make_dataset(root, "camera", TESTED, "coco17_2d", 9)
    (root / "manifests" / "same_names.csv").write_text("name,same_as\nwaving feet,Wave Feet\n")
    make_across("camera", "lab", manifests=root / "manifests")
    return root


@pytest.fixture
def root(made, tmp_path):
    """A copy in which things may be broken."""
    shutil.copytree(made / "manifests", tmp_path / "manifests")
    shutil.copytree(made / "cache", tmp_path / "cache")
    return tmp_path


def camera(root: Path) -> Dataset:
    return open_dataset("camera", root / "manifests", root / "cache")


def opened(root: Path) -> Across:
    found = under(camera(root), PROTOCOL)
    assert isinstance(found, Across)
    return found


def figures(root: Path, name: str) -> dict:
    path = root / f"cache/results/camera/{PROTOCOL}/{name}/seed-0/metrics.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_protocol_leaves_out_what_both_have_and_says_so(made):
    split = read_split(made / "manifests/camera/protocols", PROTOCOL, tuple(TESTED))
    assert split.class_names[:4] == tuple(TESTED) and len(split.class_names) == 8
    assert [split.class_names[c] for c in split.unseen] == UNSEEN and split.trains_on == "lab"
    assert split.merged and [split.class_names[c] for c in split.merged.shared] == ["lift-hands", "waving feet"]
    assert split.merged.of_training == (0, 4, 5, 1, 6, 7) and set(split.seen) == {0, 1, 4, 5, 6, 7}
    assert set(split.validation) <= set(split.seen) and len(split.validation) == 2
    text = (made / f"manifests/camera/protocols/{PROTOCOL}.txt").read_text()
    assert "# Trains on: lab\n# Counts: 6 seen, 2 unseen.\n" in text


def test_its_clips_are_train_clips_of_one_and_test_clips_of_the_other(made):
    found = opened(made)
    train_clips = [clip for clip in found.clips if clip.trains]
    assert {clip.clip_id.partition(":")[0] for clip in train_clips} == {"lab"} and len(train_clips) == 6 * 8
    assert {clip.label for clip in train_clips} == set(found.crossed.seen)
    tested = [clip for clip in found.clips if clip.tests]
    assert len(tested) == 4 * 3 and {clip.label for clip in tested} == {0, 1, 2, 3}
    assert not any(clip.trains for clip in tested)


def test_both_sides_are_read_in_one_form_and_in_any_order(made):
    reader = opened(made).reader(BOTH)
    ids = ["3-2", "lab:0-0", "0-0", "lab:5-11"]
    arrays = reader.read(ids, ["scores", "keypoints", "person_valid"])
    assert arrays["keypoints"].shape == (4, 2, T, 17, 2) and arrays["keypoints"].dtype == np.float32
    assert arrays["person_valid"][:, 0].all() and not arrays["person_valid"][:, 1].any()
    nose = graph_of("common17").joints.index("nose")
    assert not arrays["scores"][..., nose].any() and set(np.unique(arrays["scores"])) == {0, 1}
    for row, clip_id in enumerate(ids):
        alone = reader.read([clip_id], ["keypoints"])["keypoints"]
        assert (alone[0] == arrays["keypoints"][row]).all()
    assert reader.recipe.layout == "common17" and reader.recipe.dimensions == 2
    samples = load_samples(ids, reader)
    assert torch.isfinite(samples.inputs[0]).all() and samples.graph.joints[0] == "hip_centre"


def test_clips_that_do_not_fit_into_memory_stay_on_the_disk(made):
    reader = opened(made).reader(BOTH)
    ids = [clip_id for clip_id in reader.clip_ids if clip_id.startswith("lab:")]
    stored = open_samples(ids, reader, held_bytes=1000)
    assert isinstance(stored, StoredSamples)
    assert torch.equal(stored.take([5, 2]).inputs[0], load_samples(ids, reader).take([5, 2]).inputs[0])


@pytest.fixture(scope="module")
def trained(made):
    dataset = camera(made)
    encode(dataset, PROTOCOL, BOTH, PARAMS.encode)
    train(dataset, PROTOCOL, "skeleton", RUN, PARAMS)
    evaluate(dataset, PROTOCOL, "skeleton", RUN, PARAMS)
    return made


def test_a_run_that_learnt_from_a_kinect_in_3d_is_tested_on_a_cameras_pictures(trained):
    found = figures(trained, "skeleton")
    assert found["dataset"] == "camera" and found["training_dataset"] == "lab"
    assert found["overlapping_classes"] == ["lift-hands", "waving feet"] and found["overlapping_clips"] == 0
    assert found["zsl"]["n"] == 6 and found["missing"] == 0 and found["repeated"] is None
    assert found["gzsl"] is not None and found["skeletons"] == "estimated"
    confusion = (trained / f"cache/results/camera/{PROTOCOL}/skeleton/seed-0/confusion.csv").read_text()
    assert confusion.splitlines()[0] == "class,shake head,Let feet fall"


def test_results_are_read_with_all_others(trained):
    results, complaints = read_results(trained / "cache/results")
    (result,) = [each for each in results if each.run == "skeleton"]  # other tests of this file leave theirs
    assert not complaints and result.training_dataset == "lab"
    assert result.overlapping_classes == ["lift-hands", "waving feet"]
    told = text_table(read_runs(trained / "cache/results")[0])
    assert "camera, from_lab: 6 unseen test clips; trained on lab\n" in told


@pytest.mark.e2e
@pytest.mark.parametrize("encoder", ["light", "shift_gcn", "dense"])
def test_every_encoder_learns_from_the_form(made, encoder):
    params = replace(QUICK, encode=replace(QUICK.encode, encoder=encoder))
    dataset = opened(made)
    reader = dataset.reader(BOTH)
    samples = load_samples([clip.clip_id for clip in dataset.clips if clip.trains][:16], reader)
    trained, _ = train_encoder(samples, torch.arange(16) % 6, 6, params.encode, 0)
    tested = load_samples([clip.clip_id for clip in dataset.clips if clip.tests], reader)
    assert torch.isfinite(trained.eval().feature_map(*tested.inputs)).all()


@pytest.mark.e2e
def test_every_method_without_cues_trains_on_one_and_tests_on_the_other(made, trained):
    dataset = camera(made)
    for method, flags in METHODS_FLAGS.items():
        run = RunParams(method=method, recipe=BOTH, flags=flags, adapt="pgfa" if method == "pgfa" else "")
        train(dataset, PROTOCOL, method, run, QUICK)
        evaluate(dataset, PROTOCOL, method, run, QUICK)
        assert figures(made, method)["zsl"]["n"] == 6, method


# Leaks, planted


def protocol_file(root: Path) -> Path:
    return root / f"manifests/camera/protocols/{PROTOCOL}.txt"


def refused(match: str, call, *arguments) -> None:
    with pytest.raises(PosebridgeError, match=match) as error:
        call(*arguments)
    assert "\n" not in str(error.value)


def test_a_class_of_both_is_not_unseen(root):
    path = protocol_file(root)
    path.write_text(path.read_text().replace("5 unseen", "6 unseen") + "0 lift-hands\n")
    refused(r"line 8: 'lift-hands' is 'Lift hands' of lab, which is trained on", encode, camera(root), PROTOCOL, BOTH,
            QUICK.encode)  # fmt: skip


def test_a_class_of_both_under_another_spelling_is_not_unseen(root):
    path = protocol_file(root)
    (root / "manifests/same_names.csv").unlink()
    split = under(camera(root), PROTOCOL).crossed
    assert "'waving feet' ('wave feet' there)" in told_overlap("camera", split), "by their words"
    classes = root / "manifests/camera/classes.csv"
    classes.write_text(classes.read_text().replace("waving feet", "foot sign"))
    refused("'foot sign' is neither unseen here nor a class of lab; add the line `1 foot sign`", encode,
            camera(root), PROTOCOL, BOTH, QUICK.encode)  # fmt: skip
    classes.write_text(classes.read_text().replace("foot sign", "waving feet"))
    (root / "manifests/same_names.csv").write_text("name,same_as\nwaving feet,Wave Feet\nshake head,nod\n")
    refused("'shake head' is 'nod' of lab, which is trained on", encode, camera(root), PROTOCOL, BOTH, QUICK.encode)
    assert path.is_file()


def test_names_are_one_by_their_words_without_order_articles_and_endings():
    ours = ["toss a coin", "shake head", "boxes", "Finger-snapping", "swing", "walk", "walking the dog", "sit to stand"]
    theirs = ["walks", "Coin tossing", "box", "string", "snapping fingers", "shaking  HEAD", "dog walk", "see"]
    found = merge_classes("a", ours, "b", theirs, {})
    assert [theirs[found.trained(place)] for place in found.shared] == [
        "Coin tossing", "shaking  HEAD", "box", "snapping fingers", "walks", "dog walk"
    ]  # fmt: skip
    assert [ours[place] for place in range(8) if place not in found.shared] == ["swing", "sit to stand"]
    both = merge_classes("a", ["sit to stand", "stand to sit"], "b", ["Sit-to-stand", "standing to sit"], {})
    assert both.shared == (0, 1), "as they stand before their words"
    neither = merge_classes("a", ["dog walk", "walk dogs"], "b", ["walking the dog"], {})
    assert not neither.shared, "it might be either"
    assert merge_classes("a", ["stand to sit", "sit to stand"], "b", ["sits to a stand"], {}).shared == (1,)
    assert not merge_classes("a", ["sit to stand"], "b", ["stand to sit"], {}).shared, "the other way round"


@pytest.mark.parametrize(
    ("one", "other"),
    [("put on a cap", "put on a cape"), ("taping a pen", "tapping a pen"), ("taped", "tap"), ("put on", "put"),
     ("hopping", "hoping"), ("bite", "bit"), ("from chair to bed", "from bed to chair")],
)  # fmt: skip
def test_words_that_are_two_stay_two(one, other):
    assert in_words(one) != in_words(other)


def test_words_are_the_same_where_another_stemmer_is_installed(tmp_path):
    """Snowball's package takes PyStemmer's rules, of whatever version, once that is there."""
    (tmp_path / "Stemmer.py").write_text("algorithms = list\nStemmer = 1\n")
    code = "from pipeline.protocol.across import in_words; print(in_words('boxing'))"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert run.stdout.strip() == "box", run.stderr


@pytest.mark.parametrize(
    ("one", "other"),
    [("feed birds", "feeding birds"), ("use a fan", "using fan"), ("wave", "waved"), ("type", "typing"),
     ("Sits to stand", "sitting to a stand"), ("eats", "eating"), ("catches", "catching"), ("noses", "nose"),
     ("dance", "dancing"), ("hugging", "hugs"), ("freeing", "free"), ("exercise", "exercising")],
)  # fmt: skip
def test_words_that_are_one_but_for_their_endings(one, other):
    assert in_words(one) == in_words(other)


def test_the_description_of_an_unseen_class_may_not_be_one_that_is_trained_on(root):
    dataset = camera(root)
    own, other = dataset.bank("minilm"), open_dataset("lab", root / "manifests", root / "cache").bank("minilm")
    embeddings = own.embeddings.clone()
    embeddings[2, own.slots.index("one_line")] = other.embeddings[4, other.slots.index("one_line")]
    save_bank(replace(own, embeddings=embeddings), "camera", root / "cache")
    refused("'shake head' of camera should be unseen, but its one_line is that of 'nod' of lab", open_run,
            dataset, PROTOCOL, RUN)  # fmt: skip


def test_nothing_is_trained_on_that_belongs_to_an_unseen_class(made, monkeypatch):
    dataset, shown = opened(made), []
    ours = open_run(dataset, PROTOCOL, RUN)
    for name in PHASES:
        phase = training_phase(name, ours.split, dataset.clips)
        shown += [clip.clip_id for clip in (*phase.train, *phase.held_out, *phase.pseudo_unseen)]
        assert not set(phase.classes) & set(ours.split.unseen)
    assert all(clip_id.startswith("lab:") for clip_id in shown)
    lab = open_dataset("lab", made / "manifests", made / "cache").bank("minilm")
    seen = list(dataset.crossed.merged.of_training)
    assert torch.equal(ours.bank.embeddings[seen], lab.embeddings), "the training data set's own words, of both's too"
    assert torch.equal(ours.bank.embeddings[[2, 3]], camera(made).bank("minilm").embeddings[[2, 3]])
    words = ours.words(ours.split.seen, ("one_line",))
    assert {"one_line": "one_line of Lift hands"} in words and not any("shake" in each["one_line"] for each in words)


def test_a_video_of_an_unseen_class_may_not_be_a_train_clip(root):
    for name, clip_id in (("lab", "1-0"), ("camera", "2-2")):
        path = root / "manifests" / name / "clips.csv"
        clips = [replace(c, sha256="a" * 64) if c.clip_id == clip_id else c for c in read_clips(path)]
        write_clips(path, clips)
    refused("The test clip 2-2 of the unseen class 'shake head' is the video of 1-0 in lab", under, camera(root),
            PROTOCOL)  # fmt: skip


def test_a_test_clip_of_a_seen_class_that_is_a_train_clip_is_left_out_and_counted(root):
    path = root / "manifests/lab/clips.csv"
    write_clips(path, [replace(c, part="train") if c.clip_id in ("0-2", "2-2") else c for c in read_clips(path)])
    found = opened(root)
    assert found.told["overlapping_clips"] == 1, "2-2 of lab is of another class and another video"
    assert "0-2" not in [clip.clip_id for clip in found.clips] and "2-2" in [clip.clip_id for clip in found.clips]


def test_a_video_that_is_trained_on_is_not_tested_whatever_its_name_and_class(root):
    """As segments of one long video are: of several classes, under names of their own."""
    for name, ids in (("lab", ("4-0", "1-1")), ("camera", ("0-2", "1-2"))):
        path = root / "manifests" / name / "clips.csv"
        write_clips(path, [replace(c, sha256="a" * 64) if c.clip_id in ids else c for c in read_clips(path)])
    found = opened(root)
    assert found.told["overlapping_clips"] == 2 and not {"0-2", "1-2"} & {clip.clip_id for clip in found.clips}


def test_a_test_clip_that_is_named_like_a_train_clip_is_refused(root):
    path = root / "manifests/camera/clips.csv"
    write_clips(path, [replace(c, clip_id=f"lab:{c.clip_id}") if c.label == 0 else c for c in read_clips(path)])
    refused("named like a train clip of lab, which from_lab trains on; give it another name", under, camera(root),
            PROTOCOL)  # fmt: skip


def test_pose_weights_that_saw_texts_of_classes_that_play_unseen_are_refused(root):
    found, folder = opened(root), root / "manifests/lab/protocols"
    folder.mkdir()
    names = list(TRAINED)
    play = {found.crossed.merged.trained(place) for place in found.crossed.validation}
    others = [index for index in range(6) if index not in play]
    (folder / "own.txt").write_text(f"{others[0]} {names[others[0]]}\n")
    (folder / "own.val.txt").write_text("".join(f"{index} {names[index]}\n" for index in others[1:3]))
    said = exposed("lab", found.training.split("own"))
    with pytest.raises(PosebridgeError, match="were tuned with texts of .* which is unseen in from_lab"):
        found.require_unexposed(said, "tuned", found.crossed)


# What does not go together


def without(root: Path, find: str, put: str) -> Dataset:
    path = protocol_file(root)
    path.write_text(path.read_text().replace(find, put))
    return camera(root)


def test_a_protocol_across_data_sets_that_cannot_be_is_one_sentence(root):
    text = protocol_file(root).read_text()
    for find, put, match in (
        ("on: lab", "on: camera", "camera would train on itself"),
        ("on: lab", "on: nowhere", r"nowhere/classes\.csv is missing"),
        ("2 shake head\n", "", "'shake head' is neither unseen here nor a class of lab"),
        ("6 seen", "7 seen", "2 of 8 classes are unseen here, which is not 7 seen and 2 unseen"),
    ):
        refused(match, encode, without(root, find, put), PROTOCOL, BOTH, QUICK.encode)
        protocol_file(root).write_text(text)
    write_classes(root / "manifests/camera/classes.csv", ["Drop", "NOD"])
    refused("Every class of camera is one of lab, so none is unseen", make_across, "camera", "lab", "x",
            root / "manifests")  # fmt: skip


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ("wave,waving\nwave,nod\n", "line 3, column name: 'wave' stands for another name already"),
        ("Wave!,wave\n", "both names are one without case, blanks and signs"),
        ("wave,waving\nwaving,nod\n", "column same_as: 'waving' stands for another name; write that one"),
        ("Lift hands,nod\n", "'Lift hands' and 'nod' of lab are one class of the other data set by their names"),
    ],
)
def test_a_table_of_names_that_contradicts_itself_is_one_sentence(root, table, match):
    (root / "manifests/same_names.csv").write_text("name,same_as\n" + table)
    write_classes(root / "manifests/camera/classes.csv", ["nod", *list(TESTED)[1:]])
    refused(match, make_across, "camera", "lab", "x", root / "manifests")


def test_recipes_that_are_not_comparable_are_one_sentence(root):
    found = opened(root)
    refused("holds no cues that both", open_run, found, PROTOCOL, RunParams(recipe=BOTH))
    index = root / "cache/camera/coco17_2d/index.json"
    assert index.is_file()
    refused("cache/lab/coco17_2d/index.json", found.reader, "coco17_2d")
    for change, match in (
        ({"layout": "pooled"}, "no common form for the joint layout 'pooled'"),
        ({"backend": "features"}, "one is imported features, which come from an encoder of one data set"),
    ):
        readers = [dataset.reader(name) for dataset, name in ((found.training, "ntu25_3d"), (found.test, "coco17_2d"))]
        readers[1].recipe = replace(readers[1].recipe, **change)
        readers[1].fingerprint = "other"
        refused(match, AcrossReader, *readers, "lab:", "a of lab and b of camera")


def test_all_that_is_missing_is_told_at_once_with_the_data_set_that_lacks_it(root):
    shutil.rmtree(root / "cache/text")
    shutil.rmtree(root / "cache/lab")
    with pytest.raises(PosebridgeError) as error:
        train(camera(root), PROTOCOL, "skeleton", RUN, QUICK)
    told = str(error.value)
    assert "cache/lab/ntu25_3d/index.json" in told and "posebridge text --dataset camera" in told


def test_who_cannot_do_two_data_sets_says_so(made):
    refused("from_lab of camera trains on lab, which this command cannot", camera(made).split, PROTOCOL)


def test_of_one_recipe_all_is_read_as_it_is_and_cues_with_it(tmp_path):
    """One half of a made-up world trains, with the classes that are seen there; the whole of another one is tested."""
    tested, other = make_world(tmp_path / "a", train=2), make_world(tmp_path / "b", train=6, seed=1)
    known = other.bank("minilm")
    shown = replace(known, embeddings=known.embeddings[:12], mask=known.mask[:12], class_names=tuple(SEEN))
    training = replace(other, name="yot", class_names=tuple(SEEN), clips=tuple(c for c in other.clips if c.label < 12))
    save_bank(shown, "yot", training.cache)
    write_classes(tested.manifests / "yot" / "classes.csv", SEEN)
    make_across("toy", "yot", manifests=tested.manifests)
    split = read_split(tested.folder / "protocols", "from_yot", tested.class_names)
    both = beside(tested, training, split)
    reader = both.reader("refined")
    assert reader.recipe == tested.reader("refined").recipe and reader.fingerprint == reader.recipe.fingerprint
    arrays = reader.read(["Ap-test-1", "yot:Ar-train-0"], ["cues", "scores"])
    for row, (side, clip_id) in enumerate(((tested, "Ap-test-1"), (other, "Ar-train-0"))):
        for name, array in side.reader("refined").read([clip_id], ["cues", "scores"]).items():
            assert (array[0] == arrays[name][row]).all(), "one recipe is one form already"
    run = RunParams(flags={"width": 16, "heads": 2, "layers": 1})
    encode(both, "from_yot", "refined", QUICK.encode)
    train(both, "from_yot", "posebridge", run, QUICK)
    path = evaluate(both, "from_yot", "posebridge", run, QUICK) / "seed-0" / "metrics.json"
    found = json.loads(path.read_text())
    assert found["method"] == "posebridge" and found["training_dataset"] == "yot" and found["zsl"]["n"] == 24
    assert found["ceiling"]["skeleton"] == 0.5 and len(found["overlapping_classes"]) == 12
    arrays = other.readers["refined"].arrays
    changed = replace(reader.recipe, sigma=0.1)
    training.readers["refined"] = FakeReader(changed, other.readers["gt"].clip_ids, arrays)
    refused("recipe 'refined' holds no cues that both data sets have of one recipe", open_run, both, "from_yot", run)


# Commands


def test_the_commands_take_what_they_take_today(root, monkeypatch):
    monkeypatch.chdir(root)
    flags = {"method": "skeleton", "flags": RUN.flags, "recipe": BOTH}
    values = {
        "recipes": {n: {"backend": "import", "cues": "none", "layout": r.layout, "dimensions": r.dimensions,
                        "persons": 2, "frames": T} for n, r in RECIPES.items()},
        "runs": {"mine": flags},
        "encode": {"epochs": 1, "width": 8, "blocks": [1, 1, 1], "seeds": [0]},
        "train": {"epochs": 1, "views": 1},
    }  # fmt: skip
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    what = ["--dataset", "camera", "--protocol", PROTOCOL, "--device", "cpu"]
    invoke = CliRunner().invoke
    for command in (["encode", *what, "--skeletons", BOTH], ["train", *what, "--run", "mine"]):
        done = invoke(main, command)
        assert done.exit_code == 0, done.output
    done = invoke(main, ["evaluate", *what, "--run", "mine"])
    assert done.exit_code == 0 and "top-1 of 6 clips of 2 unseen classes" in done.output
    assert "lab, which has 2 of its classes, so they count as seen: 'lift-hands', 'waving feet'" in done.output
    done = invoke(main, ["protocol", "--dataset", "lab", "--trains-on", "camera", "--json"])
    told = json.loads(done.stdout)
    assert told["unseen"] == ["lift feet", "wave hands", "nod", "drop"]
    assert told["overlapping"] == ["Lift hands", "wave feet"]
    assert invoke(main, ["protocol", "--dataset", "lab"]).exit_code == 2
    done = invoke(main, ["encode", *what, "--skeletons", "ntu25_3d+nothing"])
    assert done.exit_code == 1 and "There is no recipe named 'nothing'" in done.output
