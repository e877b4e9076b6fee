"""What released evaluations did wrong (one test a row of the list), planted here so that it must be caught."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import replace
from itertools import cycle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from synthetic import CLASSES, FLAGS, PARAMS, PROTOCOL, SEEN, UNSEEN, VALIDATION, FakeReader, make_world

from pipeline.cache.sealed import read_sealed, seal
from pipeline.errors import PosebridgeError
from pipeline.learn import evaluate as evaluation
from pipeline.learn.dataset import open_dataset
from pipeline.learn.encode import encode
from pipeline.learn.encoders import load_encoder
from pipeline.learn.feature_table import feature_table
from pipeline.learn.run import Opened, open_run
from pipeline.learn.score import adapt_table, calibrated_gamma, embed_batches, score_clips, score_table
from pipeline.learn.train import train, train_phase
from pipeline.learn.trained import load_method, skeleton_encoder
from pipeline.manifest.clips import read_classes, write_classes, write_clips
from pipeline.methods import ADAPTATIONS, METHODS, find_method
from pipeline.methods.adaptation import Adaptation, PrototypeAlignment
from pipeline.methods.base import Features
from pipeline.methods.dynapurls import DynaPurls, DynaPurlsReleased
from pipeline.methods.posebridge import PoseBridge
from pipeline.params import RunParams
from pipeline.protocol.draw import choose_unseen
from pipeline.protocol.exposure import exposed
from pipeline.protocol.guards import LeakError
from pipeline.protocol.splits import read_split
from pipeline.protocol.training_set import training_phase
from pipeline.text import bank as banks

pytestmark = pytest.mark.unit
RUNS = {
    "posebridge": RunParams(flags=FLAGS),
    "skeleton": RunParams(method="skeleton", flags=FLAGS),
    "pgfa": RunParams(
        method="pgfa", flags={"hidden": [8], "out": 16, "epochs": 1}, adapt="pgfa"
    ),  # end to end, adapted
    "cca": RunParams(method="cca", flags={"waves": 64}),  # solved
    "canonical": RunParams(flags=FLAGS | {"canonical": True}),  # its texts are
}
QUICK = replace(
    PARAMS, encode=replace(PARAMS.encode, epochs=1), train=replace(PARAMS.train, epochs=1)
)  # what leaks does so in one epoch


def go(world, runs=RUNS):
    encode(world, PROTOCOL, "refined", QUICK.encode)
    for name, run in runs.items():
        train(world, PROTOCOL, name, run, QUICK)


def weights(world, run, phase):
    folder = world.cache
    found = load_file(folder / "models/toy" / PROTOCOL / run / f"seed-0/{phase}.safetensors")
    encoder = load_file(folder / "encoders/toy" / PROTOCOL / f"refined/seed-0/{phase}.safetensors")
    return found | {f"encoder.{key}": value for key, value in encoder.items()}


def selection(world, run):
    path = world.cache / "models/toy" / PROTOCOL / run / "seed-0/selection.json"
    return read_sealed(path, "train") | {"seconds": 0}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def spoil(world, clips, classes):
    """The same data set where these clips' features and these classes' texts are noise."""
    full = world.readers["refined"]
    arrays = {name: array.copy() for name, array in full.arrays.items()}
    touched = [full.rows[clip.clip_id] for clip in clips]
    noise = np.random.default_rng(7)  # finite, since training refuses what is not
    for name in ("keypoints", "cues"):
        arrays[name][touched] = 50 * noise.standard_normal(arrays[name][touched].shape)
    reader = FakeReader(full.recipe, full.clip_ids, arrays)
    path = banks.bank_path("toy", "minilm", world.cache)
    import h5py

    with h5py.File(path, "r+") as file:
        vectors = file["embeddings"][()]
        vectors[[CLASSES.index(name) for name in classes]] = 123.0
        file["embeddings"][...] = vectors
    return replace(world, readers=world.readers | {"refined": reader})


@pytest.fixture(scope="module")
def world(tmp_path_factory, one_thread):
    world = make_world(tmp_path_factory.mktemp("clean"))
    go(world)
    return world


def test_training_sees_no_test_clip_and_no_unseen_text(world, tmp_path):
    """Everything that training must not see is made unusable; every weight and every chosen value stays what it was."""
    other = make_world(tmp_path)
    go(spoil(other, [c for c in other.clips if c.part == "test"], UNSEEN))
    for run in RUNS:
        for phase in ("select", "final"):
            assert equal(weights(other, run, phase), weights(world, run, phase))
        assert selection(other, run) == selection(world, run)
    assert weights(world, "canonical", "final")["texts"].any(), "something was learnt of texts before training"


def test_phase_one_learns_nothing_from_pseudo_unseen_classes(world, tmp_path):
    other = make_world(tmp_path)
    hidden = [c for c in other.clips if CLASSES[c.label] in VALIDATION]
    spoiled = spoil(other, hidden, [])
    encode(spoiled, PROTOCOL, "refined", QUICK.encode)
    phase_one = weights_of_phase_one(spoiled)
    assert equal(phase_one, weights_of_phase_one(world))
    assert not equal(phase_one, weights(world, "posebridge", "final"))


def weights_of_phase_one(world):
    """The method's weights after phase one, trained without scoring: the scores of spoiled clips are of no interest."""
    opened = open_run(world, PROTOCOL, RUNS["posebridge"])
    phase = replace(training_phase("select", opened.split, world.clips), name="without validation")
    encoder = load_encoder(world, PROTOCOL, "refined", 0, "select")
    model, _ = train_phase(opened, phase, opened.samples(phase.train), encoder, QUICK, 0, 1)
    return dict(model.method.state_dict()) | {f"encoder.{k}": v for k, v in encoder.state_dict().items()}


