"""Units of work as tasks of Slurm's job arrays, sent by submitit.

A task that is lost (its time was up, it was preempted, its node failed, something killed it) is submitted again, a
bounded number of times. What became of a task is asked of `squeue`: not every cluster has an accounting to ask.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import PosebridgeError
from pipeline.executors.base import Outcome, outcome_of
from pipeline.executors.stopping import tidy_end
from pipeline.params import SlurmParams

LOOK_SECONDS = 1.0  # from one look at the folder of results to the next
MOST_ASK_SECONDS = 30.0  # from one question to squeue to the next; at first they come often
GRACE_SECONDS = 10.0  # that a result may take to be seen on a network disk
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
         "REVOKED", "TIMEOUT"}  # fmt: skip
FINAL = {"CANCELLED", "OUT_OF_MEMORY"}  # a second try would end likewise
SHELL_SIGNALS = 128  # a shell reports a command killed by signal N as 128 + N


@dataclass(frozen=True)
class Task:
    """A unit and its work, as submitit sends them to a node."""

    work: Callable[[int], Any]
    unit: int

    def __call__(self) -> Outcome:
        with tidy_end():  # submitit would have the task go on until it is killed
            return outcome_of(self.work, self.unit)

    def checkpoint(self) -> Any:
        """What submitit queues again, in this task's place, shortly before its time is up: the same."""
        return _submitit().helpers.DelayedSubmission(self)


@dataclass
class Sent:
    """A task in the queue."""

    unit: int
    log: Path
    tries: int = 0  # before this one
    missed: float = 0.0  # when Slurm was first seen to have no task for it any more; 0 while it has


class SlurmExecutor:
    """`workers` is the most tasks at a time. A folder in `logs`, on a disk that all nodes see, gets a log of each."""

    here = False

    def __init__(self, workers: int, logs: Path, options: SlurmParams | None = None):
        self.workers, self.params = workers, options or SlurmParams()
        self.folder = logs.resolve() / time.strftime(f"slurm-%Y%m%d-%H%M%S-{os.getpid()}")
        self._most = 0  # tasks of an array, once the cluster has been asked
        _submitit()

    def run(self, work: Callable[[int], Any], units: Sequence[int]) -> Generator[Outcome, None, None]:
        """See `Executor.run`."""
        sent: dict[str, Sent] = {}  # by the name that Slurm gives a task, 17_3
        begun = asked = time.monotonic()
        self._most = self._most or largest_array()
        try:
            self._send(work, [(unit, 0) for unit in units], sent)
            while sent:
                time.sleep(LOOK_SECONDS)
                yield from self._results(sent)
                now = time.monotonic()
                if now - asked < min(MOST_ASK_SECONDS, max(LOOK_SECONDS, (now - begun) / 10)):
                    continue
                asked = now
                again = []
                for name, state in self._lost(sent):
                    task = sent.pop(name)
                    if state in FINAL or task.tries >= self.params.resubmit:
                        yield Outcome(task.unit, None, self._sentence(task, name, state), str(task.log))
                    else:
                        again.append((task.unit, task.tries + 1))
                self._send(work, again, sent)
        finally:
            if sent:
                arrays = sorted({name.partition("_")[0] for name in sent})
                subprocess.run(["scancel", *arrays], check=False, capture_output=True)

    def _send(self, work: Callable[[int], Any], tries: Sequence[tuple[int, int]], sent: dict[str, Sent]) -> None:
        """Put units, each with its number of tries so far, into the queue, in arrays no longer than it takes."""
        if not tries:
            return
        submitit = _submitit()
        params = self.params
        arrays = [tries[begin : begin + self._most] for begin in range(0, len(tries), self._most)]
        try:
            executor = submitit.SlurmExecutor(self.folder, max_num_timeout=params.resubmit)
            executor.update_parameters(
                job_name="posebridge",
                time=params.minutes,
                cpus_per_task=params.cpus,
                srun_args=[f"--cpus-per-task={params.cpus}"],  # Slurm 22 and newer would give a step one
                mem=f"{round(params.memory_gb * 1024)}M",
                setup=list(params.setup),
                array_parallelism=max(1, self.workers // len(arrays)),
                stderr_to_stdout=True,
                additional_parameters=dict(params.sbatch),
                **({"partition": params.partition} if params.partition else {}),
                **({"gpus_per_node": params.gpus} if params.gpus else {}),
            )
            for array in arrays:
                with redirect_stderr(io.StringIO()), executor.batch():  # sbatch's words are in the error
                    jobs = [executor.submit(Task(work, unit)) for unit, _ in array]
                for job, (unit, count) in zip(jobs, array, strict=True):
                    sent[job.job_id] = Sent(unit, job.paths.stdout, count)
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError, OSError) as error:
            raise PosebridgeError(
                f"Slurm takes no job of us: {last_line(str(error)).removeprefix('sbatch: error: ')}; see `executor: "
                "slurm:` in the parameters."
            ) from None

    def _results(self, sent: dict[str, Sent]) -> Iterator[Outcome]:
        """Of the tasks that have written one. Their files are removed, but for the log."""
        self.folder.chmod(self.folder.stat().st_mode)  # or NFS shows an old list
        for path in sorted(self.folder.glob("*_0_result.pkl")):
            name = path.name.removesuffix("_0_result.pkl")
            if name not in sent:
                continue
            said, result = _submitit().core.utils.pickle_load(path)
            task = sent.pop(name)
            if said != "success":  # not of the work: that is caught
                result = Outcome(task.unit, None, f"{last_line(result)} (task {name}, see {task.log})")
            for done in (path, self.folder / f"{name}_submitted.pkl"):
                done.unlink(missing_ok=True)
            yield replace(result, log=str(task.log))

    def _lost(self, sent: dict[str, Sent]) -> list[tuple[str, str]]:
        """Tasks that ended, or that Slurm no longer knows, and have written no result for a while: (name, state)."""
        if (states := task_states({name.partition("_")[0] for name in sent})) is None:
            return []
        lost = []
        for name, task in sent.items():
            state = states.get(name, "gone")
            if state not in ENDED and name in states:
                task.missed = 0.0
            elif not task.missed:
                task.missed = time.monotonic()
            elif time.monotonic() - task.missed > GRACE_SECONDS:
                lost.append((name, state))
        return lost

    def _sentence(self, task: Sent, name: str, state: str) -> str:
        why = {
            "OUT_OF_MEMORY": f"needs more memory than `slurm: memory_gb`, {self.params.memory_gb:g}",
            "TIMEOUT": f"takes longer than `slurm: minutes`, {self.params.minutes}",
            "CANCELLED": "was cancelled",
        }.get(state, f"has ended as {state}")
        often = f" {task.tries + 1} times" if task.tries else ""
        return f"Slurm's task {name} {why}{often}; its log {task.log} ends with: {log_end(task.log)}"


