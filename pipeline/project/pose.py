"""Which recipe a new data set is extracted by, and whether its files are there and fit: looked at beforehand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.doctor import MISSING, check_weights
from pipeline.errors import PosebridgeError, all_missing
from pipeline.files.names import is_file
from pipeline.hpe.published import PUBLISHED
from pipeline.params import Params, choose
from pipeline.recipe import Recipe

USUAL = "tinypose"  # real people, without tuning
PUBLIC = ("rtmpose-s", "rtmpose-m", "rtmpose-t")  # taken where its file is not there and one of these was fetched
FETCH = f"`posebridge weights get {PUBLIC[0]} rtmdet-nano`"


@dataclass(frozen=True)
class Pose:
    """A recipe's name, its entry for params.yaml where it is a new one, and the widths of its levels, if it has any."""

    recipe: str
    entry: dict[str, Any] | None
    level_widths: tuple[int, ...]


def choose_pose(
    params: Params, written: dict[str, Any], name: str, recipe_name: str = "", weights: str = "", detector: str = "",
) -> Pose:  # fmt: skip
    """The recipe `recipe_name` of params.yaml, tinypose by default; with other `weights` or another `detector` a new
    one of this `name`. `written` is that file as plain data. Where nobody names any and tinypose's file is not there,
    public weights that `weights get` has fetched are taken.

    Raises PosebridgeError for a recipe that is not for videos of people, and where a file is missing or does not fit.
    """
    base = recipe_name or USUAL
    recipe: Recipe = choose(params.recipes, base, "recipe")
    entry = None
    if not recipe_name and not weights and recipe.backend == "onnx" and not is_file(Path(recipe.weights)):
        fetched = [PUBLISHED[each].path for each in PUBLIC]
        weights = next((str(path) for path in fetched if is_file(path)), "")
    if weights or detector:
        if recipe.backend != "onnx" and weights or detector and recipe.boxes != "detector":
            raise PosebridgeError(
                f"The recipe {base!r} takes no such ONNX file; name another one with --recipe, or write one into "
                "params.yaml."
            )
        places = {"weights": weights, "detector": detector}
        entry = {**written["recipes"][base], **{key: place for key, place in places.items() if place}}
        recipe = replace(recipe, weights=weights or recipe.weights, detector=detector or recipe.detector)
    if not recipe.needs_videos or recipe.boxes == "manifest":
        raise PosebridgeError(
            f"The recipe {base!r} is for generated or imported skeletons; name one with `boxes: detector` or `boxes: "
            "full_frame`."
        )
    _require_files(base, recipe, named=bool(recipe_name or weights))
    if recipe.backend != "onnx":
        return Pose(name if entry else base, entry, ())
    if entry and weights and recipe.taps and not _has(Path(weights), recipe.taps):
        taps = _own_taps(Path(weights))  # the recipe's are of another file
        recipe = replace(recipe, taps=taps)
        entry = {key: value for key, value in entry.items() if key != "taps"} | ({"taps": list(taps)} if taps else {})
    return Pose(name if entry else base, entry, _opened(recipe))


def _require_files(base: str, recipe: Recipe, named: bool) -> None:
    """Raise PosebridgeError with every file of the recipe that is not there. `named`: a person wants this very one."""
    remedy = f"fetch public ones with {FETCH} and run the same command again"
    lacking = [check for check in check_weights(base, recipe, needed=True) if check.state == MISSING]
    if lacking:
        raise all_missing(
            f"The recipe {check.name}: {check.found}; {check.remedy if named else remedy}, or name another one "
            f"with --{check.name.rpartition(' ')[2]}."
            for check in lacking
        )


def _has(weights: Path, taps: tuple[str, ...]) -> bool:
    from pipeline.hpe.onnx_file import load_graph

    inner = {tensor for node in load_graph(weights).graph.node for tensor in node.output}
    return inner >= set(taps)


def _own_taps(weights: Path) -> tuple[str, ...]:
    """None where the file says what its taps are or has maps among its outputs, which are taken then; else one a
    stride, as for published exports of RTMPose, which yield keypoints only.
    """
    from pipeline.hpe.onnx_file import load_graph, read_facts
    from pipeline.hpe.onnx_maps import one_a_stride

    model = load_graph(weights)
    others = [len(output.type.tensor_type.shape.dim) for output in model.graph.output[1:]]
    return () if read_facts(model, weights.name).taps or 4 in others else one_a_stride(weights)


def _opened(recipe: Recipe) -> tuple[int, ...]:
    """Open the pose model and the detector once; the widths of its levels. Raises PosebridgeError as they do."""
    from pipeline.hpe.detector import Detector
    from pipeline.hpe.factory import build_estimator
    from pipeline.hpe.weights import find_detector

    if recipe.boxes == "detector":
        Detector(find_detector(recipe).path)
    estimator = build_estimator(recipe)
    return getattr(estimator, "level_widths", ()) if recipe.cues == "levels" else ()
