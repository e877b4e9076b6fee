"""One device for every command: what a name of it stands for."""

from __future__ import annotations

import weakref

import pytest
import torch

from pipeline.errors import PosebridgeError
from pipeline.files.device import CPU, choose_devices, memory_for, spread
from stages.shell import devices_of

pytestmark = pytest.mark.unit


@pytest.fixture
def gpus(monkeypatch):
    """A machine that has so many GPUs, as far as names go."""

    def have(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")

    return have


@pytest.mark.parametrize(
    ("count", "name", "jobs", "taken"),
    [
        (0, "auto", 3, ["cpu"]),
        (0, "cpu", 1, ["cpu"]),
        (2, "cpu", 3, ["cpu"]),
        (2, "auto", 1, ["cuda:0"]),
        (2, "cuda", 1, ["cuda:0"]),
        (2, "cuda", 3, ["cuda:0", "cuda:1"]),
        (4, "auto", 3, ["cuda:0", "cuda:1", "cuda:2"]),
        (2, "cuda:1", 3, ["cuda:1"]),
    ],
)
def test_a_name_stands_for_the_devices_of_this_machine(gpus, count, name, jobs, taken):
    gpus(count)
    assert [str(device) for device in choose_devices(name, jobs)] == taken


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(gpus):
    gpus(2)
    with pytest.raises(PosebridgeError, match="no cuda:7 on this machine, which has cuda:0, cuda:1; say one of these"):
        choose_devices("cuda:7")
    gpus(0)
    for name in ("cuda", "cuda:0"):
        with pytest.raises(PosebridgeError, match=f"There is no GPU for '{name}': .*; say auto or cpu"):
            choose_devices(name)
    for name in ("gpu", "cuda:", "cuda:-1", "CPU", "", "mps", "cuda:1\n"):
        with pytest.raises(PosebridgeError, match="is no device; say auto, cpu, cuda"):
            choose_devices(name)


def test_auto_says_on_a_line_which_gpus_it_took_and_nothing_on_a_cpu(gpus, capsys):
    gpus(0)
    assert devices_of("auto") == (CPU,)
    gpus(2)
    devices_of("cuda:1")
    assert capsys.readouterr() == ("", "")
    devices_of("auto", jobs=2)
    assert capsys.readouterr() == ("", "Computing on cuda:0 (Card 0) and cuda:1 (Card 1).\n")


def test_seeds_take_the_gpus_in_turn():
    two = torch.device("cuda:0"), torch.device("cuda:1")
    assert spread(two, (5, 7, 9)) == {5: two[0], 7: two[1], 9: two[0]}
    assert spread((CPU,), (0, 1)) == {0: CPU, 1: CPU}


def too_much(largest):
    """A step of a batch that a GPU has memory for up to a size."""

    def step(size):
        if size > largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return step


@pytest.mark.parametrize(
    ("batch_size", "attempt", "said"),
    [
        (64, None, "x: out of GPU memory with a batch of 64; set --batch-size to 32."),
        (64, too_much(16), "x: out of GPU memory with a batch of 64; set --batch-size to 16."),
        (64, too_much(0), "x: out of GPU memory; take a GPU with more memory, fewer --jobs, or --device cpu."),
        (1, None, "x: out of GPU memory; take a GPU with more memory, fewer --jobs, or --device cpu."),
        (0, None, "x: out of GPU memory; take a GPU with more memory, fewer --jobs, or --device cpu."),
    ],
)
def test_a_gpu_without_memory_names_the_batch_that_fits(batch_size, attempt, said):
    with pytest.raises(PosebridgeError) as error, memory_for("x", batch_size, attempt, "--batch-size"):
        too_much(0)(64)
    assert str(error.value) == said
    with pytest.raises(RuntimeError, match="else"), memory_for("x", batch_size, attempt):
        raise RuntimeError("else")


def test_what_a_batch_has_left_in_memory_is_gone_before_a_smaller_one_is_tried():
    held = []

    def step():
        activations = torch.zeros(3)
        held.append(weakref.ref(activations))
        too_much(0)(64)

    with pytest.raises(PosebridgeError, match="to 16"), memory_for("x", 32, lambda size: held.append(held[0]())):
        step()
    assert held[1] is None