def test_pose_weights_that_saw_words_of_unseen_classes_are_refused(world, tmp_path):
    """Tuned with texts of classes that another protocol trains on, and that this one keeps unseen."""
    other = make_world(tmp_path)
    protocols = other.folder / "protocols"
    (protocols / "others.txt").write_text(f"{CLASSES.index('Ar')} Ar\n")
    (protocols / "others.val.txt").write_text("".join(f"{CLASSES.index(name)} {name}\n" for name in ("As", "Br")))
    for protocol, refused in ((PROTOCOL, False), ("others", True)):
        said = exposed("toy", other.split(protocol))
        full = other.readers["refined"]
        reader = FakeReader(replace(full.recipe, hpe_classes=said), full.clip_ids, full.arrays)
        tuned = replace(other, readers=other.readers | {"refined": reader})
        for run in (RUNS["skeleton"], RUNS["posebridge"]):
            if refused and run.method != "skeleton":  # whose skeletons no word has changed
                with pytest.raises(PosebridgeError, match=f"texts of 'Cp', which is unseen in {PROTOCOL}"):
                    open_run(tuned, PROTOCOL, run)
            else:
                open_run(tuned, PROTOCOL, run)


def test_a_leak_would_be_caught(world, tmp_path):
    """The same comparison fails when one training clip is touched: it is able to fail."""
    other = make_world(tmp_path)
    full = other.readers["refined"]
    keypoints = full.arrays["keypoints"].copy()
    keypoints[full.rows["Ar-train-0"]] += 1.0 * np.arange(17)[:, None]
    reader = FakeReader(full.recipe, full.clip_ids, full.arrays | {"keypoints": keypoints})
    go(replace(other, readers=other.readers | {"refined": reader}), {"posebridge": RUNS["posebridge"]})
    assert not equal(weights(other, "posebridge", "final"), weights(world, "posebridge", "final"))


def test_no_clip_besides_those_of_its_phase_is_in_training(world):
    """Whoever hands test clips to the trainer, to be judged by them, is refused."""
    opened = open_run(world, PROTOCOL, RUNS["posebridge"])
    phase, test = training_phase("final", opened.split, world.clips), [c for c in world.clips if c.part == "test"]
    encoder = load_encoder(world, PROTOCOL, "refined", 0, "final")
    with pytest.raises(LeakError, match=f"{test[0].clip_id} does not belong to this phase"):
        train_phase(opened, phase, opened.samples((*phase.train, test[0])), encoder, QUICK, 0, 1)


