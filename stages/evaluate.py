"""`posebridge evaluate`: a trained run on unseen classes (ZSL) and on all classes (GZSL).

Reads cache/models/<dataset>/<protocol>/<run>/, writes cache/results/<dataset>/<protocol>/<run>/seed-<k>/, or of a
variant of the test clips .../<run>@<variant>/seed-<k>/.
Command: posebridge evaluate --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
"""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import click

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
    "--variant",
    "variants",
    multiple=True,
    help="Test on this variant of the test clips instead, e.g. occlusion-2; may be repeated.",
)
@seeds_option
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
    variants: tuple[str, ...],
    seeds: tuple[int, ...],
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
    from pipeline.learn.dataset import open_dataset  # after parsing, so that --help needs no torch
    from pipeline.learn.evaluate import evaluate, require_for_testing

    params = load_params(params_path).only(seeds)
    run = choose(params.runs, run_name, "run")
    (place,) = devices_of(device)
    tests, results = variants or ("",), {}
    opened = open_dataset(dataset, store_root=cache_root, verify=verify, strict=False)  # listed is all that is missing
    if len(tests) > 1:  # of one, `evaluate` does it
        require_for_testing(opened, protocol, run_name, run, params, tests)
    total, done = len(tests) * len(params.seeds(run)), count(1)
    with counter("seed", f"evaluate {run_name}") as show:
        for variant in tests:
            folder = evaluate(
                opened, protocol, run_name, run, params, lambda _: show(next(done), total), variant, place
            )
            paths = (folder / f"seed-{seed}" / "metrics.json" for seed in params.seeds(run))
            metrics = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
            results[variant] = {"results": str(folder), "metrics": metrics}
    unseen = len(opened.split(protocol).unseen)
    sentence = "\n".join(f"Wrote {r['results']}; {told(r['metrics'], unseen)}." for r in results.values())
    answer({"variants": results} if variants else results[""], sentence, as_json)


def told(metrics: list[dict], unseen: int) -> str:
    """The figures of all seeds in one phrase, beside chance and the number of clips."""
    from pipeline.protocol.spread import spread_of

    found = [each["zsl"]["top1"] for each in metrics if each["zsl"]]
    if not found:
        return "no class is unseen, so there is no zero-shot figure"
    seeds = f"mean of {len(found)} seeds ({', '.join(f'{100 * top1:.1f}' for top1 in found)})"
    return (
        f"top-1 of {metrics[0]['zsl']['n']} clips of {unseen} unseen classes: {spread_of(found).percent} %, "
        f"{seeds if len(found) > 1 else 'a single run'}; chance {100 / unseen:.1f} %"
    )
