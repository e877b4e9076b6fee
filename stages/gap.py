"""`posebridge gap`: what does my data lose when only skeletons are kept?

Reads cache/<dataset>/<recipe>/ and manifests/<dataset>/, never a video. Writes a JSON file and a picture to
cache/gap/<dataset>/<recipe>/.
Command: posebridge gap --dataset gym --recipe tinypose --attribute equipment --groups shoot --params params/gym.yaml
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from pipeline.errors import PosebridgeError
from pipeline.files.hashing import fingerprint
from pipeline.files.names import own_name
from pipeline.params import Params, load_params
from stages.bars import Bar
from stages.shell import (
    answer,
    cache_option,
    dataset_option,
    json_option,
    manifests_option,
    params_option,
    plain_errors,
    root_option,
    say,
    verify_option,
)

MOST = 1000  # clips, where nobody says how many


@click.command()
@dataset_option
@click.option("--recipe", default="", help="The recipe of the extraction.  [default: the only one with cues]")
@click.option("--attribute", default="class", show_default=True,
              help="What is asked: a column of attributes.csv or clips.csv, or the classes themselves.")  # fmt: skip
@click.option("--groups", "grouped_by", default="",
              help="The column by which clips are held out together.  [default: subject, else path, the source video]",
              )  # fmt: skip
@click.option("--values", default="", help="Only these values of the attribute, parted by commas.  [default: all]")
@click.option("--clips", "most", type=click.IntRange(10, 5000), default=MOST, show_default=True,
              help="The most clips; of more, so many are drawn. Memory grows with their square.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another number draws other clips.")
@manifests_option
@cache_option
@root_option
@params_option
@verify_option
@json_option
@plain_errors
def command(
    dataset: str, recipe: str, attribute: str, grouped_by: str, values: str, most: int, seed: int, manifests: Path,
    cache: Path, cache_root: Path | None, params_path: Path, verify: bool, as_json: bool,
) -> None:  # fmt: skip
    """The skeletonization gap: what of an attribute a linear probe can tell from the skeleton, from cues, from both.

    Clips of one group are held out together, since people, rooms and cameras repeat: name with --groups what repeats in
    your data. The probe reads the pose, not a trained encoder, so the figures compare inputs and are no result.

    \b
    Examples:
      posebridge gap --dataset gym --recipe tinypose --attribute equipment --groups shoot --params params/gym.yaml
      posebridge gap --dataset mine
    """
    from pipeline.files.durable import write_for_people  # after parsing, so that --help needs no torch
    from pipeline.files.names import check_name
    from pipeline.gap.gap import measure_gap, only_recipe
    from pipeline.gap.picture import draw_gap
    from pipeline.learn.dataset import open_dataset
    from pipeline.report.figures import save

    opened = open_dataset(dataset, manifests, cache, cache_root, verify=verify, strict=False)
    recipe = recipe or only_recipe(opened)
    folder = cache / "gap" / dataset / check_name(recipe, "recipe")
    widths = level_widths(load_params(params_path), recipe) if params_path.is_file() else ()
    bar = Bar("clip", "gap")
    try:
        chosen = tuple(filter(None, map(str.strip, values.split(","))))
        found = measure_gap(opened, recipe, attribute, grouped_by, chosen, widths, most, seed, bar.show)
    finally:
        bar.close()
    for sentence in found.left_out:
        say(f"Left out: {sentence}.")
    result = dataclasses.asdict(found)
    name = name_of(attribute, grouped_by, chosen, most, seed)
    write_for_people(folder / f"{name}.json", json.dumps(result, indent=1).encode())
    picture = save(draw_gap(found), folder / f"{name}.png")
    low, high = found.gap_ci95
    lines = [
        f"What is known of {attribute} in {found.clips} clips of {dataset} (recipe {recipe}), {len(found.values)} "
        f"values, {found.folds} folds of {found.groups} whole groups by {found.grouped_by}:",
        f"  {'chance':28} {found.chance:.3f}",
        *(f"  {k.what:28} {k.accuracy:.3f}  (95 % {k.ci95[0]:.3f} to {k.ci95[1]:.3f})" for k in found.knows),
        f"Skeletons alone lose {100 * found.gap:.1f} points (95 % {100 * low:.1f} to {100 * high:.1f}).",
        f"Picture: {picture}",
    ]
    answer(result | {"picture": picture}, "\n".join(lines), as_json)


def name_of(attribute: str, grouped_by: str, values: tuple[str, ...], most: int, seed: int) -> str:
    """What the files of a question are called: another question has others."""
    name = own_name(f"{attribute}-by-{grouped_by}" if grouped_by else attribute)
    drawn = tuple(sorted(values)), most, seed
    return name if drawn == ((), MOST, 0) else f"{name}-{fingerprint(*drawn)[:8]}"


def level_widths(params: Params, recipe: str) -> tuple[int, ...]:
    """Those that a run of the recipe names in its flags; else nobody knows where in a cue a level ends. Raises
    PosebridgeError for what can be none.
    """
    for name, run in params.runs.items():
        if run.recipe == recipe and (widths := run.flags.get("level_widths")):
            if isinstance(widths, list | tuple) and all(type(width) is int and width > 0 for width in widths):
                return tuple(widths)
            raise PosebridgeError(f"The level_widths of the run {name!r} should be whole numbers; correct them.")
    return ()
