"""`posebridge doctor`: is everything there that the work needs?

Reads what is installed, params.yaml, manifests and weights; writes nothing. Command: posebridge doctor
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from pipeline.errors import PosebridgeError
from pipeline.files.shipped import is_shipped
from pipeline.params import load_params
from stages.shell import answer, json_option, params_option, plain_errors


@click.command()
@click.option("--dataset", "datasets", multiple=True, help="A data set that room is needed for; repeatable.")
@click.option("--recipe", "recipes", multiple=True, help="A recipe that is needed; repeatable. Others are told of.")
@params_option
@json_option
@plain_errors
def command(datasets: tuple[str, ...], recipes: tuple[str, ...], params_path: Path, as_json: bool) -> None:
    """Check Python, packages, GPU, weights, text encoders, DVC and disk; exit code 1 where something needed is missing.

    \b
    Examples:
      posebridge doctor
      posebridge doctor --dataset skelgap-mini --recipe refined
    """
    from pipeline.doctor import MISSING, examine

    params = load_params(params_path) if params_path.is_file() else None
    own_params = params is not None and not is_shipped(params_path)
    checks = list(examine(params, datasets, recipes, own_params=own_params))
    missing = [check for check in checks if check.state == MISSING]
    width = max(len(check.name) for check in checks)
    lines = [
        f"{check.state:8}{check.name:{width}}  {check.found}{f'  ->  {check.remedy}' if check.remedy else ''}"
        for check in checks
    ]
    answer(
        {"ok": not missing, "missing": len(missing), "checks": [dataclasses.asdict(check) for check in checks]},
        "\n".join(lines),
        as_json,
    )
    if missing:
        first = missing[0]
        raise PosebridgeError(
            f"{len(missing)} of {len(checks)} checks found something missing, first {first.name} ({first.found}); "
            f"{first.remedy or 'put it right'}."
        )
