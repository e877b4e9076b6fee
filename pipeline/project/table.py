"""The stages of one data set, from texts to the report, as a dvc.yaml of its own: what `dvc repro` runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.files.yaml_file import yaml_lines

HEAD = """\
# {dataset}: from videos to the report, cache/tables/{dataset}/index.html. Written by `posebridge init`, and yours.
#
#   dvc repro manifests/{dataset}/dvc.yaml
#
# Its values are in params.yaml. Another protocol, of `posebridge protocol`, or another run goes into the lists below.
# After bringing more videos: `posebridge init` and their folder, again.

"""
OURS = ("cache/sums/", "pipeline/", "stages/")  # of a checkout: what depends on our code is made again when it changes


def table_text(dataset: str, recipe: str, protocol: str, runs: Sequence[str], max_failures: int, checkout: bool) -> str:
    """The text of manifests/<dataset>/dvc.yaml. `checkout`: whether our code lies in the project's folder."""
    values = {
        "dataset": dataset,
        "recipe": recipe,
        "protocols": [protocol],
        "runs": list(runs),
        "max_failures": max_failures,
        "encoder": "minilm",
    }
    top = "\n".join(yaml_lines({"vars": [values]}))
    stages = (Path(__file__).parent / "table.yaml").read_text(encoding="utf-8").splitlines()
    kept = [line for line in stages if checkout or not line.strip().startswith(tuple(f"- {place}" for place in OURS))]
    return HEAD.format(dataset=dataset) + top + "\n" + "\n".join(kept) + "\n"
