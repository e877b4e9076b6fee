"""What the maps inside a pose model know of the held object, read by a linear probe from where the hands are.

Each tapped level, and the refinement where the weights hold one, is pooled at the predicted hands, over the predicted
body, and over the whole map without regard to the pose. The same probe reads all three, so their difference is what
looking at the pose is worth. One to three other objects lie about in every still.

Reads stills made on the fly; writes nothing. Command: posebridge bench cues --weights skelgap-sem
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.hpe.mmpose_adapter import MmposeEstimator
from pipeline.hpe.pooling import pooling_weights
from pipeline.hpe.refinement import CueHead
from pipeline.hpe.topdown import TopdownModel
from pipeline.hpe.weights import find_weights, load_state
from pipeline.protocol.metrics import binomial_interval
from pipeline.recipe import Recipe
from pipeline.synth.objects import OBJECTS
from pipeline.synth.stills import HELD_OUT_STREAM, Still
from pipeline.tune.quality import KeypointQuality, Progress, Seen, held_index, look, retrieve, stills_of

PROBE_STREAM = 7003  # neither a stream of tuning nor the held-out one
ANSWERS = 1 + len(OBJECTS)  # empty hands, or one of the objects
POOLED = ("body", "left_hand", "right_hand")  # anchors; the whole map follows them
PLACES: dict[str, list[int]] = {"hands": [1, 2], "body": [0], "global": [3]}  # rows of what is pooled
STRIDES = (8, 16, 32)  # that a recipe may pool at
FEWEST = 100  # stills


@dataclass(frozen=True)
class Reading:
    """How often one probe names the held object. `ci95` is the exact binomial interval."""

    map: str  # "stride 4" and so on: a tapped level; "levels": all side by side; "refined 16": the refinement
    place: str  # "hands", "body" or "global"
    width: int  # D
    accuracy: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class CueProbe:
    """All readings of one weights file; `quality` is that of its keypoints on the same held-out stills.

    `chance` is the accuracy of always giving the most frequent of the `answers`. `caption_r1` is by map the share of
    body cues that find their caption among 100, through a linear map into text space that is fitted on the probe's
    training stills; `captions_asked` cues were in a full gallery.
    """

    weights: str
    hpe_text: str
    train: int
    test: int
    answers: int
    chance: float
    quality: dict[str, float]
    readings: list[Reading]
    caption_r1: dict[str, float]
    captions_asked: int
    seconds: float


@dataclass
class Pooled:
    """What all maps hold at the places: by map [N, 4, D], with the held objects [N] and captions of the N stills."""

    maps: dict[str, Tensor]
    held: Tensor
    captions: list[str]


def probe_cues(
    recipe: Recipe,
    train: int = 3000,
    test: int = 1000,
    captions: Mapping[str, Tensor] | None = None,
    progress: Progress = iter,
) -> CueProbe:
    """Probe the weights of an mmpose recipe, pooled with the recipe's sigma.

    Args:
        train, test: how many stills the probes learn from, and how many held-out ones they answer.
        captions: every caption's normalised embedding [d_t]; without it no caption is looked for.

    Raises PosebridgeError for weights that do not fit the recipe, and for too few stills.
    """
    begun = time.perf_counter()
    if min(train, test) < FEWEST:
        raise PosebridgeError(f"A probe needs at least {FEWEST} stills to learn from and {FEWEST} to answer.")
    found = find_weights(recipe)
    pose, heads = load_maps(recipe, found.path)
    source = progress(chain(stills_of(PROBE_STREAM, train), stills_of(HELD_OUT_STREAM, test)))
    quality = KeypointQuality()
    known = collect(pose, heads, islice(source, train), recipe.sigma)
    asked = collect(pose, heads, source, recipe.sigma, quality)
    readings = [
        read(name, place, known.maps[name][:, rows], known.held, asked.maps[name][:, rows], asked.held)
        for name in known.maps
        for place, rows in PLACES.items()
    ]
    found_captions = {}
    if captions:
        targets = torch.stack([captions[caption] for caption in known.captions])
        for name, values in known.maps.items():
            cues = ridge(values[:, 0], targets, asked.maps[name][:, 0])
            found_captions[name] = retrieve(cues, asked.captions, captions)
    return CueProbe(
        weights=recipe.weights,
        hpe_text=found.hpe_text or recipe.hpe_text,
        train=train,
        test=test,
        answers=ANSWERS,
        chance=float(asked.held.bincount().max() / test),
        quality=quality.result(),
        readings=readings,
        caption_r1={name: float(hits.mean()) for name, hits in found_captions.items() if len(hits)},
        captions_asked=max((len(hits) for hits in found_captions.values()), default=0),
        seconds=time.perf_counter() - begun,
    )


def load_maps(recipe: Recipe, path: Path) -> tuple[TopdownModel, dict[int, CueHead]]:
    """The pose model, and the refinement that the weights hold, if any, by its pooled stride."""
    pose = MmposeEstimator(replace(recipe, cues="levels"), path).pose
    state = {key.removeprefix("cue."): value for key, value in load_state(path).items() if key.startswith("cue.")}
    heads = {}
    project = state.get("project.weight", torch.empty(0))
    for stride in (s for s in STRIDES if project.ndim == 2 and project.numel() and s in pose.strides):
        with torch.device("meta"):  # without memory, as in `read_head`
            head = CueHead(pose.channels, pose.strides, stride, *reversed(project.shape))
        own = {key: value.shape for key, value in head.state_dict().items()}
        if own == {key: state[key].shape for key in own if key in state}:
            head.load_state_dict({key: state[key] for key in own}, assign=True)
            heads[stride] = head.to(pose.mean.device).eval()
    return pose, heads


@torch.no_grad()
def collect(
    pose: TopdownModel,
    heads: dict[int, CueHead],
    source: Iterator[Still],
    sigma: float,
    quality: KeypointQuality | None = None,
) -> Pooled:
    """Pool every map of the stills at the predicted places."""
    batches, held, captions = [], [], []
    for seen in look(pose, source):
        maps = {}
        for feature, stride in zip(seen.features, pose.strides, strict=True):
            weights = place_weights(seen, (feature.shape[2], feature.shape[3]), stride, sigma)
            maps[f"stride {stride}"] = torch.einsum("nahw,nchw->nac", weights, feature)
            if stride in heads:
                maps[f"refined {stride}"] = heads[stride](seen.features, weights)
        batches.append({name: values.cpu() for name, values in maps.items()})
        held += [held_index(still) for still in seen.stills]
        captions += [still.caption for still in seen.stills]
        if quality is not None:
            quality.add(seen)
    names = sorted(batches[0], key=lambda name: name.startswith("refined"))  # in order, the levels first
    joined = {name: torch.cat([batch[name] for batch in batches]) for name in names}
    levels = torch.cat([joined[name] for name in names if name.startswith("stride")], -1)
    return Pooled({"levels": levels, **joined}, torch.tensor(held), captions)


def place_weights(seen: Seen, grid: tuple[int, int], stride: int, sigma: float) -> Tensor:
    """The masks of POOLED, and after them the whole map: [N, 4, H, W]."""
    weights, _ = pooling_weights(seen.keypoints, seen.scores, POOLED, grid, stride, sigma)
    whole = torch.full_like(weights[:, :1], 1 / (grid[0] * grid[1]))
    return torch.cat([weights, whole], 1)


def read(name: str, place: str, known: Tensor, known_held: Tensor, asked: Tensor, asked_held: Tensor) -> Reading:
    """Fit one probe on `known` [N, H, D] with its answers [N] and count its hits on `asked` [Q, H, D]."""
    hits = int((linear_probe(known, known_held, asked) == asked_held).sum())
    return Reading(name, place, known.shape[-1], hits / len(asked), binomial_interval(hits, len(asked)))


def linear_probe(
    known: Tensor, answers: Tensor, asked: Tensor, strengths: tuple[float, ...] = (0.1, 0.03, 0.01)
) -> Tensor:
    """Answers [Q] of a logistic regression fitted to `known` [N, H, D]: one classifier for all H rows of a still.

    Nobody says which hand holds the object: the rows' evidence is joined by log-sum-exp, as in tuning, so one row and
    two have a probe of the same size. The weight decay is that of `strengths` (strong to weak) which answers best on
    the last fifth of `known`.
    """
    mean, spread = known.mean((0, 1)), known.std((0, 1)).clamp_min(1e-6)
    known, asked = (known - mean) / spread, (asked - mean) / spread
    first = len(known) * 4 // 5
    best, chosen, weights = -1.0, strengths[0], known.new_zeros(known.shape[-1] + 1, ANSWERS)
    for strength in strengths:
        weights = _fit(known[:first], answers[:first], strength, weights)
        right = (_evidence(known[first:], weights).argmax(-1) == answers[first:]).float().mean().item()
        if right > best:
            best, chosen = right, strength
    return _evidence(asked, _fit(known, answers, chosen, weights)).argmax(-1)


def _evidence(rows: Tensor, weights: Tensor) -> Tensor:
    return torch.logsumexp(rows @ weights[:-1] + weights[-1], 1)  # [N, ANSWERS]


def _fit(rows: Tensor, answers: Tensor, strength: float, start: Tensor) -> Tensor:
    """Weights and, in the last row, biases [D + 1, ANSWERS] by L-BFGS from `start`."""
    weights = start.clone().requires_grad_()
    solver = torch.optim.LBFGS([weights], max_iter=60, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(_evidence(rows, weights), answers) + strength / 2 * weights[:-1].square().sum()
        value.backward()
        return value

    solver.step(loss)  # type: ignore[arg-type]
    return weights.detach()


def ridge(known: Tensor, targets: Tensor, asked: Tensor) -> Tensor:
    """Ridge regression of `targets` [N, d] on `known` [N, D], applied to `asked`: [Q, d].

    The strength, out of seven decades, has the least leave-one-out error (closed form).
    """
    mean, spread = known.mean(0), known.std(0).clamp_min(1e-6)
    known, asked = ((each - mean) / spread for each in (known, asked))
    centre = targets.mean(0)
    u, s, v = torch.linalg.svd(known, full_matrices=False)  # [N, R], [R], [R, D]
    along = u.T @ (targets - centre)  # [R, d]
    errors = {}
    for strength in (len(known) * 10.0**power for power in range(-5, 2)):
        shrink = s.square() / (s.square() + strength)
        leverage = 1 / len(known) + (u.square() * shrink).sum(1)
        residual = targets - centre - u @ (shrink[:, None] * along)
        errors[strength] = float((residual / (1 - leverage)[:, None]).square().sum())
    strength = min(errors, key=errors.__getitem__)
    return centre + (asked @ v.T) @ ((s / (s.square() + strength))[:, None] * along)
