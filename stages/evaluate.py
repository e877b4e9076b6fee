"""`posebridge evaluate`: a trained run on unseen classes (ZSL) and on all classes (GZSL).

Reads cache/models/<dataset>/<protocol>/<run>/, writes cache/results/<dataset>/<protocol>/<run>/seed-<k>/, or of a
variant of the test clips .../<run>@<variant>/seed-<k>/.
Command: posebridge evaluate --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
"""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import count
from pathlib import Path

import click

from pipeline.executors.base import LOGS
from pipeline.params import choose, load_params
from stages.bars import counter
from stages.shell import (
    answer,
    dataset_option,
    device_option,
    devices_of,
    json_option,
    params_option,
    plain_errors,
    protocols_option,
    root_option,
    runs_option,
    say,
    seeds_option,
    verify_option,
)
from stages.workers import do_table, executor_of, executor_option, workers_option


@click.command()
@dataset_option
@protocols_option
@runs_option
@click.option(
    "--variant",
    "variants",
    multiple=True,
    help="Test on this variant of the test clips instead, e.g. occlusion-2; may be repeated.",
)
@seeds_option
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
    variants: tuple[str, ...],
    seeds: tuple[int, ...],
    executor_name: str | None,
    workers: int | None,
    device: str,
    cache_root: Path | None,
    verify: bool,
    params_path: Path,
    as_json: bool,
) -> None:
    """Test a trained run; every value that could be chosen was chosen by `train`.

    A variant is made by `posebridge synth --variant` and extracted by `posebridge extract --variant`.

    \b
    Example: posebridge evaluate --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
    """
    from pipeline.learn.cells import Cell, CellsJob  # after parsing, so that --help needs no torch
    from pipeline.learn.dataset import open_dataset
    from pipeline.learn.evaluate import evaluate, evaluate_cell, require_for_testing
    from pipeline.protocol.splits import read_split, told_overlap

    params = load_params(params_path).only(seeds)
    chosen = {name: choose(params.runs, name, "run") for name in runs}
    executor = executor_of(params, executor_name, workers, LOGS / "evaluate", device)
    places = devices_of(device) if executor.here else ()
    opened = open_dataset(dataset, store_root=cache_root, verify=verify, strict=False)  # listed is all that is missing
    pairs = [(protocol, name) for protocol in dict.fromkeys(protocols) for name in chosen]
    tests = variants or ("",)
    if len(pairs) * len(tests) > 1 or not executor.here:  # of one, `evaluate` does it
        for protocol, name in pairs:
            require_for_testing(opened, protocol, name, chosen[name], params.seeds(chosen[name]), tests)
    cells = [
        Cell(protocol, name, seed, variant)
        for protocol, name in pairs for variant in tests for seed in params.seeds(chosen[name])
    ]  # fmt: skip
    if executor.here:
        done, folders = count(1), {}
        with counter("seed", f"evaluate {', '.join(chosen)}") as show:
            for protocol, name in pairs:
                for variant in tests:
                    run, tell = chosen[name], lambda _: show(next(done), len(cells))
                    folders[protocol, name, variant] = evaluate(
                        opened, protocol, name, run, params, tell, variant, *places
                    )
    else:
        job = CellsJob(evaluate_cell, tuple(cells), dataset, params, device, cache_root, verify)
        found = do_table("evaluate", job, executor)
        folders = {(c.protocol, c.name, c.variant): folder for c, folder in zip(cells, found, strict=True)}
    table: dict[tuple[str, str], dict[str, dict]] = defaultdict(dict)
    for (protocol, name, variant), folder in folders.items():
        paths = (folder / f"seed-{seed}" / "metrics.json" for seed in params.seeds(chosen[name]))
        metrics = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        table[protocol, name][variant] = {"results": str(folder), "metrics": metrics}
    splits = {protocol: read_split(opened.folder / "protocols", protocol, opened.class_names) for protocol in protocols}
    for split in splits.values():
        if split.trains_on:
            say(told_overlap(dataset, split))
    lines = [
        f"Wrote {result['results']}; {told(result['metrics'], len(splits[protocol].unseen))}."
        for (protocol, _), results in table.items() for result in results.values()
    ]  # fmt: skip
    values = [{"variants": results} if variants else results[""] for results in table.values()]
    answer(values[0] if len(values) == 1 else {"table": values}, "\n".join(lines), as_json)


def told(metrics: list[dict], unseen: int) -> str:
    """The figures of all seeds in one phrase, beside chance and the number of clips."""
    from pipeline.protocol.spread import spread_of

    found = [each["zsl"]["top1"] for each in metrics if each["zsl"]]
    if not found:
        return "no class is unseen, so there is no zero-shot figure"
    top5 = [each["zsl"]["top5"] for each in metrics if each["zsl"] and each["zsl"]["top5"] is not None]
    among_five = f"; among the first five {spread_of(top5).percent} %" if top5 else ""
    seeds = f"mean of {len(found)} seeds ({', '.join(f'{100 * top1:.1f}' for top1 in found)})"
    return (
        f"top-1 of {metrics[0]['zsl']['n']} clips of {unseen} unseen classes: {spread_of(found).percent} %, "
        f"{seeds if len(found) > 1 else 'a single run'}; chance {100 / unseen:.1f} %{among_five}"
    )
