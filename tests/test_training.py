"""The loop: it learns, it is reproducible, it goes on after a kill with equal results; seeds run side by side."""

from __future__ import annotations

import contextlib
import errno
import math
import multiprocessing.synchronize
import os
import resource
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from test_workers import until
from torch import nn

from pipeline.errors import PosebridgeError
from pipeline.executors.local import usable_cores
from pipeline.learn import loop as training
from pipeline.learn import seeds
from pipeline.learn.loop import Loop, Progress, fit, ignore, remove_states
from pipeline.learn.seeds import each_seed

pytestmark = pytest.mark.unit


class Killed(Exception):
    pass


def problem(bias=0.0):
    """A small network with dropout and batch norm, so that every kind of state counts."""
    torch.manual_seed(1)
    x = torch.randn(50, 4)
    y = (x[:, 0] > 0).long()
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))

    def loss(rows, generator):
        noise = 0.1 * torch.randn(x[rows].shape, generator=generator)
        return nn.functional.cross_entropy(net(x[rows] + noise), y[rows]) + bias

    def accuracy():
        assert not net.training
        return float((net(x).argmax(1) == y).float().mean())

    return net, loss, accuracy


LOOP = Loop(epochs=6, batch_size=16, lr=1e-2, ema=0.9, seed=3)
SGD = Loop(6, 16, 1e-2, optimiser="sgd", nesterov=True, warmup_epochs=2, milestones=(3, 5), cosine=False, seed=3)


def test_it_learns_and_ends_in_eval_mode():
    net, loss, accuracy = problem()
    progress = fit(net, loss, 50, Loop(epochs=40, batch_size=16, lr=1e-2, ema=0.9))
    assert progress.epoch == progress.best_epoch == 40 and progress.losses[-1] < progress.losses[0] / 2
    assert not any(m.training for m in net.modules()) and accuracy() > 0.9


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("loop", [LOOP, SGD], ids=["adamw", "sgd"])
def test_killed_and_started_again_gives_equal_weights(tmp_path, loop, validated, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    net, loss, accuracy = problem()
    whole = fit(net, loss, 50, loop, validate=accuracy if validated else None)
    expected = {key: value.clone() for key, value in net.state_dict().items()}

    state, trained = tmp_path / "state.safetensors", []
    for kill_after in (2, 3, 5, None):

        def stop(progress, kill_after=kill_after):
            trained.append(progress.epoch)
            if progress.epoch == kill_after:
                raise Killed

        net, loss, accuracy = problem()
        torch.manual_seed(kill_after or 99)  # another process has another random state
        options = {"validate": accuracy if validated else None, "state": state, "fingerprint": "f", "on_epoch": stop}
        if kill_after:
            with pytest.raises(Killed):
                fit(net, loss, 50, loop, **options)
        else:
            again = fit(net, loss, 50, loop, **options)
    assert again == whole and trained == list(range(1, whole.epoch + 1)), "no epoch twice"
    assert all(torch.equal(value, expected[key]) for key, value in net.state_dict().items())
    assert not list(tmp_path.glob(".*"))  # no temporary file stays


def test_short_epochs_are_not_saved_one_by_one(tmp_path, monkeypatch):
    """Of skeletoncontext, to save every epoch took a quarter of its training."""
    saved, save = [], training._save
    monkeypatch.setattr(training, "_save", lambda *given: saved.append(given[-1].epoch) or save(*given))
    for patience, last in ((0, 6), (2, 3)):
        net, loss, _ = problem()
        loop, scores = replace(LOOP, patience=patience), iter([0.9, *[0.1] * 5])
        validate = (lambda scores=scores: next(scores)) if patience else None
        fit(net, loss, 50, loop, validate=validate, state=tmp_path / f"{last}.safetensors")
        assert saved.pop() == last and not saved, "the end is saved"


def test_a_finished_state_gives_the_weights_without_training(tmp_path):
    state = tmp_path / "state.safetensors"
    net, loss, _ = problem()
    fit(net, loss, 50, LOOP, state=state, fingerprint="f")
    again, _, _ = problem()
    fit(again, lambda rows, generator: pytest.fail("it trained"), 50, LOOP, state=state, fingerprint="f")
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True))


