"""`posebridge bench`: measure the speed and the memory of both stages on this machine.

Reads videos, manifests and the cache; writes to a temporary folder only. How right answers are, `examples`, `cues` and
`leaks` measure, in bench_accuracy.py, and what parts of PoseBridge are worth, `parts`, in bench_parts.py.
Command: posebridge bench extract --dataset skelgap-mini --recipe refined --clips 16
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import click

from pipeline.errors import PosebridgeError
from pipeline.executors.base import Executor, build_executor
from pipeline.files.shipped import dataset_file
from pipeline.params import choose, load_params
from pipeline.recipe import Recipe
from stages.bench_accuracy import confidence, cues, examples, leaks
from stages.bench_parts import parts
from stages.shell import (
    Group,
    Place,
    answer,
    cache_option,
    dataset_option,
    device_option,
    devices_of,
    json_option,
    manifests_option,
    params_option,
    plain_errors,
    recipe_option,
    root_option,
    say,
)
from stages.workers import executor_option


@click.group(cls=Group)
def command() -> None:
    """Measure extraction, memory, the cache, ingest, training, search, confidence,
    examples, cues, parts and leaks; exit code 1 where a
    limit is missed.

    \b
    Examples:
      posebridge bench extract --dataset skelgap-mini --recipe refined --clips 16
      posebridge bench workers --dataset skelgap-mini --recipe refined
      posebridge bench memory
      posebridge bench cache --dataset skelgap-mini --recipe refined
      posebridge bench ingest
      posebridge bench encoder
      posebridge bench search
      posebridge bench confidence --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
      posebridge bench examples --dataset ut_interaction --recipe tinypose
      posebridge bench cues --weights skelgap-sem
      posebridge bench scale --like kinetics400
      posebridge bench leaks --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
      posebridge bench parts --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
    """


command.add_command(confidence)
command.add_command(examples)
command.add_command(cues)
command.add_command(leaks)
command.add_command(parts)


@command.command("extract")
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
def extract_command(
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
        f"take {result.cues_share:.1%} [{result.cues_least:.1%} to {result.cues_most:.1%}] of the model without them; "
        f"peak memory {result.peak_rss_mb:.0f} MB."
    )
    _judge(result, sentence, {"ratio": limit}, as_json)


@command.command("workers")
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
def workers_command(
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
    _judge(result, sentence, {"overhead_seconds": limit}, as_json)
    if not result.speedup >= goal:
        raise PosebridgeError(f"The speedup {result.speedup:.3f} is below its goal {goal:.3f}.")


@command.command("memory")
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
def memory_command(
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
    _judge(result, sentence, {"ratio": limit, "long_mb": limit_mb}, as_json)


@command.command("cache")
@dataset_option
@recipe_option
@cache_option
@root_option
@json_option
@plain_errors
def cache_command(dataset: str, recipe_name: str, cache: Path, cache_root: Path | None, as_json: bool) -> None:
    """Batches from the cache, in order and at random, against a bare memory map of the same files.

    \b
    Example: posebridge bench cache --dataset skelgap-mini --recipe refined
    """
    from pipeline.bench.cache import bench_cache
    from pipeline.cache.index import index_path

    result = bench_cache(index_path(cache, dataset, recipe_name), cache_root)
    sentence = (
        f"{result.clips} clips of {result.bytes_per_clip / 1e3:.1f} kB: in order {result.sequential_mb_s:.0f} MB/s "
        f"({result.sequential_ratio:.2f} of a bare memory map), at random {result.random_mb_s:.0f} MB/s "
        f"({result.random_ratio:.2f})."
    )
    _judge(result, sentence, {}, as_json)


@command.command("ingest")
@click.option("--videos", type=click.IntRange(0, 114_480), default=0, help="How many names.  [default: 114480, all]")
@click.option("--limit", type=float, default=60, show_default=True, help="Most seconds that it may take.")
@json_option
@plain_errors
def ingest_command(videos: int, limit: float, as_json: bool) -> None:
    """Listing NTU-120 by its names: empty files in a temporary folder.

    \b
    Example: posebridge bench ingest
    """
    from pipeline.bench.ingest import bench_ingest

    with tempfile.TemporaryDirectory(prefix="posebridge-bench-") as folder:
        result = bench_ingest(Path(folder), videos)
    sentence = f"{result.videos} videos: {result.seconds:.2f} s, {result.missing} missing (limit {limit:g} s)."
    _judge(result, sentence, {"seconds": limit}, as_json)


@command.command("search")
@click.option("--clips", type=click.IntRange(1000), default=1_000_000, show_default=True,
              help="How many generated embeddings.")  # fmt: skip
@click.option("--width", type=click.IntRange(8), default=384, show_default=True,
              help="Numbers of an embedding; minilm has 384.")  # fmt: skip
@click.option("--limit", type=float, default=50, show_default=True, help="Most milliseconds of an answer, the median.")
@click.option("--missed", type=float, default=0.05, show_default=True, help="Most of the ten nearest that are not "
              "found: 1 - recall.")  # fmt: skip
@json_option
@plain_errors
def search_command(clips: int, width: int, limit: float, missed: float, as_json: bool) -> None:
    """The search's IVF-PQ index among generated embeddings, beside a comparison with all of them.

    \b
    Example: posebridge bench search --clips 1000000
    """
    from pipeline.bench.search import bench_search

    with tempfile.TemporaryDirectory(prefix="posebridge-bench-") as folder:
        result = bench_search(Path(folder), clips, width)
    sentence = (
        f"{clips} clips of {width} numbers, {result.cores} cores: built in {result.build_seconds:.0f} s, index of "
        f"{result.index_mb:.0f} MB, {result.vectors_mb:.0f} MB of vectors, opened in {result.open_seconds:.2f} s; an "
        f"answer {result.milliseconds:.1f} ms (19 of 20 below {result.slow_milliseconds:.1f}; limit {limit:g}), "
        f"recall@10 {result.recall:.3f}, of questions far from all clips {result.recall_far:.3f} (limit "
        f"{1 - missed:.2f}); peak memory {result.peak_mb:.0f} MB."
    )
    _judge(result, sentence, {"milliseconds": limit, "missed": missed}, as_json)


@command.command("encoder")
@click.option("--encoder", type=click.Choice(["light", "shift_gcn"]), default="light", show_default=True,
              help="shift_gcn is the paper's.")  # fmt: skip
@click.option("--layout", default="coco17", show_default=True,
              help="Layout of the joints: coco17, openpose18, ntu25 or kinect20.")  # fmt: skip
@click.option("--width", type=click.IntRange(1), default=64, show_default=True, help="Channels of the first blocks.")
@click.option("--blocks", default="4,3,3", show_default=True, help="Blocks of each stage.")
@click.option("--clips", type=click.IntRange(2), default=64, show_default=True, help="Clips of a batch.")
@click.option("--persons", type=click.IntRange(1), default=2, show_default=True, help="Persons in every clip.")
@click.option("--frames", type=click.IntRange(1), default=64, show_default=True, help="Frames of every clip.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True,
              help="How often it is measured; the fastest counts.")  # fmt: skip
@click.option("--limit", type=float, default=2.0, show_default=True,
              help="Largest ratio of a step and its matrix products.")  # fmt: skip
@json_option
@plain_errors
def encoder_command(
    encoder: str, layout: str, width: int, blocks: str, clips: int, persons: int, frames: int, rounds: int,
    limit: float, as_json: bool,
) -> None:  # fmt: skip
    """A training step of Shift-GCN beside its matrix products alone, by default at the paper's size.

    \b
    Example: posebridge bench encoder --layout ntu25
    """
    from pipeline.bench.encoder import bench_encoder
    from pipeline.params import EncodeParams

    if not all(part.strip().isdigit() for part in blocks.split(",")):
        raise PosebridgeError(f"--blocks should be numbers like 4,3,3, not {blocks!r}.")
    params = EncodeParams(encoder=encoder, width=width, blocks=tuple(int(part) for part in blocks.split(",")))
    result = bench_encoder(params, layout, clips, persons, frames, rounds)
    sentence = (
        f"{encoder}: {clips} clips of {persons} x {frames} x {result.joints} joints, {result.threads} threads: step "
        f"{result.step_seconds:.3f} s, its matrix products ({result.gflop:.0f} GFLOP) {result.product_seconds:.3f} s; "
        f"ratio {result.ratio:.2f} (limit {limit:.2f})."
    )
    _judge(result, sentence, {"ratio": limit}, as_json)


@command.command("scale")
@click.option("--like", default="kinetics400", show_default=True,
              help="ntu60, ntu120, pku_mmd, kinetics200 or kinetics400.")  # fmt: skip
@click.option("--clips", type=click.IntRange(1, 2_000_000),
              help="How many clips.  [default: as many as the data set has]")  # fmt: skip
@click.option("--run", "run_name", default="posebridge", show_default=True, help="A name under `runs` in params.yaml.")
@click.option("--steps", type=click.IntRange(4, 10_000), default=32, show_default=True, help="Steps of each stage.")
@click.option("--dense", is_flag=True, help="Noise in all of the store, so that the disk is read.  [default: holes]")
@click.option("--folder", type=Place(exists=True, file_okay=False),
              help="Where the temporary folder is made.  [default: the system's]")  # fmt: skip
@click.option("--limit-memory", type=float, default=1500, show_default=True, help="Most MB above those at 2,400 clips.")
@click.option("--limit-first", type=float, default=60, show_default=True, help="Most seconds before the first step.")
@click.option("--limit-waiting", type=float, default=0.1, show_default=True, help="Largest share of waiting for data.")
@click.option("--limit-ratio", type=float, default=1.05, show_default=True,
              help="Largest ratio of a training step from the cache and one from memory, in later epochs.")  # fmt: skip
@device_option
@params_option
@json_option
@plain_errors
def scale_command(
    like: str, clips: int | None, run_name: str, steps: int, dense: bool, folder: Path | None, limit_memory: float,
    limit_first: float, limit_waiting: float, limit_ratio: float, device: str, params_path: Path, as_json: bool,
) -> None:  # fmt: skip
    """Stage two at the size of a published data set: memory, seconds before the first step, steps, hours of a table.

    A store of noise is made for it, and removed; checksums are left alone while steps are timed. A step with clips from
    the cache is set beside the same with clips from memory, cold (from the disk, as in a first epoch) and warm (from
    the system's page cache). --limit-ratio judges the kind that later epochs are: warm where what a stage reads fits
    into half of this machine's memory, else cold. --params params/paper-ntu-synse.yaml measures the paper's encoder.

    \b
    Example: posebridge bench scale --like kinetics400
    """
    from pipeline.bench.scale import bench_scale
    from pipeline.learn.cost import LIKES

    params = load_params(params_path)
    run, published = choose(params.runs, run_name, "run"), choose(LIKES, like, "data set to be like")
    result = bench_scale(
        like, clips or published.clips, params_path, params, run_name, run,
        steps=steps, dense=dense, folder=folder, device=devices_of(device)[0], tell=say,
    )  # fmt: skip
    lines = [f"{result.clips:,} clips like {like}, run {run_name}, {result.device}; made in "
             f"{result.store_seconds:.0f} s, {result.store_gb:.1f} GB on the disk:"]  # fmt: skip
    for each in result.stages:
        own = "unknown" if each.peak_own_mb is None else f"{each.peak_own_mb:,.0f} MB"
        more = "" if each.grown_mb is None else f" ({each.grown_mb:+,.0f} above that of 2,400 clips)"
        lines.append(
            f"  {each.stage:9} peak {each.peak_mb:,.0f} MB, without mapped files {own}{more}; first step after "
            f"{each.first_step_seconds:.1f} s, shards open after {each.opening_seconds:.1f} s more; "
            f"{each.step_seconds:.3f} s a step, {each.waiting_share:.1%} of it waiting; {each.hours:.1f} h; steps / "
            f"the same from memory: cold {each.cold_over_memory:.3f} (CPU time {each.cpu_cold_over_memory:.3f}), warm "
            f"{each.warm_over_memory:.3f} ({each.cpu_warm_over_memory:.3f})"
        )
        lines[-1] = lines[-1].replace("%", " %")
    kinds = ", ".join(
        f"{each.stage} {'warm' if each.fits else 'cold'} {each.cache_over_memory:.3f} ({each.read_gb:.1f} GB)"
        for each in result.stages
        if each.stage != "evaluate"
    )
    lines.append(
        f"cache_over_memory, of later epochs, by what an epoch reads: {kinds}; {result.cache_over_memory:.3f}."
    )
    lines.append(
        f"The table, {result.seeds} seeds: {result.hours:.1f} h. Comparing all checksums, once a process: "
        f"{result.checksum_seconds:.0f} s."
    )
    limits = {
        "grown_mb": limit_memory, "first_step_seconds": limit_first, "waiting_share": limit_waiting,
        "cache_over_memory": limit_ratio,
    }  # fmt: skip
    _judge(result, "\n".join(lines), limits, as_json)


def _judge(result: Any, sentence: str, limits: dict[str, float], as_json: bool) -> None:
    """Answer, and fail where a value is above its limit."""
    answer(dataclasses.asdict(result) | {"limits": limits}, sentence, as_json)
    for name, limit in limits.items():
        if not getattr(result, name) <= limit:  # nan is no limit
            raise PosebridgeError(f"The {name} {getattr(result, name):.3f} is above its limit {limit:.3f}.")
