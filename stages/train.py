"""`posebridge train`: a run on a protocol, in two phases, all seeds.

Reads extractions, encoders and a text bank, writes cache/models/<dataset>/<protocol>/<run>/. Training cannot reach a
test clip; before it, test clips that repeat a train clip are listed, as `extract` noted them.
Command: posebridge train --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from pipeline.executors.base import LOGS
from pipeline.params import choose, load_params
from stages.bars import epochs
from stages.duplicates import known_duplicates
from stages.shell import (
    answer,
    dataset_option,
    device_option,
    devices_of,
    jobs_option,
    json_option,
    params_option,
    plain_errors,
    protocols_option,
    root_option,
    runs_option,
    seeds_option,
    verify_option,
)
from stages.workers import do_table, executor_of, executor_option, workers_option


@click.command()
@dataset_option
@protocols_option
@runs_option
@click.option(
    "--duplicates",
    "guard",
    type=click.Choice(["warn", "fail", "ignore"]),
    default="warn",
    show_default=True,
    help="What to do about test clips that repeat a train clip.",
)
@seeds_option
@jobs_option
@executor_option
@workers_option
@device_option
@root_option
@verify_option
@params_option
@json_option
@plain_errors
def command(
    dataset: str,
    protocols: tuple[str, ...],
    runs: tuple[str, ...],
    guard: str,
    seeds: tuple[int, ...],
    jobs: int,
    executor_name: str | None,
    workers: int | None,
    device: str,
    cache_root: Path | None,
    verify: bool,
    params_path: Path,
    as_json: bool,
) -> None:
    """Train a run: choose values on pseudo-unseen classes, then train on all seen ones.

    \b
    Examples:
      posebridge train --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
      posebridge train --dataset skelgap-mini --protocol compositional_18_6 --run posebridge --device cuda:1
      posebridge train --dataset ntu60 --protocol synse_55_5 --protocol synse_48_12 --run posebridge --run purls
        --params params/paper-ntu-synse.yaml --executor slurm --workers 12
    """
    from pipeline.learn.cells import Cell, CellsJob  # after parsing, so that --help needs no torch
    from pipeline.learn.dataset import open_dataset
    from pipeline.learn.train import require_for_training, train, train_cell
    from pipeline.protocol.duplicates import count_told

    params = load_params(params_path).only(seeds)
    chosen = {name: choose(params.runs, name, "run") for name in runs}
    executor = executor_of(params, executor_name, workers, LOGS / "train", device, jobs)
    here = executor.here
    devices = devices_of(device, jobs) if here else ()
    opened = open_dataset(dataset, store_root=cache_root, verify=verify, strict=False)  # train lists what is missing
    pairs = [(protocol, name) for protocol in dict.fromkeys(protocols) for name in chosen]
    recipes = {pair: chosen[pair[1]].of(pair[0]).recipe for pair in pairs}
    found = {
        recipe: [] if guard == "ignore" else known_duplicates(opened.of(recipe), recipe, refuse=guard == "fail")
        for recipe in dict.fromkeys(recipes.values())
    }
    if len(pairs) > 1 or not here:  # of one, `train` does it
        for protocol, name in pairs:
            require_for_training(opened, protocol, chosen[name], params.seeds(chosen[name]))
    if here:
        folders = {}
        for protocol, name in pairs:
            with epochs(f"train {name}", len(params.seeds(chosen[name]))) as on_epoch:
                folders[protocol, name] = train(opened, protocol, name, chosen[name], params, on_epoch, jobs, devices)
    else:
        cells = tuple(Cell(*pair, seed) for pair in pairs for seed in params.seeds(chosen[pair[1]]))
        job = CellsJob(train_cell, cells, dataset, params, device, cache_root, verify)
        done = do_table("train", job, executor)
        folders = {(cell.protocol, cell.name): folder for cell, folder in zip(cells, done, strict=True)}
    values, lines = [], []
    for (protocol, name), folder in folders.items():
        repeated = found[recipes[protocol, name]]
        told = f" {count_told(repeated)}." if repeated else ""
        lines.append(f"Wrote {folder}.{told}")
        duplicates = None if repeated is None else [dataclasses.asdict(pair) for pair in repeated]
        values.append({"models": str(folder), "seeds": params.seeds(chosen[name]), "duplicates": duplicates})
    answer(values[0] if len(values) == 1 else {"table": values}, "\n".join(lines), as_json)
