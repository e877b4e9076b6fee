"""`posebridge extract`: every clip through the pose model, once, into the cache.

Reads manifests/<dataset>/clips.csv and the videos, writes cache/store/..., cache/<dataset>/<recipe>/index.json and
duplicates.json beside it: test clips that repeat a train clip.
Command: posebridge extract --dataset skelgap-mini --recipe refined
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.errors import PosebridgeError
from pipeline.files.shipped import dataset_file
from pipeline.manifest.variants import of_variant
from pipeline.params import choose, load_params
from pipeline.recipe import Recipe
from stages.bars import counter
from stages.duplicates import look_for_duplicates
from stages.shell import (
    answer,
    cache_option,
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
from stages.workers import executor_of, executor_option, workers_option

if TYPE_CHECKING:
    from pipeline.extract.extract import Extraction
    from pipeline.extract.outlook import Outlook
    from pipeline.hpe.base import Estimator


def _read_share(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, int] | None:
    from pipeline.extract.share import read_share

    try:
        return read_share(text) if text else None
    except PosebridgeError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.option("--dataset", required=True, help="A data set named in params.yaml and listed by `ingest`.")
@recipe_option
@manifests_option
@cache_option
@root_option
@click.option("--variant", "variants", multiple=True,
              help="This variant of the test clips instead, e.g. occlusion-2; may be repeated.")  # fmt: skip
@click.option("--retry-failed", is_flag=True, help="Try clips again that failed in an earlier run.")
@click.option("--max-failures", type=int, help="More failed clips than this give exit code 1.  [default: params.yaml]")
@click.option("--batch-size", type=int, help="Crops in one call of the pose model.  [default: params.yaml]")
@device_option
@executor_option
@workers_option
@click.option("--shard", "share", metavar="i/N", callback=_read_share,
              help="Only share i of N, from 0/N on.  [default: all, or in a Slurm array the task's]")  # fmt: skip
@click.option("--plan", is_flag=True, help="Tell how far it is, over all workers, and do nothing.")
@click.option("--finish", is_flag=True, help="Write the index of shards that are all sealed, and make none.")
@params_option
@json_option
@plain_errors
def command(
    dataset: str,
    recipe_name: str,
    manifests: Path,
    cache: Path,
    cache_root: Path | None,
    variants: tuple[str, ...],
    retry_failed: bool,
    max_failures: int | None,
    batch_size: int | None,
    device: str,
    executor_name: str | None,
    workers: int | None,
    share: tuple[int, int] | None,
    plan: bool,
    finish: bool,
    params_path: Path,
    as_json: bool,
) -> None:
    """Estimate poses and pose-anchored cues. Only what is new or changed is estimated; a killed run goes on.

    \b
    Examples:
      posebridge extract --dataset skelgap-mini --recipe refined
      posebridge extract --dataset ntu120 --recipe tinypose --workers 8
      posebridge extract --dataset ntu120 --recipe tinypose --plan
    """
    if plan and finish:
        raise click.UsageError("--plan and --finish exclude each other.")
    from pipeline.executors.stopping import tidy_end
    from pipeline.extract.extract import extract  # after parsing, so that --help stays fast
    from pipeline.extract.outlook import look_ahead
    from pipeline.extract.share import share_of_array
    from pipeline.hpe.weights import resolve_weights
    from pipeline.protocol.duplicates import count_told

    params = load_params(params_path)
    place = choose(params.datasets, dataset, "data set")
    given = {"max_failures": max_failures, "batch_size": batch_size}
    knobs = dataclasses.replace(params.extract, **{key: value for key, value in given.items() if value is not None})
    recipe: Recipe = resolve_weights(choose(params.recipes, recipe_name, "recipe"))
    common = {
        "recipe": recipe, "root": Path(place.root), "params": knobs, "build_estimator": estimator_on(device),
        "manifests": manifests, "retry_failed": retry_failed,
    }  # fmt: skip
    if plan:
        stores = cache_root or cache / "store"
        plans = {variant: look_ahead(dataset, variant, stores=stores, **common) for variant in variants or ("",)}
        _tell_plan(f"--dataset {dataset} --recipe {recipe_name}", plans, as_json)
        return
    executor = executor_of(params, executor_name, workers, cache / "logs" / dataset / recipe_name, device)
    if share is None and (executor_name or params.executor.name) == "local" and not finish:
        share = share_of_array(os.environ)
    if executor.here and recipe.needs_videos and not finish:
        devices_of(device)  # a word that stands for nothing here is told before the work
    results = {}
    for variant in variants or ("",):
        name = of_variant(recipe_name, variant)
        with counter("clip", f"extract {name}") as show, tidy_end():
            results[variant] = extract(
                dataset, recipe_name, cache=cache, cache_root=cache_root, variant=variant, executor=executor,
                share=share or (0, 1), finish=finish, progress=show, **common,
            )  # fmt: skip
    repeated = []
    if not variants and results[""].complete:
        repeated = look_for_duplicates(results[""].index, dataset_file(manifests, dataset, "clips.csv"), cache_root)
    more = {"max_failures": knobs.max_failures, "duplicates": [dataclasses.asdict(pair) for pair in repeated]}
    more |= {"boxes": recipe.box_kind, "box_iou": _overlap(recipe)}
    values = {variant: dataclasses.asdict(result) | more for variant, result in results.items()}
    lines = [
        f"{result.index}: {result.clips} clips ({result.estimated} estimated, {result.copied} copied now), "
        f"{len(result.failures)} failures, {_index_is(result)}, {result.seconds:.1f} s.{_boxes_told(recipe)}"
        + (f" {count_told(repeated)}." if repeated else "")
        for result in results.values()
    ]
    for result in results.values():
        warn_of_few_frames(result.few_frames)
    answer({"variants": values} if variants else values[""], "\n".join(lines), as_json)
    for result in results.values():
        if len(result.failures) > knobs.max_failures and result.complete:
            first = result.failures[0]
            raise PosebridgeError(
                f"{len(result.failures)} clips of {dataset} failed, more than --max-failures {knobs.max_failures}; "
                f"first {first.clip_id!r} ({first.stage}): {first.reason}; {result.index} lists all."
            )


def _overlap(recipe: Recipe) -> float | None:
    from pipeline.skeleton.jitter import overlap

    return overlap(recipe.box_shift, recipe.box_scale) if recipe.box_kind == "jittered" else None


def _boxes_told(recipe: Recipe) -> str:
    """A sentence where persons were not looked for."""
    iou = _overlap(recipe)
    told = {
        "true": " Its boxes are true ones, which no detector finds.",
        "jittered": f" Its boxes are jittered true ones (mean IoU with them {iou or 0:.2f}), which no detector finds.",
    }
    return told.get(recipe.box_kind, "")


def _index_is(result: Extraction) -> str:
    if not result.complete:
        return "not written: other shares are not done, and whoever is last writes it, or `extract --finish`"
    return "written" if result.changed else "unchanged"


def _tell_plan(what: str, plans: dict[str, Outlook], as_json: bool) -> None:
    lines = []
    for variant, plan in plans.items():
        hours = "unknown hours" if plan.hours_left is None else f"{plan.hours_left:.1f} h"
        lines.append(
            f"{plan.store}: {plan.shards} shards, {plan.done} done ({plan.failed} of them with {plan.clips_failed} "
            f"failed clips), {plan.leased} leased, {plan.missing} missing; {plan.clips_left} of {plan.clips} clips are "
            f"left, {hours} at the pace so far."
        )
        if plan.array:
            of = f"{what} --variant {variant}" if variant else what
            lines.append(
                f"The missing ones as a Slurm array: sbatch --array={plan.array} with `posebridge extract {of} "
                f"--shard $SLURM_ARRAY_TASK_ID/{plan.tasks}`."
            )
    values = {variant: dataclasses.asdict(plan) for variant, plan in plans.items()}
    answer(values.get("", {"variants": values}), "\n".join(lines), as_json)


def warn_of_few_frames(clip_ids: Sequence[str]) -> None:
    """Name the first clips that were looked at in hardly more than a still picture."""
    if clip_ids:
        first = ", ".join(map(repr, clip_ids[:3])) + (", ..." if len(clip_ids) > 3 else "")
        say(
            f"Warning: clips that show less than a quarter of the frames that they could: {len(clip_ids)} ({first}); "
            "their videos pause or have wrong time stamps, so look at them, and give them start and end in clips.csv."
        )


def estimator_on(device: str) -> Callable[[Recipe], Estimator]:
    """`build_estimator` for what --device stands for on the machine that makes the shards; picklable."""
    return build_estimator if device == "auto" else functools.partial(build_estimator, device=device)


@functools.cache
def build_estimator(recipe: Recipe, device: str = "auto") -> Estimator:
    """The recipe's pose model, loaded once for all variants."""
    from pipeline.files.device import choose_devices  # late, since they load torch
    from pipeline.hpe.factory import build_estimator

    return build_estimator(recipe, choose_devices(device)[0])
