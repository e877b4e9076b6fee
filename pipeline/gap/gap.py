"""The skeletonization gap of anybody's data: what of an attribute is lost when only skeletons are kept.

One linear probe is asked with the same clips held out, in whole groups: of the skeleton, of the cues of every level and
anchor, of all cues, of both. Reads manifests/<dataset>/ and cache/<dataset>/<recipe>/, never a video.
    posebridge gap --dataset gym --recipe tinypose --attribute equipment --groups shoot --params params/gym.yaml
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.cache.index import read_index
from pipeline.errors import PosebridgeError, all_missing
from pipeline.gap.known import BOTH, SKELETON, blocks_of, looks_of, of_bodies, read_known
from pipeline.gap.linear import FOLDS, interval, linear_probe, macro_accuracy
from pipeline.gap.question import CLASS, Question, ask
from pipeline.learn.dataset import Dataset
from pipeline.recipe import Recipe


@dataclass(frozen=True)
class Knows:
    """`accuracy` is the mean over the attribute's values of the share of their clips that are named right."""

    what: str
    accuracy: float
    ci95: tuple[float, float]  # by drawing groups anew


@dataclass(frozen=True)
class Gap:
    """What a linear probe knows of the attribute; `gap` is what `skeleton and cues` knows more than `skeleton`.

    `values` are the clips of every value, `left_out` sentences on clips that nothing was asked of.
    """

    dataset: str
    recipe: str
    attribute: str
    grouped_by: str
    clips: int
    groups: int
    folds: int
    seed: int
    values: dict[str, int]
    left_out: tuple[str, ...]
    chance: float
    knows: tuple[Knows, ...]
    gap: float
    gap_ci95: tuple[float, float]


def measure_gap(
    dataset: Dataset, recipe: str = "", attribute: str = CLASS, grouped_by: str = "", values: Collection[str] = (),
    level_widths: Sequence[int] = (), most: int = 1000, seed: int = 0,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Gap:  # fmt: skip
    """Measure it on the clips of one extraction, the only one with cues if no recipe is named; see `ask` for the rest.

    `level_widths` are those of the levels in a cue, shallow first; without them levels are not told apart. Raises
    PosebridgeError as `ask` does, and for a recipe that was not extracted or has no cues.
    """
    recipe = recipe or only_recipe(dataset)
    reader = dataset.reader(recipe)
    if reader.recipe.backend == "features":
        raise PosebridgeError(
            f"The recipe {recipe} of {dataset.name} holds no skeletons but imported features; name another with "
            "--recipe."
        )
    if dataset.missing:
        raise all_missing(dataset.missing)
    if "cues" not in reader.names or not reader.cue_width:
        raise PosebridgeError(
            f"The recipe {recipe} of {dataset.name} holds no cues, so there is nothing to compare with skeletons; name "
            "another with --recipe, or extract with a recipe that has `cues: levels`."
        )
    if not _compares(reader.recipe):
        raise PosebridgeError(
            f"The recipe {recipe} of {dataset.name} holds cues only where no body is, a control; name another with "
            "--recipe."
        )
    question = ask(dataset, reader.index["clips"], attribute, grouped_by, values, most, seed)
    if level_widths and sum(level_widths) != reader.cue_width:
        raise PosebridgeError(
            f"The levels are {sum(level_widths)} wide, but the cues of {recipe} are {reader.cue_width}; where its taps "
            "have changed since, run `posebridge extract` again, else correct level_widths."
        )
    levels = {f"level {n}": width for n, width in enumerate(level_widths or (reader.cue_width,), start=1)}
    known = read_known(question.clip_ids, reader, told)
    anchors = reader.recipe.anchors
    blocks, looks = blocks_of(known, anchors, levels), looks_of(anchors, list(levels))
    knows, draws = asked(question, linear_probe(blocks, looks, torch.from_numpy(question.answers), question.folds))
    more = draws[BOTH] - draws[SKELETON]
    accuracy = {each.what: each.accuracy for each in knows}
    return Gap(
        dataset.name,
        recipe,
        attribute,
        question.grouped_by,
        len(question.clip_ids),
        len(set(question.groups)),
        FOLDS,
        seed,
        question.count(),
        question.left_out,
        1 / len(question.values),
        tuple(knows),
        accuracy[BOTH] - accuracy[SKELETON],
        interval(more),
    )


def asked(question: Question, scores: dict[str, torch.Tensor]) -> tuple[list[Knows], dict[str, np.ndarray]]:
    """How right each look is, and the draws that its interval is of."""
    knows, draws = [], {}
    for name, values in scores.items():
        accuracy, draws[name] = macro_accuracy(values.argmax(1), torch.from_numpy(question.answers), question.groups)
        knows.append(Knows(name, accuracy, interval(draws[name], len(set(question.groups)))))
    return knows, draws


def only_recipe(dataset: Dataset) -> str:
    """The one recipe with skeletons and cues of bodies that was extracted. Raises PosebridgeError where there is none,
    or more.
    """
    folder = dataset.cache / dataset.name
    found = [
        path.parent.name
        for path in sorted(folder.glob("*/index.json"))
        if "@" not in path.parent.name and _compares(read_index(path, "extract it again")["recipe"])
    ]
    if not found:
        raise PosebridgeError(
            f"{folder} holds no extraction with cues; make one with `posebridge extract --dataset {dataset.name}` by "
            "a recipe that has cues."
        )
    if len(found) > 1:
        raise PosebridgeError(f"{folder} holds {', '.join(found)}; name one of them with --recipe.")
    return found[0]


def _compares(recipe: Recipe) -> bool:
    """Whether an extraction has skeletons and cues of bodies: no imported features, and not the control alone."""
    return recipe.backend != "features" and recipe.cues != "none" and bool(of_bodies(recipe.anchors))
