"""Training a run in two phases: values are chosen in the first, on pseudo-unseen classes, and only used in the second.

Reads extractions, encoders, a text bank and a protocol; writes cache/models/<dataset>/<protocol>/<run>/seed-<k>/
{select,final}.safetensors, selection.json and params.yaml. No test clip is within reach of this file.
Command: posebridge train --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.cache.sealed import seal
from pipeline.files.device import CPU, memory_for, spread, told_training
from pipeline.files.durable import write_for_people
from pipeline.files.hashing import fingerprint
from pipeline.files.tensors import save_tensors
from pipeline.learn.across import under
from pipeline.learn.cells import Cell
from pipeline.learn.confidence import calibrate
from pipeline.learn.dataset import Dataset, train_labels
from pipeline.learn.feature_table import Encoder, StreamedTable, Table, feature_table
from pipeline.learn.features import Samples, StoredSamples
from pipeline.learn.loop import Loop, OnEpoch, Progress, fit, ignore, remove_states
from pipeline.learn.needs import Needs, need_parts, need_split
from pipeline.learn.preflight import need_encoders, need_run
from pipeline.learn.run import Opened, skeletons_of, write_resolved
from pipeline.learn.score import BATCH, embed_batches
from pipeline.learn.seeds import each_seed
from pipeline.learn.select import PhaseModel, choose_adaptation, choose_values
from pipeline.learn.trained import (
    encoder_sha256,
    hash_of,
    method_and_flags,
    method_learnt_from,
    model_folder,
    settings_of,
    skeleton_encoder,
)
from pipeline.methods.base import EmbeddingMethod, Method, SolvedMethod
from pipeline.methods.prototypes import class_means
from pipeline.params import Params, RunParams
from pipeline.protocol.guards import require_clips_of_phase
from pipeline.protocol.training_set import PHASES, Phase, training_phase
from pipeline.skeleton.hide import Hiding


def train(
    dataset: Dataset, protocol: str, run_name: str, run: RunParams, params: Params, on_epoch: OnEpoch = ignore,
    jobs: int = 1, devices: Sequence[torch.device] = (CPU,), seeds: Sequence[int] = (),
) -> Path:  # fmt: skip
    """Train `run` on `protocol`: both phases, every seed or those given, `jobs` of them at a time, on `devices` in
    turn. Returns the folder.

    A killed run goes on from cache/state. Raises PosebridgeError, before anything is computed, with all that is
    missing.
    """
    seeds = seeds or params.seeds(run)
    opened = require_for_training(dataset, protocol, run, seeds)
    folder = model_folder(dataset.cache, dataset.name, protocol, run_name)
    state = dataset.cache / "state" / folder.relative_to(dataset.cache)
    work = partial(train_seed, opened, run_name, params, folder, state, spread(devices, seeds))
    each_seed(work, seeds, jobs, on_epoch)
    remove_states(state, seeds)
    return folder


def train_cell(dataset: Dataset, cell: Cell, params: Params, device: torch.device) -> Path:
    """`train` for one seed, anywhere; see learn/cells.py."""
    run = params.runs[cell.name]
    return train(dataset, cell.protocol, cell.name, run, params, devices=(device,), seeds=(cell.seed,))


def require_for_training(dataset: Dataset, protocol: str, run: RunParams, seeds: Sequence[int]) -> Opened:
    """What a run reads, opened. Raises PosebridgeError with all that training these seeds, and then testing them, will
    lack.
    """
    run = run.of(protocol)
    dataset = under(dataset, protocol).of(skeletons_of(run))
    needs = Needs(dataset.missing)
    split = need_split(needs, dataset, protocol)
    need_parts(needs, dataset, split, "train", skeletons_of(run))
    opened = need_run(needs, dataset, protocol, run, split)
    need_encoders(needs, dataset, split, protocol, run, seeds, PHASES)
    needs.require()
    assert opened is not None, "what it lacks has been told"
    return opened


@memory_for("The run")
def train_seed(
    opened: Opened, run_name: str, params: Params, folder: Path, state: Path, devices: Mapping[int, torch.device],
    seed: int, on_epoch: OnEpoch,
) -> None:  # fmt: skip
    """Both phases of one seed, into `folder`; how far it has come stands in `state`."""
    dataset, run, split, device = opened.dataset, opened.run, opened.split, devices[seed]

    def go(name: str, epochs: int | None) -> tuple[PhaseModel, Progress]:
        phase = training_phase(name, split, dataset.clips)
        samples = opened.samples((*phase.train, *phase.held_out, *phase.pseudo_unseen))
        return train_phase(
            opened, phase, samples, skeleton_encoder(opened, seed, name).to(device), params, seed, epochs,
            state=state / f"seed-{seed}-{name}.safetensors", on_epoch=partial(on_epoch, f"seed {seed}, {name}"),
            device=device,
        )  # fmt: skip

    select, progress = go("select", None)
    selection = {"epochs": progress.best_epoch} | choose_values(select, split) | {"scores_by_epoch": progress.scores}
    if run.adapt:
        selection["adapt"] = choose_adaptation(select, split, run.adapt)
    selection["confidence"] = calibrate(select, named_only(opened, select), split)
    chooser = select.method
    del select  # its clips may leave the memory
    final, then = go("final", progress.best_epoch)
    selection["seconds"] = round(progress.seconds + then.seconds, 2)
    selection |= told_training(device, params.train.bfloat16, params.train.tf32)
    place = folder / f"seed-{seed}"
    selection["settings"] = settings = settings_of(opened, params.train, seed)
    write_trained(opened, place, seed, final.phase, {"select": chooser, "final": final.method}, selection)
    write_resolved(place / "params.yaml", dataset.name, split.protocol, run_name, run, params, settings, seed)


def named_only(opened: Opened, model: PhaseModel) -> PhaseModel | None:
    """The same, asked with bare names, as for labels that nobody has described; None where the text bank has none."""
    text = bare_text(opened, len(model.method.text_slots))
    return None if text is None else dataclasses.replace(model, text=text)


def bare_text(opened: Opened, slots: int) -> Callable[[Sequence[int]], Tensor] | None:
    """Classes to their bare names in all of so many slots, [C, K, d_t]; None where the text bank has no names."""
    bank = opened.bank
    if "label" not in bank.slots or not bank.mask[:, bank.slots.index("label")].all():
        return None
    return lambda classes: bank.take(classes, ["label"]).expand(-1, slots, -1)


def write_trained(
    opened: Opened, place: Path, seed: int, final: Phase, methods: Mapping[str, Method], chosen: Mapping[str, Any]
) -> None:
    """The weights of the phases' methods, and selection.json: what was `chosen`, and what `load_method` compares."""
    selection = {
        **chosen,
        "trained_on": method_learnt_from(opened, final),
        "run": method_and_flags(opened.run),
        "weights_sha256": {
            "encoder": encoder_sha256(opened, seed),
            **{name: save_tensors(m.state_dict(), place / f"{name}.safetensors") for name, m in methods.items()},
        },
    }
    write_for_people(place / "selection.json", json.dumps(seal(selection), indent=1).encode() + b"\n")


