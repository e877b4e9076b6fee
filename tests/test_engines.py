"""Ray and Slurm, the real ones: every unit once, whoever is killed, and the same bytes as one worker's.

Ray runs two nodes of its own test cluster; Slurm is Debian's, on this machine (tests/slurm_cluster.py). Each is skipped
where it is not installed.
"""

from __future__ import annotations

import builtins
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import pytest
from fakes import FakeEstimator
from slurm_cluster import slurm_cluster, why_no_slurm
from test_cells import NAME, products, project
from test_executors import Work
from test_extraction import Corridor
from test_workers import until

from pipeline.errors import PosebridgeError
from pipeline.executors.base import build_executor
from pipeline.learn.cells import Cell, CellsJob, do_cells
from pipeline.learn.encode import encode_cell
from pipeline.learn.loop import ignore
from pipeline.params import RayParams, SlurmParams, load_params

__all__ = ["project"]  # a fixture
PATHS = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])  # where workers find us
SMALL = SlurmParams(cpus=1, memory_gb=0.5, minutes=10)


class Deadly(FakeEstimator):
    """Kills its process in the middle of the second shard that is made anywhere, once."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def estimate(self, crops, cue_rows):
        sealed = any(self.folder.glob("cache/store/d/*/shard-*.json"))
        if sealed and not (self.folder / "killed").exists():
            (self.folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().estimate(crops, cue_rows)


def where(unit: int) -> tuple[str, int]:
    """The node of Ray, and the process, that has the unit; some take longer, so that no node has them all."""
    import ray

    time.sleep(0.05)
    return ray.get_runtime_context().get_node_id(), os.getpid()


@pytest.fixture(scope="module", autouse=True)
def as_before():
    """Ray takes `print` and SIGTERM for itself; the tests that come after these in this process have their own."""
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "print", print)
        yield
    signal.signal(signal.SIGTERM, on_sigterm)


@pytest.fixture(scope="module")
def ray():
    """Builds executors of Ray, on a cluster of two nodes; a task takes one of the two cores of each."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATHS)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        cluster.add_node(num_cpus=1)
        try:
            yield lambda workers, logs, **options: build_executor(
                "ray", workers, logs, RayParams(address=cluster.address, **options)
            )
        finally:
            cluster.shutdown()


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Builds executors of Slurm."""
    pytest.importorskip("submitit", reason="submitit is not installed: pip install '.[slurm]'")
    if why := why_no_slurm():
        pytest.skip(why)
    with pytest.MonkeyPatch.context() as patch, slurm_cluster(tmp_path_factory.mktemp("slurm") / "s") as environment:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", PATHS)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield lambda workers, logs, **options: build_executor(
            "slurm", workers, logs, SlurmParams(**vars(SMALL) | options)
        )


@pytest.fixture(params=["ray", pytest.param("slurm", marks=pytest.mark.slow)])
def engine(request):
    return request.getfixturevalue(request.param)


def test_every_unit_once_and_what_fails_stops_no_other(engine, tmp_path):
    work = Work(tmp_path, faulty=(2,), odd=(3,), deadly=(4,))
    outcomes = {o.unit: o for o in engine(2, tmp_path / "logs").run(work, range(7))}
    assert sorted(outcomes) == list(range(7))
    assert outcomes[2].error == "Unit 2 is not as it should be" and outcomes[3].error == "ValueError: 3 is odd"
    assert Path(outcomes[3].log).exists(), "there the traceback is"
    values = {unit: outcome.value for unit, outcome in outcomes.items() if not outcome.error}
    assert sorted(values) == [0, 1, 4, 5, 6], "a unit whose process was killed is tried again"
    assert os.getpid() not in {pid for pid, _, _ in values.values()}


def shards(corridor: Corridor) -> dict[str, str]:
    """Name -> sha256 of every shard file, the name holding that of its content too."""
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in corridor.folder.glob("cache/store/d/*/*.h5")}


@pytest.mark.fault
def test_a_worker_killed_half_way_leaves_the_same_store_as_one_worker(engine, tmp_path):
    alone = Corridor(tmp_path / "alone", videos=12)
    shutil.copytree(alone.folder, tmp_path / "many")  # x264 does not always write the same bytes
    corridor = Corridor.over(tmp_path / "many")
    alone.run()
    told = []
    result = corridor.run(
        Deadly(corridor.folder), executor=engine(2, tmp_path / "logs"), progress=lambda *count: told.append(count)
    )
    assert (corridor.folder / "killed").exists() and (result.clips, result.estimated, result.failures) == (12, 12, ())
    assert shards(corridor) == shards(alone) and len(shards(alone)) == 4
    assert told[-1] == (12, 12)
    store = next(corridor.folder.glob("cache/store/d/*"))
    assert not [*store.glob("*.tmp-*"), *store.glob("*.lease")]
    assert not corridor.run(Deadly(corridor.folder), executor=engine(2, tmp_path / "logs")).changed


def test_seeds_of_a_table_go_through_the_engine(engine, project, tmp_path, monkeypatch, one_thread):
    cells, made = tuple(Cell(NAME, NAME, seed) for seed in (0, 1)), []
    for name, executor in (("here", build_executor("local")), ("there", engine(2, tmp_path / "logs"))):
        shutil.copytree(project, tmp_path / name)
        monkeypatch.chdir(tmp_path / name)
        do_cells(CellsJob(encode_cell, cells, NAME, load_params(Path("params.yaml")), "cpu"), executor, ignore)
        made.append(products(tmp_path / name))
    assert made[0] == made[1] and len(made[0]) == 2 * 2


def test_ray_keeps_what_the_work_has_loaded_and_uses_both_nodes(ray, tmp_path):
    outcomes = list(ray(2, tmp_path).run(where, range(20)))
    places = {outcome.value for outcome in outcomes}
    assert len({node for node, _ in places}) == 2 and len(places) == 2


@pytest.mark.unit
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install '.[ray]'")
def test_a_ray_that_does_not_answer_is_one_sentence(tmp_path):
    with pytest.raises(PosebridgeError, match=r"No Ray cluster answers at 127.0.0.1:1 \(Connection refused\)"):
        next(build_executor("ray", 1, tmp_path, RayParams(address="127.0.0.1:1")).run(where, [0]))


def test_a_gpu_that_no_node_of_ray_has_is_one_sentence(ray, tmp_path):
    with pytest.raises(PosebridgeError, match="to have 1 GPUs, and Ray has 0 in all; lower `executor: ray"):
        next(ray(1, tmp_path, gpus=1.0).run(where, [0]))


@dataclass(frozen=True)
class Told:
    """Writes what a task of Slurm is told and given; `hungry` ones take a gigabyte, `long` ones do not end."""

    folder: Path
    hungry: bool = False
    long: bool = False

    def __call__(self, unit: int) -> dict[str, str]:
        begun = self.folder / f"{unit}.begun"
        begun.write_text(begun.read_text() + "x" if begun.exists() else "x")
        try:
            bulk = b"x" * (10**9 if self.hungry else 1)
            while self.long and begun.read_text() == "x" or self.hungry and bulk:
                time.sleep(0.05)
        finally:
            (self.folder / f"{unit}.left").touch()
        return {name: os.environ.get(name, "") for name in ("OURS", "SLURM_CPUS_PER_TASK", "SLURM_ARRAY_TASK_COUNT")}


@pytest.mark.slow
def test_set_up_lines_and_resources_reach_the_tasks_and_long_arrays_are_split(slurm, tmp_path):
    executor = slurm(2, tmp_path / "logs", setup=("export OURS=yes",), cpus=2, sbatch={"comment": "of ours"})
    outcomes = list(executor.run(Told(tmp_path), range(5)))
    assert sorted(outcome.unit for outcome in outcomes) == list(range(5))
    assert {outcome.value["OURS"] for outcome in outcomes} == {"yes"}
    assert {outcome.value["SLURM_CPUS_PER_TASK"] for outcome in outcomes} == {"2"}
    assert sorted(outcome.value["SLURM_ARRAY_TASK_COUNT"] for outcome in outcomes) == ["2", "2", "3", "3", "3"]
    logs = [Path(outcome.log) for outcome in outcomes]
    assert len(set(logs)) == 5 and all("Job completed successfully" in log.read_text() for log in logs)
    assert not list(tmp_path.glob("logs/*/*.pkl"))
    script = next(tmp_path.glob("logs/*/*.sh")).read_text()
    assert "#SBATCH --comment='of ours'" in script and "%1" in script, "two arrays share the two workers"


@pytest.mark.slow
def test_a_partition_that_does_not_exist_is_one_sentence(slurm, tmp_path, capfd):
    with pytest.raises(PosebridgeError, match="of us: Batch job .*artition.*; see `executor: slurm:`"):
        list(slurm(2, tmp_path / "logs", partition="nope").run(Told(tmp_path), [0]))
    assert "".join(capfd.readouterr()) == "", "what sbatch says is in the sentence"


@pytest.mark.slow
def test_a_task_out_of_memory_is_one_sentence_with_its_log(slurm, tmp_path):
    (outcome,) = slurm(1, tmp_path / "logs", memory_gb=0.2, resubmit=1).run(Told(tmp_path, hungry=True), [0])
    assert "memory" in outcome.error and outcome.log in outcome.error and "\n" not in outcome.error
    assert "exceeded" in Path(outcome.log).read_text() and "2 times" in outcome.error


@pytest.mark.slow
def test_a_preempted_task_leaves_in_time_and_is_run_again(slurm, tmp_path):
    """One of an urgent partition takes the whole node; Slurm gives the other ten seconds."""
    outcomes = slurm(1, tmp_path / "logs").run(Told(tmp_path, long=True), [0])
    with ThreadPoolExecutor(1) as thread:
        ended = thread.submit(list, outcomes)
        until((tmp_path / "0.begun").exists)
        command = ["srun", "--partition=urgent", "--exclusive", "--mem=0", "true"]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        (outcome,) = ended.result(120)
    assert (tmp_path / "0.left").exists() and (tmp_path / "0.begun").read_text() == "xx" and not outcome.error


@pytest.mark.slow
def test_a_task_whose_time_is_up_leaves_and_is_run_again(slurm, tmp_path):
    """Slurm lets it wait for two minutes in between. A task is told 90 s before its end, and submitit listens once it
    has loaded the work: some 20 s on a busy machine, so that a limit of a minute or two would be too short there.
    """
    (outcome,) = slurm(1, tmp_path / "logs", minutes=3).run(Told(tmp_path, long=True), [0])
    assert not outcome.error and (tmp_path / "0.begun").read_text() == "xx" and (tmp_path / "0.left").exists()


def test_what_is_left_early_is_cancelled(engine, tmp_path):
    outcomes = engine(2, tmp_path / "logs").run(Told(tmp_path, long=True), [1, 0, 2])
    (tmp_path / "1.begun").write_text("again")  # ends at once
    assert next(outcomes).unit == 1
    until((tmp_path / "0.begun").exists)
    outcomes.close()
    until((tmp_path / "0.left").exists)
    if "SLURM_CONF" in os.environ:
        ask = ["squeue", "--noheader", "--format=%T"]
        until(lambda: set(subprocess.check_output(ask, text=True).split()) <= {"COMPLETING"})
