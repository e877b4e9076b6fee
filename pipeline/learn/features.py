"""The sample type of stage two: skeletons and pose-anchored cues of many clips, in memory.

Reads an extraction through a cache reader (anything with `clip_ids` and `read`); a live extractor makes the same type.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.recipe import Recipe
from pipeline.skeleton.graph import Graph, graph_of


class Reader(Protocol):
    """What is asked of pipeline.cache.reader.CacheReader."""

    recipe: Recipe
    clip_ids: list[str]
    names: tuple[str, ...]  # the datasets that it can give

    def read(self, clip_ids: Sequence[str], names: Sequence[str]) -> dict[str, np.ndarray]:
        """The named datasets of these clips, stacked in the order given."""
        ...


@dataclass(frozen=True)
class Samples:
    """N clips. There is no label in it: whatever is computed from a sample cannot depend on one."""

    clip_ids: tuple[str, ...]
    keypoints: Tensor  # [N, M, T, V, C] float32: C = 2, pixels of the video frame, or C = 3, metres, y up
    scores: Tensor  # [N, M, T, V] float32, 0..1
    person_valid: Tensor  # [N, M, T] bool
    cues: Tensor | None = None  # [N, M, S, A, D] float16
    cue_scores: Tensor | None = None  # [N, M, S, A] float32, 0..1; both None where the recipe or the method has no cues
    layout: str = "coco17"  # of the V joints

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def graph(self) -> Graph:
        """The graph of the joints."""
        return graph_of(self.layout)

    @cached_property  # every batch takes its rows of it
    def quality(self) -> Tensor:
        """[N, M, 2]: mean keypoint score over the frames with this person, and the share of such frames."""
        valid = self.person_valid.float()
        score = (self.scores.mean(-1) * valid).sum(-1) / valid.sum(-1).clamp_min(1)
        return torch.stack([score, valid.mean(-1)], dim=-1)

    def take(self, rows: Sequence[int]) -> Samples:
        """The samples of these rows, in this order."""
        index = torch.as_tensor(list(rows), dtype=torch.long)
        return Samples(
            tuple(self.clip_ids[row] for row in rows),
            self.keypoints[index],
            self.scores[index],
            self.person_valid[index],
            None if self.cues is None else self.cues[index],
            None if self.cue_scores is None else self.cue_scores[index],
            self.layout,
        )

    def unique(self) -> tuple[Samples, Tensor]:
        """The distinct samples, byte by byte, and for each of the N clips the row of its own: [N] int64.

        Scoring each distinct input once makes equal inputs score equally whatever batch they fall in, in every bit:
        with true skeletons, twins are equal inputs.
        """
        arrays = [getattr(self, f.name) for f in fields(self) if f.name not in ("clip_ids", "layout")]
        first: dict[bytes, int] = {}
        rows: list[int] = []
        where = []
        for i in range(len(self)):
            digest = hashlib.sha256(b"".join(a[i].numpy().tobytes() for a in arrays if a is not None)).digest()
            if digest not in first:
                first[digest] = len(rows)
                rows.append(i)
            where.append(first[digest])
        return self.take(rows), torch.tensor(where, dtype=torch.long)


def load_samples(clip_ids: Sequence[str], skeletons: Reader, cues: Reader | None = None) -> Samples:
    """Read clips into memory: skeletons from one extraction and, joined by clip_id, cues from the same or another one.

    Clips that either extraction failed on are left out, in silence here: failures are rows of its index, and whoever
    counts compares `clip_ids`. Raises PosebridgeError when nothing is left, or when `cues` has none.
    """
    there = set(skeletons.clip_ids) & set((cues or skeletons).clip_ids)
    kept = [clip_id for clip_id in clip_ids if clip_id in there]
    if not kept:
        raise PosebridgeError(
            f"None of the {len(clip_ids)} clips wanted is in the cache; run `posebridge extract` for this dataset and "
            f"recipe."
        )
    arrays = skeletons.read(kept, ("keypoints", "scores", "person_valid"))
    layout, joints = skeletons.recipe.layout, arrays["keypoints"].shape[3]
    if joints != (wanted := len(graph_of(layout).joints)):
        raise PosebridgeError(
            f"The cached skeletons have {joints} joints, but their recipe's layout {layout} has {wanted}; extract them "
            "with a pose model of these joints."
        )
    samples = Samples(
        clip_ids=tuple(kept),
        keypoints=_tensor(arrays["keypoints"], np.float32),
        scores=_tensor(arrays["scores"], np.float32).clamp(0, 1),
        person_valid=_tensor(arrays["person_valid"], bool),
        layout=layout,
    )
    if cues is None:
        return samples
    if "cues" not in cues.names:
        raise PosebridgeError("The recipe of this run holds no cues; use a recipe with cues, or the method `skeleton`.")
    arrays = cues.read(kept, ("cues", "cue_scores"))
    return replace(
        samples, cues=_tensor(arrays["cues"], np.float16), cue_scores=_tensor(arrays["cue_scores"], np.float32)
    )


def _tensor(array: np.ndarray, dtype) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=dtype))  # a copy: the reader's memory map may go away
