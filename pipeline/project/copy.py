"""What ships with posebridge, copied into the project of who wants it there: to change it, or to have DVC run it.

Writes manifests/<dataset>/, params.yaml, dvc.yaml or params/. Command: posebridge shipped get NAME
"""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.files.durable import write_for_people
from pipeline.files.shipped import SHIPPED, bring, in_checkout, ships

FILES = {
    "params.yaml": "recipes, runs and settings, which people change",
    "dvc.yaml": "the demo's stages, and `code`, which the tables need",
    "params": "the tables of papers: their values, and their stages in params/tables.yaml",
}
DVC_CONFIG = "[core]\n    analytics = false\n    check_update = false\n    no_scm = true\n"
CODE = """\
  code: # our code is an installed package here: with another version of it, all is made anew
    foreach: [synth, ingest, text, encode, train, report]
    do:
      desc: Note the version.
      cmd: mkdir -p cache/sums && posebridge --version > cache/sums/${item}.txt
      always_changed: true
      outs:
        - cache/sums/${item}.txt:
            cache: false

"""
OURS = ("- pipeline", "- stages/")  # dependencies that lie in a checkout only


def data_sets() -> list[str]:
    """The names of those that ship."""
    return sorted(path.parent.name for path in (SHIPPED / "manifests").glob("*/protocols"))


def copy(name: str) -> list[Path]:
    """Copy a data set, or one of FILES, into the project in the current folder; what was written.

    Raises PosebridgeError for a name that nothing has, in a checkout, which has all of it, and for what is there.
    """
    if in_checkout():
        raise PosebridgeError("This folder is posebridge's own checkout, which has all that ships.")
    if name in FILES:
        top = SHIPPED / name
        figures = (SHIPPED / "manifests").glob("published*.csv")  # which tables stand beside
        sources = [*sorted(top.glob("*.yaml")), *sorted(figures)] if top.is_dir() else [top]
    elif ships(name):
        sources = [SHIPPED / "manifests" / name]
    else:
        known = ", ".join([*FILES, *data_sets()])
        raise PosebridgeError(f"Nothing that ships has the name {name!r}; there are {known}.")
    places = [path.relative_to(SHIPPED) for path in sources]
    if there := [place for place in places if place.exists()]:
        raise PosebridgeError(f"{there[0]} is there already and stays as it is; take it away first.")
    for place, source in zip(places, sources, strict=True):
        if source.is_dir():
            bring(Path("manifests"), name)
        else:
            text = source.read_text(encoding="utf-8")
            write_for_people(place, (of_installed(text) if place.suffix == ".yaml" else text).encode())
    if name != "params.yaml" and name in FILES:
        make_dvc_project()
    return places


def of_installed(text: str) -> str:
    """Stages as they are where our code is an installed package; what is no stage stays as it is."""
    lines = [line for line in text.splitlines(keepends=True) if not line.strip().startswith(OURS)]
    kept = re.sub(r"^( *)deps:\n(?!\1 )", "", "".join(lines), flags=re.M)  # of a stage that has no other
    return re.sub(r"^  code:\n.*?\n(?=  \w)", lambda _: CODE, kept, count=1, flags=re.M | re.S)


def make_dvc_project() -> None:
    """Tell DVC that this folder is a project of its own, unless it knows."""
    if not Path(".dvc").exists():
        write_for_people(Path(".dvc/config"), DVC_CONFIG.encode())
        if not Path(".dvcignore").exists():
            write_for_people(Path(".dvcignore"), (SHIPPED / ".dvcignore").read_bytes())