def test_a_state_of_something_else_is_not_taken_up(tmp_path):
    state = tmp_path / "state.safetensors"
    net, loss, _ = problem()
    fit(net, loss, 50, LOOP, state=state, fingerprint="f")
    again, loss, _ = problem(bias=1.0)
    assert len(fit(again, loss, 50, LOOP, state=state, fingerprint="g").losses) == 6


def test_the_best_epoch_is_kept_and_patience_ends_it():
    net, loss, _ = problem()
    scores = iter([0.1, 0.5, 0.9, 0.2, 0.2, 0.2, 0.2])
    seen = []

    def validate():
        seen.append({key: value.clone() for key, value in net.state_dict().items()})
        return next(scores)

    progress = fit(net, loss, 50, Loop(epochs=20, batch_size=16, lr=1e-2, ema=0.9, patience=3), validate=validate)
    assert progress.best_epoch == 3 and progress.epoch == 6
    assert all(torch.equal(value, seen[2][key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("scores", "smoothing", "patience", "best", "last"),
    [
        ([0.9, 0.1, 0.1, 0.5, 0.6, 0.7, 0.1, 0.1], 3, 0, 6, 8),  # one high score is not a high mean
        ([0.9, 0.9, 0.9, 0.2, 0.2, 0.2, 0.2, 0.2], 3, 2, 3, 5),  # of the first three together, then patience
        ([0.1] * 8, 5, 2, 5, 7),  # nobody gives up before there are as many; of equal ones the first
        ([-0.9, -0.1, -0.1, -0.9, -0.9, -0.9, -0.9, -0.9], 2, 0, 3, 8),  # whatever the sign
        ([0.1, 0.9, 0.1], 5, 1, 3, 3),  # fewer epochs than that: all of them
    ],
)
def test_an_epoch_is_as_good_as_the_mean_of_some(scores, smoothing, patience, best, last):
    net, loss, _ = problem()
    given, seen = iter(scores), []

    def validate():
        seen.append({key: value.clone() for key, value in net.state_dict().items()})
        return next(given)

    loop = Loop(epochs=len(scores), batch_size=16, lr=1e-2, ema=0.9, patience=patience, smoothing=smoothing)
    progress = fit(net, loss, 50, loop, validate=validate)
    assert (progress.best_epoch, progress.epoch, progress.scores) == (best, last, scores[:last])
    assert all(torch.equal(value, seen[best - 1][key]) for key, value in net.state_dict().items())


def test_training_for_the_chosen_number_of_epochs_repeats_the_chosen_weights():
    """What the final phase relies on: an epoch's weights do not depend on how many were planned."""
    net, loss, _ = problem()
    scores = iter([0.1, 0.9, 0.2, 0.2])
    long = Loop(epochs=4, batch_size=16, lr=1e-2, ema=0.9, cosine=False)
    fit(net, loss, 50, long, validate=lambda: next(scores))
    short, loss, _ = problem()
    fit(short, loss, 50, Loop(epochs=2, batch_size=16, lr=1e-2, ema=0.9, cosine=False))
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), short.state_dict().values(), strict=True))


