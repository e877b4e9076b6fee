"""Executors: every unit once, in processes that keep what they have loaded, whoever is killed."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.errors import PosebridgeError
from pipeline.executors import ray, slurm
from pipeline.executors.base import build_executor
from pipeline.executors.local import usable_cores, usable_gpus
from pipeline.params import SlurmParams

pytestmark = pytest.mark.unit


@dataclass(frozen=True)
class Work:
    """Units that tell of their process, fail, or kill it: `deadly` ones once or always."""

    folder: Path
    faulty: tuple[int, ...] = ()
    odd: tuple[int, ...] = ()
    deadly: tuple[int, ...] = ()
    always: bool = False

    def __call__(self, unit: int) -> tuple[int, int, str]:
        if unit in self.deadly and (self.always or not (self.folder / str(unit)).exists()):
            (self.folder / str(unit)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if unit in self.faulty:
            raise PosebridgeError(f"Unit {unit} is not as it should be.")
        if unit in self.odd:
            raise ValueError(f"{unit} is odd")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
        return os.getpid(), cores, os.environ.get("CUDA_VISIBLE_DEVICES", "")


def test_one_worker_is_this_process_and_its_errors_are_raised(tmp_path):
    local = build_executor("local", 1, tmp_path)
    outcomes = list(local.run(lambda unit: (unit, os.getpid()), [3, 1]))
    assert local.here and [(o.unit, o.value, o.error) for o in outcomes] == [
        (3, (3, os.getpid()), ""), (1, (1, os.getpid()), "")
    ]  # fmt: skip
    with pytest.raises(PosebridgeError, match="Unit 5"):
        list(local.run(Work(tmp_path, faulty=(5,)), [5]))


def test_processes_share_the_units_and_what_fails_stops_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    logs = tmp_path / "logs"
    work = Work(tmp_path, faulty=(2,), odd=(3,), deadly=(4,))
    outcomes = {o.unit: o for o in build_executor("local", 2, logs).run(work, range(8))}
    assert sorted(outcomes) == list(range(8))
    assert outcomes[2].error == "Unit 2 is not as it should be" and outcomes[3].error == "ValueError: 3 is odd"
    assert "3 is odd" in Path(outcomes[3].log).read_text() and "Traceback" in Path(outcomes[3].log).read_text()
    values = [outcome.value for outcome in outcomes.values() if not outcome.error]
    assert len(values) == 6 and outcomes[4].value, "a unit whose process was killed is tried again"
    assert os.getpid() not in {pid for pid, _, _ in values} and len({pid for pid, _, _ in values}) <= 3
    assert {gpu for _, _, gpu in values} <= {"4", "7"}
    half = len(usable_cores()) // 2
    assert {cores for _, cores, _ in values} <= {max(1, half), len(usable_cores()) - half}
    assert all(path.stat().st_size for path in logs.iterdir()), "no empty log stays"


def test_a_gpu_that_is_named_by_its_number_is_that_of_all_workers(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    outcomes = list(build_executor("local", 2, tmp_path / "logs", "cuda:1").run(Work(tmp_path), range(2)))
    assert [outcome.value[2] for outcome in outcomes] == ["4,7"] * 2, "cuda:1 is the second of these in each"


def test_a_unit_that_always_kills_its_process_is_given_up(tmp_path):
    (outcome,) = build_executor("local", 2, tmp_path / "logs").run(Work(tmp_path, deadly=(4,), always=True), [4])
    assert "killed by signal 9" in outcome.error and outcome.value is None
    assert not outcome.log and list((tmp_path / "logs").iterdir()) == [], "it has said nothing"


def test_leaving_early_stops_the_processes(tmp_path):
    outcomes = build_executor("local", 2, tmp_path / "logs").run(Work(tmp_path), range(4))
    started = [next(outcomes).value[0], next(outcomes).value[0]]
    outcomes.close()
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_gpus_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert usable_gpus() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,GPU-abc")
    assert usable_gpus() == ["1", "GPU-abc"]


@pytest.mark.parametrize("options", [{}, {"gpus": 2, "partition": "gpu", "cpus": 8, "memory_gb": 32.0, "minutes": 9}])
def test_slurm_is_asked_for_what_the_parameters_say(tmp_path, monkeypatch, options):
    asked, sent = {}, []

    class Queue:
        """As submitit's executor, of which the cluster is asked; it sends nothing."""

        def __init__(self, folder, max_num_timeout):
            assert folder.parent == tmp_path and max_num_timeout == SlurmParams().resubmit

        def update_parameters(self, **words):
            asked.update(words)

        def batch(self):
            return nullcontext()

        def submit(self, task):
            sent.append(task.unit)
            return SimpleNamespace(job_id=f"7_{task.unit}", paths=SimpleNamespace(stdout=tmp_path / "log"))

    errors = SimpleNamespace(utils=SimpleNamespace(FailedJobError=OSError))
    monkeypatch.setattr(slurm, "_submitit", lambda: SimpleNamespace(SlurmExecutor=Queue, core=errors))
    monkeypatch.setattr(slurm, "largest_array", lambda: 100)
    executor = build_executor("slurm", 4, tmp_path, SlurmParams(**options))
    work = executor.run(Work(tmp_path), [5, 6])
    monkeypatch.setattr(slurm.time, "sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(slurm.subprocess, "run", lambda *a, **k: None)  # scancel
    with pytest.raises(KeyboardInterrupt):
        next(work)
    told = SlurmParams(**options)
    assert sent == [5, 6] and asked["time"] == told.minutes and asked["cpus_per_task"] == told.cpus
    assert asked["mem"] == f"{round(told.memory_gb * 1024)}M" and asked["array_parallelism"] == 4
    assert asked.get("gpus_per_node") == (told.gpus or None) and asked.get("partition") == (told.partition or None)


def test_a_cluster_without_job_arrays_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "_submitit", lambda: None)
    monkeypatch.setattr(slurm, "_ask", lambda *command: "MaxArraySize            = 0\n")
    with pytest.raises(PosebridgeError, match="takes no job arrays .MaxArraySize is 0"):
        next(build_executor("slurm", 1, tmp_path).run(Work(tmp_path), [0]))
    monkeypatch.setattr(slurm, "_ask", lambda *command: "MaxArraySize            = 7\n")
    assert slurm.largest_array() == 7


def test_a_unit_that_fails_in_ray_tells_where_its_log_is(tmp_path, monkeypatch):
    """Of Ray, nothing but what the executor calls."""
    node = SimpleNamespace(get_logs_dir_path=lambda: str(tmp_path))
    there = SimpleNamespace(
        is_initialized=lambda: True,
        put=lambda work: work,
        remote=lambda **options: lambda task: SimpleNamespace(remote=task),
        wait=lambda tasks: (tasks[:1], tasks[1:]),
        get=lambda outcome: outcome,
        exceptions=SimpleNamespace(RayError=OSError),
        _private=SimpleNamespace(worker=SimpleNamespace(global_worker=SimpleNamespace(node=node))),
    )
    monkeypatch.setattr(ray, "_ray", lambda: there)
    outcomes = {o.unit: o for o in build_executor("ray", 2, tmp_path).run(Work(tmp_path, odd=(1,)), [0, 1])}
    assert outcomes[1].error == "ValueError: 1 is odd" and outcomes[1].log == str(tmp_path)
    assert outcomes[0].value and not outcomes[0].error


def test_an_unknown_executor_is_one_sentence():
    with pytest.raises(PosebridgeError, match="no executor 'cloud'; there are local"):
        build_executor("cloud")
