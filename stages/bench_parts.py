"""`posebridge bench parts`: what each part of PoseBridge is worth, and where.

Trains the selection phase only, no test clip is read; writes nothing.
Command: posebridge bench parts --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from pipeline.params import choose, load_params
from stages.bars import progress
from stages.shell import (
    answer,
    dataset_option,
    json_option,
    params_option,
    plain_errors,
    protocol_option,
    root_option,
    seeds_option,
)


@click.command("parts")
@dataset_option
@protocol_option
@click.option("--run", "run_name", required=True, help="A run of the method posebridge, with cues.")
@click.option("--change", "changes", multiple=True, help="A change of the data; may be repeated.  [default: all]")
@click.option("--part", "parts", multiple=True, help="What is taken away or put in; may be repeated.  [default: all]")
@seeds_option
@root_option
@params_option
@json_option
@plain_errors
def parts(
    dataset: str, protocol: str, run_name: str, changes: tuple[str, ...], parts: tuple[str, ...],
    seeds: tuple[int, ...], cache_root: Path | None, params_path: Path, as_json: bool,
) -> None:  # fmt: skip
    """What each part of PoseBridge is worth: by the selection phase, on the data as they are and on controlled changes
    of them. No test clip is read, nothing is chosen.

    \b
    Example: posebridge bench parts --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
    """
    from pipeline.bench.parts import CHANGES, PARTS, bench_parts
    from pipeline.learn.dataset import open_dataset

    params = load_params(params_path)
    run = choose(params.runs, run_name, "run").of(protocol)
    for named, known, what in ((changes, CHANGES, "change"), (parts, PARTS, "part")):
        for name in named:
            choose(dict(known), name, what)
    asked = changes or tuple(CHANGES)
    opened = open_dataset(dataset, store_root=cache_root, strict=False)  # bench_parts tells what is missing
    found = bench_parts(opened, protocol, run, params, seeds or params.seeds(run), asked, parts or tuple(PARTS))
    worth = list(progress(found, None, "row", "bench parts"))
    lines = [f"{'data':14} {'part':24} {'area':>12} {'more':>12} {'top-1':>12} {'more':>12}"]
    for each in worth:
        figures = (each.area, each.more_area, each.top1, each.more_top1)
        lines.append(f"{each.change:14} {each.part:24} " + " ".join(f"{figure.percent:>12}" for figure in figures))
    lines.append(f"Percent, of the selection phase; mean ± standard deviation over {worth[0].seeds} seeds. `more` is "
                 "the difference to the whole, seed by seed.")  # fmt: skip
    answer({"parts": [dataclasses.asdict(each) for each in worth]}, "\n".join(lines), as_json)
