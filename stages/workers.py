"""The options of commands whose work goes to executors, and how the cells of a table go there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.executors.base import EXECUTORS, Executor, build_executor
from pipeline.params import Params
from stages.bars import counter

if TYPE_CHECKING:
    from pipeline.learn.cells import CellsJob

executor_option = click.option(
    "--executor",
    "executor_name",
    type=click.Choice(list(EXECUTORS)),
    help="Where the work is done: in processes of this machine, or on a cluster.  [default: params.yaml]",
)
workers_option = click.option(
    "--workers", type=click.IntRange(1, 10**5), help="How many at a time.  [default: params.yaml, which says 1]"
)


def executor_of(
    params: Params, name: str | None, workers: int | None, logs: Path, device: str = "auto", jobs: int = 1
) -> Executor:
    """What --executor and --workers stand for; params.yaml decides where they are not given. A GPU that `device` names
    by its number is that of all local workers. Raises UsageError where --jobs would share out this machine beside it.
    """
    chosen = name or params.executor.name
    options = device if chosen == "local" else getattr(params.executor, chosen, None)
    executor = build_executor(chosen, workers or params.executor.workers, logs, options)
    if jobs > 1 and not executor.here:
        raise click.UsageError(
            f"--jobs are processes of this machine, and the executor {chosen} has workers of its own: give --workers "
            "instead of --jobs, or --executor local --workers 1 beside it."
        )
    return executor


def do_table(what: str, job: CellsJob, executor: Executor) -> list[Path]:
    """Have the cells done, with a bar that counts them; the folder of each."""
    from pipeline.executors.stopping import tidy_end
    from pipeline.learn.cells import do_cells  # after parsing, so that --help needs no torch

    with counter("cell", f"{what} {job.dataset}") as show, tidy_end():
        return do_cells(job, executor, show)
