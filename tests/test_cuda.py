"""Stage two on a CUDA GPU computes what it computes on a CPU. Skipped where there is none."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import FLAGS, PARAMS, PROTOCOL, make_world
from torch import nn

from pipeline.errors import PosebridgeError
from pipeline.files.device import CPU, choose_devices, name_of
from pipeline.learn import encode as encoding
from pipeline.learn import feature_table, features
from pipeline.learn import loop as training
from pipeline.learn.encode import encode
from pipeline.learn.evaluate import evaluate
from pipeline.learn.loop import Loop, fit
from pipeline.learn.train import train
from pipeline.params import RunParams

pytestmark = [
    pytest.mark.unit, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
]  # fmt: skip
RUN = RunParams(flags=FLAGS | {"dropout": 0.0, "cue_dropout": 0.0})
SHORT = replace(
    PARAMS,
    encode=replace(PARAMS.encode, epochs=2, lr=1e-3, dropout=0.0),
    train=replace(PARAMS.train, epochs=2, lr=1e-3, views=1),
)


@pytest.fixture
def gpu():
    return choose_devices("cuda")[0]


def scores_of(place):
    """[N, U] of the unseen classes, as predictions.csv has them."""
    with (place / "predictions.csv").open() as file:
        return np.array([[pair.split(":")[1] for pair in row["scores"].split()] for row in csv.DictReader(file)], float)


def test_a_run_in_which_nothing_is_drawn_is_the_same_on_a_gpu(gpu, tmp_path, monkeypatch):
    for module in (encoding, feature_table):
        monkeypatch.setattr(module, "augment", lambda x, *_, **__: x)
    found = []
    for device in (CPU, gpu):
        world = make_world(tmp_path / device.type)
        encode(world, PROTOCOL, "refined", SHORT.encode, devices=(device,))
        train(world, PROTOCOL, "posebridge", RUN, SHORT, devices=(device,))
        place = evaluate(world, PROTOCOL, "posebridge", RUN, SHORT, device=device) / "seed-0"
        found.append(scores_of(place))
        told = json.loads((place / "metrics.json").read_text())
        assert told["device"] == told["selection"]["device"] == name_of(device)
    np.testing.assert_allclose(*found, atol=1e-2)


@pytest.mark.parametrize("held_bytes", [0, 1 << 30], ids=["from the disk", "from memory"])
def test_what_a_gpu_has_trained_scores_the_same_on_a_cpu(gpu, tmp_path, monkeypatch, held_bytes):
    monkeypatch.setattr(features, "HELD_BYTES", held_bytes)
    world, run = make_world(tmp_path), RunParams(flags=FLAGS, adapt="pgfa")
    encode(world, PROTOCOL, "refined", PARAMS.encode, devices=(gpu,))
    train(world, PROTOCOL, "posebridge", run, PARAMS, devices=(gpu,))
    found = []
    for device in (CPU, gpu):
        place = evaluate(world, PROTOCOL, "posebridge", run, PARAMS, device=device) / "seed-0"
        found.append(scores_of(place))
    np.testing.assert_allclose(*found, atol=1e-4)
    assert json.loads((place / "metrics.json").read_text())["zsl"]["top1"] > 0.5


def problem(device):
    """A network with dropout and batch norm, and draws on its device."""
    torch.manual_seed(1)
    x = torch.randn(50, 4)
    y = (x[:, 0] > 0).long()
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2)).to(device)
    x, y = x.to(device), y.to(device)

    def loss(rows, generator):
        noise = 0.1 * torch.randn(len(rows), 4, generator=generator, device=device)
        return nn.functional.cross_entropy(net(x[rows] + noise), y[rows])

    return net, loss


@pytest.mark.parametrize("precision", [{}, {"tf32": True}, {"bfloat16": True}], ids=str)
def test_killed_and_started_again_on_a_gpu_gives_equal_weights(gpu, tmp_path, precision, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    def stop(progress):
        if progress.epoch == 3:
            raise KeyboardInterrupt

    loop = Loop(epochs=6, batch_size=16, lr=1e-2, ema=0.9, seed=3, **precision)
    whole, loss = problem(gpu)
    fit(whole, loss, 50, loop)
    net, loss = problem(gpu)
    with pytest.raises(KeyboardInterrupt):
        fit(net, loss, 50, loop, state=tmp_path / "state.safetensors", on_epoch=stop)
    net, loss = problem(gpu)
    torch.manual_seed(99)
    fit(net, loss, 50, loop, state=tmp_path / "state.safetensors")
    assert all(map(torch.equal, net.state_dict().values(), whole.state_dict().values()))
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32


def test_a_loss_that_is_lost_on_a_gpu_is_told_when_the_epoch_is_over(gpu):
    net, loss = problem(gpu)
    with pytest.raises(PosebridgeError, match="in epoch 1, step .*'loss' is not a finite number"):
        fit(net, lambda *given: loss(*given) * torch.inf, 50, Loop(2, 16, 1e-2))


def test_a_batch_that_a_gpu_has_no_memory_for_is_told_with_the_one_that_fits(gpu):
    net, loss = problem(gpu)

    def large(rows, generator):
        torch.empty(1 << (50 if len(rows) > 20 else 10), device=gpu)
        return loss(rows, generator)

    with pytest.raises(PosebridgeError, match="with a batch of 64; set batch_size in params.yaml to 16"):
        fit(net, large, 50, Loop(1, 64, 1e-2))
