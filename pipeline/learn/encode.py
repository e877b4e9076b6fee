"""Training skeleton encoders, for each seed and phase of a protocol.

Reads an extraction and a protocol, writes
cache/encoders/<dataset>/<protocol>/<skeletons>/seed-<k>/{select,final}.safetensors with a .json beside each. An
encoder sees train-part clips of its phase's classes only. Command: posebridge encode --dataset skelgap-mini
--protocol compositional_18_6 --skeletons refined
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.cache.sealed import seal
from pipeline.errors import PosebridgeError
from pipeline.files.device import CPU, memory_for, spread, told_training
from pipeline.files.durable import write_for_people
from pipeline.files.hashing import fingerprint
from pipeline.files.tensors import save_tensors
from pipeline.learn.across import under
from pipeline.learn.cells import Cell
from pipeline.learn.dataset import Dataset, train_labels
from pipeline.learn.encoders import encoder_folder, encoder_learnt_from
from pipeline.learn.features import Samples, StoredSamples, open_samples
from pipeline.learn.loop import Loop, OnEpoch, Progress, fit, ignore, remove_states
from pipeline.learn.needs import Needs, is_imported, need_extraction, need_parts, need_split
from pipeline.learn.seeds import each_seed
from pipeline.params import EncodeParams, Params
from pipeline.protocol.training_set import PHASES, Phase, training_phase
from pipeline.skeleton.augment import augment
from pipeline.skeleton.base import SkeletonEncoder
from pipeline.skeleton.encoders import ENCODERS
from pipeline.skeleton.hide import Hiding
from pipeline.skeleton.persons import in_order, random_order


def encode(
    dataset: Dataset, protocol: str, skeletons: str, params: EncodeParams, on_epoch: OnEpoch = ignore, jobs: int = 1,
    devices: Sequence[torch.device] = (CPU,), seeds: Sequence[int] = (),
) -> Path:  # fmt: skip
    """Train every encoder of (protocol, skeletons): both phases, all seeds or those given, `jobs` at a time, on
    `devices` in turn. Returns the folder.

    A killed run goes on from cache/state. Raises PosebridgeError, before anything is computed, with all that is
    missing.
    """
    dataset = require_for_encoding(dataset, protocol, skeletons)
    folder = encoder_folder(dataset.cache, dataset.name, protocol, skeletons)
    state = dataset.cache / "state" / folder.relative_to(dataset.cache)
    seeds = seeds or params.seeds
    work = partial(encode_seed, dataset, protocol, skeletons, params, folder, state, spread(devices, seeds))
    each_seed(work, seeds, jobs, on_epoch)
    remove_states(state, seeds)
    return folder


def encode_cell(dataset: Dataset, cell: Cell, params: Params, device: torch.device) -> Path:
    """`encode` for one seed, anywhere; see learn/cells.py."""
    return encode(dataset, cell.protocol, cell.name, params.encode, devices=(device,), seeds=(cell.seed,))


def require_for_encoding(dataset: Dataset, protocol: str, skeletons: str) -> Dataset:
    """The data set as the protocol asks for. Raises PosebridgeError with all that `encode` lacks, and for what needs no
    encoder.
    """
    dataset = under(dataset, protocol)
    if is_imported(dataset, skeletons):
        raise PosebridgeError(
            f"{skeletons} holds imported features, which an encoder of others gave; go on with `posebridge train`."
        )
    needs = Needs(dataset.missing)
    split = need_split(needs, dataset, protocol)
    need_parts(needs, dataset, split, "train", skeletons)
    need_extraction(needs, dataset, skeletons, split)
    needs.require()
    return dataset


@memory_for("The encoders")
def encode_seed(
    dataset: Dataset, protocol: str, skeletons: str, params: EncodeParams, folder: Path, state: Path,
    devices: Mapping[int, torch.device], seed: int, on_epoch: OnEpoch,
) -> None:  # fmt: skip
    """The encoders of both phases with one seed, into `folder`; how far they have come stands in `state`."""
    split, reader, device = dataset.split(protocol), dataset.reader(skeletons), devices[seed]
    for name in PHASES:
        phase = training_phase(name, split, dataset.clips)
        samples = open_samples([clip.clip_id for clip in phase.train], reader)
        labels, one = train_labels(phase, samples.clip_ids, split.class_names), samples.take([0])
        learnt = encoder_learnt_from(dataset, skeletons, phase)
        key = fingerprint(learnt, asdict(params), seed)
        encoder, progress = train_encoder(
            samples, labels, len(phase.classes), params, seed,
            state=state / f"seed-{seed}-{name}.safetensors", key=key,
            on_epoch=partial(on_epoch, f"seed {seed}, {name}"), what=f"Encoder, seed {seed}, {name}",
            device=device,
        )  # fmt: skip
        told = {"losses": progress.losses, "seconds": round(progress.seconds, 2)}
        told |= told_training(device, params.bfloat16, params.tf32)
        path = folder / f"seed-{seed}" / f"{name}.safetensors"
        write_encoder(path, encoder, one.inputs[0].shape, phase, params, learnt, told)


def new_encoder(shape: Sequence[int], classes: int, params: EncodeParams) -> SkeletonEncoder:
    """An untrained one, for input [B, M, T, V, C + 1] of this shape."""
    _, persons, _, joints, inputs = shape
    made = ENCODERS[params.encoder]
    return made(joints, classes, params.width, params.blocks, params.dropout, inputs, persons)


def write_encoder(
    path: Path, encoder: SkeletonEncoder, shape: Sequence[int], phase: Phase, params: EncodeParams, learnt: str,
    told: Mapping[str, Any] = MappingProxyType({}),
) -> None:  # fmt: skip
    """The weights, and beside them as .json what `load_encoder` compares, with what else is to be `told`. `shape` is
    that of its input [B, M, T, V, C + 1].
    """
    _, persons, _, joints, inputs = shape
    values = {
        "weights_sha256": save_tensors(encoder.state_dict(), path),
        "settings": asdict(params),
        "encoder": params.encoder,
        "persons": persons,
        "joints": joints,
        "inputs": inputs,
        "classes": phase.classes,
        "width": params.width,
        "blocks": params.blocks,
        "trained_on": learnt,
        **told,
    }
    write_for_people(path.with_suffix(".json"), json.dumps(seal(values), indent=1).encode() + b"\n")


def train_encoder(
    samples: Samples | StoredSamples, labels: Tensor, classes: int, params: EncodeParams, seed: int,
    *, state: Path | None = None, key: str = "", on_epoch: Callable[[Progress], None] = ignore,
    what: str = "Encoder", device: torch.device = CPU,
) -> tuple[SkeletonEncoder, Progress]:  # fmt: skip
    """Cross-entropy over the classes, on augmented skeletons. labels [N] in 0..classes-1. It ends on `device`."""
    one, hiding = samples.take([0]), Hiding(params.hidden_joints, params.hidden_frames)
    held: tuple[Tensor, ...] = samples.to(device).inputs if isinstance(samples, Samples) else ()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = new_encoder(one.inputs[0].shape, classes, params).to(device)

    def load(rows: Tensor) -> Samples:
        return samples.take(rows.tolist()).to(device)

    def loss(rows: Tensor, generator: torch.Generator, loaded: Samples | None = None) -> Tensor:
        there = rows.to(device, non_blocking=True)
        x, person = loaded.inputs if loaded else [part[there] for part in held]  # [B, M, T, V, C + 1], [B, M]
        x = augment(x, generator, one.graph, hiding=hiding)
        if params.swap_persons and x.shape[1] > 1:
            x = in_order(x, random_order(person, generator))
        scores = encoder(x, person)
        return F.cross_entropy(scores, labels[rows].to(device, non_blocking=True), label_smoothing=0.1)

    loop = Loop(
        params.epochs,
        params.batch_size,
        params.lr,
        params.weight_decay,
        ema=params.ema,
        seed=seed,
        bfloat16=params.bfloat16,
        tf32=params.tf32,
    )
    progress = fit(
        encoder, loss, len(samples), loop, load=None if held else load, state=state, fingerprint=key,
        on_epoch=on_epoch, what=what,
    )  # fmt: skip
    return encoder, progress
