"""A glimpse into a trained seed, for people to look at: a map of clips and prototypes, where the bridge looks, and the
seen-unseen curve.

Writes map.csv, attention.csv and gzsl_curve.csv beside metrics.json. Clips are taken evenly from the test clips,
whatever was answered, and no figure is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.files.tables import write_table
from pipeline.learn.feature_table import Encoder, feature_table
from pipeline.learn.run import Opened
from pipeline.learn.score import BATCH, embed_batches
from pipeline.manifest.clips import Clip
from pipeline.methods.base import EmbeddingMethod, Method
from pipeline.methods.posebridge import PoseBridge
from pipeline.protocol.gzsl import Stacking

MAP, ATTENTION = "map.csv", "attention.csv"
CURVE, ON_CURVE = "gzsl_curve.csv", 101  # points at most
OF_A_KIND = 250  # clips, or prototypes, of seen or of unseen classes on the map
LOOKED_AT = 3  # clips, each of another unseen class, that are looked at first
MOST_SHARES = 20_000  # that are told in all: of these clips and of others
MOST_CUE_FRAMES = 64  # more columns nobody looks at


def write_glimpse(place: Path, opened: Opened, encoder: Encoder, method: Method, clips: Sequence[Clip]) -> None:
    """Of the test clips `clips`, extracted ones. Nothing is written for a method that has neither; what an earlier one
    left is taken away.
    """
    for name in (MAP, ATTENTION):
        (place / name).unlink(missing_ok=True)
    if isinstance(method, EmbeddingMethod):
        write_table(place / MAP, ["kind", "clip_id", "label", "x", "y"], _map(opened, encoder, method, clips))
    shown = opened.shapes.d_cue > 0 and opened.shapes.cue_frames <= MOST_CUE_FRAMES
    if isinstance(method, PoseBridge) and method.attends and shown:
        header = ["clip_id", "person", "cue_frame", "anchor", "share"]
        write_table(place / ATTENTION, header, _attention(opened, encoder, method, clips))


def write_curve(place: Path, stacking: Stacking) -> None:
    """Accuracy on seen and on unseen test clips, at every gamma that makes a difference."""
    _, seen, unseen = stacking.curve()
    points = evenly(list(zip(seen.tolist(), unseen.tolist(), strict=True)), ON_CURVE)
    write_table(place / CURVE, ["seen", "unseen"], ([f"{s:.6f}", f"{u:.6f}"] for s, u in points))


def evenly(found: Sequence[Any], most: int) -> list[Any]:
    """At most so many, evenly from the first to the last."""
    if len(found) <= most:
        return list(found)
    return [found[place] for place in np.linspace(0, len(found) - 1, most).round().astype(int)]


def _map(
    opened: Opened, encoder: Encoder, method: EmbeddingMethod, clips: Sequence[Clip]
) -> Iterator[tuple[str, str, int, str, str]]:
    """Clips and prototypes by their two principal components, signs fixed: of all that is on the map."""
    unseen = set(opened.split.unseen)
    shown = evenly([c for c in clips if c.label in unseen], OF_A_KIND)
    shown += evenly([c for c in clips if c.label not in unseen], OF_A_KIND)
    classes = evenly(sorted(unseen), OF_A_KIND) + evenly(opened.split.seen, OF_A_KIND)
    if not shown:
        return
    samples = opened.samples(shown)
    table = feature_table(encoder, samples, opened.shapes.anchors, device=method.device)
    parts = [F.normalize(part, dim=-1).cpu() for part in embed_batches(method, table, torch.arange(len(samples)))]
    with torch.no_grad():
        prototypes = method.prototypes(opened.bank.take(classes, method.text_slots).to(method.device)).cpu()
    places = principal(torch.cat([*parts, prototypes]).double().numpy())
    label = {clip.clip_id: clip.label for clip in shown}
    names = [("clip", clip_id, label[clip_id]) for clip_id in samples.clip_ids]
    names += [("prototype", "", c) for c in classes]
    for (kind, clip_id, number), (x, y) in zip(names, places.tolist(), strict=True):
        yield kind, clip_id, int(number or 0), f"{x:.5f}", f"{y:.5f}"


def principal(points: np.ndarray) -> np.ndarray:
    """The first two principal components of points [N, D], [N, 2]; of each axis the largest loading is positive."""
    centred = points - points.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
    found = centred @ axes.T
    return np.pad(found, ((0, 0), (0, 2 - found.shape[1])))


def _attention(
    opened: Opened, encoder: Encoder, method: PoseBridge, clips: Sequence[Clip]
) -> Iterator[tuple[str, int, int, str, str]]:
    """Of the first clip of some unseen classes, then of other unseen ones, every cue that is seen at all."""
    unseen = [clip for clip in clips if clip.label in opened.split.unseen]
    first = {clip.label: clip for clip in reversed(unseen)}  # of each class
    shown = [first[c] for c in evenly([c for c in opened.split.unseen if c in first], LOOKED_AT)]
    if not shown:
        return
    shapes = opened.shapes
    most = MOST_SHARES // (shapes.persons * shapes.cue_frames * len(shapes.anchors))
    shown += evenly([clip for clip in unseen if clip not in shown], max(0, most - len(shown)))
    samples = opened.samples(shown)
    table = feature_table(encoder, samples, shapes.anchors, device=method.device)
    batches = table.batches(torch.arange(len(samples)).split(BATCH))
    shares = torch.cat([method.attention(batch).cpu() for batch in batches])
    for (row, m, s, a), share in np.ndenumerate(shares.numpy()):  # [N, M, S, A]
        if share > 0:
            yield samples.clip_ids[row], m, s, shapes.anchors[a], f"{share:.6f}"
