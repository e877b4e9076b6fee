"""Skeleton encoders, per protocol, seed and phase; and the feature maps that they make, in memory.

Reads an extraction and a protocol, writes
cache/encoders/<dataset>/<protocol>/<skeletons>/seed-<k>/{select,final}.safetensors with a .json beside each. An
encoder sees train-part clips of its phase's classes only. Command: posebridge encode --dataset skelgap-mini
--protocol compositional_18_6 --skeletons refined
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.cache.sealed import read_sealed, seal
from pipeline.errors import PosebridgeError
from pipeline.files.durable import write_for_people
from pipeline.files.hashing import fingerprint
from pipeline.files.names import check_name
from pipeline.files.tensors import load_tensors, save_tensors
from pipeline.learn.dataset import Dataset, label_rows
from pipeline.learn.features import Samples, load_samples
from pipeline.learn.loop import Loop, OnEpoch, Progress, fit, ignore, remove_states
from pipeline.learn.preflight import Needs, need_extraction, need_parts, need_split
from pipeline.learn.seeds import each_seed
from pipeline.methods.base import Features
from pipeline.params import EncodeParams
from pipeline.protocol.training_set import PHASES, Phase, training_phase
from pipeline.recipe import other_side
from pipeline.skeleton.augment import augment
from pipeline.skeleton.normalise import normalise
from pipeline.skeleton.shift_gcn import ShiftGCN


class Joints(nn.Module):
    """In the place of a frozen encoder, for a method that has its own: the map is the joints themselves."""

    def feature_map(self, x: Tensor, person: Tensor) -> Tensor:
        """[B, M, T, V, C + 1], as it comes: nobody is all zero."""
        return x


Encoder = ShiftGCN | Joints


HELD_BYTES = 4 << 30  # of feature maps
MOST_BLOCKS = 64  # of an encoder that is read from a file


def encode(
    dataset: Dataset, protocol: str, skeletons: str, params: EncodeParams, on_epoch: OnEpoch = ignore, jobs: int = 1
) -> Path:
    """Train every encoder of (protocol, skeletons): both phases, all seeds, `jobs` at a time. Returns the folder.

    A killed run goes on from cache/state. Raises PosebridgeError, before anything is computed, with all that is
    missing.
    """
    needs = Needs(dataset.missing)
    split = need_split(needs, dataset, protocol)
    need_parts(needs, dataset, split)
    need_extraction(needs, dataset, skeletons, split)
    needs.require()
    folder = encoder_folder(dataset.cache, dataset.name, protocol, skeletons)
    state = dataset.cache / "state" / folder.relative_to(dataset.cache)
    each_seed(partial(encode_seed, dataset, protocol, skeletons, params, folder, state), params.seeds, jobs, on_epoch)
    remove_states(state, params.seeds)
    return folder


def encode_seed(
    dataset: Dataset, protocol: str, skeletons: str, params: EncodeParams, folder: Path, state: Path, seed: int,
    on_epoch: OnEpoch,
) -> None:  # fmt: skip
    """The encoders of both phases with one seed, into `folder`; how far they have come stands in `state`."""
    split, reader = dataset.split(protocol), dataset.reader(skeletons)
    for name in PHASES:
        phase = training_phase(name, split, dataset.clips)
        samples = load_samples([clip.clip_id for clip in phase.train], reader)
        labels = label_rows(phase.train, samples.clip_ids, phase.classes)
        learnt = trained_on(dataset, skeletons, phase)
        key = fingerprint(learnt, asdict(params), seed)
        encoder, progress = train_encoder(
            samples, labels, len(phase.classes), params, seed,
            state=state / f"seed-{seed}-{name}.safetensors", key=key,
            on_epoch=partial(on_epoch, f"seed {seed}, {name}"), what=f"Encoder, seed {seed}, {name}",
        )  # fmt: skip
        path = folder / f"seed-{seed}" / f"{name}.safetensors"
        values = {
            "weights_sha256": save_tensors(encoder.state_dict(), path),
            "joints": samples.keypoints.shape[3],
            "inputs": samples.keypoints.shape[4] + 1,
            "classes": phase.classes,
            "width": params.width,
            "blocks": params.blocks,
            "trained_on": learnt,
            "losses": [loss if math.isfinite(loss) else None for loss in progress.losses],
            "seconds": round(progress.seconds, 2),
        }
        write_for_people(path.with_suffix(".json"), json.dumps(seal(values), indent=1).encode() + b"\n")


def train_encoder(
    samples: Samples, labels: Tensor, classes: int, params: EncodeParams, seed: int,
    *, state: Path | None = None, key: str = "", on_epoch: Callable[[Progress], None] = ignore,
    what: str = "Encoder",
) -> tuple[ShiftGCN, Progress]:  # fmt: skip
    """Cross-entropy over the classes, on augmented skeletons. labels [N] in 0..classes-1."""
    x = normalise(samples.keypoints, samples.scores, samples.person_valid, samples.graph)  # [N, M, T, V, C + 1]
    person = samples.person_valid.any(-1)  # [N, M]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = ShiftGCN(x.shape[3], classes, params.width, params.blocks, params.dropout, x.shape[4])

    def loss(rows: Tensor, generator: torch.Generator) -> Tensor:
        scores = encoder(augment(x[rows], generator, samples.graph), person[rows])
        return F.cross_entropy(scores, labels[rows], label_smoothing=0.1)

    loop = Loop(
        params.epochs,
        params.batch_size,
        params.lr,
        params.weight_decay,
        ema=params.ema,
        seed=seed,
        bfloat16=params.bfloat16,
    )
    progress = fit(encoder, loss, len(x), loop, state=state, fingerprint=key, on_epoch=on_epoch, what=what)
    return encoder, progress


def encoder_folder(cache: Path, dataset: str, protocol: str, skeletons: str) -> Path:
    """Where the encoders of (dataset, protocol, skeletons) lie."""
    check_name(skeletons, "recipe")
    return cache / "encoders" / check_name(dataset, "data set") / check_name(protocol, "protocol") / skeletons


def trained_on(dataset: Dataset, skeletons: str, phase: Phase) -> str:
    """What an encoder has learnt from: the extraction, its clips with their labels, the classes."""
    reader = dataset.reader(skeletons)
    there = set(reader.clip_ids)
    clips = [(clip.clip_id, clip.label) for clip in phase.train if clip.clip_id in there]
    return fingerprint(reader.fingerprint, phase.classes, clips)


def load_encoder(
    dataset: Dataset, protocol: str, skeletons: str, seed: int, phase: str, unchanged: bool = True
) -> ShiftGCN:
    """A trained encoder in eval mode. Raises PosebridgeError naming the command that makes it anew.

    `unchanged` refuses one that has learnt from other clips or classes than the protocol's phase has now: test clips
    might be among them. Only who tests nothing may do without.
    """
    path = encoder_folder(dataset.cache, dataset.name, protocol, skeletons) / f"seed-{seed}" / f"{phase}.safetensors"
    remedy = f"run `posebridge encode --dataset {dataset.name} --protocol {protocol} --skeletons {skeletons}`"
    if not path.is_file():
        raise PosebridgeError(f"{path} is missing; {remedy}.")
    values = read_sealed(path.with_suffix(".json"), f"{remedy} again")
    if unchanged:
        now = training_phase(phase, dataset.split(protocol), dataset.clips)
        if values.get("trained_on") != trained_on(dataset, skeletons, now):
            raise PosebridgeError(
                f"{path} was trained on other clips, classes or another extraction than {protocol} has now, maybe on "
                f"its test clips; {remedy} again."
            )
    weights = load_tensors(path, values.get("weights_sha256"), f"{remedy} again")
    try:
        blocks, inputs = tuple(values["blocks"]), values["inputs"]
        if sum(blocks) > MOST_BLOCKS:
            raise ValueError
        sizes = (values["joints"], len(values["classes"]), values["width"], blocks, 0.0, inputs)
        with torch.device("meta"):  # takes no memory, whatever the file says
            wanted = ShiftGCN(*sizes).state_dict()
        if {key: value.shape for key, value in wanted.items()} != {key: value.shape for key, value in weights.items()}:
            raise ValueError
        encoder = ShiftGCN(*sizes)
        encoder.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError):
        raise PosebridgeError(f"{path} is not the encoder that the .json beside it tells of; {remedy} again.") from None
    return encoder.eval().requires_grad_(False)


@dataclass(frozen=True)
class FeatureTable:
    """Maps of N clips, in R views (the first as seen, the others augmented), with the cues that go with them.

    The maps are held, or made anew for every batch where they would not fit (a view of all of NTU-120 is 18 GB).
    """

    encoder: Encoder
    inputs: Tensor | None  # [R, N, M, T, V, C + 1] what maps are made of; None where they are held
    maps: Tensor | None  # [R, N, 256, T', V] float32; of `Joints`, [R, N, M, T, V, C + 1]
    person: Tensor  # [N, M] bool
    mirrored: Tensor  # [R, N] bool
    samples: Samples
    anchor_mirror: tuple[int, ...] = ()  # where each anchor's cue is found in a mirrored clip

    def batch(self, rows: Tensor, views: Tensor | None = None) -> Features:
        """Features of clips `rows` [B], each in its view of `views` [B]; the first view where none is named."""
        views = torch.zeros_like(rows) if views is None else views
        cues, cue_scores = self.samples.cues, self.samples.cue_scores
        if cues is not None and cue_scores is not None:
            cues, cue_scores = cues[rows], cue_scores[rows]
            turned = self.mirrored[views, rows]
            if turned.any():
                order = list(self.anchor_mirror)
                cues[turned] = cues[turned][..., order, :]  # `cues` is a copy already
                cue_scores[turned] = cue_scores[turned][..., order]
        return Features(self._maps(rows, views), self.samples.quality[rows], cues, cue_scores)

    @torch.no_grad()
    def _maps(self, rows: Tensor, views: Tensor) -> Tensor:
        if self.maps is not None:
            return self.maps[views, rows]
        assert self.inputs is not None
        return self.encoder.feature_map(self.inputs[views, rows], self.person[rows])


@torch.no_grad()
def feature_table(
    encoder: Encoder, samples: Samples, anchors: tuple[str, ...] = (), views: int = 1, seed: int = 0,
    held_bytes: int = HELD_BYTES,
) -> FeatureTable:  # fmt: skip
    """The frozen encoder's maps, held in memory up to `held_bytes`.

    `views` > 1 adds augmented ones, for training only; one view is deterministic.
    """
    x = normalise(samples.keypoints, samples.scores, samples.person_valid, samples.graph)
    person = samples.person_valid.any(-1)
    generator = torch.Generator().manual_seed(seed)
    inputs, mirrored = [x], torch.zeros(views, len(samples), dtype=torch.bool)
    for view in range(1, views):
        mirrored[view] = torch.rand(len(samples), generator=generator) < 0.5
        inputs.append(augment(x, generator, samples.graph, mirrored=mirrored[view]))
    order = tuple(anchors.index(other_side(name)) for name in anchors)
    one = encoder.feature_map(x[:1], person[:1])
    if one.nbytes * views * len(samples) > held_bytes:
        return FeatureTable(encoder, torch.stack(inputs), None, person, mirrored, samples, order)
    maps = [
        torch.cat([encoder.feature_map(a, b) for a, b in zip(seen.split(64), person.split(64), strict=True)])
        for seen in inputs
    ]
    return FeatureTable(encoder, None, torch.stack(maps), person, mirrored, samples, order)
