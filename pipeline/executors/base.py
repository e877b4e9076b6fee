"""What runs units of work, shards of a store or seeds of a training, and what it tells of each."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol

from pipeline.errors import PosebridgeError

LOGS = Path("cache/logs")

# Each `Executor` is built with (workers, logs, options), and imported only when it is asked for.
EXECUTORS = {
    "local": "pipeline.executors.local:LocalExecutor",
    "slurm": "pipeline.executors.slurm:SlurmExecutor",
    "ray": "pipeline.executors.ray:RayExecutor",
}


@dataclass(frozen=True)
class Outcome:
    """Of one unit, as it ends."""

    unit: int
    value: Any = None  # what work(unit) returned, plain and picklable; None where it failed
    error: str = ""  # one sentence
    log: str = ""  # path of the log of the process or task that had the unit; empty where there is none
    machine: str = ""  # that had it, where that is known

    @property
    def place(self) -> str:
        """` on node7` for a unit that another machine had: what is wrong may be wrong there alone."""
        return f" on {self.machine}" if self.machine not in ("", socket.gethostname()) else ""


def outcome_of(work: Callable[[int], Any], unit: int, log: str = "") -> Outcome:
    """Do a unit, in the process that is to do it. What goes wrong is told; of what no user can put right, the log has
    the traceback.
    """
    machine = socket.gethostname()
    try:
        return Outcome(unit, work(unit), "", log, machine)
    except PosebridgeError as error:
        return Outcome(unit, None, str(error).rstrip("."), log, machine)
    except Exception as error:
        traceback.print_exc()
        return Outcome(unit, None, f"{type(error).__name__}: {error}".partition("\n")[0], log, machine)


def enter(folder: Path) -> None:
    """Begin a unit in the folder that its paths are relative to: that in which the command was given, on whatever
    machine. Raises PosebridgeError where this one has no such folder.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        raise PosebridgeError(
            f"{socket.gethostname()} cannot enter the project's folder {folder} ({error.strerror}); mount it on this "
            "machine, or leave the machine out."
        ) from None


class Executor(Protocol):
    """Runs units of work. `here` says that it does so in this process: work need not be picklable then, and its errors
    are raised.
    """

    here: bool

    def run(self, work: Callable[[int], Any], units: Sequence[int]) -> Generator[Outcome, None, None]:
        """The outcome of work(unit) for every unit, as they end; once more for one whose worker was lost.

        `work` is called many times in one process, and may keep there what it has loaded. Leaving the iterator early
        stops what it started. Raises PosebridgeError where nothing can be run at all.
        """
        ...


def build_executor(name: str, workers: int = 1, logs: Path = LOGS, options: Any = None) -> Executor:
    """The executor of a name in `EXECUTORS`, for so many units at a time; logs are made in the folder `logs`. `options`
    is what params.yaml says under `executor` in the section of that name.

    Raises PosebridgeError for another name, and where the executor's package is not installed.
    """
    if name not in EXECUTORS:
        raise PosebridgeError(f"There is no executor {name!r}; there are {', '.join(EXECUTORS)}.")
    executor: Executor = resolve_name(EXECUTORS[name])(workers, logs, options)
    return executor
