"""`posebridge text`: class descriptions to a bank of vectors.

Reads manifests/<dataset>/{classes,texts}.csv, writes cache/text/<encoder>/<dataset>.h5. With --from it reads a file of
others and writes manifests/<dataset>/texts.<variant>.csv first.
Command: posebridge text --dataset skelgap-mini
"""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.files.shipped import dataset_folder
from pipeline.manifest.drafts import read_drafts
from pipeline.manifest.texts import texts_path
from pipeline.params import load_params
from stages.shell import (
    Place,
    answer,
    dataset_option,
    device_option,
    devices_of,
    json_option,
    own_dataset,
    params_option,
    plain_errors,
    say,
)


@click.command()
@dataset_option
@click.option(
    "--encoder", default=None, help="`minilm`, a sentence-transformers name or a local folder.  [default: params.yaml]"
)
@click.option("--from", "source", type=Place(), help="Import texts of others from this file first.")
@click.option("--form", type=click.Choice(["csv", "lines", "purls"]), help="What it is: index,slot,text; one line "
              "a class; or the PURLS spreadsheet saved as CSV.")  # fmt: skip
@click.option("--slot", default="one_line", show_default=True, help="What the lines of --form lines are.")
@click.option("--variant", help="The name to import them under; ours stay.  [default: the file's name]")
@device_option
@params_option
@json_option
@plain_errors
def command(
    dataset: str,
    encoder: str | None,
    source: Path | None,
    form: str | None,
    slot: str,
    variant: str | None,
    device: str,
    params_path: Path,
    as_json: bool,
) -> None:
    """Embed every class description, in every slot. `ENCODER@VARIANT` embeds imported ones.

    \b
    Examples:
      posebridge text --dataset skelgap-mini
      posebridge text --dataset ntu60 --from purls.csv --form purls --variant purls
    """
    encoder = encoder or load_params(params_path).text.encoder
    from pipeline.text.bank import make_bank  # after parsing, so that --help needs no torch
    from pipeline.text.encoder import split_variant

    if source is not None:
        from pipeline.text.imports import import_texts

        if form is None:
            raise click.UsageError("--from needs --form.")
        own_dataset(Path("manifests"), dataset)
        variant = variant or source.stem
        texts = import_texts(dataset, variant, source, form, slot=slot)
        say(f"Wrote {texts}.")
        encoder = f"{split_variant(encoder)[0]}@{variant}"
    path = make_bank(dataset, encoder, device=devices_of(device)[0])
    texts = texts_path(dataset_folder(Path("manifests"), dataset), split_variant(encoder)[1])
    drafts = len({index for index, _ in read_drafts(texts)})
    if drafts:
        say(f"{drafts} classes have drafts in {texts}, made of their labels; your own words there make better ones.")
    answer({"bank": str(path), "drafts": drafts}, f"Wrote {path}.", as_json)