def test_sgd_with_momentum_warms_up_and_steps_down_as_by_hand():
    """One weight pulled towards 1 by (w - 1)^2 / 2, eight steps an epoch."""
    net = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(net.weight)
    loop = Loop(4, 1, 0.2, weight_decay=0.1, optimiser="sgd", warmup_epochs=2, milestones=(2, 3), cosine=False)
    fit(net, lambda rows, generator: 0.5 * (net.weight - 1).square().sum(), 8, loop)
    w = v = 0.0
    for lr in [0.2 * step / 16 for step in range(1, 17)] + 8 * [0.02] + 8 * [0.002]:
        v = 0.9 * v + (w - 1) + 0.1 * w
        w -= lr * v
    assert net.weight.item() == pytest.approx(w, abs=1e-6)


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_adam_decays_weights_and_its_rate_falls_as_a_cosine_as_by_hand(kind):
    """One weight pulled towards 1 by (w - 1)^2 / 2; ten steps an epoch, four of them to warm up."""
    net = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(net.weight, 3.0)
    loop = Loop(2, 4, 0.1, weight_decay=0.2, optimiser=kind, warmup=4)
    fit(net, lambda rows, generator: 0.5 * (net.weight - 1).square().sum(), 38, loop)
    w, m, v = 3.0, 0.0, 0.0
    for step in range(20):
        lr = 0.1 * min(1, (step + 1) / 4) * 0.5 * (1 + math.cos(math.pi * step / 20))
        gradient = w - 1 + (0.2 * w if kind == "adam" else 0)
        w -= lr * 0.2 * w if kind == "adamw" else 0
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        w -= lr * (m / (1 - 0.9 ** (step + 1))) / (math.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8)
    assert net.weight.item() == pytest.approx(w, abs=1e-9)


def test_the_averaged_weights_are_judged_and_kept_as_by_hand():
    """One weight pulled towards 1 by (w - 1)^2 / 2: the average moves towards it by 1 - min(.5, step / (step + 10))."""
    net = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(net.weight)
    judged: list[float] = []

    def validate():
        judged.append(net.weight.item())
        return -abs(net.weight.item() - 1)

    loop = Loop(2, 1, 0.02, weight_decay=0.0, optimiser="sgd", warmup=0, cosine=False, ema=0.5)
    progress = fit(net, lambda rows, generator: 0.5 * (net.weight - 1).square().sum(), 8, loop, validate=validate)
    w = v = average = 0.0
    expected, losses = [], []
    for step in range(1, 17):
        losses.append(0.5 * (w - 1) ** 2)
        v = 0.9 * v + (w - 1)
        w -= 0.02 * v
        average += (w - average) * (1 - min(0.5, step / (step + 10)))
        if step % 8 == 0:
            expected.append(average)
    assert judged == pytest.approx(expected, abs=1e-9) and net.weight.item() == pytest.approx(average, abs=1e-9)
    assert abs(w - average) > 0.05, "the last weights are others"
    assert progress.scores == pytest.approx([-abs(value - 1) for value in expected]) and progress.best_epoch == 2
    assert progress.losses == pytest.approx([sum(losses[:8]) / 8, sum(losses[8:]) / 8])


@pytest.mark.parametrize(("slope", "taken"), [((60.0, 80.0), (3.0, 4.0)), ((0.6, 0.8), (0.6, 0.8))])
def test_a_gradient_longer_than_5_is_shortened_to_5(slope, taken):
    net = nn.Linear(2, 1, bias=False).double()
    nn.init.zeros_(net.weight)
    pull = torch.tensor([slope], dtype=torch.float64)
    loop = Loop(1, 1, 0.1, weight_decay=0.0, optimiser="sgd", warmup=0, cosine=False)
    fit(net, lambda rows, generator: (net.weight * pull).sum(), 8, loop)
    path = sum(0.1 * (1 - 0.9**step) / (1 - 0.9) for step in range(1, 9))  # momentum: v = 1 + .9 + .81 + ...
    assert net.weight[0].tolist() == pytest.approx([-path * each for each in taken], rel=1e-6)


def test_the_loss_of_an_epoch_is_the_mean_over_samples_not_over_batches():
    net = nn.Linear(1, 1, bias=False)
    progress = fit(net, lambda rows, generator: rows.float().mean() + 0 * net.weight.sum(), 5, Loop(2, 4, 0.1))
    assert progress.losses == pytest.approx([2.0, 2.0])


