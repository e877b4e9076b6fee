"""`posebridge evaluate`: a trained run on unseen classes (ZSL) and on all classes (GZSL).

Reads cache/models/<dataset>/<protocol>/<run>/, writes cache/results/<dataset>/<protocol>/<run>/seed-<k>/, or of a
variant of the test clips .../<run>@<variant>/seed-<k>/.
Command: posebridge evaluate --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipeline.params import choose, load_params
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
@root_option
@params_option
@json_option
@plain_errors
def command(
    dataset: str,
    protocol: str,
    run_name: str,
    variants: tuple[str, ...],
    seeds: tuple[int, ...],
    cache_root: Path | None,
    params_path: Path,
    as_json: bool,
) -> None:
    """Test a trained run; every value that could be chosen was chosen by `train`.

    A variant is made by `posebridge synth --variant` and extracted by `posebridge extract --variant`.

    \b
    Example: posebridge evaluate --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
    """
    from tqdm import tqdm

    from pipeline.dataset import open_dataset  # after parsing, so that --help needs no torch
    from pipeline.evaluation import evaluate

    params = load_params(params_path).only(seeds)
    run = choose(params.runs, run_name, "run")
    tests, results = variants or ("",), {}
    opened = open_dataset(dataset, store_root=cache_root)
    with tqdm(total=len(tests) * len(params.seeds(run)), desc=f"evaluate {run_name}", unit="seed") as bar:
        for variant in tests:
            folder = evaluate(opened, protocol, run_name, run, params, lambda _: bar.update(), variant)
            paths = (folder / f"seed-{seed}" / "metrics.json" for seed in params.seeds(run))
            metrics = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
            results[variant] = {"results": str(folder), "metrics": metrics}
    sentence = "\n".join(f"Wrote {r['results']}; top-1 by seed: {_top1(r['metrics'])}." for r in results.values())
    answer({"variants": results} if variants else results[""], sentence, as_json)


def _top1(found: list[dict]) -> str:
    return ", ".join(f"{m['zsl']['top1']:.3f}" if m["zsl"] else "no unseen class" for m in found)
