"""What is computed of many clips is put in its place batch by batch, and the batches are let go of."""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.learn import score
from pipeline.learn.feature_table import feature_table
from pipeline.learn.features import Samples
from pipeline.methods.prototypes import class_means
from pipeline.protocol import gzsl
from pipeline.protocol.gzsl import Stacking

pytestmark = pytest.mark.unit
N = 64 * 5 + 3


class Kept:
    """Tensors that were given away; how many of them are still held is counted whenever one more is asked for."""

    def __init__(self) -> None:
        self.given: list[weakref.ref] = []
        self.most = 0

    def give(self, tensor: torch.Tensor) -> torch.Tensor:
        self.most = max(self.most, sum(given() is not None for given in self.given))
        self.given.append(weakref.ref(tensor))
        return tensor


def test_scores_are_those_of_each_batch_and_of_them_one_is_held():
    kept, rows = Kept(), torch.randperm(N)
    method = SimpleNamespace(
        device="cpu", named_modules=list, scores=lambda x, text: kept.give(x[:, None].float() + text)
    )
    table = SimpleNamespace(batches=iter, samples=SimpleNamespace(clip_ids=[str(row) for row in range(N)]))
    text = torch.tensor([0.0, 0.5])
    assert torch.equal(score.score_table(method, table, text, rows), rows[:, None] + text)
    assert len(kept.given) == 6 and kept.most <= 1


def test_embeddings_are_summed_batch_by_batch():
    kept, z = Kept(), torch.rand(N, 3)
    labels = torch.arange(N) % 4
    means = class_means((kept.give(part.clone()) for part in z.split(64)), labels, 4)
    assert torch.equal(means, class_means([z], labels, 4)) and kept.most <= 1


def test_maps_are_put_in_their_place():
    kept = Kept()
    encoder = SimpleNamespace(feature_map=lambda x, person: kept.give(x.flatten(2).mean(-1)))
    samples = Samples(
        tuple(map(str, range(N))), torch.rand(N, 1, 4, 17, 2), torch.rand(N, 1, 4, 17), torch.ones(N, 1, 4).bool()
    )
    table = feature_table(encoder, samples, views=2)
    x, _ = samples.inputs
    assert torch.equal(table.maps[0], x.flatten(2).mean(-1)) and kept.most <= 2, "the first tells the shape"


def test_figures_do_not_depend_on_how_many_clips_are_looked_at_together(monkeypatch):
    rng = np.random.default_rng(0)
    scores, labels, seen = rng.normal(size=(N, 7)), rng.integers(0, 7, N), np.arange(7) < 4
    whole = Stacking.of(scores, labels, seen)
    monkeypatch.setattr(gzsl, "CHUNK", 10)
    parts = Stacking.of(scores, labels, seen)
    assert all(np.array_equal(value, vars(parts)[name]) for name, value in vars(whole).items())
