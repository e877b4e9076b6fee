"""Dropout drawn of bytes is what PyTorch's is."""

import pytest
import torch

from pipeline.methods.dropout import Dropout

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5])
def test_as_many_are_dropped_as_asked_and_the_mean_stays(p):
    torch.manual_seed(0)
    x = torch.ones(1003, 999)  # not a multiple of the eight that are drawn at once
    y = Dropout(p)(x)
    assert (y == 0).float().mean() == pytest.approx(p, abs=1 / 512 + 0.002)
    assert y.mean() == pytest.approx(1, abs=0.005)
    assert y.unique().tolist() == [0, pytest.approx(1 / (1 - round(p * 256) / 256))]


def test_every_place_has_its_own_draw_and_gradients_pass_where_values_do():
    torch.manual_seed(0)
    x = torch.ones(64, 8, 5, requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert len({tuple(row) for row in y.flatten(1).tolist()}) == 64
    assert not torch.equal(Dropout(0.5)(x), y)
    torch.manual_seed(0)
    assert torch.equal(Dropout(0.5)(x), y)  # a resumed training draws the same


def test_at_rest_and_without_a_rate_it_does_nothing():
    x = torch.randn(7, 3)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert Dropout(0.999)(torch.ones(4000)).max() == 256  # never all of them
