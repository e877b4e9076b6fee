"""What each part of PoseBridge is worth, and where: by the selection phase alone. No test clip and no clip of an unseen
class is read.

The selection phase of a run is trained with one part taken away or put in, on the data as they are and on controlled
changes of them, and judged as epochs and values are: by the area under the seen-unseen curve, and by top-1 among the
pseudo-unseen classes. Reads an extraction, encoders and a text bank; writes nothing, and nothing is chosen by it.
    posebridge bench parts --dataset skelgap-mini --protocol compositional_18_6 --run posebridge

The skeleton encoder stays the protocol's own: where classes are taken from training, it still knows their movements.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.learn.dataset import Dataset
from pipeline.learn.features import Samples
from pipeline.learn.run import Opened, open_listed
from pipeline.learn.select import PhaseModel
from pipeline.learn.train import train_phase
from pipeline.learn.trained import skeleton_encoder
from pipeline.methods.posebridge import PoseBridge
from pipeline.params import Params, RunParams
from pipeline.protocol.metrics import micro
from pipeline.protocol.splits import Split
from pipeline.protocol.spread import Spread, spread_of
from pipeline.protocol.training_set import Phase, training_phase

WHOLE = "whole"
PARTS: Mapping[str, Mapping[str, Any]] = {
    WHOLE: {},
    "without bridge": {"bridge": False},
    "without additive path": {"additive": False},
    "without SupCon": {"sup_con": 0.0},
    "without cue dropout": {"cue_dropout": 0.0},
    "without centring": {"centre": False},
    "with gate": {"gate": True},
    "with MLP adaptation": {"adaptation": "mlp"},
}
ALPHAS = (0.25, 0.5, 1.0)  # of the prototype adaptation of WHOLE, which is judged without it


@dataclass(frozen=True)
class Learnt:
    """What a selection phase learns from."""

    opened: Opened
    split: Split
    phase: Phase
    samples: Samples


Change = Callable[[Learnt, torch.Generator], Learnt]


def as_they_are(learnt: Learnt, draws: torch.Generator) -> Learnt:
    return learnt


def names_only(learnt: Learnt, draws: torch.Generator) -> Learnt:
    """Terse texts: the class's name in each slot."""
    bank = learnt.opened.bank
    if "label" not in bank.slots:
        raise PosebridgeError("The texts have no slot `label`; add each class's name to texts.csv.")
    name = bank.slots.index("label")
    return _with_text(learnt, bank.embeddings[:, name : name + 1].expand_as(bank.embeddings))


def noisy_texts(learnt: Learnt, draws: torch.Generator) -> Learnt:
    """Each description and as much chance: their cosine is about .7."""
    there = learnt.opened.bank.embeddings
    noise = F.normalize(torch.randn(there.shape, generator=draws), dim=-1)
    return _with_text(learnt, F.normalize(there + noise, dim=-1))


def noisy_cues(learnt: Learnt, draws: torch.Generator) -> Learnt:
    """Cues with noise of twice their standard deviation in each number."""
    cues = _cues(learnt)
    noise = 2 * cues.std(dim=(0, 1, 2), keepdim=True) * torch.randn(cues.shape, generator=draws)
    return replace(learnt, samples=replace(learnt.samples, cues=(cues + noise).to(torch.float16)))


def unsure_poses(learnt: Learnt, draws: torch.Generator) -> Learnt:
    """Half of the clips have nothing but noise for cues, and scores a fifth as high, of joints and anchors: what the
    gate is for.
    """
    cues, samples = _cues(learnt), learnt.samples
    assert samples.cue_scores is not None
    unsure = torch.rand(len(samples), generator=draws) < 0.5
    noise = cues.mean(dim=(0, 1, 2)) + cues.std(dim=(0, 1, 2)) * torch.randn(cues.shape, generator=draws)
    cues[unsure] = noise[unsure]
    share = torch.where(unsure, 0.2, 1.0)[:, None, None, None]
    changed = replace(
        samples, cues=cues.to(torch.float16), cue_scores=samples.cue_scores * share, scores=samples.scores * share
    )
    return replace(learnt, samples=changed)


def few_seen(learnt: Learnt, draws: torch.Generator) -> Learnt:
    """Half of the classes that are trained on, the others gone."""
    return _fewer(learnt, draws, 2, unseen=False)


def many_unseen(learnt: Learnt, draws: torch.Generator) -> Learnt:
    """A third of the classes that are trained on are pseudo-unseen as well."""
    return _fewer(learnt, draws, 3, unseen=True)


CHANGES: Mapping[str, Change] = {
    "as they are": as_they_are,
    "names only": names_only,
    "noisy texts": noisy_texts,
    "noisy cues": noisy_cues,
    "unsure poses": unsure_poses,
    "few seen": few_seen,
    "many unseen": many_unseen,
}


@dataclass(frozen=True)
class Worth:
    """Of one part under one change, over seeds: both figures, and how much higher they are than those of the whole,
    seed by seed (`more_`). Fractions.
    """

    change: str
    part: str
    area: Spread
    top1: Spread
    more_area: Spread
    more_top1: Spread
    seeds: int


