"""`bench parts`: parts taken away under controlled changes, by the selection phase alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from synthetic import CLASSES, FLAGS, PARAMS, PROTOCOL, UNSEEN, VALIDATION, make_world

from pipeline.bench import parts
from pipeline.errors import PosebridgeError
from pipeline.learn.encode import encode
from pipeline.learn.run import open_run
from pipeline.params import RunParams

pytestmark = pytest.mark.unit
QUICK = replace(PARAMS, encode=replace(PARAMS.encode, epochs=1), train=replace(PARAMS.train, epochs=1))
RUN = RunParams(flags=FLAGS)


@pytest.fixture(scope="module")
def world(tmp_path_factory, one_thread):
    world = make_world(tmp_path_factory.mktemp("parts"))
    encode(world, PROTOCOL, "refined", QUICK.encode)
    return world


def changed(world, name):
    return parts.CHANGES[name](parts._learnt(open_run(world, PROTOCOL, RUN)), torch.Generator().manual_seed(0))


def test_parts_are_compared_with_the_whole_seed_by_seed_and_no_test_clip_is_read(world, monkeypatch):
    read, reader = [], type(world.reader("refined"))
    take = reader.read
    monkeypatch.setattr(reader, "read", lambda self, ids, *rest: read.extend(ids) or take(self, ids, *rest))
    found = list(parts.bench_parts(world, PROTOCOL, RUN, QUICK, [0], ["as they are"], ["without bridge"]))
    assert [each.part for each in found] == [
        "whole", "adaptation of 0.25", "adaptation of 0.5", "adaptation of 1", "without bridge"
    ]  # fmt: skip
    whole, *others = found
    assert (whole.more_area.mean, whole.more_top1.mean, whole.seeds) == (0, 0, 1)
    for each in others:
        assert each.more_area.mean == pytest.approx(each.area.mean - whole.area.mean)
    of = {clip.clip_id: clip for clip in world.clips}
    assert read and all(of[clip_id].part == "train" and CLASSES[of[clip_id].label] not in UNSEEN for clip_id in read)


def test_a_change_changes_what_it_says_and_nothing_else(world):
    plain = changed(world, "as they are")
    with pytest.raises(PosebridgeError, match="no slot `label`"):
        changed(world, "names only")
    bank = plain.opened.bank
    named = replace(plain, opened=replace(plain.opened, bank=replace(bank, slots=("label", *bank.slots[1:]))))
    terse = parts.names_only(named, torch.Generator()).opened.bank.embeddings
    assert (terse == bank.embeddings[:, :1]).all() and terse.shape == bank.embeddings.shape
    noisy = changed(world, "noisy texts").opened.bank.embeddings
    likeness = (noisy * plain.opened.bank.embeddings).sum(-1)
    assert noisy.norm(dim=-1).allclose(torch.ones(())) and 0.6 < likeness.mean() < 0.8
    cues = changed(world, "noisy cues").samples
    assert not torch.equal(cues.cues, plain.samples.cues) and cues.cues.dtype == torch.float16
    assert torch.equal(cues.cue_scores, plain.samples.cue_scores)
    unsure = changed(world, "unsure poses").samples
    low = (unsure.scores < plain.samples.scores).flatten(1).any(1)
    assert 0.3 < low.float().mean() < 0.7 and torch.equal(unsure.cues[~low], plain.samples.cues[~low])
    assert torch.equal((unsure.cues != plain.samples.cues).flatten(1).any(1), low)


@pytest.mark.parametrize(("name", "trained", "unseen"), [("few seen", 4, 4), ("many unseen", 6, 6)])
def test_classes_taken_from_training_are_gone_or_pseudo_unseen(world, name, trained, unseen):
    found = changed(world, name)
    labels = lambda clips: {clip.label for clip in clips}  # noqa: E731
    assert len(found.phase.classes) == trained == len(labels(found.phase.train))
    assert set(found.phase.classes) == set(found.split.phase_one) and len(found.split.validation) == unseen
    assert labels(found.phase.pseudo_unseen) == set(found.split.validation) >= {CLASSES.index(c) for c in VALIDATION}
    kept = {c.clip_id for c in (*found.phase.train, *found.phase.held_out, *found.phase.pseudo_unseen)}
    assert set(found.samples.clip_ids) == kept
    [whole, *_] = parts.bench_parts(world, PROTOCOL, RUN, QUICK, [0], [name], [])
    assert 0 <= whole.area.mean <= 1


def test_a_run_without_cues_has_no_such_parts(world):
    with pytest.raises(PosebridgeError, match="with cues has these parts"):
        list(parts.bench_parts(world, PROTOCOL, replace(RUN, method="skeleton"), QUICK, [0]))
