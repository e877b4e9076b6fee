"""Duplicates between train and test: one video under two names, or one re-encoded, rescaled or cut a little.

Pure: values and arrays in, pairs out. A clip is pooled into a signature: its normalised skeletons at a few moments, and
the cues of every anchor averaged over persons and time, both projected to few dimensions. Nearest neighbours come from
FAISS, exactly, by the Euclidean distance in units of the train part's own spread, where two random clips are about 1.4
apart. The limits were measured on skelgap-mini. With cues, 20 test clips were at least .80 from the nearest of 40 train
clips, and 18 of 25 copies (re-encoded at crf 34, 3/4 of the size, 2 frames cut, brighter, 6 % cropped) less than .60
from their original; with true skeletons alone, different clips were at least .10 apart. So a copy may pass unseen,
cropped ones above all, and a pair that is listed wants a look. NTU-120 takes minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import faiss
import numpy as np
import torch

from pipeline.skeleton.graph import COCO_17, Graph
from pipeline.skeleton.normalise import normalise

MOMENTS = 8  # of a clip, whose skeletons are compared
SKELETON_WIDTH, CUE_WIDTH = 128, 256  # of the random projections, which keep distances to a few per cent
SKELETON_WEIGHT = 0.5  # beside cues: estimated skeletons of copies differ more than their cues do
LIMIT, LIMIT_SKELETONS = 0.6, 0.05  # with cues; without
# Cues may have learnt to be alike within a class: where most clips have near neighbours, a duplicate has a nearer one.
RELATIVE, MANY = 0.6, 20  # of the upper quartile of all distances, if there are so many


@dataclass(frozen=True)
class Signatures:
    """N clips: skeletons [N, 128] and cues [N, 256] or None, float32. `seen` [N] bool: anybody is in the clip."""

    skeletons: np.ndarray
    cues: np.ndarray | None
    seen: np.ndarray

    @staticmethod
    def of(
        keypoints: np.ndarray,
        scores: np.ndarray,
        person_valid: np.ndarray,
        cues: np.ndarray | None = None,
        cue_scores: np.ndarray | None = None,
        graph: Graph = COCO_17,
    ) -> Signatures:
        """Pool clips, with the shapes of `features.Samples`. Each clip by itself, so that batches can be joined."""
        valid = torch.from_numpy(np.array(person_valid, bool))
        x = normalise(_tensor(keypoints), _tensor(scores), valid, graph)  # [N, M, T, V, C + 1]
        moments = torch.linspace(0, x.shape[2] - 1, MOMENTS).round().long()
        skeletons = _project(x[:, :, moments, :, :-1].flatten(1).numpy(), SKELETON_WIDTH)
        seen = valid.flatten(1).any(1).numpy()
        if cues is None or cue_scores is None:
            return Signatures(skeletons, None, seen)
        weights = np.asarray(cue_scores, np.float32)[..., None]  # [N, M, S, A, 1]
        pooled = (np.asarray(cues, np.float32) * weights).sum((1, 2)) / np.maximum(weights.sum((1, 2)), 1e-6)
        return Signatures(skeletons, _project(pooled.reshape(len(pooled), -1), CUE_WIDTH), seen)


def same_videos(train: Mapping[str, str], test: Mapping[str, str]) -> dict[str, str]:
    """Test clip -> a train clip of the same content. Both clip_id -> hash; an empty hash is like no other."""
    first: dict[str, str] = {}
    for clip_id, content in train.items():
        if content:
            first.setdefault(content, clip_id)
    return {clip_id: first[content] for clip_id, content in test.items() if content in first}


def near_duplicates(train: Signatures, test: Signatures, limit: float | None = None) -> list[tuple[int, int, float]]:
    """(row of test, row of its nearest in train, distance) of every test clip nearer than `limit`, the nearest first.

    `limit` is by default `LIMIT` where there are cues, else `LIMIT_SKELETONS`, and less where most clips are near.
    """
    train_rows, test_rows = np.flatnonzero(train.seen), np.flatnonzero(test.seen)
    if not len(train_rows) or not len(test_rows):
        return []
    blocks = [(train.skeletons, test.skeletons, 1.0)]
    if train.cues is not None and test.cues is not None:
        blocks = [(train.skeletons, test.skeletons, SKELETON_WEIGHT), (train.cues, test.cues, 1.0)]
    total = np.sqrt(sum(weight**2 for *_, weight in blocks))
    known, asked = [], []
    for a, b, weight in blocks:
        a, b = a[train_rows], b[test_rows]
        mean = a.mean(0)
        spread = np.sqrt(((a - mean) ** 2).sum(1).mean())
        scale = weight / total / max(float(spread), 1e-6)
        known.append((a - mean) * scale)
        asked.append((b - mean) * scale)
    index = faiss.IndexFlatL2(sum(block.shape[1] for block in known))
    index.add(np.ascontiguousarray(np.concatenate(known, 1), np.float32))
    squared, nearest = index.search(np.ascontiguousarray(np.concatenate(asked, 1), np.float32), 1)
    distance = np.sqrt(np.maximum(squared[:, 0], 0))
    if limit is None:
        limit = LIMIT if len(blocks) == 2 else LIMIT_SKELETONS
        if len(distance) >= MANY:
            limit = min(limit, RELATIVE * float(np.quantile(distance, 0.75)))
    order = [i for i in np.argsort(distance, kind="stable") if distance[i] < limit]
    return [(int(test_rows[i]), int(train_rows[nearest[i, 0]]), float(distance[i])) for i in order]


def _project(values: np.ndarray, width: int) -> np.ndarray:
    """[N, K] to [N, width] by one fixed random projection, which keeps lengths on average."""
    generator = np.random.default_rng(0)
    matrix = generator.normal(0, width**-0.5, (values.shape[1], width)).astype(np.float32)
    return np.asarray(values, np.float32) @ matrix


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array, np.float32))
