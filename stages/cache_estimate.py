"""`posebridge cache estimate`: what a published data set will cost on this machine, in hours, bytes and memory.

Reads params.yaml and, of a data set that is named, clips.csv and some videos; writes nothing.
Command: posebridge cache estimate --recipe refined
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import click

from pipeline.files.shipped import dataset_file
from pipeline.params import RunParams, choose, load_params
from stages.shell import (
    FiniteRange,
    answer,
    device_option,
    devices_of,
    json_option,
    manifests_option,
    params_option,
    plain_errors,
    recipe_option,
)


@click.command("estimate")
@recipe_option
@click.option("--run", "run_name", help="The run of stage two, in params.yaml.  [default: posebridge, or skeleton "
              "where the recipe holds no cues]")  # fmt: skip
@click.option("--dataset", help="Probe with videos of this data set and estimate it too.  [default: a generated video]")
@click.option("--clips", "count", type=click.IntRange(1), default=4, show_default=True,
              help="How many of its videos to probe with.")  # fmt: skip
@click.option("--seconds", type=FiniteRange(0, 3600), default=6.0, show_default=True,
              help="About how long to probe each stage.")  # fmt: skip
@device_option
@manifests_option
@params_option
@json_option
@plain_errors
def estimate(
    recipe_name: str,
    run_name: str | None,
    dataset: str | None,
    count: int,
    seconds: float,
    device: str,
    manifests: Path,
    params_path: Path,
    as_json: bool,
) -> None:
    """Estimate both stages for each data set's real size, from a short probe of this machine: hours and bytes of the
    extraction; hours and memory of encode, train and evaluate.

    Stage two is estimated for one protocol a data set, one run, all its seeds one after another, training for as many
    epochs as it may.

    \b
    Example: posebridge cache estimate --recipe refined
    """
    from pipeline.extract.cost import CORPORA, corpus_of, estimate, probe
    from pipeline.hpe.factory import build_estimator
    from pipeline.hpe.weights import resolve_weights
    from pipeline.learn.cost import LIKES, like_of, stage_two
    from pipeline.learn.probe import method_of, probe_steps
    from pipeline.manifest.clips import read_clips
    from pipeline.video.noise import write_noise

    params, (place,) = load_params(params_path), devices_of(device)
    recipe = resolve_weights(choose(params.recipes, recipe_name, "recipe"))
    if run_name is None:
        run_name = "skeleton" if recipe.cues == "none" else "posebridge"
        run = params.runs.get(run_name, RunParams(run_name))
    else:
        run = choose(params.runs, run_name, "run")
    corpora, likes = CORPORA, LIKES
    with tempfile.TemporaryDirectory() as folder:
        if dataset:
            root = Path(choose(params.datasets, dataset, "data set").root)
            clips = read_clips(dataset_file(manifests, dataset, "clips.csv"))
            paths = list(dict.fromkeys(clip.file(root) for clip in clips))
            videos = paths[:: max(1, len(paths) // count)][:count]
            corpora = (corpus_of(dataset, clips), *CORPORA)
            likes = ({dataset: like} if (like := like_of(clips)) else {}) | LIKES
        else:
            videos = [Path(folder) / "probe.mp4"]
            write_noise(videos[0], 120)
        estimator = build_estimator(recipe, place)
        classes = max(like.classes for like in likes.values())
        method = method_of(run, recipe, estimator.cue_width, classes)
        steps = probe_steps(method, recipe, estimator.cue_width, classes, params, seconds, place)
        measured = probe(recipe, estimator, videos, seconds, params.extract.batch_size)
    estimates = [estimate(corpus, recipe, measured) for corpus in corpora]
    trained = [stage_two(name, like, params, run, method, steps) for name, like in likes.items()]
    hours, seeds = sum(each.hours for each in trained), len(params.seeds(run))
    lines = [
        f"This machine, now: {measured.decoded_megapixels_per_second:.0f} megapixels decoded and "
        f"{measured.crops_per_second:.0f} crops a second.",
        *(
            f"{e.name:14} {e.clips:8,} clips  {e.hours:8.1f} h ({e.decode_hours:.1f} decoding, {e.pose_hours:.1f} pose "
            f"model)  {e.bytes / 1e9:7.1f} GB  {e.bytes_per_clip / 1024:.0f} KiB a clip  ({e.note})"
            for e in estimates
        ),
        f"Stage two, run {run_name}, seeds: {seeds}. A step of encode takes {steps.encode_seconds:.3f} s, one of train "
        f"{steps.train_seconds:.3f} s, scoring a batch {steps.score_seconds:.3f} s.",
        *(
            f"{e.name:14} {e.clips:8,} clips  {e.hours:8.1f} h ({e.encode_hours:.1f} encode, {e.train_hours:.1f} "
            f"train, {e.evaluate_hours:.1f} evaluate)  {e.memory_bytes / 1e9:.1f} GB of memory"
            for e in trained
        ),
        f"The whole table: {hours:.1f} h.",
    ]
    told = {
        "run": run_name, "seeds": seeds, "steps": dataclasses.asdict(steps), "hours": hours,
        "estimates": [dataclasses.asdict(e) for e in trained],
    }  # fmt: skip
    values = {"probe": dataclasses.asdict(measured), "estimates": [dataclasses.asdict(e) for e in estimates]}
    answer(values | {"stage_two": told}, "\n".join(lines), as_json)
