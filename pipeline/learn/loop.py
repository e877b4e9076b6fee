"""The loop of stage two: seeds, epochs, warm-up, mixed precision, EMA, early stop, resume. Knows no method.

Writes its state to one file (safetensors; the plain values and a hash as JSON in its header), replaced atomically:
after an epoch where the last time is a minute ago, and at the end. A run that is killed and started again ends with the
same weights, bit for bit, as one that was not. The state is a short cut only: a damaged one is set aside, and training
begins anew.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipeline.errors import PosebridgeError
from pipeline.files.ahead import ahead
from pipeline.files.device import generator_on, memory_for, tf32
from pipeline.files.tensors import save_tensors

SAVE_EVERY = 60.0  # seconds: of a small model with short epochs, to save each of them took a quarter of the time
LEAST_STEPS = 8  # of an epoch, about: few clips are gone through several times, since some steps alone teach nothing
Loss = Callable[..., Tensor]  # rows [B] int64 of the training set, a generator, and what was loaded, if so -> a scalar
Load = Callable[[Tensor], object]  # rows [B] -> their data
Validate = Callable[[], float]  # higher is better; called with the averaged weights in place, in eval mode


@dataclass(frozen=True)
class Loop:
    """Everything that shapes the optimisation; two loops of equal values and equal data give equal weights."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 1e-2
    optimiser: str = "adamw"  # adamw, adam or sgd (momentum .9)
    nesterov: bool = False
    warmup: int = 10  # steps
    warmup_epochs: int = 0  # instead of `warmup`
    cosine: bool = True  # decay to 0 over `epochs`; off where the number of epochs is still to be chosen
    milestones: tuple[int, ...] = ()  # epochs after which the learning rate is a tenth
    ema: float = 0.0  # decay per step of the averaged weights; 0 takes the last weights
    patience: int = 0  # epochs without a better validation before stopping; 0 never stops
    smoothing: int = 1  # an epoch counts as the mean score of so many, itself the last; with fewer it is not chosen
    seed: int = 0
    bfloat16: bool = False  # autocast
    tf32: bool = False  # on a GPU


@dataclass
class Progress:
    """How far a training has come. `best_epoch` counts epochs done: training for that many gives the best weights."""

    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)  # mean training loss of each epoch
    scores: list[float] = field(default_factory=list)  # validation score of each epoch, not smoothed
    best_epoch: int = 0
    planned: int = field(default=0, compare=False)  # epochs at the most
    seconds: float = field(default=0.0, compare=False)  # CPU time of all threads, not of other work; on a GPU wall time


OnEpoch = Callable[[str, Progress], None]  # what is being trained, how far it is


def ignore(*_: object) -> None:
    """The callback of those who do not watch."""


