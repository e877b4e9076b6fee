"""`posebridge train`: a run on a protocol, in two phases, all seeds.

Reads extractions, encoders and a text bank, writes cache/models/<dataset>/<protocol>/<run>/. Training cannot reach a
test clip; before it, test clips that repeat a train clip are listed, as `extract` noted them.
Command: posebridge train --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

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
    protocol_option,
    root_option,
    seeds_option,
    verify_option,
)


@click.command()
@dataset_option
@protocol_option
@click.option("--run", "run_name", required=True, help="A name under `runs` in params.yaml.")
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
@device_option
@root_option
@verify_option
@params_option
@json_option
@plain_errors
def command(
    dataset: str,
    protocol: str,
    run_name: str,
    guard: str,
    seeds: tuple[int, ...],
    jobs: int,
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
    """
    from pipeline.learn.dataset import open_dataset  # after parsing, so that --help needs no torch
    from pipeline.learn.train import train
    from pipeline.protocol.duplicates import count_told

    params = load_params(params_path).only(seeds)
    run = choose(params.runs, run_name, "run")
    devices = devices_of(device, jobs)
    opened = open_dataset(dataset, store_root=cache_root, verify=verify, strict=False)  # train lists what is missing
    found = [] if guard == "ignore" else known_duplicates(opened, run.recipe, refuse=guard == "fail")
    with epochs(f"train {run_name}", len(params.seeds(run))) as on_epoch:
        folder = train(opened, protocol, run_name, run, params, on_epoch, jobs, devices)
    repeated = f" {count_told(found)}." if found else ""
    duplicates = None if found is None else [dataclasses.asdict(pair) for pair in found]
    values = {"models": str(folder), "seeds": params.seeds(run), "duplicates": duplicates}
    answer(values, f"Wrote {folder}.{repeated}", as_json)
