"""Where models and batches are computed: the CPU, or a GPU by PyTorch's name for it. Reads and writes nothing."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Callable, Iterator, Sequence

import torch

from pipeline.errors import PosebridgeError

CPU = torch.device("cpu")
NAMES = re.compile(r"auto|cpu|cuda(:\d{1,3})?")
torch.backends.cudnn.allow_tf32 = False  # PyTorch would round a GPU's convolutions unasked; products it does not


def choose_devices(name: str, jobs: int = 1) -> tuple[torch.device, ...]:
    """What `auto`, `cpu`, `cuda` or `cuda:1` stands for on this machine: one device, or for several jobs at a time as
    many GPUs, as far as there are some and none was named by its number. `auto` is the CPU where there is no GPU.

    Raises PosebridgeError for another name, and for a GPU that is not there.
    """
    if not NAMES.fullmatch(name):
        raise PosebridgeError(f"{name[:40]!r} is no device; say auto, cpu, cuda, or cuda:1 for the second GPU.")
    count = gpu_count()
    if name == "cpu" or (name == "auto" and not count):
        return (CPU,)
    if not count:
        raise PosebridgeError(f"There is no GPU for {name!r}: {why_none()}; say auto or cpu.")
    if name in ("auto", "cuda"):
        return tuple(torch.device("cuda", index) for index in range(min(jobs, count)))
    index = int(name.removeprefix("cuda:"))
    if index >= count:
        there = ", ".join(f"cuda:{each}" for each in range(count))
        raise PosebridgeError(f"There is no {name} on this machine, which has {there}; say one of these, auto or cpu.")
    return (torch.device("cuda", index),)


def gpu_count() -> int:
    """How many GPUs PyTorch can use here."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def why_none() -> str:
    """Why there is no GPU."""
    if torch.version.cuda is None:
        return "this PyTorch is built for the CPU only"
    return "PyTorch finds none, or no driver for it"


def name_of(device: torch.device) -> str:
    """What it is: the maker's name of a GPU, or `CPU`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def told_devices(devices: Sequence[torch.device]) -> str:
    """Those of a GPU's names with what they are: `cuda:0 (NVIDIA H100) and cuda:1 (NVIDIA H100)`."""
    return " and ".join(f"{device} ({name_of(device)})" for device in devices)


def has_bfloat16(device: torch.device) -> bool:
    """Whether it computes in bfloat16 by instructions of its own; one that emulates them is slower than in float32, a
    CPU without AVX-512 ten times. A CPU that does not tell, as those that are no x86, is taken for one without.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def spread(devices: Sequence[torch.device], seeds: Sequence[int]) -> dict[int, torch.device]:
    """The device of each seed, in turn."""
    return {seed: devices[place % len(devices)] for place, seed in enumerate(seeds)}


def generator_on(device: torch.device, seed: int) -> torch.Generator:
    """One that draws on the data's device; torch's `meta`, which draws nothing, takes the CPU's."""
    return torch.Generator(device if device.type == "cuda" else CPU).manual_seed(seed)


def told_training(device: torch.device, bfloat16: bool, tf32: bool) -> dict[str, str]:
    """Where a training computes, and in which numbers at the coarsest: what is noted beside its result."""
    precision = "bfloat16" if bfloat16 else "tf32" if tf32 and device.type == "cuda" else "float32"
    return {"device": name_of(device), "precision": precision}


@contextlib.contextmanager
def tf32(device: torch.device, on: bool) -> Iterator[None]:
    """Within it, if `on`, a GPU may round the factors of matrix products and convolutions to TF32; a CPU never does."""
    if not on or device.type != "cuda":
        yield
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


@contextlib.contextmanager
def memory_for(
    what: str,
    batch_size: int = 0,
    attempt: Callable[[int], None] | None = None,
    setting: str = "batch_size in params.yaml",
) -> Iterator[None]:
    """Raises PosebridgeError where a GPU's memory does not suffice within it, with the batch size to set: the largest
    of a half, a quarter, ... of `batch_size` that `attempt` computes, or without it half. Where there is no batch, or
    none fits, the remedy is another.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)  # or what had been computed of the batch stays in memory
    else:
        return
    size = batch_size // 2
    while size and attempt and not _fits(attempt, size):
        size //= 2
    if size:
        raise PosebridgeError(f"{what}: out of GPU memory with a batch of {batch_size}; set {setting} to {size}.")
    raise PosebridgeError(f"{what}: out of GPU memory; take a GPU with more memory, fewer --jobs, or --device cpu.")


def _fits(attempt: Callable[[int], None], size: int) -> bool:
    try:
        attempt(size)
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)
        return False
    return True