def test_an_epoch_is_announced_with_the_progress_so_far():
    net, loss, _ = problem()
    heard: list[int] = []
    fit(net, loss, 50, LOOP, before_epoch=lambda progress: heard.append(progress.epoch))
    assert heard == [0, 1, 2, 3, 4, 5]


def test_the_callers_random_state_is_left_alone():
    net, loss, _ = problem()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    fit(net, loss, 50, LOOP)
    assert torch.equal(torch.get_rng_state(), before)


def test_mixed_precision_trains():
    net, loss, _ = problem()
    progress = fit(net, loss, 50, Loop(epochs=20, batch_size=16, lr=1e-2, bfloat16=True))
    assert progress.losses[-1] < progress.losses[0]
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_few_samples_are_gone_through_several_times_an_epoch():
    seen = []

    def loss(rows, generator):
        seen.append(rows.tolist())
        return model.weight.sum()

    for rows, steps in ((5, 8), (20, 6), (100, 13)):  # batches of 8: 1, 3 and 13 a pass
        model, before = torch.nn.Linear(1, 1), len(seen)
        fit(model, loss, rows, Loop(epochs=1, batch_size=8, lr=0.1))
        assert len(seen) - before == steps
        counts = torch.bincount(torch.tensor(sum(seen[before:], [])))
        assert len(counts) == rows and counts.min() == counts.max(), "every sample equally often"


def test_a_state_of_other_code_is_not_gone_on_with(tmp_path, monkeypatch):
    state, trained = tmp_path / "state.safetensors", []
    for code in ("old", "old", "new"):
        monkeypatch.setattr(training, "code_digest", lambda code=code: code)
        net, loss, _ = problem()
        epochs = []
        fit(net, loss, 50, LOOP, state=state, fingerprint="f", on_epoch=lambda p, epochs=epochs: epochs.append(p.epoch))
        trained.append(len(epochs))
    assert trained == [LOOP.epochs, 0, LOOP.epochs]


def test_the_code_is_that_of_every_room(monkeypatch):
    """A method's layers are not in the room of the loop."""
    read = []
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or b"")
    training.code_digest.__wrapped__()
    assert {"learn", "methods", "skeleton", "text"} <= {path.parent.name for path in read}


def flipped(content):
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]


