"""`posebridge shipped`: what comes with posebridge, and copies of it for a project.

Reads the installed package; `get` writes manifests/<dataset>/, params.yaml, dvc.yaml or params/.
Command: posebridge shipped get ntu60
"""

from __future__ import annotations

import click

from stages.shell import Group, answer, json_option, plain_errors


@click.group(cls=Group)
def command() -> None:
    """Data sets, tables and settings that come with posebridge: list them, copy them into the project.

    A project needs no copy to use them; its own, where there are any, go before.

    \b
    Examples:
      posebridge shipped ls
      posebridge shipped get params.yaml ntu60
    """


@command.command("ls")
@json_option
@plain_errors
def list_shipped(as_json: bool) -> None:
    """List what ships, and what of it the project has for itself.

    \b
    Example: posebridge shipped ls
    """
    from pathlib import Path

    from pipeline.files.shipped import SHIPPED
    from pipeline.manifest.clips import read_classes
    from pipeline.project.copy import FILES, data_sets

    rows = [{"name": name, "what": what, "own": Path(name).exists()} for name, what in FILES.items()]
    for name in data_sets():
        folder = SHIPPED / "manifests" / name
        protocols = [path for path in (folder / "protocols").glob("*.txt") if not path.name.endswith(".val.txt")]
        what = f"data set: {len(read_classes(folder / 'classes.csv'))} classes, {len(protocols)} protocols"
        rows.append({"name": name, "what": what, "own": (Path("manifests") / name).exists()})
    lines = [f"{row['name']:15} {row['what']}{'; the project has its own' if row['own'] else ''}" for row in rows]
    answer({"shipped": rows}, "\n".join(lines), as_json)


@command.command("get")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option
@plain_errors
def get_shipped(names: tuple[str, ...], as_json: bool) -> None:
    """Copy some of it into the project, to change it or to have `dvc repro` run it; nothing there is written over.

    \b
    Example: posebridge shipped get params.yaml dvc.yaml params ntu60 ntu120
    """
    from pipeline.project.copy import copy

    written = [path for name in names for path in copy(name)]
    answer({"written": [str(path) for path in written]}, f"Wrote {', '.join(map(str, written))}.", as_json)
