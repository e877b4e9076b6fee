"""Units of work as tasks of Ray: on the cluster at an address, or on one that is started on this machine."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.errors import PosebridgeError
from pipeline.executors.base import Outcome, outcome_of
from pipeline.executors.local import usable_cores
from pipeline.executors.stopping import LEAVE_SECONDS, tidy_end
from pipeline.params import RayParams

CONNECT_SECONDS = 10.0


class RayExecutor:
    """`workers` is the most tasks at a time. The worker processes are Ray's, which keeps them, and so what the work has
    loaded. A Ray that this process has joined already is used as it is.
    """

    here = False

    def __init__(self, workers: int, logs: Path, options: RayParams | None = None):
        self.workers, self.options = workers, options or RayParams()
        _ray()

    def run(self, work: Callable[[int], Any], units: Sequence[int]) -> Generator[Outcome, None, None]:
        """See `Executor.run`."""
        ray, options = _ray(), self.options
        if joined := not ray.is_initialized():
            _join(ray, options)
        # By itself Ray ends a process that had a GPU after one task, and with it the model: max_calls.
        task = ray.remote(max_calls=0, max_retries=options.retries, num_cpus=options.cpus, num_gpus=options.gpus)(_task)
        work_there, waiting = ray.put(work), deque(units)
        busy: dict[Any, int] = {}
        with redirect_stdout(sys.stderr):  # Ray prints there what happens to workers; ours is for results
            try:
                while waiting or busy:
                    while waiting and len(busy) < self.workers:
                        unit = waiting.popleft()
                        busy[task.remote(work_there, unit)] = unit
                    for done in ray.wait(list(busy))[0]:
                        unit = busy.pop(done)
                        try:
                            outcome = ray.get(done)
                            yield outcome if not outcome.error else replace(outcome, log=_logs(ray))
                        except ray.exceptions.RayError as error:
                            yield Outcome(unit, error=self._fate(error), log=_logs(ray))
            finally:
                for left in busy:
                    ray.cancel(left)
                if busy:
                    ray.wait(list(busy), num_returns=len(busy), timeout=LEAVE_SECONDS)
                if joined:
                    ray.shutdown()

    def _fate(self, error: Exception) -> str:
        """What became of a task that has no outcome, its retries used up."""
        kind, tries = type(error).__name__, f"{self.options.retries + 1} tries"
        if hasattr(error, "cause"):  # raised outside of the work, which itself raises nothing
            why = str(error.cause).strip().splitlines()[-1:]
            return f"Ray cannot bring it to a worker ({' '.join(why)}); install this posebridge on every node"
        if kind == "OutOfMemoryError":
            return f"its machine had too little memory for it in {tries}; have fewer workers, or more `ray: cpus` each"
        return f"its worker was lost in {tries} ({kind})"


def _task(work: Callable[[int], Any], unit: int) -> Outcome:
    """What runs in a worker of Ray."""
    with tidy_end():
        return outcome_of(work, unit)


def _join(ray: Any, options: RayParams) -> None:
    """Join the cluster, or start one. Raises PosebridgeError where that cannot be."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    host, _, port = options.address.rpartition("://")[2].rpartition(":")
    if port.isdigit():
        try:  # Ray itself would wait for minutes
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        except OSError as error:
            raise PosebridgeError(
                f"No Ray cluster answers at {options.address} ({error.strerror or error}); see `executor: ray: "
                "address` in the parameters."
            ) from None
    try:
        if options.address:
            ray.init(address=options.address, **quiet)
        else:
            ray.init(address="local", num_cpus=len(usable_cores()), include_dashboard=False, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise PosebridgeError(f"Ray does not start: {str(error).splitlines()[0].rstrip('.')}.") from None
    there = ray.cluster_resources()
    for name, wanted in (("CPU", options.cpus), ("GPU", options.gpus)):
        if wanted > there.get(name, 0):  # Ray would wait for ever
            ray.shutdown()
            raise PosebridgeError(
                f"Each task is to have {wanted:g} {name}s, and Ray has {there.get(name, 0):g} in all; lower `executor: "
                f"ray: {name.lower()}s` in the parameters, or add nodes."
            )


def _logs(ray: Any) -> str:
    """The folder in which Ray writes what its workers print, where it can be known."""
    with suppress(AttributeError):
        return str(ray._private.worker.global_worker.node.get_logs_dir_path())
    return ""


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise PosebridgeError("Ray is not installed; install it with `pip install 'posebridge[ray]'`.") from None
    return ray