def train_phase(
    opened: Opened, phase: Phase, samples: Samples | StoredSamples, encoder: Encoder, params: Params, seed: int,
    epochs: int | None,
    *, judge: Callable[[PhaseModel], float] | None = None, state: Path | None = None,
    on_epoch: Callable[[Progress], None] = ignore, device: torch.device = CPU,
) -> tuple[PhaseModel, Progress]:  # fmt: skip
    """Train one phase for at most `epochs` (None: as many as the method's schedule or `train` says), on `device`, where
    the encoder lies.

    `judge` scores every epoch, and the best one's weights are kept. The selection phase has one unless told otherwise:
    `PhaseModel.figure`, of clips kept out of training.
    """
    config = params.train
    require_clips_of_phase(samples.clip_ids, (*phase.train, *phase.held_out, *phase.pseudo_unseen))
    ids = {clip.clip_id for clip in phase.train}
    train_rows = torch.tensor([row for row, clip_id in enumerate(samples.clip_ids) if clip_id in ids])
    labels = train_labels(phase, [samples.clip_ids[row] for row in train_rows], opened.split.class_names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method, words = new_method(opened, phase.classes)
    method.to(device)
    views_of = 1 if opened.imported or isinstance(method, SolvedMethod) else config.views  # neither is augmented
    table = feature_table(
        encoder, samples, opened.shapes.anchors, views_of, seed, device=device, swap=config.swap_persons,
        hiding=Hiding(config.hidden_joints, config.hidden_frames),
    )
    slots = method.text_slots
    text = opened.bank.take(phase.classes, slots).to(device)  # [C, K, d_t] of the classes trained on, and of no other
    method.see_text(text)
    model = PhaseModel(phase, method, table, lambda classes: opened.bank.take(classes, slots))

    def load(rows: Tensor) -> Samples:
        assert isinstance(table, StreamedTable)
        return table.load(train_rows[rows])

    def loss(rows: Tensor, generator: torch.Generator, loaded: Samples | None = None) -> Tensor:
        views = torch.randint(views_of, (len(rows),), generator=generator, device=generator.device)
        if isinstance(table, StreamedTable):
            features = table.features(loaded or load(rows), views, generator)
        else:
            features = table.batch(train_rows[rows], views)
        return method.loss(features, labels[rows], text)

    select = phase.name == "select"
    judge = judge or ((lambda model: model.figure(opened.split)) if select else None)
    judged = opened.bank.take(opened.split.seen, slots) if select else text
    loop = Loop(
        config.epochs, config.batch_size, config.lr, config.weight_decay, cosine=False, ema=config.ema, seed=seed,
        patience=config.patience if select else 0, smoothing=config.smoothing, bfloat16=config.bfloat16,
        tf32=config.tf32,
    )  # fmt: skip
    loop = dataclasses.replace(loop, **method.schedule())
    planned = loop.epochs
    loop = dataclasses.replace(loop, epochs=planned if epochs is None else epochs)
    parts = (phase.train, phase.held_out, phase.pseudo_unseen)
    learnt = [[(clip.clip_id, clip.label) for clip in clips] for clips in parts]
    key = fingerprint(
        opened.fingerprints, opened.bank.encoder_sha256, hash_of(text), hash_of(judged), words,
        [hash_of(weights) for weights in encoder.state_dict().values()], samples.clip_ids, phase.name, phase.classes,
        learnt, dataclasses.asdict(opened.run), dataclasses.asdict(config), dataclasses.asdict(loop),
    )  # fmt: skip

    def tell_progress(progress: Progress) -> None:
        method.progress = progress.epoch / planned

    if isinstance(method, SolvedMethod):
        return model, solved(method, table, train_rows, labels, text, on_epoch)
    if isinstance(method, EmbeddingMethod):
        method.before(table.batches(train_rows.split(BATCH)), labels.to(device), text)
    progress = fit(
        method, loss, len(train_rows), loop, load=load if isinstance(table, StreamedTable) else None,
        validate=judge and partial(judge, model), state=state, fingerprint=key, on_epoch=on_epoch,
        before_epoch=tell_progress, what=f"{opened.run.method}, seed {seed}, {phase.name}",
    )  # fmt: skip
    if isinstance(method, EmbeddingMethod):
        means = class_means(embed_batches(method, table, train_rows), labels.to(device), len(text))
        method.finish(means, text)
    return model, progress


def solved(
    method: SolvedMethod, table: Table, rows: Tensor, labels: Tensor, text: Tensor,
    on_epoch: Callable[[Progress], None],
) -> Progress:  # fmt: skip
    """Solve a method by the clips trained on: one epoch, as far as anybody counts."""
    started = time.process_time()
    method.eval().solve(table.batches(rows.split(BATCH)), labels, text)
    progress = Progress(epoch=1, best_epoch=1, planned=1, seconds=time.process_time() - started)
    on_epoch(progress)
    return progress


def new_method(opened: Opened, classes: Sequence[int]) -> tuple[Method, list[dict[str, str]]]:
    """A fresh method for these classes to be trained on, and the words of theirs that it has seen."""
    method = opened.method(len(classes))
    words = opened.words(classes, method.word_slots)
    method.see_words(words)
    return method, words
