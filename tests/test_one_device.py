"""One device for every command: what a name of it stands for, and that nothing of stage two is left behind elsewhere.

PyTorch's meta device has no numbers and refuses a tensor that was made on the CPU; a GPU is used where there is one.
"""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from synthetic import PARAMS, PROTOCOL, make_world
from test_devices import ANCHORS, CLASSES, MADE, D, M, S, T, build
from torch import nn

import pipeline.files.device as devices
import pipeline.learn.encode as encoding
from pipeline.errors import PosebridgeError
from pipeline.files.device import CPU, choose_devices, memory_for, spread
from pipeline.learn.encode import encode
from pipeline.learn.feature_table import Joints, StreamedTable, feature_table
from pipeline.learn.features import Samples, StoredSamples
from pipeline.learn.loop import Loop, _average, fit
from pipeline.methods.base import SolvedMethod
from pipeline.skeleton.light_shift_gcn import LightShiftGCN
from pipeline.skeleton.persons import in_order
from stages.cli import main as cli
from stages.shell import devices_of

pytestmark = pytest.mark.unit
META, N = torch.device("meta"), 6
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")


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


def test_a_seed_is_trained_on_the_device_that_is_its_own(monkeypatch, tmp_path):
    went = []
    monkeypatch.setattr(encoding, "encode_seed", lambda *given: went.append((given[-2], given[-3][given[-2]])))
    dataset = make_world(tmp_path)
    params = replace(PARAMS.encode, seeds=(0, 1, 2))
    encode(dataset, PROTOCOL, "refined", params, devices=(CPU, META))
    assert went == [(0, CPU), (1, META), (2, CPU)]