def fit(
    model: nn.Module,
    loss: Loss,
    rows: int,
    loop: Loop,
    *,
    load: Load | None = None,
    validate: Validate | None = None,
    state: Path | None = None,
    fingerprint: str = "",
    on_epoch: Callable[[Progress], None] = ignore,
    before_epoch: Callable[[Progress], None] = ignore,
    what: str = "The training",
) -> Progress:
    """Train `model` in place on `rows` samples; it ends in eval mode with the best (without `validate`: the last)
    weights.

    `load`, where given, is called for every batch in another thread while the one before it is trained on, and `loss`
    gets what it returns.

    `state` is where a killed run finds itself again; a state of another `fingerprint` (a hash of whatever the result
    depends on), or of other code, is ignored and overwritten, a damaged one set aside. `before_epoch` is called with
    the progress so far. The caller's random state is left alone.

    It trains where the model lies. On a GPU nothing waits for a step's end: losses are added up there, and looked at
    when the epoch is over.

    Raises PosebridgeError, with `what` is trained and the epoch, for a loss, a gradient, a weight or a validation score
    that is not a finite number: all that follows would look like a result and be none; and for a batch that does not
    fit into a GPU's memory.
    """
    device = next(model.parameters()).device
    gpu = device.type == "cuda"
    clock = time.perf_counter if gpu else time.process_time
    if state is not None:
        fingerprint += code_digest() + ("cuda" if gpu else "")  # a GPU draws other numbers
    optimizer = _optimizer(model, loop)
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    best = copy.deepcopy(averaged)
    pairs = list(zip(averaged.state_dict().values(), model.state_dict().values(), strict=True))
    progress = Progress()
    passes = max(1, LEAST_STEPS // math.ceil(rows / loop.batch_size))
    steps = passes * math.ceil(rows / loop.batch_size)
    with torch.random.fork_rng(devices=[device] if gpu else []), tf32(device, loop.tf32):
        torch.manual_seed(loop.seed)  # dropout draws from this one
        generator = torch.Generator().manual_seed(loop.seed)  # order
        draws = generator_on(device, loop.seed) if gpu else generator  # augmentation
        parts = {"model": model, "averaged": averaged, "best": best}
        chance = {"torch": torch.default_generator, "generator": generator}
        if gpu:
            chance |= {"cuda": torch.cuda.default_generators[device.index], "draws": draws}
        if state is not None:
            progress = _load(state, fingerprint, parts, optimizer, chance, device) or progress

        def go_back(batch: Tensor, *loaded: object) -> Tensor:
            """The loss of a batch, whose gradients the weights now have."""
            with torch.autocast(device.type, torch.bfloat16, enabled=loop.bfloat16):
                value = loss(batch, draws, *loaded)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            return value.detach()

        def attempt(size: int) -> None:
            batch = torch.arange(min(size, rows))
            go_back(batch, *([load(batch)] if load else []))

        progress.planned, saved = loop.epochs, time.monotonic()
        while progress.epoch < loop.epochs and not _given_up(progress, loop):
            started = clock()
            before_epoch(progress)
            model.train()
            total, norms = torch.zeros(2, dtype=torch.float64, device=device)
            orders = [torch.randperm(rows, generator=generator) for _ in range(passes)]
            batches = chain.from_iterable(order.split(loop.batch_size) for order in orders)
            for batch, *loaded in _loaded(batches, load):
                for group in optimizer.param_groups:
                    group["lr"] = loop.lr * _schedule(progress.step, loop, steps)
                with memory_for(what, loop.batch_size, attempt):
                    value = go_back(batch, *loaded)
                    norm = nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                    if not gpu:
                        _require_finite({"loss": value, "gradient": norm}, what, progress)
                    optimizer.step()
                progress.step += 1
                _average(pairs, min(loop.ema, progress.step / (progress.step + 10)))
                total += value.double() * len(batch)
                norms += norm
            _require_finite({"loss": total, "gradient": norms} | averaged.state_dict(), what, progress)
            progress.epoch += 1
            progress.losses.append(float(total) / (rows * passes))
            if validate is None:
                best.load_state_dict(averaged.state_dict())
                progress.best_epoch = progress.epoch
            else:
                _validate(model, averaged, best, validate, progress, loop, what)
            progress.seconds += clock() - started
            over = progress.epoch == loop.epochs or _given_up(progress, loop)
            if state is not None and (over or time.monotonic() - saved >= SAVE_EVERY):
                _save(state, fingerprint, parts, optimizer, chance, progress)
                saved = time.monotonic()
            on_epoch(progress)
    model.load_state_dict(best.state_dict())
    model.eval()
    return progress


def _loaded(batches: Iterable[Tensor], load: Load | None) -> Iterator[tuple]:
    """Each batch of rows, alone or with what was loaded for it ahead of time."""
    if load is None:
        return ((batch,) for batch in batches)
    return ahead(((batch, load(batch)) for batch in batches), 1)


@functools.cache
def code_digest() -> str:
    """sha256 of the code of all rooms: weights that other code began may have equal shapes and mean something else."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _require_finite(values: Mapping[str, Tensor], what: str, progress: Progress) -> None:
    """Raise PosebridgeError for the first of the values that is not finite, in the epoch after `progress`."""
    for name, value in values.items():
        if not value.isfinite().all():
            raise PosebridgeError(
                f"{what}: in epoch {progress.epoch + 1}, step {progress.step + 1}, {name!r} is not a "
                "finite number; lower the learning rate, or look at what goes in."
            )


def _validate(
    model: nn.Module, averaged: nn.Module, best: nn.Module, validate: Validate, progress: Progress, loop: Loop,
    what: str,
) -> None:  # fmt: skip
    """Score the averaged weights in the model's own place, then put the trained ones back."""
    trained = copy.deepcopy(model.state_dict())
    model.load_state_dict(averaged.state_dict())
    model.eval()
    with torch.no_grad():
        try:
            score = validate()
        except PosebridgeError as error:
            raise PosebridgeError(f"{what}: after epoch {progress.epoch}: {error}") from None
    if not math.isfinite(score):
        raise PosebridgeError(
            f"{what}: after epoch {progress.epoch} the validation gives {score}, no finite number; "
            "lower the learning rate, or look at what goes in."
        )
    progress.scores.append(score)
    if best_epoch(progress.scores, loop) == progress.epoch:
        best.load_state_dict(model.state_dict())
        progress.best_epoch = progress.epoch
    model.load_state_dict(trained)


def best_epoch(scores: Sequence[float], loop: Loop) -> int:
    """How many epochs to train for, by the scores of those so far: where the mean of as many as `smoothing` scores in a
    row is highest first, it is the last of them. 0 while there are fewer.
    """
    length = min(loop.smoothing, loop.epochs)
    means = [sum(scores[end - length : end]) / length for end in range(length, len(scores) + 1)]
    return length + means.index(max(means)) if means else 0


def _optimizer(model: nn.Module, loop: Loop) -> torch.optim.Optimizer:
    """Fused: one kernel for all weights on a GPU, one pass over them on a CPU, where it takes a quarter of the time."""
    if loop.optimiser == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr=loop.lr, weight_decay=loop.weight_decay, momentum=0.9, nesterov=loop.nesterov,
            fused=True,
        )  # fmt: skip
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[loop.optimiser]
    return kind(model.parameters(), lr=loop.lr, weight_decay=loop.weight_decay, fused=True)


