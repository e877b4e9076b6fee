"""`posebridge encode`: skeleton encoders of a protocol, both phases, all seeds.

Reads cache/<dataset>/<skeletons>/index.json and the protocol, writes cache/encoders/<dataset>/<protocol>/<skeletons>/.
Command: posebridge encode --dataset skelgap-mini --protocol compositional_18_6 --skeletons refined
"""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.params import choose, load_params
from stages.bars import epochs
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
@click.option("--skeletons", required=True, help="The recipe whose skeletons are learnt from, e.g. refined or gt.")
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
    skeletons: str,
    seeds: tuple[int, ...],
    jobs: int,
    device: str,
    cache_root: Path | None,
    verify: bool,
    params_path: Path,
    as_json: bool,
) -> None:
    """Train the skeleton encoders, on seen classes only.

    \b
    Examples:
      posebridge encode --dataset skelgap-mini --protocol compositional_18_6 --skeletons refined
      posebridge encode --dataset ntu60 --protocol synse_55_5 --skeletons ntu25_3d --device cuda --jobs 3
    """
    from pipeline.learn.dataset import open_dataset  # after parsing, so that --help needs no torch
    from pipeline.learn.encode import encode

    params = load_params(params_path).only(seeds)
    choose(params.recipes, skeletons, "recipe")
    devices = devices_of(device, jobs)
    opened = open_dataset(dataset, store_root=cache_root, verify=verify, strict=False)  # encode lists what is missing
    with epochs(f"encode {skeletons}", len(params.encode.seeds)) as on_epoch:
        folder = encode(opened, protocol, skeletons, params.encode, on_epoch, jobs, devices)
    answer({"encoders": str(folder), "seeds": params.encode.seeds}, f"Wrote {folder}.", as_json)
