"""Leases: one worker a shard, whoever is killed, stopped, or has another clock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.cache import lease as leases
from pipeline.cache.lease import Lease, LeaseLost, Watch, clear, clear_dead, holder, is_taken
from pipeline.cache.sealed import is_running
from pipeline.errors import PosebridgeError

pytestmark = pytest.mark.unit
NOBODY = 4_194_400  # above the largest process number of Linux


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shard-00003.lease"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def write(path: Path, **changed: object) -> None:
    """The lease of another worker."""
    values = {"machine": "elsewhere", "pid": 1, "token": "abc", "version": "0"} | changed
    path.write_text(json.dumps(values))


def test_one_has_it_until_it_is_given_back(path):
    with Lease(path) as lease:
        assert not is_taken(path) and lease.take() and not Lease(path).take()
        assert is_taken(path) and holder(path).pid == os.getpid()
        lease.check()
    assert not path.exists() and not is_taken(path)
    with Lease(path) as lease:
        assert lease.take()


def test_of_many_that_ask_at_once_one_gets_it(path):
    gate, found = threading.Barrier(8), []

    def ask() -> None:
        with Lease(path) as lease:
            gate.wait()
            found.append(lease.take())
            gate.wait()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False] * 7 + [True]


def test_it_changes_while_its_worker_lives_and_tells_how_far_that_is(path, monkeypatch):
    monkeypatch.setattr(leases, "RENEWED", 0.001)
    with Lease(path) as lease:
        lease.take()
        lease.told = (3, 64)
        while not holder(path).todo:
            pass
        assert (holder(path).done, holder(path).todo) == (3, 64)
        before = path.read_bytes()
        while path.read_bytes() == before:
            pass
        lease.check()


@pytest.mark.parametrize("ahead", [-3 * 365 * 86400, -300, 0, 300, 3 * 365 * 86400])
def test_a_lease_expires_by_the_clock_of_who_watches_it(path, ahead):
    """The modification time, which is another machine's clock, says nothing."""
    clock = Clock()
    watch = Watch(60, clock)
    write(path)
    stamp = path.stat().st_mtime + ahead
    os.utime(path, (stamp, stamp))
    for _ in range(4):
        assert not watch.is_free(path)
        clock.now += 50
        with path.open("a") as file:
            file.write(" ")  # its worker is alive
    assert not watch.is_free(path)
    clock.now += 59
    assert not watch.is_free(path) and not Lease(path).take()
    clock.now += 1
    assert watch.is_free(path) and list(path.parent.iterdir()) == []


def test_one_that_was_never_written_expires_too(path):
    clock = Clock()
    watch = Watch(60, clock)
    path.touch()
    assert not watch.is_free(path)
    clock.now += 60
    assert watch.is_free(path)


def test_a_new_lease_of_the_same_shard_has_its_own_time(path):
    clock = Clock()
    watch = Watch(60, clock)
    write(path)
    assert not watch.is_free(path)
    clock.now += 59
    path.unlink()
    assert watch.is_free(path)
    write(path)
    clock.now += 59
    assert not watch.is_free(path)


def test_one_of_a_dead_process_of_this_machine_is_taken_at_once(path):
    write(path, machine=leases.this_machine(), pid=NOBODY)
    with Lease(path) as lease:
        assert lease.take() and holder(path).pid == os.getpid()
    write(path, machine=leases.this_machine(), pid=NOBODY)
    assert Watch().is_free(path)
    write(path, machine=leases.this_machine(), pid=NOBODY)
    clear_dead(path.parent)
    assert not path.exists()


def test_of_another_machine_or_container_a_process_number_says_nothing(path):
    write(path, machine="elsewhere", pid=NOBODY)
    assert not Lease(path).take() and not Watch().is_free(path)
    clear_dead(path.parent)
    assert path.exists()


def test_a_process_that_nobody_has_waited_for_is_dead():
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_running(process.pid) and is_running(os.getpid())
    process.wait()


def test_who_was_stopped_for_too_long_notices_and_leaves_the_others_lease_alone(path):
    with Lease(path) as lease:
        lease.take()
        clear(path, path.read_bytes())
        write(path)
        with pytest.raises(LeaseLost):
            lease.check()
    assert holder(path).machine == "elsewhere", "neither renewed nor deleted"


def test_of_two_who_take_an_expired_one_over_the_second_takes_nothing_away(path, monkeypatch):
    """Both have seen it expire; between the last look of the second and its renaming the first is through."""
    write(path)
    expired = path.read_bytes()
    real, looks = leases._read, []

    def read(place: Path) -> bytes | None:
        content = real(place)
        if not looks:
            looks.append(place)
            clear(path, expired)  # the first one, who then makes its own
            write(path, token="new")
        return content

    monkeypatch.setattr(leases, "_read", read)
    clear(path, expired)
    assert json.loads(path.read_bytes())["token"] == "new" and list(path.parent.iterdir()) == [path]


def test_who_finds_a_dead_one_leaves_that_of_another_who_takes_it_over_in_this_moment(path, monkeypatch):
    write(path, machine=leases.this_machine(), pid=NOBODY)
    real = leases.holder

    def look(place: Path) -> leases.Holder:
        found = real(place)
        write(path, token="new")
        return found

    monkeypatch.setattr(leases, "holder", look)
    assert not Lease(path).take() and real(path).machine == "elsewhere"


def test_a_full_disk_leaves_no_lease(path, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.cache.lease.os.fsync", full)
    with pytest.raises(PosebridgeError, match=r"shard-00003.lease failed \(No space left on device\)"):
        Lease(path).take()
    assert list(path.parent.iterdir()) == []


def test_a_file_system_without_links_serves_too(path, monkeypatch):
    def refuse(*places: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("pipeline.cache.lease.os.link", refuse)
    with Lease(path) as lease:
        assert lease.take() and holder(path).pid == os.getpid() and not Lease(path).take()
        assert list(path.parent.iterdir()) == [path]
    assert not path.exists()


@pytest.mark.parametrize("function", ["write", "fsync", "link"])
def test_who_is_killed_while_making_it_leaves_none(path, monkeypatch, function):
    class Killed(BaseException):
        pass

    def die(*arguments: object) -> None:
        raise Killed

    monkeypatch.setattr(f"pipeline.cache.lease.os.{function}", die)
    with pytest.raises(Killed):
        Lease(path).take()
    assert not path.exists()


def test_a_signal_in_the_moment_of_giving_it_back_leaves_none(path, monkeypatch):
    real, asked = leases._read, []

    def read(place: Path) -> bytes | None:
        asked.append(place)
        if len(asked) == 1:
            raise KeyboardInterrupt
        return real(place)

    with pytest.raises(KeyboardInterrupt), Lease(path) as lease:
        lease.take()
        monkeypatch.setattr(leases, "_read", read)
    assert not path.exists()


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff", b"null\n1 2 3", b'{"machine": 1}', b"[" * 5000])
def test_an_odd_lease_is_of_nobody_known_and_expires(path, content):
    path.write_bytes(content)
    assert not Lease(path).take() and holder(path).pid == 0
    clock = Clock()
    watch = Watch(60, clock)
    assert not watch.is_free(path)
    clock.now += 60
    assert watch.is_free(path)
