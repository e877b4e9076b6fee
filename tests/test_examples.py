"""Nearest examples: what a descriptor keeps of a clip and what not, and how scores come from it; no video, no model."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from synthetic import make_world
from torch import Tensor

from pipeline.bench.examples import bench_examples, leave_out
from pipeline.learn.features import Samples
from pipeline.predict.examples import STEPS, Descriptors, ExampleScorer, hold, place_free
from pipeline.protocol.metrics import binomial_interval
from pipeline.skeleton.mirror import mirror

pytestmark = pytest.mark.unit


def clips(n: int, persons: int = 1, seed: int = 0) -> Tensor:
    """Joints [n, persons, STEPS, 17, 2], one person 10 pixels to the right of the other."""
    x = torch.randn(n, persons, STEPS, 17, 2, generator=torch.Generator().manual_seed(seed)).cumsum(2)
    return x + 10 * torch.arange(persons)[:, None, None, None]


def samples(x: Tensor, cues: Tensor | None = None, scores: Tensor | None = None) -> Samples:
    valid = torch.ones(x.shape[:3], dtype=torch.bool)
    return Samples(tuple(map(str, range(len(x)))), x, torch.ones(x.shape[:4]), valid, cues, scores)


def test_place_and_size_say_nothing_and_time_does() -> None:
    x = clips(2, 2)
    there = torch.ones(2, 2, STEPS, dtype=torch.bool)
    found = place_free(x, there)
    assert found.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert torch.allclose(place_free(3 * x + 50, there), found, atol=1e-5)
    assert (place_free(x.flip(2), there) * found).sum(1).max() < 0.999
    apart = x + 20 * torch.arange(2)[:, None, None, None]
    assert (place_free(apart, there) * found).sum(1).max() < 0.999, "how two persons stand to each other"


def test_persons_stand_from_left_to_right_and_who_is_absent_last() -> None:
    x = clips(1, 2)
    there = torch.ones(1, 2, STEPS, dtype=torch.bool)
    assert torch.allclose(place_free(x.flip(1), there), place_free(x, there), atol=1e-6)
    first, second = (torch.arange(2)[None, :, None] == person for person in (0, 1))
    alone = place_free(x[:, :1], there[:, :1])
    found = place_free(x, there & first)
    assert torch.allclose(found, F.pad(alone, (0, alone.shape[1])), atol=1e-6), "who is absent does not count"
    assert torch.allclose(place_free(x.flip(1), there & second), found, atol=1e-6)


def test_who_is_not_seen_for_a_while_stays_as_last_seen() -> None:
    valid = torch.tensor([[[0, 1, 0, 1, 0]]], dtype=torch.bool)
    x = torch.arange(5.0)[None, None, :, None, None].expand(1, 1, 5, 17, 2)
    assert hold(x, valid)[0, 0, :, 3, 1].tolist() == [1, 1, 1, 3, 3]


@pytest.mark.parametrize("neighbours", [0, 1, 2, 9])
def test_scores_are_those_of_the_nearest_examples_and_of_their_mirror_images(neighbours: int) -> None:
    x, asked = clips(5), torch.cat([clips(5)[3:4], mirror(clips(5)[1:2]), clips(1, seed=9)])
    scorer = ExampleScorer(["one", "two"], samples(x), [0, 0, 1, 1, 1], neighbours)
    known, query = Descriptors(samples(x)), Descriptors(samples(asked)).skeleton
    for label, rows in enumerate(([0, 1], [2, 3, 4])):
        both = torch.stack([known.skeleton[rows], known.mirrored[rows]])  # [2, E, d]
        if not neighbours:
            both = F.normalize(both.sum(1, keepdim=True), dim=-1)
        cosine = (query @ both.flatten(0, 1).T).sort(1, descending=True).values
        wanted = cosine[:, : max(neighbours, 1)].mean(1)
        assert scorer.scores(samples(asked))[:, label] == pytest.approx(wanted.numpy(), abs=1e-5)
    if neighbours == 1:
        assert scorer.scores(samples(asked))[[0, 1], [1, 0]] == pytest.approx([1, 1], abs=1e-5)


def test_cues_count_by_their_scores_beside_the_mean_of_all_and_for_half() -> None:
    x, generator = clips(4), torch.Generator().manual_seed(3)
    cues = torch.randn(4, 1, 2, 3, 8, generator=generator)
    scores = torch.rand(4, 1, 2, 3, generator=generator)
    scores[0, 0, 1] = 0
    scorer = ExampleScorer(["one", "two"], samples(x, cues, scores), [0, 0, 1, 1])
    assert scorer.cues and not ExampleScorer(["one", "two"], samples(x), [0, 0, 1, 1]).cues
    found = Descriptors(samples(x, cues, scores)).cue
    assert torch.allclose(found[0], F.normalize(cues[0, 0, 0].flatten(), dim=0)), "the other has score 0"
    centred = F.normalize(found - found.mean(0), dim=1)
    cosine = (centred[2:3] @ centred.T)[0]
    skeleton = ExampleScorer(["one", "two"], samples(x), [0, 0, 1, 1]).scores(samples(x[2:3]))[0]
    both = scorer.scores(samples(x[2:3], cues[2:3], scores[2:3]))[0]
    assert both == pytest.approx((skeleton + [cosine[:2].max(), cosine[2:].max()]) / 2, abs=1e-5)
    assert scorer.scores(samples(x[2:3]))[0] == pytest.approx(skeleton, abs=1e-5), "of a clip without cues"


def test_a_bench_counts_who_is_known_by_the_clips_of_others() -> None:
    x = clips(3)[[0, 0, 1, 1, 2]]
    asked, dataset = np.array([True, False, True, False, True]), SimpleNamespace(class_names=("a", "b", "c"))
    for labels, hits in (([0, 0, 2, 2, 1], 2), ([2, 0, 2, 2, 1], 1), ([2, 0, 0, 2, 1], 0)):  # b has no example
        for neighbours in (1, 0):
            right = leave_out(samples(x), asked, np.array(labels), dataset, neighbours)  # type: ignore[arg-type]
            assert right.shape == (3,) and right.sum() == hits


def test_twins_among_the_clips_of_a_bench_are_no_independent_ones(tmp_path) -> None:
    world = make_world(tmp_path)
    clips = [replace(clip, subject=f"s{number % 4}") for number, clip in enumerate(world.clips)]
    found = bench_examples(replace(world, clips=tuple(clips)), "refined")
    for key, share in found.accuracy.items():
        low, high = binomial_interval(round(share * found.clips), found.clips)
        assert found.ci95[key][0] <= share <= found.ci95[key][1] and found.ci95[key] != pytest.approx((low, high))
    world.twins.unlink()
    found = bench_examples(replace(world, clips=tuple(clips)), "refined")
    assert all(
        found.ci95[key] == pytest.approx(binomial_interval(round(share * found.clips), found.clips))
        for key, share in found.accuracy.items()
    )


def test_none_of_these_is_learnt_of_the_examples_each_compared_with_all_others() -> None:
    x = clips(3, seed=5)[[0, 1, 2] * 8]
    x = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    own = [0, 1, 2] * 8
    scorer = ExampleScorer(["a", "b", "c"], samples(x), own)
    learnt = scorer.confidence
    assert learnt is not None and learnt.none is not None and (learnt.clips, learnt.classes) == (24, 3)
    shares, none = learnt.shares(scorer.scores(samples(clips(2, seed=9))))
    assert (none > 0.5).all(), "movements that no example shows"
    shares, none = learnt.shares(scorer.scores(samples(clips(3, seed=5))))
    assert (none < 0.5).all() and (shares.argmax(1) == [0, 1, 2]).all()
    for neighbours in (0, 3):
        alone = ExampleScorer(["a", "b", "c"], samples(x), own, neighbours)
        rest = ExampleScorer(["a", "b", "c"], samples(x[1:]), own[1:], neighbours)
        assert alone._without(0)[0].numpy() == pytest.approx(rest.scores(samples(x[:1]))[0], abs=1e-6)
    assert ExampleScorer(["a", "b", "c"], samples(x[:4]), own[:4]).confidence is None, "too few to learn it of"
    assert ExampleScorer(["a", "b", "c"], samples(x[:3]), own[:3]).confidence is None
    assert scorer.key != ExampleScorer(["a", "b", "d"], samples(x), own).key