@pytest.mark.fault
@pytest.mark.parametrize(
    "damage",
    [lambda c: b"", lambda c: c[:7], lambda c: c[: len(c) // 2], lambda c: c[:-1], flipped, lambda c: b"{}" * 99,
     lambda c: c.replace(b'"progress"', b'"Progress"'), lambda c: c.replace(b"epoch", b"Epoch")],
    ids=["empty", "header cut", "half", "one byte short", "flip", "text", "key", "progress"],
)  # fmt: skip
def test_a_damaged_state_is_set_aside_with_a_warning_and_training_begins_anew(tmp_path, damage):
    state = tmp_path / "seed-0-select.safetensors"
    net, loss, _ = problem()
    fit(net, loss, 50, LOOP, state=state, fingerprint="f")
    state.write_bytes(damage(state.read_bytes()))
    again, loss, _ = problem()
    with pytest.warns(UserWarning, match="seed-0-select.safetensors is damaged.*begins anew"):
        progress = fit(again, loss, 50, LOOP, state=state, fingerprint="f")
    assert len(progress.losses) == LOOP.epochs and (tmp_path / f"{state.name}.damaged").is_file()
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.mark.fault
def test_a_seed_that_ends_leaves_other_seeds_their_state(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    names = ["seed-1-select.safetensors", "seed-1-final.safetensors.tmp-h-1", "seed-10-select.safetensors"]
    for name in names:
        (folder / name).touch()
    remove_states(folder, [1])
    assert [path.name for path in folder.iterdir()] == names[2:]
    remove_states(folder, [10, 1])
    assert not folder.exists()
    remove_states(folder, [0])


def square(folder, seed, on_epoch):
    if seed == 13:
        raise PosebridgeError("thirteen")
    if seed == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    on_epoch(f"seed {seed}", Progress(epoch=seed))
    (folder / f"{seed}").write_text(f"{os.getpid()} {torch.get_num_threads()}")


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_seed_runs_once_and_tells_its_epochs(tmp_path, jobs):
    told = []
    each_seed(partial(square, tmp_path), (3, 1, 2), jobs, lambda what, progress: told.append((what, progress.epoch)))
    assert sorted(told) == [("seed 1", 1), ("seed 2", 2), ("seed 3", 3)]
    found = {path.name: path.read_text().split() for path in tmp_path.iterdir()}
    assert set(found) == {"1", "2", "3"}
    here = str(os.getpid()) in {process for process, _ in found.values()}
    assert here == (jobs == 1)
    assert {int(threads) for _, threads in found.values()} == (
        {torch.get_num_threads()} if jobs == 1 else {max(1, len(usable_cores()) // 2)}
    )


def environment(folder, seed, on_epoch):
    (folder / f"{seed}").write_text(os.environ.get("GLIBC_TUNABLES", ""))


def test_seeds_side_by_side_leave_the_callers_environment_as_it_was(tmp_path, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    each_seed(partial(environment, tmp_path), (0, 1), 2, ignore)
    assert "GLIBC_TUNABLES" not in os.environ


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_cores_are_those_that_this_process_may_use():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == [min(before)]
    finally:
        os.sched_setaffinity(0, before)


def sit(folder, seed, on_epoch):
    (folder / str(os.getpid())).touch()
    time.sleep(300)


def test_seeds_whose_command_is_killed_end_too(tmp_path, monkeypatch):
    fork = multiprocessing.get_context("fork")  # for the sake of speed: it has imported everything
    monkeypatch.setattr(seeds, "_context", lambda module: fork)
    command = fork.Process(target=each_seed, args=(partial(sit, tmp_path), (0, 1), 2, ignore))
    command.start()
    try:
        until(lambda: len(list(tmp_path.iterdir())) == 2)
        command.kill()
        command.join()
        until(lambda: not any(is_alive(path.name) for path in tmp_path.iterdir()))
    finally:
        for path in tmp_path.iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.name), signal.SIGKILL)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def talk(seed, on_epoch):
    for epoch in range(2000):  # far more than the pipe between two processes holds
        on_epoch(f"seed {seed}", Progress(epoch, losses=[0.0] * 100))


def test_a_bar_that_breaks_stops_no_seed_and_is_told_at_the_end():
    def broken(what, progress):
        raise OSError("terminal closed")

    with pytest.raises(OSError, match="terminal closed"):
        each_seed(talk, (0, 1), 2, broken)


@pytest.mark.parametrize("lacking", ["room in /dev/shm", "files of a process"])
def test_processes_that_cannot_be_started_are_one_sentence(tmp_path, monkeypatch, lacking):
    def full(self, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if lacking == "room in /dev/shm":
        monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", full)
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/dev/fd").iterdir())) + 1, hard))
    try:
        with pytest.raises(PosebridgeError, match="2 processes cannot be started .(No space|Too many).*--jobs 1.$"):
            each_seed(partial(square, tmp_path), (1, 2), 2, ignore)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    monkeypatch.undo()

    def started() -> bool:
        with contextlib.suppress(PosebridgeError, EOFError):
            return bool(each_seed(partial(square, tmp_path), (1, 2), 2, ignore))
        return False

    until(started)  # with room again; the server that forks them may have died of it, and is a while in doing so


@pytest.mark.parametrize(("seeds", "words"), [((1, 13, 2), "thirteen"), ((1, 99, 2), "fewer --jobs")])
def test_a_seed_that_fails_is_one_sentence(tmp_path, seeds, words):
    with pytest.raises(PosebridgeError, match=words):
        each_seed(partial(square, tmp_path), seeds, 2, ignore)