def test_the_trainer_cannot_build_the_test_set_and_the_tester_not_train():
    """No module that encodes or trains imports heldout.py, not even by way of others or of a method, which is loaded by
    its name; the one that evaluates does, and has no loop to train with.
    """
    asked = ("pipeline.protocol.heldout", "pipeline.learn.loop")
    code = f"import sys, {{0}}; print([name in sys.modules for name in {asked}])"
    places = [known.place for known in METHODS.values()] + list(ADAPTATIONS.values())
    named = {place.partition(":")[0] for place in places}
    training = ", ".join(["pipeline.learn.train", "pipeline.learn.encode", *sorted(named)])
    for module, expected in ((training, [False, True]), ("pipeline.learn.evaluate", [True, False])):
        out = subprocess.run([sys.executable, "-c", code.format(module)], capture_output=True, text=True, check=True)
        assert out.stdout.strip() == str(expected), module


@pytest.mark.parametrize("run", RUNS)
def test_shuffled_labels_leave_every_score_as_it_is(world, run, monkeypatch):
    found = {}

    def listen(place, split, test, scores):
        found.update(zip(test.samples.clip_ids, scores, strict=True))

    monkeypatch.setattr(evaluation, "write_zsl", listen)
    evaluation.evaluate(world, PROTOCOL, run, RUNS[run], QUICK)
    before = dict(found)

    test = [i for i, clip in enumerate(world.clips) if clip.part == "test"]
    labels = np.random.default_rng(0).permutation([world.clips[i].label for i in test])
    clips = list(world.clips)
    for i, label in zip(test, labels, strict=True):
        clips[i] = replace(clips[i], label=int(label))
    evaluation.evaluate(replace(world, clips=tuple(clips)), PROTOCOL, run, RUNS[run], QUICK)
    assert len(found) == len(test) and all(np.array_equal(found[key], before[key]) for key in before)


def test_shuffled_labels_leave_adapted_scores_as_they_are(world, monkeypatch):
    """Of the labels, an adaptation may know only what zero-shot testing tells everybody: that a clip is of an unseen
    class.
    """
    found = []
    monkeypatch.setattr(evaluation, "adapt_table", lambda *a: found.append(adapt_table(*a)) or found[-1])
    evaluation.evaluate(world, PROTOCOL, "pgfa", RUNS["pgfa"], QUICK)
    test = [i for i, clip in enumerate(world.clips) if clip.part == "test" and CLASSES[clip.label] in UNSEEN]
    labels = np.random.default_rng(0).permutation([world.clips[i].label for i in test])
    clips = list(world.clips)
    for i, label in zip(test, labels, strict=True):
        clips[i] = replace(clips[i], label=int(label))
    evaluation.evaluate(replace(world, clips=tuple(clips)), PROTOCOL, "pgfa", RUNS["pgfa"], QUICK)
    assert len(found) == 2 and torch.equal(*found) and len(found[0]) == len(test)


@pytest.mark.parametrize("fault", ["a second pass", "a look ahead"])
@pytest.mark.parametrize(("count", "batch_size"), [(48, 8), (100, Adaptation.batch_size), (40, Adaptation.batch_size)])
def test_an_online_adaptation_that_has_seen_later_clips_is_caught(world, fault, count, batch_size, monkeypatch):
    """In many batches, in two, and in one, which is checked by its halves."""

    class Planted(Adaptation):
        online = True

        def scores(self, batches, text):
            found = [self.method.scores(batch, text) for batch in batches]
            if fault == "a second pass":  # what all of them have told changes what is said of the first
                return torch.cat(found) + torch.cat(found).mean(0)
            return torch.cat([*found[1:], found[0]])  # of each batch, what the next one says

    opened = open_run(world, PROTOCOL, RUNS["posebridge"])
    method, _ = load_method(opened, PROTOCOL, "posebridge", 0)
    samples = opened.samples([c for c in world.clips if c.part == "test"])
    table = feature_table(load_encoder(world, PROTOCOL, "refined", 0, "final"), samples, opened.shapes.anchors)
    rows, text = torch.arange(count) % len(samples), opened.bank.take([0, 1, 2], method.text_slots)
    monkeypatch.setattr(Adaptation, "batch_size", batch_size)
    for kind in (DynaPurls, DynaPurlsReleased, PrototypeAlignment):
        for some in (rows, rows[:2], rows[:1]):
            assert len(adapt_table(kind(method), table, text, some)) == len(some)
    with torch.no_grad(), pytest.raises(LeakError, match="seen clips that came later"):
        adapt_table(Planted(method), table, text, rows)
    monkeypatch.setattr(Planted, "scores", lambda self, batches, text: torch.full((len(rows), 3), torch.nan))
    with pytest.raises(PosebridgeError, match="scores that are not finite"):  # which is no second pass
        adapt_table(Planted(method), table, text, rows)


