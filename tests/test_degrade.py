"""Crops of bad cameras, on which a pose model is tuned: drawn alike every time, and no example for a teacher."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.errors import PosebridgeError
from pipeline.tune.data import TrainingCrop, collate
from pipeline.tune.degrade import Degradations, Degraded, blurred, darkened, occluded

pytestmark = pytest.mark.unit
SIZE = (48, 64)


class Stripes:
    """A source of two equal crops a group."""

    per_group, captions, phrases = 2, ("a", "b"), ("c",)
    facts = {"dataset": "stripes"}

    def crops(self, group: int, crop_size: tuple[int, int]) -> list[TrainingCrop]:
        image = np.repeat(np.linspace(0, 250, 64).astype(np.uint8)[:, None, None], 48, 1).repeat(3, 2)
        image[:, ::6] = 255
        return [TrainingCrop(image, np.ones((17, 2), np.float32), np.ones(17, np.float32), 1, 2, 0)] * 2


def test_a_group_is_degraded_alike_every_time_and_another_one_otherwise() -> None:
    source = Degraded(Stripes(), Degradations(dark=0.5, blurred=0.5, occluded=0.5))
    assert (source.per_group, source.captions, source.phrases) == (2, ("a", "b"), ("c",))
    images = [np.stack([crop.image for crop in source.crops(group, SIZE)]) for group in (3, 3, 4)]
    assert np.array_equal(images[0], images[1]) and not np.array_equal(images[0], images[2])
    other = Degraded(Stripes(), Degradations(dark=0.5, blurred=0.5, occluded=0.5), seed=1)
    assert not np.array_equal(np.stack([crop.image for crop in other.crops(3, SIZE)]), images[0])


def test_as_many_are_degraded_as_asked_for_and_told() -> None:
    crops = [c for g in range(200) for c in Degraded(Stripes(), Degradations(dark=0.3)).crops(g, SIZE)]
    plain = Stripes().crops(0, SIZE)[0]
    changed = [not np.array_equal(crop.image, plain.image) for crop in crops]
    assert changed == [crop.degraded for crop in crops] and np.mean(changed) == pytest.approx(0.3, abs=0.07)
    assert all(crop.keypoints is plain.keypoints or (crop.keypoints == 1).all() for crop in crops)
    assert collate([crops[:4]])["degraded"].tolist() == changed[:4]
    assert not collate([Stripes().crops(0, SIZE)])["degraded"].any()
    with pytest.raises(PosebridgeError, match="dark should be at least 0 and at most 1"):
        Degradations(dark=1.5)


@pytest.mark.parametrize("change", [occluded, blurred, darkened])
def test_a_crop_stays_a_crop_and_the_source_its_own(change) -> None:
    image = Stripes().crops(0, SIZE)[0].image
    before = image.copy()
    for seed in range(20):
        found = change(image, np.random.default_rng(seed))
        assert found.shape == image.shape and found.dtype == np.uint8 and not np.array_equal(found, image)
    assert np.array_equal(image, before)


def test_darkness_is_dark_and_things_cover_a_part() -> None:
    image = Stripes().crops(0, SIZE)[0].image
    rngs = [np.random.default_rng(seed) for seed in range(100)]
    levels = np.array([darkened(image, rng).mean() / image.mean() for rng in rngs])
    assert levels.min() < 0.3 and levels.max() > 0.75
    covered = np.array([(occluded(image, rng) != image).any(-1).mean() for rng in rngs])
    assert covered.min() > 0.002 and 0.1 < covered.mean() < 0.5 and covered.max() < 0.9


def test_a_teacher_says_nothing_of_degraded_crops() -> None:
    from pipeline.tune.losses import _distance

    student, teacher = torch.randn(2, 17, 8), torch.randn(2, 17, 8)
    both, one = torch.ones(2, 17), torch.tensor([[1.0], [0.0]]).expand(2, 17)
    other = torch.cat([teacher[:1], torch.randn(1, 17, 8)])
    assert _distance(student, teacher, one) == _distance(student, other, one)
    assert _distance(student, teacher, both) != _distance(student, other, both)
    assert _distance(student, teacher, torch.zeros(2, 17)) == 0
