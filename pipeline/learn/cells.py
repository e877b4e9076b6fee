"""The cells of a table, protocols x runs x seeds, as units of work that an executor does anywhere.

A cell is what `encode`, `train` or `evaluate` does for one seed, and the same function does it, wherever that is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pipeline.errors import PosebridgeError
from pipeline.executors.base import Executor, enter
from pipeline.files.device import choose_devices
from pipeline.learn.dataset import Dataset, open_dataset
from pipeline.params import Params


@dataclass(frozen=True)
class Cell:
    """`name` is that of a run; for `encode` the recipe of its skeletons. `variant` is one of the test clips."""

    protocol: str
    name: str
    seed: int
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.protocol}, {self.name}{self.variant and '@' + self.variant}, seed {self.seed}"


@dataclass(frozen=True)
class CellsJob:
    """All that a process needs to do cells: picklable, and called with the place of a cell in `cells`.

    `do` is `encode_cell`, `train_cell` or `evaluate_cell`. `device` is what --device says, and is looked for where the
    cell is done. `folder` is what relative paths start from.
    """

    do: Callable[[Dataset, Cell, Params, torch.device], Path]
    cells: tuple[Cell, ...]
    dataset: str
    params: Params
    device: str = "auto"
    store_root: Path | None = None
    verify: bool = True
    folder: Path = field(default_factory=Path.cwd)

    def __call__(self, unit: int) -> Path:
        """Do it; returns the folder of the cell's protocol and name."""
        enter(self.folder)
        opened = _opened(self.dataset, self.store_root, self.verify, self.folder)
        return self.do(opened, self.cells[unit], self.params, *choose_devices(self.device))


@functools.lru_cache(maxsize=1)
def _opened(dataset: str, store_root: Path | None, verify: bool, folder: Path) -> Dataset:
    """The data set, read once in a process that does several cells."""
    return open_dataset(dataset, store_root=store_root, verify=verify, strict=False)  # `do` tells what is missing


def do_cells(job: CellsJob, executor: Executor, on_cell: Callable[[int, int], None]) -> list[Path]:
    """Have every cell done; what the job returned for each, in their order. `on_cell` is told (cells done, of all).

    Raises PosebridgeError where cells failed, once the others are done: run again, a cell that is done is done at once
    or over again, and a training that was killed goes on where it was.
    """
    folders: dict[int, Path] = {}
    failed = []
    units = range(len(job.cells))
    with closing(executor.run(job, units)) as outcomes:
        for done, outcome in enumerate(outcomes, 1):
            if outcome.error:
                failed.append(outcome)
            else:
                folders[outcome.unit] = outcome.value
            on_cell(done, len(units))
    if failed:
        first = min(failed, key=lambda outcome: outcome.unit)
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        log = f"; its log is {first.log}" if first.log and first.log not in first.error else ""
        raise PosebridgeError(
            f"{job.cells[first.unit]}{more} failed{first.place}: {first.error}{log}; put this right and run the "
            "same command again."
        )
    return [folders[unit] for unit in units]
