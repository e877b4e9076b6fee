"""What must not reach SkeletonContext's scores: unseen words, context at test, labels, a second answer."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from synthetic import CLASSES, PARAMS, PROTOCOL, SEEN, UNSEEN, VALIDATION, make_world

from pipeline.cache.sealed import read_sealed, seal
from pipeline.learn import evaluate as evaluation
from pipeline.learn.encode import encode
from pipeline.learn.run import open_run
from pipeline.learn.train import train
from pipeline.learn.trained import load_method
from pipeline.methods import context, prompts
from pipeline.methods.base import Features, Shapes
from pipeline.methods.skeletoncontext import SkeletonContext
from pipeline.params import RunParams
from pipeline.protocol.guards import LeakError

pytestmark = pytest.mark.unit
RUN = RunParams(method="skeletoncontext", flags={"heads": 4, "epochs": 3, "batch_size": 16})
QUICK = replace(PARAMS, encode=replace(PARAMS.encode, epochs=1))
PARTS = {"A": "hands;arms", "B": "hands;arms", "C": "head;hands", "D": "arms", "E": "legs;feet"}


def write_words(world, words):
    """texts.csv where the context of every class is what `words` (name -> text) says."""
    with (world.folder / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "slot", "text"])
        for index, name in enumerate(CLASSES):
            texts = {"label": name, **dict.fromkeys(prompts.SLOTS, words(name)), "key_parts": PARTS[name[0]]}
            writer.writerows((index, slot, text) for slot, text in texts.items())
    return world


def plain(name):
    return f"{name[0]} room" if name in SEEN else f"{name} secret"


def go(folder: Path, words=plain):
    world = write_words(make_world(folder), words)
    encode(world, PROTOCOL, "refined", QUICK.encode)
    train(world, PROTOCOL, "skeletoncontext", RUN, QUICK)
    return world


@pytest.fixture(scope="module")
def world(tmp_path_factory, one_thread):
    return go(tmp_path_factory.mktemp("clean"))


def place(world, room):
    return world.cache / room / "toy" / PROTOCOL / "skeletoncontext/seed-0"


def weights(world, phase):
    return load_file(place(world, "models") / f"{phase}.safetensors")


def predictions(world):
    evaluation.evaluate(world, PROTOCOL, "skeletoncontext", RUN, QUICK)
    with (place(world, "results") / "predictions.csv").open(newline="") as file:
        return {row["clip_id"]: (row["predicted"], row["scores"]) for row in csv.DictReader(file)}


def metrics(world):
    evaluation.evaluate(world, PROTOCOL, "skeletoncontext", RUN, QUICK)
    return json.loads((place(world, "results") / "metrics.json").read_text())


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_training_reads_no_word_of_an_unseen_class(world, tmp_path):
    other = go(tmp_path / "unseen", lambda name: plain(name) if name in SEEN else "something else")
    for phase in ("select", "final"):
        assert equal(weights(other, phase), weights(world, phase))
    third = go(tmp_path / "seen", lambda name: "something else" if name == SEEN[0] else plain(name))
    assert not equal(weights(third, "final"), weights(world, "final"))  # the comparison is able to fail


def test_the_vocabulary_is_of_the_classes_trained_on(world):
    def letters(phase):
        return bytes(weights(world, phase)["context.spelled"].tolist()).decode().splitlines()

    assert letters("final") == sorted({plain(name).lower() for name in SEEN})
    assert letters("select") == sorted({plain(name).lower() for name in SEEN if name not in VALIDATION})


def test_a_vocabulary_with_an_unseen_word_is_caught(world, monkeypatch):
    metrics(world)

    def knowing_every_word(opened, *which):  # the planted fault
        method, chosen = load_method(opened, *which)
        method.see_words(opened.words(range(len(CLASSES)), method.word_slots))
        assert len(method.vocabulary) == 5 + len(UNSEEN)
        return method.eval(), chosen

    monkeypatch.setattr(evaluation, "load_method", knowing_every_word)
    with pytest.raises(LeakError, match="secret"):
        metrics(world)


def test_words_poisoned_after_training_and_shuffled_labels_leave_every_score_as_it_is(world, monkeypatch):
    """And no language model is asked at test."""
    before = predictions(world)
    monkeypatch.setattr(prompts, "read_tokens", lambda *_: pytest.fail("the language model is read at test"))
    poisoned = write_words(world, lambda name: "poison" + name)
    assert predictions(poisoned) == before
    write_words(world, plain)

    test = [i for i, clip in enumerate(world.clips) if clip.part == "test" and CLASSES[clip.label] in UNSEEN]
    labels = np.random.default_rng(0).permutation([world.clips[i].label for i in test])
    clips = list(world.clips)
    for i, label in zip(test, labels, strict=True):
        clips[i] = replace(clips[i], label=int(label))
    assert predictions(replace(world, clips=tuple(clips))) == before


WORDS = [
    {"environment": "kitchen", "used_object": "cup", "target_object": "mouth", "key_parts": "head;hands"},
    {"environment": "street", "used_object": "none", "target_object": "none", "key_parts": "legs;feet;hips"},
]
FEATURES = Features(torch.rand(6, 256, 3, 17, generator=torch.Generator().manual_seed(0)), torch.rand(6, 1, 2))
TEXT = F.normalize(torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(1)), dim=-1)


def build():
    torch.manual_seed(0)
    method = SkeletonContext(Shapes(d_text=12, persons=1), 2, {"heads": 2})
    method.see_words(WORDS)
    return method.eval()


def unmoved_by_context(method):
    """Whether scores are the same in every bit when every prompt that holds a word is made unusable."""
    before = method.scores(FEATURES, TEXT)
    method.context.prompts.states.fill_(torch.nan)
    return torch.equal(method.scores(FEATURES, TEXT), before)


def test_every_slot_is_masked_at_test(monkeypatch):
    assert unmoved_by_context(build())
    honest = context.ContextBranch.forward

    def with_context(self, skeleton):  # the planted fault: candidates' words at test
        states, there, *_ = self.prompts.draw(torch.zeros(len(skeleton), dtype=torch.long), 1)
        return honest(self, skeleton) + self.layer.skeleton(self.guess(skeleton), self.bring(states), there)[:, 0]

    monkeypatch.setattr(context.ContextBranch, "forward", with_context)
    assert not unmoved_by_context(build())


@pytest.mark.parametrize(
    ("context", "key_parts", "top1"),
    [
        ([4.0, 3.0, 0.0, 0.0], [0.0, 3.0, 3.5, 0.0], 0.0),
        ([0.0, 3.0, 3.5, 0.0], [4.0, 3.0, 0.0, 0.0], 0.0),
        ([3.0, 4.0, 0.0, 0.0], [3.0, 0.0, 4.0, 0.0], 1.0),
    ],
    ids=["the context's branch alone is right", "the key parts' branch alone is right", "neither is, but their sum"],
)
def test_a_clip_is_right_by_the_added_scores_and_never_by_either_branch(world, monkeypatch, context, key_parts, top1):
    """Each branch scores every clip's own class first, then the three others of its four."""
    truth = torch.from_numpy(evaluation.open_test(open_run(world, PROTOCOL, RUN), "").labels)
    columns = truth[:, None] // 4 * 4 + (truth[:, None] + torch.arange(4)) % 4  # the last four are the unseen ones
    nothing = torch.zeros(len(truth), len(CLASSES))
    scores = [nothing.scatter(1, columns, torch.tensor([own] * len(truth))) for own in (context, key_parts)]
    monkeypatch.setattr(SkeletonContext, "branches", lambda self, features: scores)
    monkeypatch.setattr(SkeletonContext, "compare", lambda self, branch, text: branch)
    monkeypatch.setattr(evaluation, "write_glimpse", lambda *a: None)  # these are no vectors that could be drawn
    found = metrics(world)
    assert found["zsl"]["top1"] == found["zsl"]["macro"] == top1 and found["zsl"]["n"] == 24


