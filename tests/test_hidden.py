"""What hides persons in training: joints that were guessed, frames without anybody, anchors that were not seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic import PARAMS, PROTOCOL, make_world
from test_methods import build
from test_one_device import ANCHORS, samples

import pipeline.learn.encode as encoding
import pipeline.learn.train as training
from pipeline.learn.feature_table import Joints, StreamedTable, feature_table
from pipeline.learn.run import open_run
from pipeline.methods.posebridge import PoseBridge
from pipeline.params import RunParams
from pipeline.protocol.training_set import training_phase
from pipeline.skeleton.augment import augment
from pipeline.skeleton.hide import SEEN, Hiding, hide

pytestmark = pytest.mark.unit
B, M, T, V = 64, 2, 16, 17


@pytest.fixture
def x() -> torch.Tensor:
    """Normalised skeletons, in every third clip of one person."""
    made = torch.randn(B, M, T, V, 3, generator=torch.Generator().manual_seed(0))
    made[..., -1] = 0.9
    made[::3, 1] = 0
    return made


def drawn(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_nothing_is_hidden_unless_asked_for(x: torch.Tensor) -> None:
    assert torch.equal(augment(x, drawn()), augment(x, drawn(), hiding=Hiding()))
    assert not torch.equal(augment(x, drawn()), augment(x, drawn(), hiding=Hiding(joints=0.5)))
    assert torch.equal(hide(x, drawn(), Hiding(0.5, 0.5)), hide(x, drawn(), Hiding(0.5, 0.5)))


def test_joints_that_are_hidden_are_elsewhere_and_less_sure(x: torch.Tensor) -> None:
    seen = hide(x, drawn(), Hiding(joints=0.5))
    moved = (seen[..., :-1] != x[..., :-1]).any(-1)  # [B, M, T, V]
    assert not moved[::3, 1].any() and not seen[::3, 1].any(), "nobody is there, and nobody comes"
    some = moved.flatten(1).any(1)
    assert 0.3 < some.float().mean() < 0.7, "of about so many clips"
    assert torch.equal(seen[~some][..., :-1], x[~some][..., :-1])
    assert (seen[..., -1][moved] < 0.9).all() and (seen[..., -1] >= 0).all()
    assert (seen[..., -1][moved] < 0.6).float().mean() > 0.5
    per_joint = moved[some][:, 0].float().mean(1)  # [n, V]: shares of the clip
    assert ((per_joint == 0) | (per_joint > 0.25)).all(), "for a stretch of it"
    assert 0.15 < (per_joint > 0).float().mean() < 0.6


def test_frames_that_are_hidden_show_nobody(x: torch.Tensor) -> None:
    seen = hide(x, drawn(), Hiding(frames=0.5))
    gone = ~seen[:, 0].flatten(2).any(-1)  # [B, T]
    assert 0.2 < gone.any(1).float().mean() < 0.7 and gone.float().mean(1).max() <= 0.45
    assert torch.equal(seen[:, 0][~gone], x[:, 0][~gone])
    runs = (gone.int().diff(dim=1) == 1).sum(1) + gone[:, 0].int()
    assert runs.max() == 1, "a stretch of them"


def test_cues_are_hidden_one_by_one_and_of_some_anchors_more() -> None:
    method, q, scores = build(cue_dropout=0.0, token_dropout=0.3), torch.zeros(400, 1), torch.ones(400, 2, 8, 6)
    assert isinstance(method, PoseBridge)
    assert not method.eval()._drop_cues(q, scores).any(), "in training only"
    hidden = method.train()._drop_cues(q, scores)
    assert hidden.shape == scores.shape and hidden.float().mean() == pytest.approx(0.3, abs=0.02)
    of_anchor = hidden.float().mean(2)
    assert of_anchor.std() > 0.2 and (of_anchor < 0.05).any(), "a fair coin for each would give 0.16"
    assert build(cue_dropout=1.0, token_dropout=0.3).train()._drop_cues(q, scores).all()


@pytest.mark.parametrize("held_bytes", [1 << 30, 0])
def test_joints_are_hidden_in_augmented_views_alone(held_bytes: int) -> None:
    clips, rows = samples(), torch.arange(6)
    clips = replace(clips, scores=torch.ones_like(clips.scores))
    table = feature_table(Joints().eval(), clips, ANCHORS, 2, 1, held_bytes, hiding=Hiding(joints=1.0))
    assert isinstance(table, StreamedTable) == (not held_bytes)
    for view, hidden in ((0, False), (1, True)):
        views = torch.full((6,), view)
        if isinstance(table, StreamedTable):
            shown = table.features(table.load(rows), views, torch.Generator().manual_seed(0))
        else:
            shown = table.batch(rows, views)
        lowest = shown.skeleton[:, 0, ..., -1].amax(-1).amin(1)  # [B] of a frame's surest joint, 1 but where dimmed
        assert bool(((lowest > 0) & (lowest < 0.99)).any()) == hidden


def test_what_params_say_is_hidden_in_both_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Told(Exception):
        pass

    def tell(*_: Any, hiding: Hiding = SEEN, **__: Any) -> None:
        raise Told(hiding)

    world = make_world(tmp_path)
    opened = open_run(world, PROTOCOL, RunParams(flags={"width": 8, "heads": 2, "layers": 1}))
    phase = training_phase("final", opened.split, world.clips)
    clips, wanted = opened.samples(phase.train), {"hidden_joints": 0.25, "hidden_frames": 0.75}
    params = replace(PARAMS, encode=replace(PARAMS.encode, **wanted), train=replace(PARAMS.train, **wanted))
    monkeypatch.setattr(encoding, "augment", tell)
    monkeypatch.setattr(training, "feature_table", tell)
    with pytest.raises(Told) as told:
        encoding.train_encoder(clips, torch.zeros(len(clips)).long(), 2, params.encode, 0)
    assert told.value.args == (Hiding(0.25, 0.75),)
    with pytest.raises(Told) as told:
        training.train_phase(opened, phase, clips, Joints().eval(), params, 0, 1)
    assert told.value.args == (Hiding(0.25, 0.75),)
