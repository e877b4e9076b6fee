"""Training a run in two phases: values are chosen in the first, on pseudo-unseen classes, and only used in the second.

Reads extractions, encoders, a text bank and a protocol; writes cache/models/<dataset>/<protocol>/<run>/seed-<k>/
{select,final}.safetensors, selection.json and params.yaml. No test clip is within reach of this file.
Command: posebridge train --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.dataset import Dataset, fingerprint, label_rows
from pipeline.encoding import FeatureTable, feature_table, load_encoder
from pipeline.errors import PosebridgeError
from pipeline.features import Samples
from pipeline.manifest import Clip
from pipeline.methods.base import Method
from pipeline.params import Params, RunParams
from pipeline.protocol.guards import require_eval_mode
from pipeline.protocol.gzsl import Stacking, harmonic
from pipeline.protocol.metrics import confusion_matrix, macro, micro
from pipeline.protocol.splits import Split
from pipeline.protocol.training_set import Phase, training_phase
from pipeline.runs import Opened, open_run, write_resolved
from pipeline.skeleton.shift_gcn import ShiftGCN
from pipeline.tensors import save_tensors
from pipeline.training import Loop, OnEpoch, Progress, fit, ignore


def train(
    dataset: Dataset, protocol: str, run_name: str, run: RunParams, params: Params, on_epoch: OnEpoch = ignore
) -> Path:
    """Train `run` on `protocol`: both phases, every seed. Returns the folder. A killed run goes on from cache/state."""
    opened = open_run(dataset, protocol, run)
    folder = model_folder(dataset.cache, dataset.name, protocol, run_name)
    state = dataset.cache / "state" / folder.relative_to(dataset.cache)
    phases = {name: training_phase(name, opened.split, dataset.clips) for name in ("select", "final")}
    wanted = {name: opened.samples((*p.train, *p.held_out, *p.pseudo_unseen)) for name, p in phases.items()}
    for seed in params.seeds(run):
        started = time.perf_counter()

        def go(name: str, epochs: int, seed: int = seed) -> tuple[PhaseModel, Progress]:
            encoder = load_encoder(dataset, protocol, opened.skeletons, seed, name)
            return train_phase(
                opened, phases[name], wanted[name], encoder, params, seed, epochs,
                state=state / f"seed-{seed}-{name}.safetensors", on_epoch=partial(on_epoch, f"seed {seed}, {name}"),
            )  # fmt: skip

        select, progress = go("select", params.train.epochs)
        selection = (
            {"epochs": progress.best_epoch} | choose_values(select, opened.split) | {"scores_by_epoch": progress.scores}
        )
        final, _ = go("final", progress.best_epoch)
        selection["seconds"] = round(time.perf_counter() - started, 2)

        place = folder / f"seed-{seed}"
        place.mkdir(parents=True, exist_ok=True)
        save_tensors(select.method.state_dict(), place / "select.safetensors")
        save_tensors(final.method.state_dict(), place / "final.safetensors")
        (place / "selection.json").write_text(json.dumps(selection, indent=1) + "\n", encoding="utf-8")
        write_resolved(place / "params.yaml", dataset.name, protocol, run_name, run, params, seed)
    shutil.rmtree(state, ignore_errors=True)
    return folder


@dataclass(frozen=True)
class PhaseModel:
    """A trained method and the features of its phase's clips."""

    phase: Phase
    method: Method
    table: FeatureTable
    text: Callable[[Sequence[int]], Tensor]  # class indices -> [C, K, d_t]

    def scores(self, clips: Sequence[Clip], candidates: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Scores [N, C] of those of `clips` that have features, and their labels [N] as columns."""
        ids = {clip_id: row for row, clip_id in enumerate(self.table.samples.clip_ids)}
        there = [clip for clip in clips if clip.clip_id in ids]
        rows = torch.tensor([ids[clip.clip_id] for clip in there])
        labels = label_rows(there, [clip.clip_id for clip in there], candidates)
        return score_table(self.method, self.table, self.text(candidates), rows).numpy(), labels.numpy()

    def stacking(self, split: Split) -> Stacking:
        """The selection phase's GZSL: clips kept out of training, of its own classes and of the pseudo-unseen ones."""
        scores, labels = self.scores((*self.phase.held_out, *self.phase.pseudo_unseen), split.seen)
        return Stacking.of(scores, labels, np.array([c not in split.validation for c in split.seen]))


def train_phase(
    opened: Opened, phase: Phase, samples: Samples, encoder: ShiftGCN, params: Params, seed: int, epochs: int,
    *, state: Path | None = None, on_epoch: Callable[[Progress], None] = ignore,
) -> tuple[PhaseModel, Progress]:  # fmt: skip
    """Train one phase for at most `epochs`; in the selection phase every epoch is scored on the pseudo-unseen clips."""
    config = params.train
    ids = {clip.clip_id for clip in phase.train}
    train_rows = torch.tensor([row for row, clip_id in enumerate(samples.clip_ids) if clip_id in ids])
    labels = label_rows(phase.train, [samples.clip_ids[row] for row in train_rows], phase.classes)
    table = feature_table(encoder, samples, opened.shapes.anchors, views=config.views, seed=seed)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method = opened.method(len(phase.classes))
    slots = method.text_slots
    text = opened.bank.take(phase.classes, slots)  # [C, K, d_t] of the classes trained on, and of no other
    method.see_text(text)
    model = PhaseModel(phase, method, table, lambda classes: opened.bank.take(classes, slots))

    def loss(rows: Tensor, generator: torch.Generator) -> Tensor:
        views = torch.randint(config.views, (len(rows),), generator=generator)
        return method.loss(table.batch(train_rows[rows], views), labels[rows], text)

    def validate() -> float:
        return model.stacking(opened.split).ausuc()

    key = fingerprint(
        opened.fingerprints, opened.bank.encoder_sha256, text.tolist(), digest(encoder), samples.clip_ids,
        phase.classes, dataclasses.asdict(opened.run), dataclasses.asdict(config), seed, epochs,
    )  # fmt: skip
    select = phase.name == "select"
    loop = Loop(
        epochs, config.batch_size, config.lr, config.weight_decay, cosine=False, ema=config.ema, seed=seed,
        patience=config.patience if select else 0, bfloat16=config.bfloat16,
    )  # fmt: skip
    progress = fit(
        method, loss, len(train_rows), loop,
        validate=validate if select else None, state=state, fingerprint=key, on_epoch=on_epoch,
    )  # fmt: skip
    method.finish(embed_table(method, table, train_rows), labels, text)
    return model, progress


def choose_values(model: PhaseModel, split: Split) -> dict[str, Any]:
    """The method's own values by the area under the seen-unseen curve, as the epochs were; then gamma by the best
    harmonic mean on that curve.

    The area needs no gamma and weighs both sides: pseudo-unseen accuracy alone, on a handful of classes, would choose
    by chance. Leaves the method with the chosen values set. All figures are phase-one scores, on train-part clips.
    """
    phase, method = model.phase, model.method
    chosen: dict[str, float] = {}
    for name, values in method.choices.items():
        areas = []
        for value in values:
            setattr(method, name, value)
            areas.append(model.stacking(split).ausuc())
        chosen[name] = values[int(np.argmax(areas))]
        setattr(method, name, chosen[name])
    stacking = model.stacking(split)
    gamma = stacking.best_gamma()
    seen, unseen = stacking.accuracies(gamma)
    scores, labels = model.scores(phase.pseudo_unseen, split.validation)
    confusion = confusion_matrix(labels, scores.argmax(1), len(split.validation))
    return {
        **chosen,
        "gamma": gamma,
        "zsl_top1": micro(confusion),
        "zsl_macro": macro(confusion),
        "zsl_n": int(confusion.sum()),
        "gzsl_seen": seen,
        "gzsl_unseen": unseen,
        "gzsl_harmonic": harmonic(seen, unseen),
        "gzsl_ausuc": stacking.ausuc(),
    }


@torch.no_grad()
def score_table(method: Method, table: FeatureTable, text: Tensor, rows: Tensor) -> Tensor:
    """Scores [N, C] of the unaugmented view of `rows`. There is no label among its arguments."""
    method.eval()
    require_eval_mode(method)
    return torch.cat([method.scores(table.batch(part), text) for part in rows.split(64)])


@torch.no_grad()
def embed_table(method: Method, table: FeatureTable, rows: Tensor) -> Tensor:
    """Embeddings [N, d_t] of the unaugmented view of `rows`."""
    method.eval()
    require_eval_mode(method)
    return torch.cat([method.embed(table.batch(part)) for part in rows.split(64)])


def digest(encoder: ShiftGCN) -> list[float]:
    """A few numbers that change when any weight does."""
    return [float(value.double().abs().sum()) for value in encoder.state_dict().values()]


def model_folder(cache: Path, dataset: str, protocol: str, run: str) -> Path:
    """Where the models of a run lie."""
    return cache / "models" / dataset / protocol / run


def load_method(opened: Opened, protocol: str, run_name: str, seed: int) -> tuple[Method, dict[str, Any]]:
    """The final method of a seed with its chosen values set, in eval mode, and its selection."""
    place = model_folder(opened.dataset.cache, opened.dataset.name, protocol, run_name) / f"seed-{seed}"
    path = place / "final.safetensors"
    if not path.is_file() or not (place / "selection.json").is_file():
        raise PosebridgeError(
            f"{path} is missing; run `posebridge train --dataset {opened.dataset.name} --protocol {protocol} "
            f"--run {run_name}`."
        )
    selection = json.loads((place / "selection.json").read_text(encoding="utf-8"))
    method = opened.method(len(opened.split.seen))
    try:
        method.load_state_dict(load_file(path))
    except RuntimeError:
        raise PosebridgeError(
            f"{path} is of other flags than the run {run_name!r} has now; run `posebridge train` again."
        ) from None
    for name in method.choices:
        setattr(method, name, selection[name])
    return method.eval().requires_grad_(False), selection
