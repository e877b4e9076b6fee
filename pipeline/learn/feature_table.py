"""The feature maps of clips, in memory or made batch by batch: what a method of stage two is shown.

Reads the cache where clips stay on the disk; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.files.ahead import ahead
from pipeline.files.device import CPU, generator_on
from pipeline.learn.features import Samples, StoredSamples
from pipeline.methods.base import Features
from pipeline.recipe import other_side
from pipeline.skeleton.augment import augment
from pipeline.skeleton.base import SkeletonEncoder
from pipeline.skeleton.hide import SEEN, Hiding
from pipeline.skeleton.persons import in_order, random_order

HELD_BYTES = 4 << 30  # of feature maps


class Joints(nn.Module):
    """In the place of a frozen encoder, for a method that has its own: the map is the joints themselves. And for
    imported features, which are a map already.
    """

    def feature_map(self, x: Tensor, person: Tensor) -> Tensor:
        """[B, M, T, V, C + 1] or [B, 256, T', V], as it comes: nobody is all zero."""
        return x


Encoder = SkeletonEncoder | Joints


@dataclass(frozen=True)
class FeatureTable:
    """Maps of N clips, in R views (the first as seen, the others augmented), with the cues that go with them."""

    maps: Tensor  # [R, N, 256, T', V] float32; of `Joints`, [R, N, M, T, V, C + 1]
    mirrored: Tensor  # [R, N] bool
    samples: Samples
    anchor_mirror: tuple[int, ...] = ()  # where each anchor's cue is found in a mirrored clip
    orders: Tensor | None = None  # [R, N, M] of its persons; None where nobody changes places

    def batch(self, rows: Tensor, views: Tensor | None = None) -> Features:
        """Features of clips `rows` [B], each in its view of `views` [B]; the first view where none is named."""
        rows = rows.to(self.mirrored.device, non_blocking=True)
        seen = torch.zeros_like(rows) if views is None else views.to(rows.device)
        quality, cues, cue_scores = self.samples.quality[rows], self.samples.cues, self.samples.cue_scores
        if cues is not None and cue_scores is not None:
            cues, cue_scores = cues[rows], cue_scores[rows]
            if views is not None:
                _mirror_cues(cues, cue_scores, self.mirrored[seen, rows], self.anchor_mirror)
        found = Features(self.maps[seen, rows], quality, cues, cue_scores)
        return found if views is None or self.orders is None else _swapped(found, self.orders[seen, rows])

    def batches(self, parts: Iterable[Tensor]) -> Iterator[Features]:
        """The unaugmented view of each batch of rows."""
        return map(self.batch, parts)


@dataclass(frozen=True)
class StreamedTable:
    """The same of clips whose maps would not fit into memory (a view of all of NTU-120 is 18 GB): a batch is taken,
    from the disk where its clips are there, then augmented and mapped.

    Views are not held either: a clip that is not to be seen as it is gets a new one every time. Nor are maps written to
    files. Measured: to make those of 64 clips (M = 2, T = 64; 8.9 MB as float16) costs 0.10 s of a core's time with the
    encoder of params.yaml and 0.75 s with the paper's; to read them 0.06 s from the disk, 0.003 s where they are in
    memory. Only those of validation are ever made twice: 8 GB a seed of Kinetics-400 would spare a CPU at most 3 % of a
    run with the paper's encoder and 6 % with ours, and a GPU less.
    """

    encoder: Encoder
    samples: Samples | StoredSamples
    anchor_mirror: tuple[int, ...] = ()
    device: torch.device = CPU  # where the encoder lies
    swap: bool = False  # whether the persons of an augmented clip change places
    hiding: Hiding = SEEN  # of an augmented clip's joints and frames

    def load(self, rows: Tensor) -> Samples:
        """Take clips to the device: what a thread may do while another batch is worked on. It computes nothing, or
        PyTorch would give it as many threads again, which would take the cores from those that train.
        """
        return self.samples.take(rows.tolist()).to(self.device)

    @torch.no_grad()
    def features(
        self, samples: Samples, views: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Features:
        """Features of a batch that was taken; with a generator, the clips whose view is not 0 are augmented."""
        (x, person), order = samples.inputs, None
        if views is not None and generator is not None and samples.features is None:
            seen = views.to(x.device) == 0
            turned = (torch.rand(len(views), generator=generator, device=x.device) < 0.5) & ~seen
            other = augment(x, generator, samples.graph, mirrored=turned, hiding=self.hiding)
            x = torch.where(seen[:, None, None, None, None], x, other)
            if samples.cues is not None and samples.cue_scores is not None:
                _mirror_cues(samples.cues, samples.cue_scores, turned, self.anchor_mirror)
            if self.swap and x.shape[1] > 1:
                order = torch.where(seen[:, None], _as_they_are(person), random_order(person, generator))
                x = in_order(x, order)
        found = Features(self.encoder.feature_map(x, person), samples.quality, samples.cues, samples.cue_scores)
        return found if order is None else _swapped(found, order)

    def batch(
        self, rows: Tensor, views: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Features:
        """`features` of what `load` gives."""
        return self.features(self.load(rows), views, generator)

    def batches(self, parts: Iterable[Tensor]) -> Iterator[Features]:
        """The unaugmented view of each batch of rows; the next one is taken meanwhile."""
        return map(self.features, ahead(map(self.load, parts), 1))


Table = FeatureTable | StreamedTable


def _as_they_are(person: Tensor) -> Tensor:
    """Each person in the own place, for `person` [B, M]."""
    return torch.arange(person.shape[1], device=person.device).expand(person.shape)


def _swapped(features: Features, order: Tensor) -> Features:
    """The same with cues and quality of persons who have changed places; their map has been made so."""
    quality, cues, scores = features.quality, features.cues, features.cue_scores
    cues, scores = (None if part is None else in_order(part, order) for part in (cues, scores))
    return Features(features.skeleton, in_order(quality, order), cues, scores)


def _mirror_cues(cues: Tensor, cue_scores: Tensor, turned: Tensor, order: Sequence[int]) -> None:
    """Put the cues [B, M, S, A, D] of mirrored clips, `turned` [B], to the anchors of the other side, in place. Every
    clip is gone over: how many are mirrored would be known only when a GPU has come so far.
    """
    for values in (cues, cue_scores):
        there = turned.view(-1, *[1] * (values.ndim - 2))
        for place, other in enumerate(order):
            if place < other:
                one, two = values[:, :, :, place], values[:, :, :, other]
                swapped = torch.where(there, two, one)
                two.copy_(torch.where(there, one, two))
                one.copy_(swapped)


@torch.no_grad()
def feature_table(
    encoder: Encoder, samples: Samples | StoredSamples, anchors: tuple[str, ...] = (), views: int = 1, seed: int = 0,
    held_bytes: int = HELD_BYTES, device: torch.device = CPU, swap: bool = False,
    hiding: Hiding = SEEN,
) -> Table:  # fmt: skip
    """The frozen encoder's maps, held in memory up to `held_bytes`; beyond, and of clips on the disk, they are made
    batch by batch. `device` is the encoder's, and is where features will be.

    `views` > 1 adds augmented ones, for training only, in which persons change places where `swap` says so and joints
    are hidden as `hiding` says; one view is deterministic.
    """
    order = tuple(anchors.index(other_side(name)) for name in anchors)
    first, there = samples.take([0]).to(device).inputs
    one = encoder.feature_map(first, there)
    if isinstance(samples, StoredSamples) or one.nbytes * views * len(samples) > held_bytes:
        return StreamedTable(encoder, samples, order, device, swap, hiding)
    samples = samples.to(device)
    x, person = samples.inputs
    generator = generator_on(device, seed)
    mirrored = torch.zeros(views, len(samples), dtype=torch.bool, device=device)
    orders = _as_they_are(person).repeat(views, 1, 1) if swap and person.shape[1] > 1 else None
    maps = one.new_empty(views, len(samples), *one.shape[1:])  # filled in place: put together, they are held twice
    for view in range(views):
        seen = x
        if view:
            mirrored[view] = torch.rand(len(samples), generator=generator, device=device) < 0.5
            seen = augment(x, generator, samples.graph, mirrored=mirrored[view], hiding=hiding)
            if orders is not None:
                orders[view] = random_order(person, generator)
                seen = in_order(seen, orders[view])
        for goal, *part in zip(maps[view].split(64), seen.split(64), person.split(64), strict=True):
            goal.copy_(encoder.feature_map(*part))
    return FeatureTable(maps, mirrored, samples, order, orders)
