"""Shift-GCN against the equations of its paper, written out number by number, in float64."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import PROTOCOL, make_world

from pipeline.cache.sealed import read_sealed, seal
from pipeline.errors import PosebridgeError
from pipeline.learn.encode import encode, new_encoder, write_encoder
from pipeline.learn.encoders import encoder_folder, encoder_learnt_from, load_encoder
from pipeline.params import EncodeParams
from pipeline.protocol.training_set import training_phase
from pipeline.skeleton.encoders import ENCODERS
from pipeline.skeleton.light_shift_gcn import LightShiftGCN
from pipeline.skeleton.shift_gcn import Block, ShiftGCN

pytestmark = pytest.mark.unit
EPS = 1e-5


def value(tensor):
    return tensor.detach().numpy()


def spatial_shift(x, step):
    """Channel c of joint v is that of joint v + step * c."""
    y = np.empty_like(x)
    for v in range(x.shape[2]):
        for c in range(x.shape[3]):
            y[:, :, v, c] = x[:, :, (v + step * c) % x.shape[2], c]
    return y


def temporal_shift(x, shift, stride=1):
    """Frame t is that at stride * t + shift, and with a stride of 2 half a frame later: in the middle of two."""
    frames = range(0, x.shape[1], stride)
    y = np.zeros((len(x), len(frames), *x.shape[2:]))
    for to, t in enumerate(frames):
        for c in range(x.shape[3]):
            place = t + shift[c] + (0.5 if stride == 2 else 0)
            low = math.floor(place)
            for frame, share in ((low, low + 1 - place), (low + 1, place - low)):
                if 0 <= frame < x.shape[1]:
                    y[:, to, :, c] += share * x[:, frame, :, c]
    return y


def norm(layer, x, axes):
    """Over all axes but those named, by the batch, or by what was learnt of batches."""
    others = tuple(axis for axis in range(x.ndim) if axis not in axes)
    shape = tuple(x.shape[axis] for axis in axes)
    mean, var = x.mean(others), x.var(others)
    if not layer.training:
        mean, var = (value(part).reshape(shape) for part in (layer.running_mean, layer.running_var))
    return (x - mean) / np.sqrt(var + EPS) * value(layer.weight).reshape(shape) + value(layer.bias).reshape(shape)


def linear(layer, x):
    return x @ value(layer.weight).T + (0 if layer.bias is None else value(layer.bias))


def around(path, x):
    """A residual path: as it is, or a product with a norm a channel."""
    if isinstance(path, torch.nn.Identity):
        return x
    return norm(path.norm, linear(path.linear, x[:, :: path.stride]), (3,))


def block(layer, x, first=False):
    s, t = layer.spatial, layer.temporal
    y = linear(s.linear, spatial_shift(x, 1) * (np.tanh(value(s.mask)) + 1))
    y = np.maximum(norm(s.norm, spatial_shift(y, -1), (2, 3)) + around(s.skip, x), 0)  # a norm of each joint's channel
    y = linear(t.linear, temporal_shift(norm(t.norm_in, y, (3,)), value(t.shift_in.shift)))
    y = temporal_shift(np.maximum(y, 0), value(t.shift_out.shift), t.shift_out.stride)  # the second one strides
    y = norm(t.norm_out, y, (3,))
    return np.maximum(y if first else y + around(layer.skip, x), 0)


def network(net, x):
    """[B, M, T, V, C], everybody there, to [B, 256, T', V]."""
    persons = [norm(each, x[:, m], (2, 3)) for m, each in enumerate(net.input_norm)]  # each person's own
    y = np.stack(persons, 1).reshape(-1, *x.shape[2:])
    *blocks, widen = net.blocks
    for number, layer in enumerate(blocks):
        y = block(layer, y, first=not number)
    y = np.maximum(around(widen[0], y), 0)
    return y.reshape(*x.shape[:2], *y.shape[1:]).mean(1).transpose(0, 3, 1, 2)


def any_weights(net):
    torch.manual_seed(0)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, 0.3)
    for name, kept in net.named_buffers():
        if name.endswith("running_mean"):
            torch.nn.init.normal_(kept)
        elif name.endswith("running_var"):
            torch.nn.init.uniform_(kept, 0.5, 2)
    return net


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("frames", [8, 7])
def test_the_network_is_that_of_the_equations(training, frames):
    net = any_weights(ShiftGCN(5, 3, width=4, blocks=(2, 1), inputs=3, persons=2).double()).train(training)
    x = torch.randn(3, 2, frames, 5, 3, dtype=torch.float64)
    there = torch.ones(3, 2, dtype=torch.bool)
    expected = network(net, x.numpy())
    np.testing.assert_allclose(value(net.feature_map(x, there)), expected, atol=1e-12, rtol=1e-12)
    scores = expected.mean((2, 3)) @ value(net.classifier.weight).T + value(net.classifier.bias)
    np.testing.assert_allclose(value(net(x, there)), scores, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(("channels_in", "stride", "residual"), [(4, 1, True), (3, 1, False), (3, 2, True)])
def test_a_block_is_that_of_the_equations(channels_in, stride, residual):
    layer = any_weights(Block(5, channels_in, 4, stride, residual).double())
    x = torch.randn(2, 6, 5, channels_in, dtype=torch.float64)
    np.testing.assert_allclose(value(layer(x)), block(layer, x.numpy(), first=not residual), atol=1e-12, rtol=1e-12)


def test_the_sizes_are_the_published_networks_and_the_light_ones():
    def size(kind):
        return sum(weight.numel() for weight in kind(25, 60, persons=2).parameters())

    assert (size(ShiftGCN), size(LightShiftGCN)) == (690_291, 616_413)


def test_a_person_is_normed_by_the_norm_of_the_own_place_and_the_others_see_nothing():
    net = any_weights(ShiftGCN(5, 3, width=4, blocks=(1,), persons=2).double()).train()
    x = torch.randn(3, 2, 4, 5, 3, dtype=torch.float64)
    before = [each.running_mean.clone() for each in net.input_norm]
    net.feature_map(x, torch.tensor([[True, False]] * 3))
    first, second = (each.running_mean for each in net.input_norm)
    torch.testing.assert_close(first, 0.9 * before[0] + 0.1 * x[:, 0].mean((0, 1)).flatten())
    assert torch.equal(second, before[1])
    alone, both = net.eval().feature_map(x[:, 1:], torch.ones(3, 1, dtype=torch.bool)), x.clone()
    both[:, 0] = torch.nan
    found = net.feature_map(both, torch.tensor([[False, True]] * 3))
    assert found.isfinite().all() and not torch.allclose(found, alone), "the second place has another norm"


def test_an_encoder_is_opened_as_what_it_was_written_as_and_one_from_before_is_the_light_one(tmp_path):
    world = make_world(tmp_path)
    params = EncodeParams(epochs=1, encoder="shift_gcn", batch_size=64, width=4, blocks=(1, 1), seeds=(0,))
    folder = encode(world, PROTOCOL, "refined", params)
    assert isinstance(load_encoder(world, PROTOCOL, "refined", 0, "final"), ShiftGCN)
    encode(world, PROTOCOL, "refined", replace(params, encoder="light"))
    told = folder / "seed-0/final.json"
    values = read_sealed(told, "encode")
    before = {name: value for name, value in values.items() if name not in ("encoder", "persons")}
    assert len(before) == len(values) - 2
    told.write_text(json.dumps(seal(before)))
    assert isinstance(load_encoder(world, PROTOCOL, "refined", 0, "final"), LightShiftGCN)
    told.write_text(json.dumps(seal(before | {"encoder": "shift_gcn"})))
    with pytest.raises(PosebridgeError, match="is not the encoder that the .json beside it tells of"):
        load_encoder(world, PROTOCOL, "refined", 0, "final")


def test_params_know_the_encoders_and_the_default_is_the_published_one():
    assert EncodeParams().encoder == "shift_gcn"
    for name in ENCODERS:
        EncodeParams(encoder=name)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_of_any_width_and_blocks_is_opened(tmp_path, name):
    """What means nothing to one, as `blocks` to `dense`, does not keep it from being opened."""
    world, params = make_world(tmp_path), EncodeParams(encoder=name, width=32, blocks=(1, 1, 8))
    phase = training_phase("final", world.split(PROTOCOL), world.clips)
    made, learnt = new_encoder((1, 1, 8, 17, 3), len(phase.classes), params), encoder_learnt_from(world, "gt", phase)
    path = encoder_folder(world.cache, world.name, PROTOCOL, "gt") / "seed-0/final.safetensors"
    write_encoder(path, made, (1, 1, 8, 17, 3), phase, params, learnt)
    found = load_encoder(world, PROTOCOL, "gt", 0, "final")
    torch.testing.assert_close(found.state_dict(), made.state_dict())