COMMANDS = {
    "encode": "--dataset d --protocol p --skeletons r",
    "train": "--dataset d --protocol p --run r",
    "evaluate": "--dataset d --protocol p --run r",
    "predict": "a.mp4 --labels x,y --run r",
    "text": "--dataset d",
    "tune-hpe": "--out x.safetensors",
    "bench scale": "--run r",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_gpu_that_is_asked_for_and_absent_ends_every_command_in_one_sentence(gpus, tmp_path, monkeypatch, name):
    gpus(0)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("recipes: {r: {backend: import, cues: none}}\nruns: {r: {recipe: r}}\n")
    result = CliRunner().invoke(cli, [*name.split(), *COMMANDS[name].split(), "--device", "cuda"])
    assert result.exit_code == 1 and result.output.startswith("Error: There is no GPU for 'cuda'")
    assert result.output.count("\n") == 1


def samples():
    """Clips of two persons, some absent, with cues."""
    torch.manual_seed(0)
    valid = torch.ones(N, M, T, dtype=torch.bool)
    valid[0, 1], valid[1, 0, :3] = False, False
    return Samples(
        tuple("abcdef"), torch.rand(N, M, T, 17, 2), torch.rand(N, M, T, 17), valid,
        torch.rand(N, M, S, len(ANCHORS), D).half(), torch.rand(N, M, S, len(ANCHORS)),
    )  # fmt: skip


class Stored(StoredSamples):
    """Clips that are read when they are asked for."""

    def take(self, rows):
        return samples().take(rows)


def tables(device, encoder, swap=False):
    stored = Stored(tuple("abcdef"), None)
    for clips, held_bytes in ((samples(), 1 << 30), (samples(), 0), (stored, 0)):
        yield feature_table(encoder, clips, ANCHORS, 3, 1, held_bytes, device, swap)


@pytest.mark.parametrize("name", ["meta", pytest.param("cuda", marks=on_a_gpu)])
@pytest.mark.parametrize(("method_name", "flags"), MADE, ids=str)
def test_methods_learn_and_score_what_any_table_gives_where_the_encoder_is(name, method_name, flags, monkeypatch):
    device = torch.device(name)
    method, text = build(method_name, flags, monkeypatch, device)
    assert method.device.type == name
    encoder = (Joints() if method.end_to_end else LightShiftGCN(17, CLASSES, 8, (1, 1))).to(device).eval()
    generator, rows = devices.generator_on(device, 0), torch.tensor([4, 0, 2, 1])
    views = torch.randint(3, (len(rows),), generator=generator, device=generator.device)
    for table in tables(device, encoder, swap=True):
        if isinstance(table, StreamedTable):
            shown = table.features(table.load(rows), views, generator)
        else:
            shown = table.batch(rows, views)
        assert {value.device.type for value in vars(shown).values()} == {name}
        if not isinstance(method, SolvedMethod):
            method.train().loss(shown, torch.tensor([0, 2, 2, 1]), text).backward()
        elif name != "meta":  # it is solved by values
            method.solve([shown], torch.tensor([0, 2, 2, 1]), text)
        scores = [method.eval().scores(seen, text) for seen in table.batches(rows.split(2))]
        assert [(each.device.type, each.shape) for each in scores] == [(name, (2, CLASSES))] * 2


def test_mirrored_clips_have_the_cues_of_the_other_side_and_others_their_own():
    clips, encoder = samples(), Joints().eval()
    views = torch.tensor([0, 1, 2, 1, 2, 0])
    table = next(tables(CPU, encoder))
    shown = table.batch(torch.arange(N), views)
    turned = table.mirrored[views, torch.arange(N)]
    assert turned.any() and not turned.all()
    for row, other in enumerate(turned.tolist()):
        order = [0, 2, 1] if other else [0, 1, 2]
        assert torch.equal(shown.cues[row], clips.cues[row][..., order, :])
        assert torch.equal(shown.cue_scores[row], clips.cue_scores[row][..., order])


@pytest.mark.parametrize("held_bytes", [1 << 30, 0])
def test_persons_change_places_with_all_that_is_theirs_in_augmented_views_alone(held_bytes):
    clips, rows, swaps = samples(), torch.arange(N), 0
    which = torch.tensor([0.2, 0.8])[:, None, None]  # a person's score, by which one is known
    clips = replace(clips, scores=which.expand(N, M, T, 17), cue_scores=which.expand(N, M, S, len(ANCHORS)))
    table = feature_table(Joints().eval(), clips, ANCHORS, 3, 1, held_bytes, swap=True)
    both = clips.person_valid.any(-1).all(1)
    for seed in range(20):
        views = (rows + seed) % 3
        if isinstance(table, StreamedTable):
            shown = table.features(table.load(rows), views, torch.Generator().manual_seed(seed))
        else:
            shown = table.batch(rows, views)
        swapped = shown.cue_scores[:, 0, 0, 0] > 0.5
        assert not (swapped & ((views == 0) | ~both)).any(), "nobody takes the place of one who is not there"
        order = torch.where(swapped[:, None], torch.tensor([1, 0]), torch.tensor([0, 1]))
        assert torch.equal(shown.cue_scores, in_order(clips.cue_scores, order))
        assert torch.equal(shown.quality, in_order(clips.quality, order))
        turned = in_order(clips.cues, order).sum((2, 3)), shown.cues.sum((2, 3))  # the same whichever hand is which
        torch.testing.assert_close(*(part.float() for part in turned), rtol=0.02, atol=0)
        score = torch.where(clips.person_valid.any(-1), which[:, 0, 0], 0.0)
        torch.testing.assert_close(shown.skeleton[..., -1].amax((2, 3)), in_order(score, order))
        assert torch.equal(table.batch(rows).cue_scores, clips.cue_scores), "as tests see them"
        swaps += int(swapped.sum())
    assert 20 < swaps < 60, "half of four clips in two of three views"


def test_numbers_are_rounded_on_a_gpu_alone_if_asked_for_and_what_computed_is_told(gpus):
    gpus(1)
    gpu, flags = choose_devices("cuda")[0], []
    for device, on in ((CPU, True), (gpu, False), (gpu, True)):
        with devices.tf32(device, on):
            flags.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
    assert flags == [(False, False), (False, False), (True, True)]
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
    told = [devices.told_training(*given) for given in ((CPU, False, True), (gpu, False, True), (gpu, True, True))]
    assert [(each["device"], each["precision"]) for each in told] == [
        ("CPU", "float32"), ("Card 0", "tf32"), ("Card 0", "bfloat16")
    ]  # fmt: skip


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


@pytest.mark.parametrize("loads", [False, True])
def test_a_step_that_a_gpu_has_no_memory_for_names_the_batch_that_fits(loads):
    net = nn.Linear(1, 1)

    def loss(rows, generator, *loaded):
        too_much(20)(len(rows))
        assert not loaded or torch.equal(loaded[0], rows)
        return net.weight.sum()

    with pytest.raises(PosebridgeError, match="^purls, seed 1: .* batch of 64; set batch_size in params.yaml to 16.$"):
        fit(net, loss, 50, Loop(1, 64, 0.1), load=torch.clone if loads else None, what="purls, seed 1")
    assert fit(net, loss, 50, Loop(1, 16, 0.1)).epoch == 1


def test_what_a_batch_has_left_in_memory_is_gone_before_a_smaller_one_is_tried():
    held = []

    def step():
        activations = torch.zeros(3)
        held.append(weakref.ref(activations))
        too_much(0)(64)

    with pytest.raises(PosebridgeError, match="to 16"), memory_for("x", 32, lambda size: held.append(held[0]())):
        step()
    assert held[1] is None


def test_weights_averaged_together_are_those_averaged_one_by_one_to_the_bit():
    torch.manual_seed(0)
    averaged, model = (nn.Sequential(nn.Linear(33, 57), nn.BatchNorm1d(57)) for _ in range(2))
    model[1].num_batches_tracked += 3
    pairs = zip(averaged.state_dict().values(), model.state_dict().values(), strict=True)
    wanted = [old.clone().lerp_(new, 1 - 0.93) if old.is_floating_point() else new.clone() for old, new in pairs]
    _average(list(zip(averaged.state_dict().values(), model.state_dict().values(), strict=True)), 0.93)
    assert all(map(torch.equal, averaged.state_dict().values(), wanted))
