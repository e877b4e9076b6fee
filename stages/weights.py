"""`posebridge weights`: pose models and detectors that others have published, by name.

Reads the table in pipeline/hpe/published.py, writes `cache/weights/<file>` with a receipt.
Command: posebridge weights get rtmdet-nano
"""

from __future__ import annotations

from dataclasses import asdict

import click

from stages.bars import counter
from stages.shell import Group, answer, json_option, plain_errors


@click.group(cls=Group)
def command() -> None:
    """Public weights: list them, fetch them.

    \b
    Examples:
      posebridge weights ls
      posebridge weights get rtmdet-nano rtmpose-s
    """


@command.command("ls")
@json_option
@plain_errors
def list_weights(as_json: bool) -> None:
    """List public weights: name, size, licence, whether they are there, what they are for, source.

    \b
    Example: posebridge weights ls
    """
    from pipeline.hpe.keep import state_of
    from pipeline.hpe.published import PUBLISHED

    rows = [
        {"name": name, "state": state_of(each), "path": str(each.path), **asdict(each)}
        for name, each in PUBLISHED.items()
    ]
    lines = [
        f"{row['name']}: {row['state']}, {row['megabytes']:g} MB, {row['licence']}\n  {row['what']}\n"
        f"  {row['path']} from {row['url']}"
        for row in rows
    ]
    answer({"weights": rows}, "\n".join(lines), as_json)


@command.command("get")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--mirror", metavar="URL", default="",
              help="A web folder with the files by their own names, to be asked instead of the publisher.")  # fmt: skip
@json_option
@plain_errors
def get_weights(names: tuple[str, ...], mirror: str, as_json: bool) -> None:
    """Fetch public weights to cache/weights, once; later calls only check them.

    The sha256 of each is compared with the published one, where there is one; it is written into a receipt beside the
    file, and whatever uses the file compares it ever after.

    \b
    Example:
      posebridge weights get rtmdet-nano rtmpose-s
    """
    from pipeline.hpe.keep import get
    from pipeline.hpe.published import PUBLISHED
    from pipeline.params import choose

    rows, lines = [], []
    for name, published in [(name, choose(PUBLISHED, name, "public weights")) for name in names]:
        with counter("byte", name, scale=True) as told:
            receipt, fetched = get(published, mirror, told)
        rows.append({"name": name, "path": str(published.path), "fetched": fetched, **asdict(receipt)})
        size = f"{receipt.bytes / 1e6:.1f} MB, {receipt.licence}, sha256 {receipt.sha256[:12]}..."
        done = f"Fetched {published.path}" if fetched else f"{published.path} is there already and as it was"
        lines.append(f"{done} ({size}).")
    answer({"weights": rows}, "\n".join(lines), as_json)