def test_what_somebody_knows_of_unseen_classes_has_no_place_in_a_split(world):
    """A split names classes; weights of body parts, written for each unseen one, are no part of a name."""
    path = world.folder / "protocols" / "told.txt"
    path.with_name("told.val.txt").write_text((path.parent / f"{PROTOCOL}.val.txt").read_text())
    path.write_text(f"{CLASSES.index('Ap')} Ap 0.1 0.7 0.2\n")
    with pytest.raises(PosebridgeError, match="is not a class of this dataset"):
        world.split("told")


def test_an_adaptation_is_never_reported_as_zsl(world, monkeypatch):
    """Whatever the adaptation says, here that everything is of the first class, the other columns stay as they are."""

    def metrics():
        folder = evaluation.evaluate(world, PROTOCOL, "pgfa", RUNS["pgfa"], QUICK)
        return json.loads((folder / "seed-0/metrics.json").read_text())

    before = metrics()
    first = lambda adaptation, table, text, rows: torch.eye(len(text))[torch.zeros(len(rows), dtype=torch.long)]  # noqa: E731
    monkeypatch.setattr(evaluation, "adapt_table", first)
    after = metrics()
    assert after["adapted"]["top1"] == 0.25 and after["adapted"]["by"] == "pgfa"
    assert after["zsl"] == before["zsl"] and after["gzsl"] == before["gzsl"]


def test_alpha_of_an_adaptation_comes_from_the_selection_phase(world, tmp_path):
    """It is what spoilt test clips leave as it is (above), and what evaluation takes over as it stands."""
    path = world.cache / "models/toy" / PROTOCOL / "pgfa/seed-0/selection.json"
    chosen = path.read_text()
    values = json.loads(chosen)
    assert values["adapt"]["alpha"] in PrototypeAlignment.choices["alpha"]
    path.write_text(json.dumps(seal(values | {"adapt": values["adapt"] | {"alpha": 0.123}})))
    folder = evaluation.evaluate(world, PROTOCOL, "pgfa", RUNS["pgfa"], QUICK)
    path.write_text(chosen)
    assert json.loads((folder / "seed-0/metrics.json").read_text())["adapted"]["alpha"] == 0.123


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_not_told_labels_when_it_scores(name):
    kind = find_method(name)
    for function in (kind.scores, getattr(kind, "embed", kind.scores), score_table, adapt_table):
        assert not any("label" in argument for argument in inspect.signature(function).parameters)
    assert not any("label" in field for field in Features.__dataclass_fields__)


def test_scoring_in_train_mode_is_caught(world):
    opened = open_run(world, PROTOCOL, RUNS["posebridge"])
    samples = opened.samples([c for c in world.clips if c.part == "test"][:3])
    encoder = load_encoder(world, PROTOCOL, "refined", 0, "final")
    method, _ = load_method(opened, PROTOCOL, "posebridge", 0)
    assert score_clips(opened, encoder, method, samples).shape == (3, len(CLASSES))
    encoder.train()
    with pytest.raises(LeakError, match="train mode"):
        score_clips(opened, encoder, method, samples)


