"""The sample type of stage two: skeletons and pose-anchored cues of clips, in memory, or on the disk until asked for.

Reads an extraction through a cache reader (anything with `clip_ids` and `read`); a live extractor makes the same type.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.files.ahead import ahead
from pipeline.recipe import Recipe
from pipeline.skeleton.graph import Graph, graph_of
from pipeline.skeleton.normalise import normalise

HELD_BYTES = 2 << 30  # of clips that are read into memory once; more of them stay on the disk
CHUNK = 256  # clips that are read together where all are gone through
MOST_PINNED = 1 << 28  # bytes of an array


class Reader(Protocol):
    """What is asked of pipeline.cache.reader.CacheReader."""

    recipe: Recipe
    clip_ids: list[str]
    names: tuple[str, ...]  # the datasets that it can give

    def read(
        self, clip_ids: Sequence[str], names: Sequence[str], persons: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """The named datasets of these clips, stacked in the order given. Who is not among `persons` [B, M], where they
        are given, need not be read.
        """
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
    features: Tensor | None = None
    """[N, 256, T', V] float32 of a skeleton encoder of others, in the place of joints: those are then one that is
    always there, at 0. [N, 1, 1, 1] zeros where cues alone were imported.
    """

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

    @cached_property
    def inputs(self) -> tuple[Tensor, Tensor]:
        """What a skeleton encoder is given: [N, M, T, V, C + 1] as `normalise` makes it, and who is there, [N, M].
        Imported features are what one gives, and come as they are.
        """
        if self.features is not None:
            return self.features, self.person_valid.any(-1)
        x = normalise(self.keypoints, self.scores, self.person_valid, self.graph)
        return x, self.person_valid.any(-1)

    @property
    def nbytes(self) -> int:
        """Of all arrays."""
        return sum(array.nbytes for array in self._arrays())

    def take(self, rows: Sequence[int]) -> Samples:
        """The samples of these rows, in this order."""
        index = torch.as_tensor(list(rows), dtype=torch.long)
        return Samples(
            tuple(self.clip_ids[row] for row in rows),
            _rows(self.keypoints, index),
            _rows(self.scores, index),
            _rows(self.person_valid, index),
            None if self.cues is None else _rows(self.cues, index),
            None if self.cue_scores is None else _rows(self.cue_scores, index),
            self.layout,
            None if self.features is None else _rows(self.features, index),
        )

    only = take  # as StoredSamples.only

    def to(self, device: torch.device) -> Samples:
        """The same on a device; on the CPU, where they are read, these themselves. A GPU is not waited for."""
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {name: _moved(value, device) for name, value in moved.items() if isinstance(value, Tensor)}
        return Samples(**(moved | tensors))

    def unique(self) -> tuple[Samples, Tensor]:
        """The distinct samples, byte by byte, and for each of the N clips the row of its own: [N] int64.

        Scoring each distinct input once makes equal inputs score equally whatever batch they fall in, in every bit:
        with true skeletons, twins are equal inputs.
        """
        rows, where = _first_of_each(self.digests())
        return self.take(rows), where

    def digests(self) -> list[bytes]:
        """A hash of each sample's bytes, whatever its id."""
        arrays = self._arrays()
        return [
            hashlib.sha256(b"".join(array[row].numpy().tobytes() for array in arrays)).digest()
            for row in range(len(self))
        ]

    def _arrays(self) -> list[Tensor]:
        values = (getattr(self, f.name) for f in fields(self) if f.name not in ("clip_ids", "layout"))
        return [value for value in values if value is not None]


@dataclass(frozen=True)
class StoredSamples:
    """N clips that stay on the disk, since they would not fit into memory. Of each, its id is held and nothing else."""

    clip_ids: tuple[str, ...]
    skeletons: Reader
    cues: Reader | None = None

    def __len__(self) -> int:
        return len(self.clip_ids)

    def take(self, rows: Sequence[int]) -> Samples:
        """The samples of these rows, in this order, read now. Raises PosebridgeError for a shard that is damaged."""
        return _read([self.clip_ids[row] for row in rows], self.skeletons, self.cues)

    def only(self, rows: Sequence[int]) -> StoredSamples:
        """These rows, in this order; nothing is read."""
        return replace(self, clip_ids=tuple(self.clip_ids[row] for row in rows))

    def unique(self) -> tuple[StoredSamples, Tensor]:
        """As `Samples.unique`. Cues, nine tenths of the bytes, are read only of clips whose skeletons are equal."""
        keys = replace(self, cues=None)._digests()
        if self.cues is not None:
            count = Counter(keys)
            alike = [row for row, key in enumerate(keys) if count[key] > 1]
            for row, key in zip(alike, self.only(alike)._digests(), strict=True):
                keys[row] = key
        rows, where = _first_of_each(keys)
        return self.only(rows), where

    def _digests(self) -> list[bytes]:
        parts = (range(len(self))[start : start + CHUNK] for start in range(0, len(self), CHUNK))
        return [digest for samples in ahead(map(self.take, parts), 1) for digest in samples.digests()]


def _first_of_each(keys: Sequence[bytes]) -> tuple[list[int], Tensor]:
    """The rows of distinct keys, each where it stands first, and for every key the place of its own among them."""
    first: dict[bytes, int] = {}
    rows: list[int] = []
    for row, key in enumerate(keys):
        if key not in first:
            first[key] = len(rows)
            rows.append(row)
    return rows, torch.tensor([first[key] for key in keys], dtype=torch.long)


def open_samples(
    clip_ids: Sequence[str], skeletons: Reader, cues: Reader | None = None, held_bytes: int | None = None
) -> Samples | StoredSamples:
    """As `load_samples`; where they are more than `held_bytes` (by default HELD_BYTES), they stay on the disk."""
    kept = _extracted(clip_ids, skeletons, cues)
    one = _read(kept[:1], skeletons, cues)
    if one.nbytes * len(kept) > (HELD_BYTES if held_bytes is None else held_bytes):
        return StoredSamples(tuple(kept), skeletons, cues)
    return _read(kept, skeletons, cues)


def load_samples(clip_ids: Sequence[str], skeletons: Reader, cues: Reader | None = None) -> Samples:
    """Read clips into memory: skeletons from one extraction and, joined by clip_id, cues from the same or another one.

    Clips that either extraction failed on are left out, in silence here: failures are rows of its index, and whoever
    counts compares `clip_ids`. Raises PosebridgeError when nothing is left, or when `cues` has none.
    """
    return _read(_extracted(clip_ids, skeletons, cues), skeletons, cues)


def _extracted(clip_ids: Sequence[str], skeletons: Reader, cues: Reader | None) -> list[str]:
    """Those of the clips that are there."""
    there = set(skeletons.clip_ids) & set((cues or skeletons).clip_ids)
    kept = [clip_id for clip_id in clip_ids if clip_id in there]
    if not kept:
        raise PosebridgeError(
            f"None of the {len(clip_ids)} clips wanted is in the cache; run `posebridge extract` for this dataset and "
            f"recipe."
        )
    return kept


def _read(kept: Sequence[str], skeletons: Reader, cues: Reader | None) -> Samples:
    imported = "keypoints" not in skeletons.names
    wanted = ("features",) if imported else ("keypoints", "scores", "person_valid")
    names = tuple(name for name in wanted if name in skeletons.names)  # an import of cues alone has no features
    arrays = skeletons.read(kept, (*names, "cue_scores") if cues is skeletons and "cues" in cues.names else names)
    samples = (_imported if imported else _joints)(kept, arrays, skeletons.recipe.layout)
    if cues is None:
        return samples
    if "cues" not in cues.names:
        raise PosebridgeError("The recipe of this run holds no cues; use a recipe with cues, or the method `skeleton`.")
    cue_scores = (arrays if cues is skeletons else cues.read(kept, ("cue_scores",)))["cue_scores"]
    seen: np.ndarray = np.any(cue_scores > 0, axis=(2, 3))  # [N, M]; what nobody weighs, often half, is not read
    values = cues.read(kept, ("cues",), seen)["cues"]
    return replace(samples, cues=_tensor(values, np.float16), cue_scores=_tensor(cue_scores, np.float32))


def _rows(tensor: Tensor, index: Tensor) -> Tensor:
    """Rows of a tensor; on the CPU by numpy, in one thread: PyTorch's own, once they are asked for beside those that
    train, take a sixth of the speed of these for good.
    """
    return torch.from_numpy(tensor.numpy()[index.numpy()]) if tensor.device.type == "cpu" else tensor[index]


def _imported(kept: Sequence[str], arrays: Mapping[str, np.ndarray], layout: str) -> Samples:
    features = _tensor(arrays["features"], np.float32) if "features" in arrays else torch.zeros(len(kept), 1, 1, 1)
    seen = torch.ones(len(kept), 1, 1, 1)
    return Samples(
        tuple(kept), seen.new_zeros(len(kept), 1, 1, 1, 2), seen, seen[..., 0].bool(), layout=layout,
        features=features,
    )  # fmt: skip


def _joints(kept: Sequence[str], arrays: Mapping[str, np.ndarray], layout: str) -> Samples:
    joints = arrays["keypoints"].shape[3]
    if joints != (wanted := len(graph_of(layout).joints)):
        raise PosebridgeError(
            f"The cached skeletons have {joints} joints, but their recipe's layout {layout} has {wanted}; extract them "
            "with a pose model of these joints."
        )
    return Samples(
        clip_ids=tuple(kept),
        keypoints=_tensor(arrays["keypoints"], np.float32),
        scores=_tensor(arrays["scores"].astype(np.float32).clip(0, 1), np.float32),
        person_valid=_tensor(arrays["person_valid"], bool),
        layout=layout,
    )


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A batch by way of pinned memory, which a GPU reads by itself; what is larger would take that for good."""
    pin = device.type == "cuda" and tensor.nbytes <= MOST_PINNED
    return (tensor.pin_memory() if pin else tensor).to(device, non_blocking=True)


def _tensor(array: np.ndarray, dtype) -> Tensor:
    return torch.from_numpy(array.astype(dtype, copy=False))  # no copy where none is needed: it may be half the memory
