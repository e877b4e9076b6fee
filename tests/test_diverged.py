"""Numbers that are not finite end a training, a selection and a test: their figures would look like results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import FLAGS, PARAMS, PROTOCOL, make_world
from torch import nn

from pipeline.errors import PosebridgeError
from pipeline.learn.encode import encode
from pipeline.learn.evaluate import evaluate
from pipeline.learn.loop import Loop, fit
from pipeline.learn.train import train
from pipeline.methods.posebridge import PoseBridge
from pipeline.params import RunParams
from pipeline.protocol.gzsl import Stacking
from pipeline.skeleton.resample import resample_at
from pipeline.tune.tune import StopsWhenLost

pytestmark = pytest.mark.unit
RUN = RunParams(flags=FLAGS, recipe="refined")
QUICK = replace(PARAMS, encode=replace(PARAMS.encode, epochs=1), train=replace(PARAMS.train, epochs=2))
LOOP = Loop(epochs=4, batch_size=8, lr=1e-2)


def one_number():
    net = nn.Linear(1, 1)
    return net, torch.linspace(-1, 1, 64)[:, None]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_is_told_with_its_epoch(value):
    net, x = one_number()
    calls = []

    def loss(rows, generator):
        calls.append(rows)
        return net(x[rows]).pow(2).mean() + (value if len(calls) > 20 else 0)

    with pytest.raises(PosebridgeError, match="posebridge, seed 3: in epoch 3, step 21, 'loss' is not a finite number"):
        fit(net, loss, 64, LOOP, what="posebridge, seed 3")


def test_a_gradient_that_is_not_finite_is_told_before_it_reaches_the_weights():
    net, x = one_number()
    with pytest.raises(PosebridgeError, match="in epoch 1, step 1, 'gradient' is not a finite number"):
        fit(net, lambda rows, generator: (net(x[rows]) * 0).sqrt().sum(), 64, LOOP)
    assert all(value.isfinite().all() for value in net.state_dict().values())


def test_weights_that_are_not_finite_are_told_though_the_loss_is():
    net, x = one_number()
    net.register_buffer("statistics", torch.zeros(()))

    def loss(rows, generator):
        net.statistics.fill_(torch.inf)
        return net(x[rows]).pow(2).mean()

    with pytest.raises(PosebridgeError, match="in epoch 1, .*'statistics' is not a finite number"):
        fit(net, loss, 64, LOOP)


def test_a_validation_that_is_not_finite_is_told_with_its_epoch():
    net, x = one_number()
    scores = iter([0.5, float("nan")])
    with pytest.raises(PosebridgeError, match="after epoch 2 the validation gives nan"):
        fit(net, lambda rows, generator: net(x[rows]).pow(2).mean(), 64, LOOP, validate=lambda: next(scores))


def test_scores_that_are_not_finite_make_no_figures():
    scores = np.array([[0.1, 0.9, 0.3], [0.2, np.nan, 0.1]])
    with pytest.raises(PosebridgeError, match="scores of 1 of 2 clips are not finite"):
        Stacking.of(scores, np.array([0, 2]), np.array([True, True, False]))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = make_world(tmp_path_factory.mktemp("world"), train=3, test=1, twins=1)
    encode(made, PROTOCOL, "refined", QUICK.encode)
    return made


def test_a_run_that_diverged_names_method_seed_phase_and_epoch(world, monkeypatch):
    with pytest.raises(PosebridgeError, match=r"Encoder, seed 0, select: in epoch 1, .*not a finite number"):
        encode(world, PROTOCOL, "refined", replace(QUICK.encode, lr=1e38))
    scores, loss = PoseBridge.scores, PoseBridge.loss
    monkeypatch.setattr(PoseBridge, "scores", lambda self, features, text: scores(self, features, text) * torch.nan)
    with pytest.raises(PosebridgeError, match="posebridge, seed 0, select: after epoch 1: The method PoseBridge gives"):
        train(world, PROTOCOL, "r", RUN, QUICK)
    monkeypatch.setattr(PoseBridge, "loss", lambda self, *batch: loss(self, *batch) * torch.nan)
    with pytest.raises(PosebridgeError, match="posebridge, seed 0, select: in epoch 1, step 1, 'loss' is not"):
        train(world, PROTOCOL, "r", RUN, QUICK)


def test_a_test_whose_scores_are_not_finite_gives_no_accuracy(world, monkeypatch):
    train(world, PROTOCOL, "r", RUN, QUICK)
    scores = PoseBridge.scores
    monkeypatch.setattr(PoseBridge, "scores", lambda self, features, text: scores(self, features, text) * torch.nan)
    with pytest.raises(PosebridgeError, match="PoseBridge gives scores that are not finite for .* first "):
        evaluate(world, PROTOCOL, "r", RUN, QUICK)
    assert not list((world.cache / "results").rglob("metrics.json"))


def test_a_tuning_whose_loss_is_lost_is_ended_with_its_epoch():
    class Runner:
        epoch = 4

    hook = StopsWhenLost()
    hook.after_train_iter(Runner(), 6, None, {"loss": torch.tensor(1.0), "loss_kp": 0.5})
    with pytest.raises(PosebridgeError, match="in epoch 5, step 7, 'loss_kd' is not a finite number"):
        hook.after_train_iter(Runner(), 6, None, {"loss": torch.tensor(1.0), "loss_kd": float("nan")})


def test_resampling_between_somebody_and_nobody_makes_no_ghost():
    x = torch.zeros(1, 2, 4, 17, 3)
    x[0, 0, :2] = 5  # one person leaves, the other one stays
    x[0, 1] = torch.arange(1, 5.0)[:, None, None]
    seen = resample_at(x, torch.tensor([[0.5, 1.25, 1.75, 2.5]]))
    assert seen[0, 0, :, 0, 0].tolist() == [5, 5, 0, 0]
    assert seen[0, 1, :, 0, 0].tolist() == [1.5, 2.25, 2.75, 3.5]
