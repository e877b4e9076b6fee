"""A training step of the skeleton encoder beside the matrix products that it consists of, in the same run.

Reads and writes nothing. The ratio says how much of a step is spent on anything but arithmetic that must be done.
    posebridge bench encoder
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.bench.timing import seconds_of
from pipeline.files.memory import keep_freed_memory
from pipeline.learn.encode import new_encoder
from pipeline.params import EncodeParams
from pipeline.skeleton.graph import graph_of

CLASSES = 60
Operand = tuple[tuple[int, ...], tuple[int, ...]]  # its size and its strides


@dataclass(frozen=True)
class EncoderBench:
    """Seconds of a step (forward, loss, backward, AdamW) and of its matrix products alone, the step and each product
    the fastest of all rounds; `ratio` is the one by the other. Everybody is there in every clip.
    """

    encoder: str
    clips: int
    persons: int
    frames: int
    joints: int
    width: int
    blocks: tuple[int, ...]
    threads: int
    gflop: float
    step_seconds: float
    product_seconds: float
    ratio: float


def bench_encoder(
    params: EncodeParams, layout: str, clips: int, persons: int, frames: int, rounds: int
) -> EncoderBench:
    """Step and products by turns, `rounds` times, on random skeletons of a joint layout; float32."""
    keep_freed_memory()
    joints = len(graph_of(layout).joints)
    encoder = new_encoder((clips, persons, frames, joints, 3), CLASSES, params)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=params.lr)
    x = torch.randn(clips, persons, frames, joints, 3)
    person, labels = torch.ones(clips, persons, dtype=torch.bool), torch.arange(clips) % CLASSES

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(encoder(x, person), labels).backward()
        optimizer.step()

    with Products() as products:
        step()
    whole, alone = inf, dict.fromkeys(products.found, inf)
    for _ in range(rounds):
        whole = min(whole, seconds_of(step))
        alone = {pair: min(best, _product_seconds(*pair)) for pair, best in alone.items()}
    together = sum(count * alone[pair] for pair, count in products.found.items())
    return EncoderBench(
        params.encoder, clips, persons, frames, joints, params.width, params.blocks, torch.get_num_threads(),
        sum(count * 2 * a[0][0] * a[0][1] * b[0][1] for (a, b), count in products.found.items()) / 1e9,
        whole, together, whole / together,
    )  # fmt: skip


class Products(TorchDispatchMode):
    """Counts the products of two matrices that are made while it is on, by size and order of their operands."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[Operand, Operand]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            a, b = args[-2:]
            self.found[(tuple(a.shape), a.stride()), (tuple(b.shape), b.stride())] += 1
        return func(*args, **(kwargs or {}))


def _product_seconds(a: Operand, b: Operand) -> float:
    """What a product of two such matrices takes, once the processor has warmed up."""
    one, other = (torch.empty_strided(*operand).normal_() for operand in (a, b))
    one @ other
    return seconds_of(lambda: one @ other)
