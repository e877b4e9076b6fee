"""Training a run in two phases: values are chosen in the first, on pseudo-unseen classes, and only used in the second.

Reads extractions, encoders, a text bank and a protocol; writes cache/models/<dataset>/<protocol>/<run>/seed-<k>/
{select,final}.safetensors, selection.json and params.yaml. No test clip is within reach of this file.
Command: posebridge train --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.files.durable import write_for_people
from pipeline.files.hashing import fingerprint
from pipeline.files.names import check_name
from pipeline.files.tensors import load_tensors, save_tensors
from pipeline.learn.dataset import Dataset, label_rows
from pipeline.learn.encode import Encoder, Joints, feature_table, load_encoder
from pipeline.learn.features import Samples
from pipeline.learn.loop import Loop, OnEpoch, Progress, fit, ignore, remove_states
from pipeline.learn.preflight import Needs, need_parts, need_run, need_split
from pipeline.learn.run import Opened, open_run, write_resolved
from pipeline.learn.score import embed_table
from pipeline.learn.seeds import each_seed
from pipeline.learn.select import PhaseModel, choose_adaptation, choose_values
from pipeline.manifest.texts import read_texts, texts_path
from pipeline.methods import METHODS, find_adaptation, find_method
from pipeline.methods.adaptation import Adaptation
from pipeline.methods.base import EmbeddingMethod, Method
from pipeline.params import Params, RunParams
from pipeline.protocol.guards import require_clips_of_phase
from pipeline.protocol.splits import Split
from pipeline.protocol.training_set import PHASES, Phase, training_phase
from pipeline.text.encoder import split_variant


def train(
    dataset: Dataset, protocol: str, run_name: str, run: RunParams, params: Params, on_epoch: OnEpoch = ignore,
    jobs: int = 1,
) -> Path:  # fmt: skip
    """Train `run` on `protocol`: both phases, every seed, `jobs` of them at a time. Returns the folder.

    A killed run goes on from cache/state. Raises PosebridgeError, before anything is computed, with all that is
    missing.
    """
    opened = require_for_training(dataset, protocol, run, params)
    folder = model_folder(dataset.cache, dataset.name, protocol, run_name)
    state = dataset.cache / "state" / folder.relative_to(dataset.cache)
    each_seed(partial(train_seed, opened, run_name, params, folder, state), params.seeds(run), jobs, on_epoch)
    remove_states(state, params.seeds(run))
    return folder


def require_for_training(dataset: Dataset, protocol: str, run: RunParams, params: Params) -> Opened:
    """What a run reads, opened. Raises PosebridgeError with all that training it, and then testing it, will lack."""
    needs = Needs(dataset.missing)
    split = need_split(needs, dataset, protocol)
    need_parts(needs, dataset, split)
    opened = need_run(needs, dataset, protocol, run, split)
    need_encoders(needs, dataset, split, protocol, run, params.seeds(run), PHASES)
    needs.require()
    return opened or open_run(dataset, protocol, run)


def need_encoders(
    needs: Needs, dataset: Dataset, split: Split | None, protocol: str, run: RunParams, seeds: Sequence[int],
    phases: Sequence[str],
) -> None:  # fmt: skip
    """The skeleton encoders below the run's method, if it has none of its own."""
    if run.method in METHODS and not find_method(run.method).end_to_end:
        skeletons = run.recipe if run.skeletons == "estimated" else run.skeletons
        for seed in seeds:
            for phase in phases:
                needs.get(load_encoder, dataset, protocol, skeletons, seed, phase, split is not None and dataset.clips)


def train_seed(
    opened: Opened, run_name: str, params: Params, folder: Path, state: Path, seed: int, on_epoch: OnEpoch
) -> None:
    """Both phases of one seed, into `folder`; how far it has come stands in `state`."""
    dataset, run, split = opened.dataset, opened.run, opened.split

    def go(name: str, epochs: int | None) -> tuple[PhaseModel, Progress]:
        phase = training_phase(name, split, dataset.clips)
        samples = opened.samples((*phase.train, *phase.held_out, *phase.pseudo_unseen))
        return train_phase(
            opened, phase, samples, skeleton_encoder(opened, seed, name), params, seed, epochs,
            state=state / f"seed-{seed}-{name}.safetensors", on_epoch=partial(on_epoch, f"seed {seed}, {name}"),
        )  # fmt: skip

    select, progress = go("select", None)
    selection = {"epochs": progress.best_epoch} | choose_values(select, split) | {"scores_by_epoch": progress.scores}
    if run.adapt:
        selection["adapt"] = choose_adaptation(select, split, run.adapt)
    chooser = select.method
    del select  # its clips may leave the memory
    final, then = go("final", progress.best_epoch)
    selection["seconds"] = round(progress.seconds + then.seconds, 2)
    selection["trained_on"] = trained_on(opened, final.phase)

    place = folder / f"seed-{seed}"
    selection["weights_sha256"] = {
        "select": save_tensors(chooser.state_dict(), place / "select.safetensors"),
        "final": save_tensors(final.method.state_dict(), place / "final.safetensors"),
    }
    write_for_people(place / "selection.json", json.dumps(selection, indent=1).encode() + b"\n")
    write_resolved(place / "params.yaml", dataset.name, split.protocol, run_name, run, params, seed)


