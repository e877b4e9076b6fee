"""`posebridge bench`: measure the speed and the memory of both stages on this machine.

Reads manifests and the cache; writes to a temporary folder only. Stage one is measured in bench_extraction.py; how
right answers are, in bench_accuracy.py (`examples`, `cues`, `leaks`), and what parts of PoseBridge are worth, in
bench_parts.py.
Command: posebridge bench encoder
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from pipeline.errors import PosebridgeError
from pipeline.params import choose, load_params
from stages.bench_accuracy import confidence, cues, examples, leaks
from stages.bench_extraction import extract, memory, ways, workers
from stages.bench_parts import parts
from stages.shell import (
    Group,
    Place,
    cache_option,
    dataset_option,
    device_option,
    devices_of,
    json_option,
    judge,
    params_option,
    plain_errors,
    recipe_option,
    root_option,
    say,
)


@click.group(cls=Group)
def command() -> None:
    """Measure extraction, ways of it, memory, the cache, ingest, training, search, confidence,
    examples, cues, parts and leaks; exit code 1 where a
    limit is missed.

    \b
    Examples:
      posebridge bench extract --dataset skelgap-mini --recipe refined --clips 16
      posebridge bench ways --dataset skelgap-mini --recipe refined
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


for each in (extract, ways, workers, memory, confidence, examples, cues, leaks, parts):
    command.add_command(each)


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
    judge(result, sentence, {}, as_json)


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
    judge(result, sentence, {"seconds": limit}, as_json)


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
    judge(result, sentence, {"milliseconds": limit, "missed": missed}, as_json)


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
    judge(result, sentence, {"ratio": limit}, as_json)


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
    judge(result, "\n".join(lines), limits, as_json)
