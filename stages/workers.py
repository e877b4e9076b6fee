"""The options of commands whose work goes to executors."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.executors.base import EXECUTORS, Executor, build_executor
from pipeline.params import Params

executor_option = click.option(
    "--executor",
    "executor_name",
    type=click.Choice(list(EXECUTORS)),
    help="Where the work is done: in processes of this machine, or on a cluster.  [default: params.yaml]",
)
workers_option = click.option(
    "--workers", type=click.IntRange(1, 10**5), help="How many at a time.  [default: params.yaml, which says 1]"
)


def executor_of(params: Params, name: str | None, workers: int | None, logs: Path) -> Executor:
    """What --executor and --workers stand for; params.yaml decides where they are not given."""
    chosen = name or params.executor.name
    return build_executor(chosen, workers or params.executor.workers, logs, getattr(params.executor, chosen, None))