@pytest.mark.parametrize(
    "score",
    [
        score_table,
        lambda method, table, text, rows: next(embed_batches(method, table, rows)),
        lambda method, *rest: adapt_table(PrototypeAlignment(method), *rest),
    ],
    ids=["score_table", "embed_batches", "adapt_table"],
)
def test_a_method_left_in_train_mode_is_refused(world, score):
    opened = open_run(world, PROTOCOL, RUNS["posebridge"])
    method, _ = load_method(opened, PROTOCOL, "posebridge", 0)
    samples = opened.samples([c for c in world.clips if c.part == "test"][:3])
    encoder = load_encoder(world, PROTOCOL, "refined", 0, "final")
    table = feature_table(encoder, samples, opened.shapes.anchors)
    text = opened.bank.take([0, 1], method.text_slots)
    assert len(score(method, table, text, torch.arange(3))) == 3
    with pytest.raises(LeakError, match="train mode"):
        score(method.train(), table, text, torch.arange(3))


def test_text_centred_on_all_classes_is_caught(world, monkeypatch):
    evaluation.evaluate(world, PROTOCOL, "posebridge", RUNS["posebridge"], QUICK)

    def centred_on_everyone(opened, *which):  # the planted fault
        method, chosen = load_method(opened, *which)
        method.see_text(opened.bank.take(range(len(CLASSES)), method.text_slots))
        return method, chosen

    monkeypatch.setattr(evaluation, "load_method", centred_on_everyone)
    with pytest.raises(LeakError, match="centred"):
        evaluation.evaluate(world, PROTOCOL, "posebridge", RUNS["posebridge"], QUICK)


@pytest.mark.parametrize("same", ["path", "sha256"])
def test_a_video_in_both_parts_is_refused_when_the_data_set_is_opened(tmp_path, same):
    world = make_world(tmp_path)
    clips = [replace(clip, sha256=f"{number:064x}") for number, clip in enumerate(world.clips)]
    train = next(clip for clip in clips if clip.part == "train")
    place = next(place for place, clip in enumerate(clips) if clip.part == "test")

    write_clips(world.folder / "clips.csv", clips)
    assert open_dataset("toy", world.manifests, world.cache).clips == tuple(clips)
    clips[place] = replace(clips[place], **{same: getattr(train, same)})
    write_clips(world.folder / "clips.csv", clips)
    with pytest.raises(PosebridgeError, match=f"{train.clip_id} .train. and {clips[place].clip_id} .test."):
        open_dataset("toy", world.manifests, world.cache)


def test_the_test_is_deterministic(world, monkeypatch):
    """No rotation, no crop: augmentation is not even reached."""
    monkeypatch.setattr("pipeline.learn.feature_table.augment", lambda *a, **k: pytest.fail("augmentation at test"))
    evaluation.evaluate(world, PROTOCOL, "posebridge", RUNS["posebridge"], QUICK)


def test_accuracy_is_not_the_mean_of_batch_means(tmp_path, monkeypatch):
    """Of 72 unseen clips, in batches of 64, the first batch is all right and the rest all wrong."""
    world = make_world(tmp_path, twins=18)
    go(world, {"posebridge": RUNS["posebridge"]})
    truth = torch.from_numpy(evaluation.open_test(open_run(world, PROTOCOL, RUNS["posebridge"]), "").labels)
    said = torch.where(torch.arange(len(truth)) < 64, truth, truth ^ 1)
    answers = cycle(F.one_hot(said, len(CLASSES)).float())
    monkeypatch.setattr(
        PoseBridge, "scores", lambda self, features, text: torch.stack([next(answers) for _ in features.quality])
    )
    folder = evaluation.evaluate(world, PROTOCOL, "posebridge", RUNS["posebridge"], QUICK)
    found = json.loads((folder / "seed-0/metrics.json").read_text())["zsl"]
    assert found["n"] == 72 and found["top1"] == 64 / 72


