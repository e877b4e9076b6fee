"""What must not reach SkeletonContext's scores: unseen words, context at test, labels, a second answer."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from synthetic import CLASSES, PARAMS, PROTOCOL, SEEN, UNSEEN, VALIDATION, make_world

from pipeline import evaluation
from pipeline.encoding import encode
from pipeline.methods import context, prompts
from pipeline.methods.base import Features, Shapes
from pipeline.methods.skeletoncontext import SkeletonContext
from pipeline.params import RunParams
from pipeline.phases import class_words, load_method, train
from pipeline.protocol.guards import LeakError
from pipeline.protocol.metrics import confusion_matrix, micro
from pipeline.runs import open_run

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
def world(tmp_path_factory):
    torch.set_num_threads(1)
    return go(tmp_path_factory.mktemp("clean"))


def place(world, room):
    return world.cache / room / "toy" / PROTOCOL / "skeletoncontext/seed-0"


def weights(world, phase):
    return load_file(place(world, "models") / f"{phase}.safetensors")


def predictions(world):
    evaluation.evaluate(world, PROTOCOL, "skeletoncontext", RUN, QUICK)
    with (place(world, "results") / "predictions.csv").open(newline="") as file:
        return {row["clip_id"]: (row["predicted"], row["scores"]) for row in csv.DictReader(file)}


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


def test_a_vocabulary_with_an_unseen_word_is_caught(world):
    opened = open_run(world, PROTOCOL, RUN)
    method, _ = load_method(opened, PROTOCOL, "skeletoncontext", 0)
    evaluation.require_seen_text(opened, method)
    method.see_words(class_words(opened, range(len(CLASSES)), method.word_slots))  # the planted fault
    assert len(method.vocabulary) == 5 + len(UNSEEN)
    with pytest.raises(LeakError, match="secret"):
        evaluation.require_seen_text(opened, method)


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


def hits(method, labels):
    """How many clips are right by the product's own rule."""
    confusion = confusion_matrix(labels, method.scores(FEATURES, TEXT).argmax(1).numpy(), 2)
    assert confusion.sum() == len(labels)
    return round(micro(confusion) * len(labels))


def test_a_clip_is_right_by_the_added_scores_and_never_by_either_branch():
    """The branches contradict one another in half of the clips; whoever takes the right one gets more hits."""
    method, labels = build(), np.array([0, 0, 0, 1, 1, 1])
    sure, unsure = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    scores = {"context": sure[[0, 0, 1, 1, 1, 0]], "key_parts": unsure[[0, 1, 1, 0, 0, 0]]}
    method.branches = lambda features: ("context", "key_parts")
    method.compare = lambda branch, text: scores[branch]

    one_answer = 4  # by hand: clips 0, 1, 3 and 4, where the sure branch is right
    assert hits(method, labels) == one_answer

    either = sum(
        any(int(branch[row].argmax()) == label for branch in scores.values()) for row, label in enumerate(labels)
    )  # the planted fault
    assert either > one_answer


def test_metrics_say_what_was_chosen_on_phase_one_only(world):
    predictions(world)
    found = json.loads((place(world, "results") / "metrics.json").read_text())
    assert found["method"] == "skeletoncontext" and found["zsl"]["n"] == 24 and found["ceiling"]["twin_hits_max"] >= 0
    assert len(found["selection"]["scores_by_epoch"]) == 3  # no early stop before all is masked
