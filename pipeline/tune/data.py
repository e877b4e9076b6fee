"""What a pose model is tuned on: crops of one person each, from any source, in batches that a resumed run sees again.

A source is rendered stills (`stills.py`) or the people of COCO (`coco_crops.py`); the loop knows no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler


@dataclass(frozen=True)
class TrainingCrop:
    """An augmented crop of one person.

    `caption` and `held` are rows of the source's `captions` and `phrases`, 0 where it has none. Crops of one `scene`
    are no negatives of each other: a caption of the one is true of the other.
    """

    image: np.ndarray  # [h, w, 3] uint8 RGB
    keypoints: np.ndarray  # [V, 2] float32, crop pixels
    weights: np.ndarray  # [V] float32: 1 where the joint is known and inside the crop, else 0
    caption: int = 0
    scene: int = 0
    held: int = 0
    degraded: bool = False  # dark, blurred or with something in front: no example for a teacher that has not learnt it


class CropSource(Protocol):
    """Groups of crops without end; group g is always the same, so that a resumed run sees the same data.

    `per_group` is the number of crops in a group, `captions` all captions that a crop can have, `phrases` what a hand
    can hold (empty: nobody says), `facts` what the weights' header tells of the source.
    """

    per_group: int
    captions: tuple[str, ...]
    phrases: tuple[str, ...]
    facts: dict[str, str]

    def crops(self, group: int, crop_size: tuple[int, int]) -> list[TrainingCrop]:
        """The crops of one group, for a model that wants crops of (width, height)."""


@lru_cache(maxsize=2)  # of what is trained on and of what is held out
def shuffled(count: int, seed: int, lap: int) -> np.ndarray:
    """The order of a source's `count` pictures or people in its pass `lap`."""
    return np.random.default_rng([seed, lap]).permutation(count)


class Groups(Dataset):
    """A source as torch wants it."""

    def __init__(self, source: CropSource, crop_size: tuple[int, int]) -> None:
        self.source, self.crop_size = source, crop_size

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, group: int) -> list[TrainingCrop]:
        return self.source.crops(group, self.crop_size)


def inside(keypoints: np.ndarray, crop_size: tuple[int, int]) -> np.ndarray:
    """Which keypoints [..., V, 2] lie inside the crop, [..., V] bool."""
    return np.asarray(((keypoints >= 0) & (keypoints < crop_size)).all(-1))


def collate(groups: list[list[TrainingCrop]]) -> dict[str, Tensor]:
    """Several groups as one batch: crops [N, H, W, 3], keypoints [N, V, 2], weights [N, V], three indices [N], and
    which are degraded, [N] bool.
    """
    crops = [crop for group in groups for crop in group]
    return {
        "crops": torch.from_numpy(np.stack([crop.image for crop in crops])),
        "keypoints": torch.from_numpy(np.stack([crop.keypoints for crop in crops])),
        "weights": torch.from_numpy(np.stack([crop.weights for crop in crops])),
        "caption": torch.tensor([crop.caption for crop in crops]),
        "scene": torch.tensor([crop.scene for crop in crops]),
        "held": torch.tensor([crop.held for crop in crops]),
        "degraded": torch.tensor([crop.degraded for crop in crops]),
    }


class Consecutive(Sampler[int]):
    """Epoch e reads the groups [e * n, (e + 1) * n): a resumed epoch is the same."""

    def __init__(self, groups: int) -> None:
        self.groups, self.epoch = groups, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.epoch * self.groups, (self.epoch + 1) * self.groups))

    def __len__(self) -> int:
        return self.groups