def bench_parts(
    dataset: Dataset, protocol: str, run: RunParams, params: Params, seeds: Sequence[int],
    changes: Sequence[str] = tuple(CHANGES), parts: Sequence[str] = tuple(PARTS),
) -> Iterator[Worth]:  # fmt: skip
    """Measure parts under changes; the whole always, what others are compared with. Raises PosebridgeError for a run of
    another method, without cues, or of more clips than are held in memory.
    """
    opened = open_listed(dataset, protocol, run.of(protocol))
    if run.method != "posebridge" or not opened.shapes.d_cue:
        raise PosebridgeError(f"Only a run of the method posebridge with cues has these parts, not {run.method}.")
    for change in changes:
        found: dict[str, list[tuple[float, float]]] = {}
        for seed in seeds:
            learnt = CHANGES[change](_learnt(opened), torch.Generator().manual_seed(seed))
            for part in dict.fromkeys((WHOLE, *parts)):
                for name, figures in judge(learnt, part, params, seed):
                    found.setdefault(name, []).append(figures)
        for name, told in found.items():
            yield _worth(change, name, told, found[WHOLE])


def _worth(
    change: str, part: str, figures: Sequence[tuple[float, float]], whole: Sequence[tuple[float, float]]
) -> Worth:
    """Of the figures of each seed, and those of the whole."""
    areas, top1s = zip(*figures, strict=True)
    more = [(area - a, top1 - t) for (area, top1), (a, t) in zip(figures, whole, strict=True)]
    more_areas, more_top1s = zip(*more, strict=True)
    return Worth(
        change, part, spread_of(areas), spread_of(top1s), spread_of(more_areas), spread_of(more_top1s), len(figures)
    )


def judge(learnt: Learnt, part: str, params: Params, seed: int) -> Iterator[tuple[str, tuple[float, float]]]:
    """(area, top-1) of a part; of the whole at each strength of its prototype adaptation, too."""
    run = replace(learnt.opened.run, flags={**learnt.opened.run.flags, **PARTS[part]})
    opened = replace(learnt.opened, run=run, split=learnt.split)
    encoder = skeleton_encoder(learnt.opened, seed, "select")
    model, _ = train_phase(opened, learnt.phase, learnt.samples, encoder, params, seed, None)
    yield part, _figures(model, learnt.split)
    method = model.method
    assert isinstance(method, PoseBridge)
    if part == WHOLE and method.flags.adaptation == "ridge":
        for method.alpha in ALPHAS:
            yield f"adaptation of {method.alpha:g}", _figures(model, learnt.split)


def _figures(model: PhaseModel, split: Split) -> tuple[float, float]:
    return model.figure(split), micro(model.zero_shot(split))


def _learnt(opened: Opened) -> Learnt:
    phase = training_phase("select", opened.split, opened.dataset.clips)
    samples = opened.samples((*phase.train, *phase.held_out, *phase.pseudo_unseen))
    if not isinstance(samples, Samples):
        raise PosebridgeError("There are more clips than fit into memory; choose a smaller data set.")
    return Learnt(opened, opened.split, phase, samples)


def _cues(learnt: Learnt) -> Tensor:
    assert learnt.samples.cues is not None
    return learnt.samples.cues.float()


def _with_text(learnt: Learnt, embeddings: Tensor) -> Learnt:
    bank = replace(learnt.opened.bank, embeddings=embeddings, mask=torch.ones_like(learnt.opened.bank.mask))
    return replace(learnt, opened=replace(learnt.opened, bank=bank))


def _fewer(learnt: Learnt, draws: torch.Generator, parts: int, *, unseen: bool) -> Learnt:
    """One in `parts` of the classes trained on, at random, is trained on no more: pseudo-unseen, or gone."""
    split, phase = learnt.split, learnt.phase
    lot = random.Random(draws.initial_seed())
    taken = set(lot.sample(phase.classes, len(phase.classes) // parts))
    if unseen:
        split = replace(split, validation=tuple(sorted({*split.validation, *taken})))
    else:
        split = replace(split, unseen=tuple(sorted({*split.unseen, *taken})))
    keep = [c for c in phase.classes if c not in taken]
    mine = {c.clip_id for c in (*phase.train, *phase.held_out) if c.label in taken}
    also = tuple(c for c in (*phase.train, *phase.held_out) if unseen and c.label in taken)
    phase = Phase(
        phase.name,
        tuple(keep),
        tuple(c for c in phase.train if c.clip_id not in mine),
        tuple(c for c in phase.held_out if c.clip_id not in mine),
        (*phase.pseudo_unseen, *also),
    )
    kept = {c.clip_id for c in (*phase.train, *phase.held_out, *phase.pseudo_unseen)}
    rows = [row for row, clip_id in enumerate(learnt.samples.clip_ids) if clip_id in kept]
    return Learnt(replace(learnt.opened, split=split), split, phase, learnt.samples.take(rows))