def train_phase(
    opened: Opened, phase: Phase, samples: Samples, encoder: Encoder, params: Params, seed: int, epochs: int | None,
    *, judge: Callable[[PhaseModel], float] | None = None, state: Path | None = None,
    on_epoch: Callable[[Progress], None] = ignore,
) -> tuple[PhaseModel, Progress]:  # fmt: skip
    """Train one phase for at most `epochs` (None: as many as the method's schedule or `train` says).

    `judge` scores every epoch, and the best one's weights are kept. The selection phase has one unless told otherwise:
    the area under the seen-unseen curve of clips kept out of training, the pseudo-unseen ones among them.
    """
    config = params.train
    require_clips_of_phase(samples.clip_ids, (*phase.train, *phase.held_out, *phase.pseudo_unseen))
    ids = {clip.clip_id for clip in phase.train}
    train_rows = torch.tensor([row for row, clip_id in enumerate(samples.clip_ids) if clip_id in ids])
    labels = label_rows(phase.train, [samples.clip_ids[row] for row in train_rows], phase.classes)
    table = feature_table(encoder, samples, opened.shapes.anchors, views=config.views, seed=seed)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method, words = new_method(opened, phase.classes)
    slots = method.text_slots
    text = opened.bank.take(phase.classes, slots)  # [C, K, d_t] of the classes trained on, and of no other
    method.see_text(text)
    model = PhaseModel(phase, method, table, lambda classes: opened.bank.take(classes, slots))

    def loss(rows: Tensor, generator: torch.Generator) -> Tensor:
        views = torch.randint(config.views, (len(rows),), generator=generator)
        return method.loss(table.batch(train_rows[rows], views), labels[rows], text)

    def ausuc(model: PhaseModel) -> float:
        return model.stacking(opened.split).ausuc()

    select = phase.name == "select"
    judge = judge or (ausuc if select else None)
    judged = opened.bank.take(opened.split.seen, slots) if select else text
    loop = Loop(
        config.epochs, config.batch_size, config.lr, config.weight_decay, cosine=False, ema=config.ema, seed=seed,
        patience=config.patience if select else 0, bfloat16=config.bfloat16,
    )  # fmt: skip
    loop = dataclasses.replace(loop, **method.schedule())
    planned = loop.epochs
    loop = dataclasses.replace(loop, epochs=planned if epochs is None else epochs)
    key = fingerprint(
        opened.fingerprints, opened.bank.encoder_sha256, hash_of(text), hash_of(judged), words, digest(encoder),
        samples.clip_ids, dataclasses.asdict(phase), dataclasses.asdict(opened.run), dataclasses.asdict(config),
        dataclasses.asdict(loop),
    )  # fmt: skip

    def tell_progress(progress: Progress) -> None:
        method.progress = progress.epoch / planned

    progress = fit(
        method, loss, len(train_rows), loop, validate=judge and partial(judge, model), state=state, fingerprint=key,
        on_epoch=on_epoch, before_epoch=tell_progress, what=f"{opened.run.method}, seed {seed}, {phase.name}",
    )  # fmt: skip
    if isinstance(method, EmbeddingMethod):
        method.finish(embed_table(method, table, train_rows), labels, text)
    return model, progress


def skeleton_encoder(opened: Opened, seed: int, phase: str, unchanged: bool = True) -> Encoder:
    """The frozen encoder below a run's method; the joints themselves for a method that has its own. `unchanged` as in
    `load_encoder`.
    """
    if find_method(opened.run.method).end_to_end:
        return Joints().eval()
    return load_encoder(opened.dataset, opened.split.protocol, opened.skeletons, seed, phase, unchanged)


def trained_on(opened: Opened, phase: Phase) -> str:
    """What a method has learnt from: extractions, clips with their labels, classes and their descriptions."""
    text = hash_of(opened.bank.embeddings[list(phase.classes)])
    return fingerprint(opened.fingerprints, phase.classes, [(c.clip_id, c.label) for c in phase.train], text)