def test_a_class_whose_name_lies_within_another_is_not_that_one(tmp_path):
    """Every clip of "Eat" is answered by "eat an apple", and the other way round; a count by substring would have the
    former right.
    """
    names = ["walk", "Eat", "run", "jump", "eat an apple", "sit"]
    folder = tmp_path / "protocols"
    write_classes(tmp_path / "classes.csv", names)
    folder.mkdir()
    (folder / "p.txt").write_text("1 Eat\n4 eat an apple\n")
    (folder / "p.val.txt").write_text("0 walk\n2 run\n")
    split = read_split(folder, "p", read_classes(tmp_path / "classes.csv"))
    labels, answers = np.array([1, 1, 1, 4]), np.array([4, 4, 4, 1])
    samples = SimpleNamespace(clip_ids=list("abcd"))
    test = evaluation.OpenedTest((), samples, labels, all_seen=True, twins={}, repeated=None)
    found = evaluation.write_zsl(tmp_path, split, test, np.eye(len(names))[answers])
    assert found["n"] == 4 and found["top1"] == found["macro"] == 0
    assert (tmp_path / "confusion.csv").read_text() == "class,Eat,eat an apple\nEat,0,3\neat an apple,1,0\n"
    both = evaluation.gzsl(split, np.eye(len(names))[[*answers, 0]], np.array([*labels, 0]), gamma=0.0)
    assert (both["seen"], both["unseen"]) == (1, 0)


def test_a_class_is_looked_up_by_its_whole_name(tmp_path):
    names = ["eat an apple", "Eat", "walk", "run", "jump", "sit"]
    (tmp_path / "p.val.txt").write_text("0 eat an apple\n2 walk\n")
    (tmp_path / "p.txt").write_text("1 Eat\n")
    split = read_split(tmp_path, "p", names)
    assert (split.unseen, split.validation) == ((1,), (0, 2)) and choose_unseen(names, "Eat", 0).unseen == (1,)
    for part in ("eat", "an apple", "eat an"):
        (tmp_path / "p.txt").write_text(f"0 {part}\n")
        with pytest.raises(PosebridgeError, match=f"'{part}' is not a class of this dataset"):
            read_split(tmp_path, "p", names)


def test_one_answer_a_clip_and_an_integer_confusion(world):
    folder = evaluation.evaluate(world, PROTOCOL, "posebridge", RUNS["posebridge"], QUICK)
    lines = (folder / "seed-0/confusion.csv").read_text().splitlines()[1:]
    counts = [int(cell) for line in lines for cell in line.split(",")[1:]]
    assert sum(counts) == sum(c.part == "test" and CLASSES[c.label] in UNSEEN for c in world.clips)


def test_gamma_comes_from_the_selection_phase(world, monkeypatch):
    """S, U and H are those of the plain best answers once that gamma is off the seen classes' scores."""
    heard = {}
    monkeypatch.setattr(
        evaluation, "write_zsl", lambda place, split, test, scores: heard.update(labels=test.labels, scores=scores)
    )
    folder = evaluation.evaluate(world, PROTOCOL, "posebridge", RUNS["posebridge"], QUICK)
    found = json.loads((folder / "seed-0/metrics.json").read_text())["gzsl"]
    opened, seen = open_run(world, PROTOCOL, RUNS["posebridge"]), np.isin(CLASSES, SEEN)
    phase = training_phase("final", opened.split, world.clips)
    method, chosen = load_method(opened, PROTOCOL, "posebridge", 0)
    scores = score_clips(opened, skeleton_encoder(opened, 0, "final"), method, opened.samples(phase.train))
    margins = scores[:, seen].max(1).astype(float) - scores[:, ~seen].max(1)
    gamma = margins.mean() + chosen["gamma_place"] * margins.std()
    right = (heard["scores"] - gamma * seen).argmax(1) == heard["labels"]
    s, u = (right[side].mean() for side in (seen[heard["labels"]], ~seen[heard["labels"]]))
    assert [found[key] for key in ("gamma", "seen", "unseen")] == [gamma, s, u]
    assert found["harmonic"] == pytest.approx(2 * s * u / (s + u))


def test_no_clip_but_those_trained_on_has_a_say_in_gamma(world, monkeypatch):
    opened = open_run(world, PROTOCOL, RUNS["posebridge"])
    method, chosen = load_method(opened, PROTOCOL, "posebridge", 0)
    encoder, taken, samples = skeleton_encoder(opened, 0, "final"), [], Opened.samples
    monkeypatch.setattr(Opened, "samples", lambda self, clips: taken.append(clips) or samples(self, clips))
    calibrated_gamma(opened, encoder, method, chosen)
    assert taken == [training_phase("final", opened.split, world.clips).train]
