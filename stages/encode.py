"""`posebridge encode`: skeleton encoders of a protocol, both phases, all seeds.

Reads cache/<dataset>/<skeletons>/index.json and the protocol, writes cache/encoders/<dataset>/<protocol>/<skeletons>/.
Command: posebridge encode --dataset skelgap-mini --protocol compositional_18_6 --skeletons refined
"""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.executors.base import LOGS
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
    protocols_option,
    root_option,
    seeds_option,
    verify_option,
)
from stages.workers import do_table, executor_of, executor_option, workers_option


@click.command()
@dataset_option
@protocols_option
@click.option("--skeletons", required=True, multiple=True,
              help="The recipe whose skeletons are learnt from, e.g. refined or gt; may be repeated. Where the "
              "protocol trains on another data set, TRAINED+TESTED names a recipe of each.")  # fmt: skip
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
    skeletons: tuple[str, ...],
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
    """Train the skeleton encoders, on seen classes only.

    \b
    Examples:
      posebridge encode --dataset skelgap-mini --protocol compositional_18_6 --skeletons refined
      posebridge encode --dataset ntu60 --protocol synse_55_5 --skeletons ntu25_3d --device cuda --jobs 3
      posebridge encode --dataset ntu60 --protocol synse_55_5 --protocol synse_48_12 --skeletons ntu25_3d
        --executor slurm --workers 6
    """
    from pipeline.learn.cells import Cell, CellsJob  # after parsing, so that --help needs no torch
    from pipeline.learn.dataset import open_dataset
    from pipeline.learn.encode import encode, encode_cell, require_for_encoding

    params = load_params(params_path).only(seeds)
    for name in skeletons:
        for each in (name,) if name in params.recipes else name.split("+"):  # of two data sets, see docs/across.md
            choose(params.recipes, each, "recipe")
    executor = executor_of(params, executor_name, workers, LOGS / "encode", device, jobs)
    here = executor.here
    devices = devices_of(device, jobs) if here else ()
    opened = open_dataset(dataset, store_root=cache_root, verify=verify, strict=False)  # encode lists what is missing
    pairs = list(dict.fromkeys((protocol, name) for protocol in protocols for name in skeletons))
    if len(pairs) > 1 or not here:  # of one, `encode` does it
        for pair in pairs:
            require_for_encoding(opened, *pair)
    if here:
        folders = []
        for protocol, name in pairs:
            with epochs(f"encode {name}", len(params.encode.seeds)) as on_epoch:
                folders.append(encode(opened, protocol, name, params.encode, on_epoch, jobs, devices))
    else:
        cells = tuple(Cell(*pair, seed) for pair in pairs for seed in params.encode.seeds)
        job = CellsJob(encode_cell, cells, dataset, params, device, cache_root, verify)
        folders = do_table("encode", job, executor)
    written = list(dict.fromkeys(map(str, folders)))  # each once, for all of its seeds
    values = [{"encoders": folder, "seeds": params.encode.seeds} for folder in written]
    sentence = "\n".join(f"Wrote {folder}." for folder in written)
    answer(values[0] if len(values) == 1 else {"table": values}, sentence, as_json)
