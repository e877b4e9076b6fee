"""`posebridge text`: class descriptions to a bank of vectors.

Reads manifests/<dataset>/{classes,texts}.csv, writes cache/text/<encoder>/<dataset>.h5.
Command: posebridge text --dataset skelgap-mini
"""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.params import load_params
from stages.shell import answer, json_option, params_option, plain_errors


@click.command()
@click.option("--dataset", required=True, help="Name of a folder under manifests/.")
@click.option(
    "--encoder", default=None, help="`minilm`, a sentence-transformers name or a local folder  [default: params.yaml]"
)
@params_option
@json_option
@plain_errors
def command(dataset: str, encoder: str | None, params_path: Path, as_json: bool) -> None:
    """Embed every class description, in every slot.

    \b
    Example: posebridge text --dataset skelgap-mini
    """
    from pipeline.text.bank import make_bank  # after parsing, so that --help needs no torch

    path = make_bank(dataset, encoder or load_params(params_path).text.encoder)
    answer({"bank": str(path)}, f"Wrote {path}.", as_json)
