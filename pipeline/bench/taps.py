"""Which inner maps of a pose model know most of an attribute: every tap, the hands, the controls, by one linear probe.

Frames of a sample of clips go through the recipe's pose model again, in the boxes of the extraction, since the cache
has only the taps of the recipe. Every map is pooled at the recipe's anchors and where nobody is, and raw colours of the
crop are pooled likewise: these two are controls. One tap a stride is chosen, by how well clips of some folds are told;
how well those of the others are shows beside it. Each probe learns from all folds but the one that it is asked of, the
others too, so that the choice has used their values of the attribute, though not how well they are told.

Reads videos, manifests/<dataset>/ and cache/<dataset>/<recipe>/; writes nothing.
    posebridge bench cues --dataset gym --recipe tinypose --attribute equipment --groups shoot --params params/gym.yaml
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.extract.again import frames_again
from pipeline.gap.known import SKELETON, block, evenly, of_bodies, with_skeleton
from pipeline.gap.linear import explained, interval, linear_probe, macro_accuracy
from pipeline.gap.question import Question
from pipeline.hpe.base import TappedEstimator
from pipeline.hpe.crops import crop, crop_matrix
from pipeline.hpe.pooling import pool_levels
from pipeline.learn.features import Reader, load_samples
from pipeline.manifest.clips import Clip
from pipeline.predict.examples import place_free
from pipeline.recipe import BACKGROUND, Recipe

COLOURS, PATCH, COLOUR_STRIDE = "raw colours", 6, 8  # patches of 6 x 6 mean colours, each of 8 x 8 pixels of the crop
FRAMES = 4  # of a clip, at the most
TOGETHER = 64  # taps that are probed in one go: each takes memory of clips times clips
SHORT_LIST = 14  # taps of a stride, the best by themselves, of which one is chosen
SHOWN = 8  # of the best taps in the table
QUICK = (1.0,)  # strength of the probe while taps are compared: nothing else is chosen then
Pass = Callable[[Sequence[Clip]], Iterator[Clip]]


@dataclass(frozen=True)
class Reading:
    """What one look knows: `accuracy` and `ci95` on all clips, and apart on those that chose and on the others."""

    what: str
    place: str  # all (anchors), hands, background, an anchor, or body where it is no matter of places
    channels: int
    stride: int
    accuracy: float
    ci95: tuple[float, float]
    choosing: float
    others: float


@dataclass(frozen=True)
class TapProbe:
    """`chosen` are the taps that the clips which choose would have the recipe name, shallow first."""

    recipe: str
    attribute: str
    grouped_by: str
    clips: int
    groups: int
    choosing: int
    values: dict[str, int]
    left_out: tuple[str, ...]
    chance: float
    compared: int
    chosen: tuple[str, ...]
    readings: tuple[Reading, ...]
    seconds: float


@dataclass
class Seen:
    """N clips: `blocks` [N, d] by name, of (map, anchor) and the skeleton; `maps` name -> (channels, stride)."""

    blocks: dict[str, Tensor]
    maps: dict[str, tuple[int, int]]
    anchors: tuple[str, ...]


def probe_taps(
    question: Question, choosing: np.ndarray, seen: Seen, recipe_name: str, own: Sequence[str], begun: float
) -> TapProbe:
    """Compare the maps that were seen.

    Args:
        choosing: [N] bool, the clips that choose taps.
        own: the taps of the recipe as it is, which are read beside the chosen ones.
    """
    answers, folds = torch.from_numpy(question.answers), question.folds
    places = {
        "all": of_bodies(seen.anchors),
        "hands": [anchor for anchor in seen.anchors if anchor.endswith("_hand")],
        BACKGROUND: [BACKGROUND],
    }
    taps = [name for name in seen.maps if name != COLOURS]

    def look(names: Sequence[str], place: str = "all") -> dict[str, float]:
        return evenly(block(name, anchor) for name in names for anchor in places[place])

    def worth(sets: Sequence[Sequence[str]]) -> list[float]:
        """How much of the answers of the choosing clips each set of taps explains."""
        found: list[float] = []
        for start in range(0, len(sets), TOGETHER):
            looks = {str(number): look(names) for number, names in enumerate(sets[start : start + TOGETHER])}
            scores = linear_probe(seen.blocks, looks, answers, folds, QUICK)
            found += [explained(each[choosing], answers[choosing]) for each in scores.values()]
        return found

    alone = dict(zip(taps, worth([[tap] for tap in taps]), strict=True))
    chosen = choose(seen.maps, alone, worth)
    best = sorted(taps, key=alone.__getitem__, reverse=True)[:SHOWN]
    looks = {("skeleton", "body", 0, 0): {SKELETON: 1.0}}
    for name in (COLOURS, *dict.fromkeys([*best, *chosen, *own])):
        if name in seen.maps:
            looks |= {(name, place, *seen.maps[name]): look([name], place) for place in places if places[place]}
    together = {"chosen taps": chosen, "the recipe's taps": own} if set(own) <= set(taps) else {"chosen taps": chosen}
    for name, names in together.items():
        width = sum(seen.maps[tap][0] for tap in names)
        looks |= {(name, place, width, 0): look(names, place) for place in places if places[place]}
        looks |= {(name, anchor, width, 0): evenly(block(tap, anchor) for tap in names) for anchor in places["all"]}
        looks[(f"{name} and skeleton", "all", width, 0)] = with_skeleton(look(names))
    scores = linear_probe(seen.blocks, {str(key): shares for key, shares in looks.items()}, answers, folds)
    readings = [
        read(key, values.argmax(1), answers, question.groups, choosing)
        for key, values in zip(looks, scores.values(), strict=True)
    ]
    return TapProbe(
        recipe_name, question.attribute, question.grouped_by, len(answers), len(set(question.groups)),
        int(choosing.sum()), question.count(), question.left_out, 1 / len(question.values), len(taps), tuple(chosen),
        tuple(readings), time.perf_counter() - begun,
    )  # fmt: skip


def read(
    key: tuple[str, str, int, int], said: Tensor, answers: Tensor, groups: Sequence[str], choosing: np.ndarray
) -> Reading:
    """Count one look's right answers."""
    accuracy, draws = macro_accuracy(said, answers, groups)
    parts = [macro_accuracy(said[part], answers[part], ["all"] * int(part.sum()))[0] for part in (choosing, ~choosing)]
    return Reading(*key, accuracy, interval(draws, len(set(groups))), *parts)


