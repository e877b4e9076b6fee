"""Tuning a cue head on the maps of a frozen pose model: refinement and projection learn, nothing else does.

Reads the maps that `maps.py` has cached; the loop is stage two's, and resumes as it does. Writes the loop's state.
    posebridge tune-hpe --recipe tinypose --dataset gym --protocol shoot_1 --out cache/weights/gym-shoot_1.safetensors
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.files.device import CPU
from pipeline.hpe.refinement import CueHead
from pipeline.hpe.topdown import channels_last
from pipeline.learn.loop import Loop, Progress, fit
from pipeline.recipe import ANCHORS
from pipeline.tune.contrast import caption_loss, held_evidence
from pipeline.tune.maps import CachedMaps, MapBatch
from pipeline.tune.settings import HeadSettings
from pipeline.tune.text import TextVectors

SAME = 1e-6  # likeness to the captions of two scenes that are one


class HeadModel(nn.Module):
    """A cue head, with what only tuning needs: the way into text space, and how sharp a likeness counts.

    `taps` is (channels, stride) of each, shallow first.
    """

    def __init__(self, taps: list[tuple[int, int]], settings: HeadSettings, text_width: int) -> None:
        super().__init__()
        channels, strides = zip(*taps, strict=True)
        self.settings = settings
        self.cue = CueHead(channels, strides, settings.pooled_stride, settings.width)
        self.to_text = nn.Linear(self.cue.cue_width, text_width, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(2.7))

    def described(self, batch: MapBatch) -> Tensor:
        """What every anchor's cue says, [N, A, d_t], normalised; 0 where an anchor has vanished."""
        cues, _ = self.cue.cues(batch.maps, batch.keypoints, batch.scores, ANCHORS, self.settings.sigma)
        return F.normalize(self.to_text(cues), dim=-1)

    def losses(self, batch: MapBatch, text: TextVectors) -> Tensor:
        """Captions against the mean of all anchors' words, phrases against the hands'."""
        words = self.described(batch)
        scale = self.logit_scale.exp()
        loss = caption_loss(_joined(words), text.captions, batch.caption, batch.scene, scale)
        if text.phrases is not None and self.settings.lambda_hand:
            hands = words[:, [ANCHORS.index("left_hand"), ANCHORS.index("right_hand")]]
            held = F.cross_entropy(held_evidence(hands, text.phrases, scale), batch.held)
            loss = loss + self.settings.lambda_hand * held
        return loss


def _joined(words: Tensor) -> Tensor:
    """What all anchors say together, [N, d_t], normalised."""
    return F.normalize(words.sum(1), dim=-1)


def tune_head(
    model: HeadModel,
    maps: CachedMaps,
    text: TextVectors,
    held_out: tuple[CachedMaps, TextVectors],
    work_dir: Path,
    facts: str,
    on_epoch: Callable[[Progress], None],
    device: torch.device = CPU,
) -> tuple[Progress, dict[str, float]]:
    """Tune `model` in place and leave it on the CPU; killed and started again it goes on as `fit` has it.

    `held_out` chooses the epoch, by how well its cues find their scenes' captions; `facts` is a hash of all that the
    result depends on. Returns the quality on `held_out` too, as `find_scenes` has it.
    """
    settings = model.settings
    loop = Loop(
        settings.epochs, settings.batch_size, settings.lr, settings.weight_decay, patience=settings.patience, ema=0.98,
        seed=settings.seed,
    )  # fmt: skip
    channels_last(model)  # a third less time on a CPU
    model.to(device)
    own = TextVectors(text.captions.to(device), text.phrases.to(device) if text.phrases is not None else None)
    progress = fit(
        model,
        lambda rows, draws, batch: model.losses(batch, own),
        len(maps),
        loop,
        load=lambda rows: maps.take(rows).to(device),
        validate=lambda: find_scenes(model, *held_out)["caption_mrr"],
        state=work_dir / "head.safetensors",
        fingerprint=facts,
        on_epoch=on_epoch,
        what="tune-hpe",
    )
    quality = find_scenes(model, *held_out)
    model.cpu()
    return progress, quality


@torch.no_grad()
def find_scenes(model: HeadModel, maps: CachedMaps, text: TextVectors, batch_size: int = 64) -> dict[str, float]:
    """How well every crop's cues find the captions of its own scene among those of all scenes (their means).

    `caption_mrr`: the mean of 1 / rank; `caption_r1` and `caption_r5`: how often it is the first, among the first five;
    `scenes`: how many there are to choose from. Of scenes with the same captions, half are taken to stand before.
    """
    model.eval()
    device = model.logit_scale.device
    scenes, place = maps.facts["scene"].unique(return_inverse=True)
    targets = torch.zeros(len(scenes), text.captions.shape[1])
    targets = targets.index_add(0, place, text.captions[maps.facts["caption"]])
    targets = F.normalize(targets, dim=-1).to(device)
    ranks = []
    for rows in torch.arange(len(maps)).split(batch_size):
        likeness = _joined(model.described(maps.take(rows).to(device))) @ targets.T  # [N, S]
        own = likeness.gather(1, place[rows, None].to(device))
        alike = (likeness - own).abs() < SAME  # the own one, too
        ranks.append(((likeness > own) & ~alike).sum(1).cpu() + (1 + alike.sum(1).cpu()) / 2)
    rank = torch.cat(ranks).double()
    return {
        "caption_mrr": float((1 / rank).mean()),
        "caption_r1": float((rank <= 1).double().mean()),
        "caption_r5": float((rank <= 5).double().mean()),
        "scenes": float(len(scenes)),
    }
