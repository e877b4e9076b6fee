"""`posebridge export-onnx`: a pose model of mmpose, or one with a tuned cue head, as one ONNX file.

Reads the recipe's weights and the head, writes an .onnx file.
Command: posebridge export-onnx --recipe refined --out cache/weights/refined.onnx
"""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.params import choose, load_params
from stages.shell import Place, answer, json_option, params_option, plain_errors, recipe_option


@click.command()
@recipe_option
@click.option("--out", type=Place(dir_okay=False), required=True, help="The .onnx file to write.")
@click.option("--head", type=Place(), default=None,
              help="A cue head by `tune-hpe --recipe`, to be added to the recipe's ONNX file.")  # fmt: skip
@params_option
@json_option
@plain_errors
def command(recipe_name: str, out: Path, head: Path | None, params_path: Path, as_json: bool) -> None:
    """Write a recipe's pose model as ONNX, with its taps and its refinement, or with a cue head that was tuned on it.

    A recipe with `backend: onnx` and `weights: <file>` then yields the same keypoints and cues, without mmpose; with
    `cues: refined` those of the head.

    \b
    Example:
      posebridge export-onnx --recipe refined --out cache/weights/refined.onnx
      posebridge export-onnx --recipe tinypose --head cache/weights/gym.safetensors --out cache/weights/gym.onnx
    """
    from pipeline.files.hashing import sha256_file
    from pipeline.hpe.export import export_onnx

    export_onnx(choose(load_params(params_path).recipes, recipe_name, "recipe"), out, head)
    sha256, size = sha256_file(out), out.stat().st_size
    answer(
        {"onnx": str(out), "sha256": sha256, "bytes": size},
        f"Wrote {out} ({size / 1e6:.1f} MB, sha256 {sha256[:12]}...); a recipe uses it with `backend: onnx` and "
        f"`weights: {out}`.",
        as_json,
    )
