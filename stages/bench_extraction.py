"""`posebridge bench extract | ways | workers | memory`: stage one beside its parts, in other numbers, by several
workers, and its memory.

Reads videos and manifests; writes to a temporary folder only.
Command: posebridge bench extract --dataset skelgap-mini --recipe refined --clips 16
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import click

from pipeline.errors import PosebridgeError
from pipeline.executors.base import Executor, build_executor
from pipeline.files.shipped import dataset_file
from pipeline.params import choose, load_params
from pipeline.recipe import Recipe
from stages.shell import (
    Place,
    answer,
    dataset_option,
    device_option,
    json_option,
    judge,
    manifests_option,
    params_option,
    plain_errors,
    recipe_option,
)
from stages.workers import executor_option


@click.command("extract")
@dataset_option
@recipe_option
@click.option("--clips", "count", type=click.IntRange(1), default=16, show_default=True, help="How many clips.")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True,
              help="How often all of it is measured; the medians count.")  # fmt: skip
@click.option("--limit", type=float, default=1 / 0.9,
              help="Largest ratio of the whole and its parts: decoding, boxes, pose model.  [default: "
              "1/0.9]")  # fmt: skip
@device_option
@manifests_option
@params_option
@json_option
@plain_errors
def extract(
    dataset: str, recipe_name: str, count: int, rounds: int, limit: float, device: str, manifests: Path,
    params_path: Path, as_json: bool,
) -> None:  # fmt: skip
    """Extraction beside its parts: decoding, detector and pose model, each alone, on the same clips in the same run.

    Whole and parts take turns, and so do batches with cues and without; the figures are medians, with the least and the
    most of single rounds in brackets: where these are far apart, the machine was busy with other things.

    \b
    Example: posebridge bench extract --dataset skelgap-mini --recipe refined --clips 16
    """
    from pipeline.bench.extract import bench_extract
    from pipeline.hpe.weights import resolve_weights
    from pipeline.manifest.clips import read_clips
    from stages.extract import estimator_on

    params = load_params(params_path)
    place = choose(params.datasets, dataset, "data set")
    recipe: Recipe = choose(params.recipes, recipe_name, "recipe")
    if recipe.backend == "ground_truth":
        raise PosebridgeError(f"The recipe {recipe_name!r} runs no pose model; name one that does.")
    recipe = resolve_weights(recipe)
    clips = read_clips(dataset_file(manifests, dataset, "clips.csv"))[:count]
    with tempfile.TemporaryDirectory(prefix="posebridge-bench-") as folder:
        estimator = estimator_on(device)(recipe)
        result = bench_extract(clips, Path(place.root), recipe, estimator, Path(folder), params.extract, rounds)
    sentence = (
        f"{result.rounds} rounds of {result.crops} crops of {result.clips} clips: decode "
        f"{result.decode_seconds:.2f} s, boxes {result.boxes_seconds:.2f} s, forward {result.forward_seconds:.2f} s, "
        f"extract {result.wall_seconds:.2f} s = {result.crops_per_second:.1f} crops/s; wall / (decode + boxes + "
        f"forward) = {result.ratio:.3f} [{result.ratio_least:.3f} to {result.ratio_most:.3f}] (limit {limit:.3f}), of "
        f"CPU seconds {result.cpu_ratio:.3f}; {result.of_slowest:.2f} of the speed of the slowest part alone; cues "
        f"take {result.cues_share:.1%} [{result.cues_least:.1%} to {result.cues_most:.1%}] of the model without them, "
        f"of CPU seconds {result.cues_cpu_share:.1%}; "
        f"peak memory {result.peak_rss_mb:.0f} MB."
    )
    judge(result, sentence, {"ratio": limit}, as_json)


@click.command("ways")
@dataset_option
@recipe_option
@click.option("--clips", "count", type=click.IntRange(1), default=8, show_default=True, help="How many clips.")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True,
              help="How often each is measured; the medians count.")  # fmt: skip
@manifests_option
@params_option
@json_option
@plain_errors
def ways(
    dataset: str, recipe_name: str, count: int, rounds: int, manifests: Path, params_path: Path, as_json: bool
) -> None:
    """A pose model of mmpose on this CPU as the recipe has it, in bfloat16, and as an ONNX file: speed, and how far
    joints and cues are from the recipe's.

    \b
    Example: posebridge bench ways --dataset skelgap-mini --recipe refined
    """
    from pipeline.bench.ways import bench_ways
    from pipeline.hpe.export import export_onnx
    from pipeline.hpe.factory import build_estimator
    from pipeline.hpe.weights import resolve_weights
    from pipeline.manifest.clips import read_clips

    params = load_params(params_path)
    place = choose(params.datasets, dataset, "data set")
    recipe: Recipe = resolve_weights(choose(params.recipes, recipe_name, "recipe"))
    if recipe.backend != "mmpose":
        raise PosebridgeError(f"The recipe {recipe_name!r} is none of `backend: mmpose`, which has several ways.")
    clips = read_clips(dataset_file(manifests, dataset, "clips.csv"))[:count]
    with tempfile.TemporaryDirectory(prefix="posebridge-bench-") as folder:
        plain = dataclasses.replace(recipe, precision="float32")
        file = export_onnx(plain, Path(folder) / "model.onnx")
        onnx = dataclasses.replace(plain, backend="onnx", weights=str(file), weights_sha256="", taps=())
        recipes = {
            "float32": plain, "bfloat16": dataclasses.replace(plain, precision="bfloat16"),
            "ONNX": resolve_weights(onnx),
        }  # fmt: skip
        ways = {name: build_estimator(each) for name, each in recipes.items()}
        found = bench_ways(clips, Path(place.root), recipe, ways, params.extract.batch_size, rounds)
    lines = [
        f"{way.name}: {way.crops_per_second:.1f} crops/s, {way.speedup:.2f} times the first; joints {way.joints:.3f} "
        f"crop pixels apart from it, cues {way.cues:.2%} of their length."
        for way in found
    ]
    answer({"ways": [dataclasses.asdict(way) for way in found]}, "\n".join(lines), as_json)


@click.command("workers")
@dataset_option
@recipe_option
@click.option("--clips", "count", type=click.IntRange(1), default=48, show_default=True, help="How many clips.")
@click.option("--workers", type=click.IntRange(2), default=2, show_default=True,
              help="How many worker processes, beside one.")  # fmt: skip
@executor_option
@click.option("--goal", type=float, default=1.8, show_default=True, help="Least speed beside that of one worker.")
@click.option("--limit", type=float, default=0.5, show_default=True,
              help="Most seconds of a shard with nothing to do, a shard being a file of many clips.")  # fmt: skip
@manifests_option
@params_option
@json_option
@plain_errors
def workers(
    dataset: str, recipe_name: str, count: int, workers: int, executor_name: str | None, goal: float, limit: float,
    manifests: Path, params_path: Path, as_json: bool,
) -> None:  # fmt: skip
    """Extraction by several workers beside one, the pose model single-threaded in all, and the cost of a shard.

    \b
    Examples:
      posebridge bench workers --dataset skelgap-mini --recipe refined --workers 2
      posebridge bench workers --dataset skelgap-mini --recipe refined --executor ray
    """
    from pipeline.bench.workers import bench_workers
    from pipeline.hpe.weights import resolve_weights
    from pipeline.manifest.clips import read_clips
    from stages.extract import build_estimator

    params = load_params(params_path)
    place = choose(params.datasets, dataset, "data set")
    recipe = resolve_weights(choose(params.recipes, recipe_name, "recipe"))
    clips = read_clips(dataset_file(manifests, dataset, "clips.csv"))[:count]
    name = executor_name or params.executor.name

    def build(number: int, logs: Path) -> Executor:
        return build_executor(name, number, logs, getattr(params.executor, name, None))

    with tempfile.TemporaryDirectory(prefix="posebridge-bench-") as folder:
        result = bench_workers(clips, Path(place.root), recipe, build_estimator, Path(folder), params.extract, workers,
                               build)  # fmt: skip
    sentence = (
        f"{result.clips} clips: {result.one_clips_per_second:.2f} clips/s by one worker, "
        f"{result.many_clips_per_second:.2f} by {workers}: {result.speedup:.2f} times (goal {goal:.2f}); "
        f"{result.overhead_seconds:.3f} s for a shard with nothing to do (limit {limit:.2f}), "
        f"{result.start_seconds:.1f} s to start."
    )
    judge(result, sentence, {"overhead_seconds": limit}, as_json)
    if not result.speedup >= goal:
        raise PosebridgeError(f"The speedup {result.speedup:.3f} is below its goal {goal:.3f}.")


@click.command("memory")
@click.option("--frames", type=click.IntRange(10), default=300, show_default=True, help="Frames of the short video.")
@click.option("--factor", type=click.IntRange(2), default=10, show_default=True,
              help="How many times as long the long one is.")  # fmt: skip
@click.option("--limit", type=float, default=1.1, show_default=True, help="Largest ratio of peak memory, long / short.")
@click.option("--limit-mb", type=float, default=2000, show_default=True, help="Most MB of the long one.")
@click.option("--size", default="640x360", show_default=True, help="Width and height of the videos, as 1920x1080.")
@click.option("--video", type=Place(exists=True, dir_okay=False),
              help="What they show, over and over.  [default: noise, in which no detector finds anybody]")  # fmt: skip
@click.option("--recipe", "recipe_name", default="", help="A worker that extracts by this recipe, instead of decoding "
              "alone.")  # fmt: skip
@params_option
@json_option
@plain_errors
def memory(
    frames: int, factor: int, limit: float, limit_mb: float, size: str, video: Path | None, recipe_name: str,
    params_path: Path, as_json: bool,
) -> None:  # fmt: skip
    """Memory of decoding and sampling against the length of the video, or of all that a worker of extract does.

    \b
    Examples:
      posebridge bench memory --factor 10
      posebridge bench memory --recipe refined --size 1920x1080 --frames 1500
    """
    from pipeline.bench.memory import bench_memory

    sides = [int(side) for side in size.split("x") if side.isdecimal()]
    if len(sides) != 2 or any(side % 2 or not 16 <= side <= 8192 for side in sides):
        raise click.UsageError(f"--size should be two even numbers like 1920x1080, not {size!r}.")
    if recipe_name:
        choose(load_params(params_path).recipes, recipe_name, "recipe")
    with tempfile.TemporaryDirectory(prefix="posebridge-bench-") as folder:
        result = bench_memory(
            Path(folder), frames, factor, size=(sides[0], sides[1]), video=video,
            recipe=(params_path, recipe_name) if recipe_name else None,
        )  # fmt: skip
    sentence = (
        f"{result.short_frames} frames: {result.short_mb:.0f} MB; {result.long_frames} frames: "
        f"{result.long_mb:.0f} MB (limit {limit_mb:.0f}); ratio {result.ratio:.3f} (limit {limit:.3f})."
    )
    judge(result, sentence, {"ratio": limit, "long_mb": limit_mb}, as_json)
