"""`posebridge train`: a run on a protocol, in two phases, all seeds.

Reads extractions, encoders and a text bank, writes cache/models/<dataset>/<protocol>/<run>/. It cannot reach a test
clip. Command: posebridge train --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
"""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.params import choose, load_params
from stages.epochs import epoch_bar
from stages.shell import answer, json_option, params_option, plain_errors, root_option


@click.command()
@click.option("--dataset", required=True, help="Name of a folder under manifests/.")
@click.option("--protocol", required=True, help="Name of a file under manifests/<dataset>/protocols/, without .txt.")
@click.option("--run", "run_name", required=True, help="A name under `runs` in params.yaml.")
@root_option
@params_option
@json_option
@plain_errors
def command(
    dataset: str, protocol: str, run_name: str, cache_root: Path | None, params_path: Path, as_json: bool
) -> None:
    """Train a run: choose values on pseudo-unseen classes, then train on all seen ones.

    \b
    Example: posebridge train --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
    """
    from pipeline.dataset import open_dataset  # after parsing, so that --help needs no torch
    from pipeline.phases import train

    params = load_params(params_path)
    run = choose(params.runs, run_name, "run")
    with epoch_bar(f"train {run_name}") as on_epoch:
        folder = train(open_dataset(dataset, store_root=cache_root), protocol, run_name, run, params, on_epoch)
    answer({"models": str(folder), "seeds": params.encode.seeds}, f"Wrote {folder}.", as_json)