def test_metrics_count_the_hits_among_twins(world):
    ceiling = metrics(world)["ceiling"]
    with (place(world, "results") / "predictions.csv").open(newline="") as file:
        hits = Counter(row["tuple"] for row in csv.DictReader(file) if row["label"] == row["predicted"])
    assert ceiling["twin_hits_max"] == max(hits.values()) and ceiling["twin_tuples"] == 12


def test_metrics_say_what_was_chosen_on_phase_one_only(world):
    path = place(world, "models") / "selection.json"
    chosen = path.read_text()
    honest = metrics(world)
    assert honest["method"] == "skeletoncontext" and honest["selection"].items() <= read_sealed(path, "train").items()
    assert len(honest["selection"]["scores_by_epoch"]) == 3  # no early stop before all is masked
    found = []
    plain = {name: value for name, value in json.loads(chosen).items() if name != "gamma_place"}  # as earlier runs
    for gamma in (-9.0, 9.0):
        path.write_text(json.dumps(seal(plain | {"gamma": gamma})))
        found.append(metrics(world)["gzsl"])
    path.write_text(chosen)
    low, high = found
    assert (low["gamma"], low["unseen"], low["harmonic"]) == (-9.0, 0, 0) and low["seen"] > 0
    assert (high["gamma"], high["seen"], high["harmonic"]) == (9.0, 0, 0) and high["unseen"] == honest["zsl"]["top1"]