def largest_array() -> int:
    """The tasks that an array may have on this cluster. Raises PosebridgeError where it takes no arrays."""
    told = _ask("scontrol", "show", "config")
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", told, re.MULTILINE)
    most = int(found[1]) if found else 1001  # Slurm's default
    if not most:
        raise PosebridgeError(
            "This cluster of Slurm takes no job arrays (MaxArraySize is 0 in slurm.conf); have them allowed there, or "
            "use another executor."
        )
    return most


def task_states(jobs: set[str]) -> dict[str, str] | None:
    """The state of every task of these jobs that Slurm knows, by name; None where it does not answer."""
    columns = "ArrayJobID:.20,ArrayTaskID:.20,State:.20"
    which = ("--array", "--states=all", f"--jobs={','.join(sorted(jobs))}")
    try:
        told = _ask("squeue", "--noheader", *which, f"--Format={columns}")
    except PosebridgeError as error:
        return {} if "Invalid job id" in str(error) else None
    rows = [line.split() for line in told.splitlines()]
    return {job if task == "N/A" else f"{job}_{task}": state for job, task, state in filter(None, rows)}


def log_end(path: Path) -> str:
    """The last line of a log, or that there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            return last_line(file.read().decode("utf-8", "replace")) or "nothing"
    except OSError:
        return "nothing, since it was never written"


def last_line(text: str) -> str:
    """That has something in it."""
    return next((line.strip(" .") for line in reversed(text.splitlines()) if line.strip()), "")


def _ask(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    except FileNotFoundError:
        raise PosebridgeError(
            f"Slurm's {command[0]} is not found on this machine; run the command on a login node of the cluster, or "
            "with --executor local."
        ) from None
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = last_line(getattr(error, "stderr", "") or "").removeprefix(f"{command[0]}: ") or "no answer"
        raise PosebridgeError(f"Slurm's {command[0]} says: {said}; ask those who run the cluster.") from None


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise PosebridgeError("submitit is not installed; install it with `pip install 'posebridge[slurm]'`.") from None
    return submitit
