"""`posebridge bench cues --dataset`: which inner maps of a recipe's pose model know most of an attribute of clips.

Reads videos, manifests/ and cache/; writes nothing.
Command: posebridge bench cues --dataset gym --recipe tinypose --attribute equipment --params params/gym.yaml
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PosebridgeError
from pipeline.params import choose, load_params
from pipeline.recipe import IMAGE_TEXT, POSE
from stages.bars import progress

if TYPE_CHECKING:
    import torch

    from pipeline.bench.taps import TapProbe
    from pipeline.recipe import Recipe

ALL = "all"
CHOOSING = 3  # of five folds, where no protocol is named


def probe_dataset(
    dataset: str, recipe_name: str, attribute: str, grouped_by: str, values: Sequence[str], taps: str, most: int,
    seed: int, protocols: Sequence[str], choosing: Sequence[str], params_path: Path, cache_root: Path | None,
    device: torch.device,
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """The command's result and its table."""
    if set(choosing) - set(protocols) or protocols and not 0 < len(set(choosing)) < len(protocols):
        raise PosebridgeError(
            "Name with --choose-on some of the --protocol folds, not all: on the others shows what the choice is worth."
        )
    import numpy as np

    from pipeline.bench.taps import probe_taps, see
    from pipeline.gap.known import of_bodies
    from pipeline.gap.question import ask, fold_by
    from pipeline.hpe.factory import build_estimator
    from pipeline.hpe.weights import resolve_weights
    from pipeline.learn.dataset import open_dataset

    begun = time.perf_counter()
    params = load_params(params_path)
    recipe = resolve_weights(choose(params.recipes, recipe_name, "recipe"))
    root = Path(choose(params.datasets, dataset, "data set").root)
    opened = open_dataset(dataset, store_root=cache_root)
    if recipe.cues_from == IMAGE_TEXT:
        raise PosebridgeError(f"The recipe {recipe_name} has vectors of an image-text model and no maps; name another.")
    reader = opened.reader(recipe_name)
    if "cue_frame" not in reader.names or not of_bodies(recipe.anchors):
        raise PosebridgeError(f"The recipe {recipe_name} has no cue frames to look at; name one with cues of bodies.")
    question = ask(opened, reader.index["clips"], attribute, grouped_by, values, most, seed)
    if protocols:
        question = fold_by(question, opened, protocols)
    chooses = [protocols.index(name) for name in choosing] if protocols else range(CHOOSING)
    estimator: Any = build_estimator(dataclasses.replace(recipe, cues="levels", taps=names_of(recipe, taps)), device)
    by_id = {clip.clip_id: clip for clip in opened.clips}
    clips = [by_id[clip_id] for clip_id in question.clip_ids]
    seen = see(clips, root, reader, estimator, recipe, lambda each: progress(each, len(clips), "clip", "look"))
    mine = [bool(fold in chooses) for fold in question.folds.tolist()]
    found = probe_taps(question, np.array(mine), seen, recipe_name, recipe.taps, begun)
    return dataclasses.asdict(found), table(found, dataset)


def names_of(recipe: Recipe, taps: str) -> tuple[str, ...]:
    """The taps to compare: those that are named, or all maps of an ONNX file, or the stages of an mmpose backbone, or
    one map a stride of a general image network.
    """
    if taps != ALL:
        return tuple(filter(None, map(str.strip, taps.split(","))))
    if recipe.backend != "onnx" or recipe.cues_from != POSE:
        return ()
    from pipeline.hpe.onnx_maps import inner_maps
    from pipeline.hpe.weights import find_weights

    return inner_maps(find_weights(recipe).path)


def table(found: TapProbe, dataset: str) -> str:
    """For people."""
    lines = [
        f"{found.attribute} of {found.clips} clips of {dataset}, {len(found.values)} values, whole groups by "
        f"{found.grouped_by} held out ({found.groups}); {found.compared} taps compared on {found.choosing} clips, in "
        f"{found.seconds:.0f} s. Chance {found.chance:.3f}.",
        f"{'':34}{'place':12}{'channels':>9}{'stride':>7}  all clips (95 %)       those that choose, others",
    ]
    for each in found.readings:
        low, high = each.ci95
        lines.append(
            f"{each.what:34}{each.place:12}{each.channels or '':>9}{each.stride or '':>7}  {each.accuracy:.3f} "
            f"({low:.3f}-{high:.3f})   {each.choosing:.3f}   {each.others:.3f}"
        )
    return "\n".join([*lines, f"Chosen: {', '.join(found.chosen)}"])