def _schedule(step: int, loop: Loop, steps: int) -> float:
    """Linear warm-up, then constant, in steps down by ten, or cosine. `steps` are those of an epoch."""
    warm = min(1.0, (step + 1) / max(loop.warmup_epochs * steps or loop.warmup, 1))
    down = 0.1 ** sum(step >= epoch * steps for epoch in loop.milestones)
    return warm * down * (0.5 * (1 + math.cos(math.pi * step / (steps * loop.epochs))) if loop.cosine else 1.0)


def _given_up(progress: Progress, loop: Loop) -> bool:
    return bool(loop.patience and progress.best_epoch and progress.epoch - progress.best_epoch >= loop.patience)


@torch.no_grad()
def _average(pairs: Sequence[tuple[Tensor, Tensor]], decay: float) -> None:
    """Move the averaged weights (and batch-norm statistics), the first of each pair, towards the model's, all at once;
    whole numbers are copied.
    """
    old, new = [], []
    for before, now in pairs:
        if before.is_floating_point():
            old.append(before)
            new.append(now)
        else:
            before.copy_(now)
    get_ema_multi_avg_fn(decay)(old, new, None)


def remove_states(folder: Path, seeds: Iterable[int]) -> None:
    """Remove what these seeds kept in a folder of states; the folder too, unless other seeds keep theirs there."""
    for seed in seeds:
        for path in folder.glob(f"seed-{seed}-*"):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not there, or not empty
        folder.rmdir()


def _save(state: Path, fingerprint: str, parts, optimizer, chance, progress: Progress) -> None:
    tensors = {
        f"{part}.{key}": value.contiguous()
        for part, m in parts.items()
        for key, value in m.state_dict().items()
    }
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in values.items()}
    tensors |= {f"random.{name}": generator.get_state() for name, generator in chance.items()}
    told = json.dumps(vars(progress))
    header = {"fingerprint": fingerprint, "progress": told, "sha256": _sha256(tensors, fingerprint, told)}
    try:
        save_tensors(tensors, state, header)
    except PosebridgeError:  # another process of this run may have removed the folder, empty just then
        save_tensors(tensors, state, header)


def _sha256(tensors: Mapping[str, Tensor], *texts: str) -> str:
    digest = hashlib.sha256(json.dumps(texts).encode())
    for key in sorted(tensors):
        value = tensors[key]
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _load(state: Path, fingerprint: str, parts, optimizer, chance, device) -> Progress | None:
    """Put everything back as `_save` found it; None (and nothing changed) without a state of this fingerprint."""
    if not state.is_file():
        return None
    try:
        with safe_open(state, "pt", device=str(device)) as file:
            header = file.metadata() or {}
            if header["fingerprint"] != fingerprint:
                return None
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        if header["sha256"] != _sha256(tensors, fingerprint, header["progress"]):
            raise ValueError("its hash does not fit its content")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        aside = state.with_name(f"{state.name}.damaged")
        with contextlib.suppress(OSError):
            state.replace(aside)
        reason = type(error).__name__
        warnings.warn(f"{state} is damaged ({reason}); set aside as {aside.name}, training begins anew.", stacklevel=2)
        return None
    for part, module in parts.items():
        module.load_state_dict({key: tensors[f"{part}.{key}"] for key in module.state_dict()})
    saved = optimizer.state_dict()
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            saved["state"].setdefault(int(index), {})[name] = value.cpu() if name == "step" else value
    optimizer.load_state_dict(saved)
    for name, generator in chance.items():
        generator.set_state(tensors[f"random.{name}"].cpu())
    return Progress(**json.loads(header["progress"]))
