"""Duplicates between train and test among skeletons without pictures: exact ones, or as good as exact.

Pure: values and arrays in, pairs out. A clip is pooled into a signature: its normalised skeletons at a few moments,
projected to few dimensions. Nearest neighbours are exact, by the Euclidean distance in units of the train part's own
spread, where two random clips are about 1.4 apart. On skelgap-mini with true skeletons different clips were at least
.10 apart. Where there are pictures, films.py compares those: estimated skeletons of different clips of one class may be
nearer than those of copies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pipeline.protocol.neighbours import nearest, projection
from pipeline.skeleton.graph import COCO_17, Graph
from pipeline.skeleton.normalise import normalise

MOMENTS = 8  # of a clip, whose skeletons are compared
WIDTH = 128  # of the random projection, which keeps distances to a few per cent
LIMIT = 0.05
# Skeletons may hardly differ within a class: where most clips have near neighbours, a duplicate has a nearer one.
RELATIVE, MANY = 0.6, 20  # of the upper quartile of all distances, if there are so many


@dataclass(frozen=True)
class Signatures:
    """N clips: skeletons [N, 128] float32. `seen` [N] bool: anybody is in the clip."""

    skeletons: np.ndarray
    seen: np.ndarray

    @staticmethod
    def of(keypoints: np.ndarray, scores: np.ndarray, person_valid: np.ndarray, graph: Graph = COCO_17) -> Signatures:
        """Pool clips, with the shapes of `features.Samples`. Each clip by itself, so that batches can be joined."""
        valid = torch.from_numpy(np.array(person_valid, bool))
        x = normalise(_tensor(keypoints), _tensor(scores), valid, graph)  # [N, M, T, V, C + 1]
        moments = torch.linspace(0, x.shape[2] - 1, MOMENTS).round().long()
        flat = x[:, :, moments, :, :-1].flatten(1).numpy()
        return Signatures(flat @ projection(flat.shape[1], WIDTH), valid.flatten(1).any(1).numpy())


def near_duplicates(train: Signatures, test: Signatures, limit: float | None = None) -> list[tuple[int, int, float]]:
    """(row of test, row of its nearest in train, distance) of every test clip nearer than `limit`, the nearest first.

    `limit` is by default `LIMIT`, and less where most clips are near.
    """
    train_rows, test_rows = np.flatnonzero(train.seen), np.flatnonzero(test.seen)
    if not len(train_rows) or not len(test_rows):
        return []
    known, asked = train.skeletons[train_rows], test.skeletons[test_rows]
    mean = known.mean(0)
    spread = max(float(np.sqrt(((known - mean) ** 2).sum(1).mean())), 1e-6)
    found, rows = nearest((known - mean) / spread, (asked - mean) / spread, 1)
    distance = found[:, 0]
    if limit is None:
        limit = LIMIT
        if len(distance) >= MANY:
            limit = min(limit, RELATIVE * float(np.quantile(distance, 0.75)))
    order = [i for i in np.argsort(distance, kind="stable") if distance[i] < limit]
    return [(int(test_rows[i]), int(train_rows[rows[i, 0]]), float(distance[i])) for i in order]


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array, np.float32))