def hash_of(tensor: Tensor) -> str:
    """sha256 of its bytes."""
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def new_method(opened: Opened, classes: Sequence[int]) -> tuple[Method, list[dict[str, str]]]:
    """A fresh method for these classes to be trained on, and the words of theirs that it has seen."""
    method = opened.method(len(classes))
    words = class_words(opened, classes, method.word_slots)
    method.see_words(words)
    return method, words


def class_words(opened: Opened, classes: Sequence[int], slots: Sequence[str]) -> list[dict[str, str]]:
    """The texts of these classes, and of no other, in these slots; a slot that a class lacks is absent."""
    if not slots:
        return []
    variant = split_variant(opened.run.text)[1]
    _, texts = read_texts(texts_path(opened.dataset.folder, variant), opened.split.class_names)
    return [{slot: texts[c, slot] for slot in slots if (c, slot) in texts} for c in classes]


def digest(encoder: Encoder) -> list[float]:
    """A few numbers that change when any weight does."""
    return [float(value.double().abs().sum()) for value in encoder.state_dict().values()]


def model_folder(cache: Path, dataset: str, protocol: str, run: str) -> Path:
    """Where the models of a run lie."""
    check_name(run, "run")
    return cache / "models" / check_name(dataset, "data set") / check_name(protocol, "protocol") / run


def load_method(
    opened: Opened, protocol: str, run_name: str, seed: int, unchanged: bool = True
) -> tuple[Method, dict[str, Any]]:
    """The final method of a seed with its chosen values set, in eval mode, and its selection.

    `unchanged` refuses one that has learnt from other clips, classes or descriptions than the protocol has now: test
    clips might be among them. Only who tests nothing may do without.
    """
    place = model_folder(opened.dataset.cache, opened.dataset.name, protocol, run_name) / f"seed-{seed}"
    path = place / "final.safetensors"
    remedy = f"run `posebridge train --dataset {opened.dataset.name} --protocol {protocol} --run {run_name}`"
    if not path.is_file() or not (place / "selection.json").is_file():
        raise PosebridgeError(f"{path} is missing; {remedy}.")
    selection = read_selection(place / "selection.json", f"{remedy} again")
    if unchanged:
        phase = training_phase("final", opened.split, opened.dataset.clips)
        if selection.get("trained_on") != trained_on(opened, phase):
            raise PosebridgeError(
                f"{path} was trained on other clips, classes, texts or extractions than {protocol} has now, maybe on "
                f"its test clips; {remedy} again."
            )
    method = opened.method(len(opened.split.seen))
    try:
        method.load_state_dict(load_tensors(path, selection["weights_sha256"].get("final"), f"{remedy} again"))
    except RuntimeError:
        raise PosebridgeError(
            f"{path} is of other flags than the run {run_name!r} has now; run `posebridge train` again."
        ) from None
    for name in method.choices:
        setattr(method, name, chosen_value(selection, name, place / "selection.json", f"{remedy} again"))
    return method.eval().requires_grad_(False), selection


def read_selection(path: Path, remedy: str) -> dict[str, Any]:
    """What the selection phase chose. Raises PosebridgeError, ending in `remedy`, where it is damaged."""
    try:
        selection = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise PosebridgeError(f"{path} cannot be read ({type(error).__name__}); {remedy}.") from None
    if not isinstance(selection, dict) or not isinstance(selection.get("weights_sha256"), dict):
        raise PosebridgeError(f"{path} is damaged, or of an earlier version of this program; {remedy}.")
    chosen_value(selection, "gamma", path, remedy)
    return selection


def chosen_value(values: dict[str, Any], name: str, path: Path, remedy: str) -> float:
    """A value of a selection; raises PosebridgeError where it is no finite number."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise PosebridgeError(f"{path} is damaged: {name} should be a number, but is {str(value)[:40]!r}; {remedy}.")
    return value


def load_adaptation(name: str, method: Method, selection: dict[str, Any]) -> Adaptation:
    """The adaptation of a trained run's method, with the values that its selection phase chose."""
    adaptation = find_adaptation(name)(method)
    values = selection.get("adapt")
    if not isinstance(values, dict) or values.get("by") != name:
        raise PosebridgeError(f"This run was trained without `adapt: {name}`; run `posebridge train` again.")
    for attribute in adaptation.choices:
        path = Path("selection.json")
        setattr(adaptation, attribute, chosen_value(values, attribute, path, "run `posebridge train` again"))
    return adaptation