def choose(
    maps: Mapping[str, tuple[int, int]], alone: Mapping[str, float], worth: Callable[[list[list[str]]], list[float]]
) -> list[str]:
    """One tap a stride, shallow first: of the short list of every stride, the one that adds most to those before."""
    strides = sorted({maps[tap][1] for tap in alone})
    short = {
        stride: sorted((tap for tap in alone if maps[tap][1] == stride), key=alone.__getitem__, reverse=True)
        for stride in strides
    }
    chosen: list[str] = []
    while len(chosen) < len(strides):
        taken = {maps[tap][1] for tap in chosen}
        left = [tap for stride in strides if stride not in taken for tap in short[stride][:SHORT_LIST]]
        values = worth([[*chosen, tap] for tap in left])
        chosen.append(left[int(np.argmax(values))])
    return sorted(chosen, key=lambda tap: maps[tap][1])


def see(
    clips: Sequence[Clip], root: Path, reader: Reader, estimator: TappedEstimator, recipe: Recipe, wrap: Pass = iter
) -> Seen:
    """Every map of the estimator's taps, pooled, and the skeletons of the cache. `wrap` may wrap the clips.

    Raises PosebridgeError, naming the clip, for a video that cannot be read any more as it was extracted.
    """
    anchors = tuple(dict.fromkeys([*recipe.anchors, BACKGROUND]))
    maps = {**estimator.taps, COLOURS: (3 * PATCH**2, COLOUR_STRIDE)}
    pooled = torch.stack([pooled_of(clip, root, reader, estimator, anchors, recipe.sigma) for clip in wrap(clips)])
    samples = load_samples([clip.clip_id for clip in clips], reader)
    blocks = {SKELETON: place_free(samples.keypoints[:, :2], samples.person_valid[:, :2])}
    at = 0
    for name, (channels, _) in maps.items():
        for number, anchor in enumerate(anchors):
            part = pooled[:, number, at : at + channels].float()
            blocks[block(name, anchor)] = F.normalize(part, dim=-1).half()
        at += channels
    return Seen(blocks, maps, anchors)


def pooled_of(
    clip: Clip, root: Path, reader: Reader, estimator: TappedEstimator, anchors: tuple[str, ...], sigma: float
) -> Tensor:
    """The mean over persons and frames, [A, D] float16, of all maps side by side and of raw colours."""
    images = crops_of(clip, root, reader, estimator.crop_size)
    if not len(images):
        return torch.zeros(len(anchors), sum(channels for channels, _ in estimator.taps.values()) + 3 * PATCH**2).half()
    maps, keypoints, scores = estimator.tapped(images)
    maps = [*maps, colour_patches(images).to(keypoints.device)]
    strides = [*(stride for _, stride in estimator.taps.values()), COLOUR_STRIDE]
    cues, sure = pool_levels([each.float() for each in maps], strides, keypoints, scores, anchors, sigma)
    mean = (cues * sure[..., None]).sum(0) / sure.sum(0)[:, None].clamp_min(1e-6)
    return mean.clamp(-6e4, 6e4).half().cpu()


def crops_of(clip: Clip, root: Path, reader: Reader, crop_size: tuple[int, int]) -> np.ndarray:
    """uint8 RGB crops [N, H, W, 3] of everybody in up to FRAMES cue frames, in the boxes of the extraction."""
    row: dict[str, Any] = reader.read([clip.clip_id], ("boxes", "person_valid", "frame_index", "cue_frame"))
    boxes, valid, index = row["boxes"][0], row["person_valid"][0], row["frame_index"][0]
    slots = np.unique(row["cue_frame"][0])
    slots = slots[np.linspace(0, len(slots) - 1, min(FRAMES, len(slots))).round().astype(int)]
    frames = frames_again(clip, root, (int(index[slot]) for slot in slots if valid[:, slot].any()))
    found = [
        crop(frames[int(index[slot])], crop_matrix(boxes[person, slot], crop_size), crop_size, reader.recipe.light)
        for slot in slots
        for person in np.flatnonzero(valid[:, slot])
    ]
    return np.stack(found) if found else np.empty((0, *crop_size[::-1], 3), np.uint8)


def colour_patches(crops: np.ndarray) -> Tensor:
    """A map of raw colours [N, 3 * PATCH^2, h, w]: around each cell, the mean colours of PATCH x PATCH cells."""
    size = (crops.shape[2] // COLOUR_STRIDE, crops.shape[1] // COLOUR_STRIDE)
    small = torch.from_numpy(np.stack([cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in crops]))
    around = F.pad(small.permute(0, 3, 1, 2).float() / 255, (PATCH // 2 - 1, PATCH // 2) * 2)
    return F.unfold(around, PATCH).unflatten(-1, (size[1], size[0]))
