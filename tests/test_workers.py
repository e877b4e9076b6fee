"""Many workers on one store: each shard is made once, and its bytes are one worker's, whoever is killed and when."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import FakeEstimator
from test_extraction import Corridor

from pipeline.bench.workers import bench_workers
from pipeline.cache.lease import holder, this_machine
from pipeline.cache.sealed import canonical_json, seal
from pipeline.cache.verify import verify_store
from pipeline.errors import PosebridgeError
from pipeline.executors.base import Outcome, build_executor, outcome_of
from pipeline.executors.stopping import tidy_end
from pipeline.extract import survey as surveying
from pipeline.extract.work import ExtractJob, ShardMaker, ShardReport
from pipeline.manifest.clips import read_clips
from pipeline.params import ExtractParams

pytestmark = pytest.mark.fault
CLIPS, SHARD = 40, 2  # in all, and of a shard, about

WHEN = ("host", "time", "seconds", "self_sha256")  # of a receipt: who made a shard, when, and how fast

# Forks argv[2] processes that extract the corridor in argv[1] by argv[3] workers each; waits for them, adds up their
# exit codes.
SCRIPT = """
import os, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test that runs in the background inherits that none comes
sys.path[:0] = sys.argv[4:]
import test_workers
children = []
for _ in range(int(sys.argv[2])):
    if (child := os.fork()) == 0:
        test_workers.run(Path(sys.argv[1]), int(sys.argv[3]))
        os._exit(0)
    children.append(child)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children))
"""


class Counting(FakeEstimator):
    """Notes in a file how many crops it is given. Once a shard is sealed, a call takes as many seconds as another file
    tells. As the real ones on a CPU, it takes two batches at a time.
    """

    at_once = 2

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def estimate(self, crops, cue_rows):
        with (self.folder / "crops").open("a") as file:
            file.write(f"{len(crops)}\n")
        if (slow := self.folder / "slow").exists() and sealed(self.folder):
            time.sleep(float(slow.read_text()))
        return super().estimate(crops, cue_rows)


@dataclasses.dataclass(frozen=True)
class Build:
    """What another process builds its pose model with."""

    folder: Path

    def __call__(self, recipe) -> Counting:
        return Counting(self.folder)


def run(folder: Path, workers: int = 1, **options):
    """One run over a corridor, by this process or by others."""
    corridor = Corridor.over(folder)
    executor = build_executor("local", workers, folder / "logs")
    with tidy_end():
        return corridor.run(executor=executor, build=Build(folder), clips_per_shard=SHARD, **options)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The corridor as one worker extracts it."""
    folder = tmp_path_factory.mktemp("alone")
    Corridor(folder, videos=CLIPS)
    run(folder)
    return folder


@pytest.fixture
def corridor(alone, tmp_path) -> Path:
    """The same, not extracted."""
    for name in ("videos", "manifests"):
        shutil.copytree(alone / name, tmp_path / name)
    return tmp_path


def start(folder: Path, processes: int, workers: int = 1) -> subprocess.Popen:
    """Processes in a group of their own."""
    here = Path(__file__).parent
    command = [sys.executable, "-c", SCRIPT, folder, str(processes), str(workers), here, here.parent]
    return subprocess.Popen(command, start_new_session=True)


def crops(folder: Path) -> int:
    return sum(map(int, (folder / "crops").read_text().split()))


def store_of(folder: Path) -> Path:
    (found,) = (folder / "cache/store/d").iterdir()
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Every byte of a store and its index, but for who made a shard and when."""
    found = {"index": (folder / "cache/d/r/index.json").read_bytes()}
    for path in store_of(folder).iterdir():
        content = path.read_bytes()
        if path.name.startswith("shard-") and path.suffix == ".json":
            values = json.loads(content)
            content = canonical_json({k: v for k, v in values.items() if k not in WHEN})
        if ".tmp-" not in path.name:
            found[path.name] = content
    return found


def sealed(folder: Path) -> int:
    return len(list(folder.glob("cache/store/d/*/shard-*.json")))


def being_made(folder: Path) -> list[Path]:
    """The leases of shards that are not sealed."""
    return [path for path in folder.glob("cache/store/d/*/*.lease") if not path.with_suffix(".json").exists()]


def is_gone(group: subprocess.Popen) -> bool:
    try:
        os.killpg(group.pid, 0)
    except ProcessLookupError:
        return True
    return False


def until(true) -> None:
    """Wait for something that happens soon; in a minute under the heaviest load."""
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize(("processes", "workers"), [(8, 1), (2, 2)])
def test_each_shard_is_made_once(corridor, alone, processes, workers):
    assert start(corridor, processes, workers).wait(120) == 0
    assert crops(corridor) == CLIPS * 8 == crops(alone)
    assert contents(corridor) == contents(alone)


def killed(folder: Path, rounds: int, moments: random.Random) -> None:
    """Kill workers `rounds` times: some of eight, or all of them; then let eight finish."""
    for _ in range(rounds):
        group = start(folder, 8)
        before = sealed(folder)
        until(lambda before=before, group=group: sealed(folder) > before or group.poll() is not None)
        time.sleep(moments.random() * 0.05)
        if moments.random() < 0.5:
            for path in folder.glob("cache/store/d/*/*.lease"):
                if moments.random() < 0.5 and (pid := holder(path).pid):
                    kill(pid)
            time.sleep(moments.random() * 0.02)
        with contextlib.suppress(ProcessLookupError):  # a fast machine has made all shards
            os.killpg(group.pid, signal.SIGKILL)
        group.wait()
    assert start(folder, 8).wait(300) == 0


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_killed_at_random_moments_every_byte_is_equal(corridor, alone):
    (corridor / "slow").write_text("0.01")
    killed(corridor, 5, random.Random())
    assert contents(corridor) == contents(alone)


@pytest.mark.slow
def test_killed_a_hundred_times_every_byte_is_equal(corridor, alone):
    (corridor / "slow").write_text("0.01")
    for _ in range(20):
        killed(corridor, 5, random.Random())
        assert contents(corridor) == contents(alone)
        shutil.rmtree(corridor / "cache")


@pytest.mark.parametrize(("workers", "number"), [(1, signal.SIGTERM), (2, signal.SIGTERM), (2, signal.SIGINT)])
def test_who_is_asked_to_end_leaves_sealed_shards_and_no_lease(corridor, workers, number):
    (corridor / "slow").write_text("60")  # it is in the middle, however slow this machine
    group = start(corridor, 1, workers)
    until(lambda: sealed(corridor) and being_made(corridor))
    (child,) = Path(f"/proc/{group.pid}/task/{group.pid}/children").read_text().split()
    os.kill(int(child), number)
    group.wait(120)
    store = store_of(corridor)
    assert 1 <= sealed(corridor) < 20 and not [*store.glob("*.lease"), *store.glob("*.tmp-*")]
    assert all("run was not finished" in problem.reason for problem in verify_store(store))
    until(lambda: is_gone(group))  # Python's own helper of its processes too
    (corridor / "slow").unlink()
    assert run(corridor).clips == CLIPS


def test_workers_whose_driver_is_killed_end_too(corridor):
    (corridor / "slow").write_text("60")
    group = start(corridor, 1, 2)
    until(lambda: sealed(corridor) and being_made(corridor))
    (driver,) = Path(f"/proc/{group.pid}/task/{group.pid}/children").read_text().split()
    kill(int(driver))
    group.wait(120)
    until(lambda: not list(corridor.glob("cache/store/d/*/*.lease")))


def test_shares_dealt_out_beforehand_make_the_same_store(corridor, alone):
    results = [run(corridor, share=(i, 3)) for i in (2, 0, 1)]
    assert [result.complete for result in results] == [False, False, True]
    assert [result.changed for result in results] == [False, False, True]
    assert sum(result.estimated for result in results) == CLIPS and contents(corridor) == contents(alone)
    assert run(corridor, share=(20, 100)).complete, "a share of nothing"


def test_a_lease_of_a_dead_worker_on_a_sealed_shard_goes_too(corridor):
    run(corridor)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    lease = store_of(corridor) / "shard-00003.lease"
    lease.write_text(json.dumps({"machine": this_machine(), "pid": process.pid, "version": ""}))
    assert run(corridor).estimated == 0 and not lease.exists()


def test_a_share_of_nothing_of_a_store_that_is_not_there(corridor):
    assert not run(corridor, share=(99, 100)).complete and not sealed(corridor)


def test_finish_writes_the_index_and_makes_nothing(corridor, alone):
    with pytest.raises(PosebridgeError, match="20 of 20 shards in .* are not sealed yet, first shard 0; make them"):
        run(corridor, finish=True)
    run(corridor)
    (corridor / "cache/d/r/index.json").unlink()
    result = run(corridor, finish=True)
    assert result.changed and result.estimated == 0 and contents(corridor) == contents(alone)


def maker(folder: Path, **changed) -> ShardMaker:
    """A worker on a machine of its own."""
    corridor = Corridor.over(folder)
    values = {
        "dataset": "d", "variant": "", "recipe": corridor.recipe, "root": corridor.root,
        "stores": folder / "cache/store", "manifests": folder / "manifests",
        "params": ExtractParams(clips_per_shard=SHARD), "retry_failed": False, "build_estimator": Build(folder),
    }  # fmt: skip
    return ShardMaker(ExtractJob(**values | changed))


def test_a_machine_without_the_videos_makes_no_failures_of_them(corridor):
    with pytest.raises(PosebridgeError, match=r"sees no video of shard 3, first '\d+.mp4' in .*nowhere; mount"):
        maker(corridor, root=corridor / "nowhere").make(3)
    assert not list(corridor.glob("cache/store/d/*/*"))
    with pytest.raises(PosebridgeError, match="sees no video of shard 3"):
        maker(corridor, root=corridor / "nowhere", gone=CLIPS).make(3)  # whatever videos the plan has missed
    assert maker(corridor).make(3).estimated and sealed(corridor) == 1


def test_a_machine_without_the_projects_folder_is_named_with_it(corridor):
    absent = dataclasses.replace(maker(corridor).job, folder=corridor / "absent")
    outcome = outcome_of(absent, 0)
    said = f"{socket.gethostname()} cannot enter the project's folder {corridor / 'absent'} (No such file"
    assert outcome.error.startswith(said)
    assert outcome.error.endswith("; mount it on this machine, or leave the machine out")


@dataclasses.dataclass
class Elsewhere:
    """An executor whose one machine, called node7, gives this answer for every shard."""

    answer: Outcome
    here = False

    def run(self, work, units):
        for unit in units:
            yield dataclasses.replace(self.answer, unit=unit, machine="node7")


def test_what_fails_on_another_machine_names_it(corridor):
    with pytest.raises(PosebridgeError, match=r"Shard \d+ \(and 2 more\) failed on node7: it has no videos; its log"):
        Corridor.over(corridor).run(executor=Elsewhere(Outcome(0, error="it has no videos", log="a")))


def test_shards_that_only_another_machine_sees_make_no_index(corridor, monkeypatch):
    monkeypatch.setattr("pipeline.extract.extract.SEEN_SECONDS", 0.0)
    with pytest.raises(PosebridgeError, match="14 shards that were made are not in .*, first shard 0: .*--cache-root"):
        Corridor.over(corridor).run(executor=Elsewhere(Outcome(0, ShardReport(0, 1))))
    assert not (corridor / "cache/d/r/index.json").exists()


def test_a_disk_that_fills_up_meanwhile_is_one_sentence_before_the_work(corridor, monkeypatch):
    maker(corridor).make(3)
    before = crops(corridor)
    monkeypatch.setattr("pipeline.extract.work.shutil.disk_usage", lambda path: Full())
    with pytest.raises(PosebridgeError, match="0.000 GB are free; make room"):
        maker(corridor).make(4)
    assert crops(corridor) == before and not list(store_of(corridor).glob("*.lease"))


class Full:
    free = 0


def rewrite(path: Path, **changed) -> None:
    values = json.loads(path.read_text())
    path.write_bytes(canonical_json(seal(values | changed)))


def test_two_versions_on_one_store_are_refused(corridor, alone):
    run(corridor, share=(0, 2))
    store = store_of(corridor)
    receipt = next(store.glob("shard-?????.json"))
    rewrite(receipt, versions={"posebridge": "9.1"})
    with pytest.raises(PosebridgeError, match="is the work of posebridge 9.1, and this is .*; install 9.1 here, or"):
        run(corridor, share=(0, 1))
    assert run(corridor, share=(0, 2)).estimated == 0, "where nothing is to be made nothing is mixed"


def test_two_commits_on_one_store_are_told_of(corridor, recwarn, monkeypatch):
    run(corridor, share=(0, 2))
    receipts = sorted(store_of(corridor).glob("shard-?????.json"))
    monkeypatch.setattr(surveying, "git_commit", lambda: "b" * 40)
    for receipt, commit in zip(receipts, ["a" * 40, "", *["b" * 40] * len(receipts)], strict=False):
        rewrite(receipt, commit=commit)
    assert run(corridor, share=(0, 2)).estimated == 0 and not list(recwarn), "where nothing is to be made"
    with pytest.warns(UserWarning) as told:
        run(corridor, share=(0, 1))
    (said,) = told
    assert f"holds shards of commit {'a' * 12}, and this is {'b' * 12}, whose" in str(said.message)


@pytest.mark.parametrize(("theirs", "own"), [("a" * 40, "a" * 40), ("", "a" * 40), ("a" * 40, "")])
def test_one_commit_and_one_that_nobody_knows_are_no_two(corridor, recwarn, monkeypatch, theirs, own):
    run(corridor, share=(0, 2))
    for receipt in store_of(corridor).glob("shard-?????.json"):
        rewrite(receipt, commit=theirs)
    monkeypatch.setattr(surveying, "git_commit", lambda: own)
    run(corridor, share=(0, 1))
    assert not list(recwarn)


def test_a_version_that_works_beside_this_one_is_refused(corridor):
    run(corridor, share=(0, 2))
    lease = store_of(corridor) / "shard-00001.lease"
    lease.write_text(json.dumps({"machine": "elsewhere", "pid": 1, "token": "", "version": "9.1"}))
    with pytest.raises(PosebridgeError, match="is the work of posebridge 9.1"):
        run(corridor)


def test_a_layout_that_another_run_has_made_meanwhile_is_refused(corridor):
    late = maker(corridor, params=ExtractParams(clips_per_shard=5))
    run(corridor, share=(0, 2))
    with pytest.raises(PosebridgeError, match="with 20 shards by another run meanwhile, for 8; run the same"):
        late.make(0)


def test_workers_are_measured_on_the_same_clips(alone, tmp_path):
    corridor, clips = Corridor.over(alone), read_clips(alone / "manifests/d/clips.csv")
    few = corridor.root, corridor.recipe, Build(tmp_path), tmp_path / "few", ExtractParams(), 2
    with pytest.raises(PosebridgeError, match="9 clips keep no 2 workers busy; list 24, or"):
        bench_workers(clips[:9], *few)
    result = bench_workers(clips, corridor.root, corridor.recipe, Build(tmp_path), tmp_path, ExtractParams(), 2)
    assert crops(tmp_path) == 2 * CLIPS * 8, "shards that are sealed are not made again"
    assert result.speedup == result.many_clips_per_second / result.one_clips_per_second > 0
    assert result.overhead_seconds > 0
