"""`posebridge predict`: what are the people in this video doing?

Reads videos, and a trained run or a folder of examples; writes the overlay where one is asked for, and the poses of
examples to cache/examples/. Command: posebridge predict video.mp4 --labels "shaking hands, pushing, hugging" --run RUN
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.errors import PosebridgeError
from pipeline.params import IMAGE_FPS, Params, choose, load_params
from pipeline.recipe import Recipe
from stages.bars import counter
from stages.shell import (
    Place,
    answer,
    device_option,
    devices_of,
    json_option,
    params_option,
    plain_errors,
    root_option,
    say,
)

if TYPE_CHECKING:
    import torch

    from pipeline.hpe.base import Estimator
    from pipeline.predict.live import LivePoses
    from pipeline.predict.predict import Prediction, Scorer

CACHE = Path("cache")
SPARSE = 0.25  # seconds from frame to frame that an action may hide in


@click.command()
@click.argument("video", type=Place())
@click.option("--labels", help="What it may be: actions divided by commas.")
@click.option("--run", "run_name", help="A trained run named in params.yaml.  [default: the best one that fits]")
@click.option("--examples", type=Place(), help="Instead of a run: a folder with a sub-folder of "
              "clips for every action.")  # fmt: skip
@click.option("--dataset", help="The data set that the run is trained on.  [default: the only one]")
@click.option("--protocol", help="The protocol that it is trained with.  [default: all_seen, else the only one]")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--recipe", "recipe_name", help="A recipe named in params.yaml.  [default: the run's; tinypose with "
              "--examples]")  # fmt: skip
@click.option("--detector", type=Place(), help="An RTMDet ONNX file, for recipes without one.")
@click.option("--window", type=float, help="Seconds: answer for windows of this length instead of the whole video.")
@click.option("--stride", type=float, help="Seconds from window to window.  [default: half a window]")
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="How many labels to tell.")
@click.option("--neighbours", type=click.IntRange(0), default=1, show_default=True,
              help="With --examples: how many of an action's clips count; 0 compares with their mean.")  # fmt: skip
@click.option("--cues", is_flag=True, help="With --examples: compare cues as well, not the skeletons alone.")
@click.option("--overlay", type=Place(dir_okay=False), help="An MP4 to draw what was seen into.")
@device_option
@root_option
@params_option
@json_option
@plain_errors
def command(
    video: Path, labels: str | None, run_name: str | None, examples: Path | None, dataset: str | None,
    protocol: str | None, seed: int, recipe_name: str | None, detector: Path | None, window: float | None,
    stride: float | None, top: int, neighbours: int, cues: bool, overlay: Path | None, device: str,
    cache_root: Path | None, params_path: Path, as_json: bool,
) -> None:  # fmt: skip
    """Name the action in a video, a folder of videos, or the windows of a long one.

    A folder of images is a video, at the rate `image_fps` of --dataset in params.yaml, or of 25 a second.

    Without --run that trained run answers which fits best: whose data set these videos are of, which knows most of the
    labels as classes, and has seen most classes. It is told which.

    Shares are calibrated on clips that the run's training kept out, with `none of these` as one more answer; it is told
    on how many, and where they were too few.

    \b
    Examples:
      posebridge predict clip.mp4 --labels "shaking hands, pushing, hugging" --overlay seen.mp4
      posebridge predict long.mp4 --labels "pushing, hugging" --run posebridge --window 3 --stride 1
      posebridge predict clip.mp4 --examples my_actions/
    """
    if run_name is not None and examples is not None:
        raise click.UsageError("Give either --run or --examples.")
    if examples is None and labels is None:
        raise click.UsageError("Give --labels, what it may be, or --examples." if run_name is None else "--run needs "
                               "--labels.")  # fmt: skip
    if examples is not None and labels is not None:
        raise click.UsageError("With --examples the names of the sub-folders are the labels; leave --labels out.")
    if overlay is not None and overlay.suffix.lower() != ".mp4":
        raise click.UsageError(f"--overlay writes a video; name it {overlay.with_suffix('.mp4')}.")
    begun = time.perf_counter()
    from pipeline.predict.live import find_videos, windows  # after parsing, so that --help needs no torch
    from pipeline.predict.predict import parse_labels
    from stages.extract import estimator_on

    wanted = parse_labels(labels) if labels is not None else ()
    params = load_params(params_path)
    (place,) = devices_of(device)
    videos = find_videos(video)
    image_fps = params.datasets[dataset].image_fps if dataset in params.datasets else IMAGE_FPS
    if overlay is not None and len(videos) > 1:
        raise click.UsageError("--overlay takes one video, not a folder.")
    if overlay is not None and overlay.exists() and overlay.samefile(videos[0]):
        raise click.UsageError("--overlay would take the place of the video itself; name another file.")
    clips, unreadable = [], []
    for path in videos:
        try:
            clips += windows(path, window, stride, image_fps)
        except PosebridgeError as error:
            if videos == [video]:
                raise
            unreadable.append({"video": str(path), "reason": str(error)})
    warnings: list[str] = []
    if examples is None:
        if run_name is None:
            run_name, dataset, protocol = chosen_run(params, wanted, videos, dataset, protocol, seed)
        live, scorer, facts = open_trained(
            run_name, wanted, videos, dataset, protocol, seed, recipe_name, detector, cache_root, params, warnings,
            place, estimator_on(device),
        )  # fmt: skip
        load_seconds = time.perf_counter() - begun
    else:
        live = open_poses(params, recipe_name or "tinypose", detector, warnings, estimator_on(device))
        load_seconds = time.perf_counter() - begun
        scorer, facts = open_examples(examples, live, neighbours, cues, warnings)
        facts["examples_seconds"] = round(time.perf_counter() - begun - load_seconds, 3)
    frames, longest = live.recipe.frames, max((clip.end - clip.start for clip in clips), default=0.0)
    if longest > frames * SPARSE:
        warnings.append(
            f"{longest:.0f} s are looked at in {frames} frames, {frames / longest:.1f} a second; give a "
            f"{'shorter ' if window else ''}--window to look closer."
        )
    for each in warnings:
        say(f"Warning: {each}")
    run_predictions(
        clips, live, scorer, top, overlay, videos != [video], as_json,
        facts | {"warnings": warnings, "unreadable": unreadable, "load_seconds": round(load_seconds, 3)},
    )  # fmt: skip


def chosen_run(
    params: Params, labels: tuple[str, ...], videos: list[Path], dataset: str | None, protocol: str | None, seed: int
) -> tuple[str, str, str]:
    """The run, its data set and its protocol, where no run is named; says which it is."""
    from pipeline.predict.choose import best_run

    best = best_run(params, labels, videos, dataset, protocol, seed, CACHE)
    known = f"{best.known} of the {len(labels)} labels are classes there"
    say(f"The run {best.run} answers, trained on {best.dataset}, protocol {best.protocol} ({best.seen} seen classes; "
        f"{known}).")  # fmt: skip
    return best.run, best.dataset, best.protocol


def open_trained(
    run_name: str, labels: tuple[str, ...], videos: list[Path], dataset: str | None, protocol: str | None,
    seed: int, recipe_name: str | None, detector: Path | None, cache_root: Path | None, params: Params,
    warnings: list[str], device: torch.device, build_estimator: Callable[[Recipe], Estimator],
) -> tuple[LivePoses, Scorer, dict[str, Any]]:  # fmt: skip
    """The poses, the scorer and the facts of a trained run, on `device`."""
    from pipeline.predict.live import LivePoses
    from pipeline.predict.predict import RunScorer, choose_run, find_trained, listed_boxes, load_run

    choose_run(params, run_name)
    dataset, protocol = find_trained(CACHE, run_name, dataset, protocol)
    model = load_run(
        dataset, protocol, run_name, params, seed=seed, recipe_name=recipe_name, cache=CACHE, store_root=cache_root,
        device=device,
    )  # fmt: skip
    scorer = RunScorer(model, labels)
    root = Path(params.datasets[dataset].root).resolve() if dataset in params.datasets else None
    boxes = listed_boxes(model.opened.dataset, root, model.recipe, videos) if root else None
    live = LivePoses(model.recipe, build_estimator, params.extract.batch_size, detector, boxes)
    if model.synthetic and not all(root and path.resolve().is_relative_to(root) for path in videos):
        warnings.append(
            f"The run {run_name!r} is trained on generated data only ({dataset}); its answers about real footage are "
            "not to be relied on."
        )
    if boxes is None:
        warn_of_boxes(model.recipe.boxes, detector, warnings)
    facts = {
        "run": run_name, "dataset": dataset, "protocol": protocol, "seed": seed, "recipe": model.opened.run.recipe,
        "labels": labels, "texts": scorer.described, "synthetic": model.synthetic,
    }  # fmt: skip
    return live, scorer, facts


def open_poses(
    params: Params, recipe_name: str, detector: Path | None, warnings: list[str],
    build_estimator: Callable[[Recipe], Estimator],
) -> LivePoses:  # fmt: skip
    """The pose model of a recipe, without any run."""
    from pipeline.hpe.weights import resolve_weights
    from pipeline.predict.live import LivePoses

    recipe = resolve_weights(choose(params.recipes, recipe_name, "recipe"))
    warn_of_boxes(recipe.boxes, detector, warnings)
    return LivePoses(recipe, build_estimator, params.extract.batch_size, detector)


def open_examples(
    folder: Path, live: LivePoses, neighbours: int, cues: bool, warnings: list[str]
) -> tuple[Scorer, dict[str, Any]]:
    """The scorer and the facts of a folder of examples."""
    from pipeline.predict.examples import load_examples

    with counter("example", leave=False) as show:
        scorer, left_out = load_examples(folder, live, CACHE, neighbours, cues, show)
    warnings += [f"The example {each.clip_id} is left out: {each.reason}." for each in left_out]
    facts = {"examples": str(folder), "labels": scorer.labels, "neighbours": neighbours, "cues": scorer.cues}
    return scorer, facts | {"examples_left_out": [dataclasses.asdict(each) for each in left_out]}


def warn_of_boxes(boxes: str, detector: Path | None, warnings: list[str]) -> None:
    """Say where a recipe finds no persons by itself."""
    if boxes != "detector" and detector is None:
        warnings.append(
            f"The recipe has `boxes: {boxes}`, so the whole frame is taken as the box of one person; give --detector "
            "to find persons."
        )


def run_predictions(
    clips: list, live: LivePoses, scorer: Scorer, top: int, overlay: Path | None, names: bool, as_json: bool,
    facts: dict[str, Any],
) -> None:  # fmt: skip
    """Predict, draw, answer, with the `names` of the videos where a folder was asked about; fail where nothing could be
    answered because nothing could be read.
    """
    from pipeline.predict.overlay import write_overlay
    from pipeline.predict.predict import predict, told_confidence
    from pipeline.skeleton.graph import graph_of
    from pipeline.video.record import shows_few

    begun = time.perf_counter()
    found, still = [], []
    with counter("clip", leave=False) as show:
        for prediction, row in predict(clips, live, scorer, top):
            kept = {key: row[key] for key in row if "cue" not in key} if row is not None and overlay else None
            found.append((prediction, kept))
            if row is not None and shows_few(row["video_record"], live.recipe.frames):
                still.append(prediction)
            show(len(found), len(clips))
    seconds = time.perf_counter() - begun
    if still:
        facts["warnings"].append(
            f"Answers that rest on few different frames: {len(still)}, first at {still[0].start:.1f} s of "
            f"{still[0].video!r}; the video pauses or has wrong time stamps, try a shorter --window."
        )
        say(f"Warning: {facts['warnings'][-1]}")
    last = {prediction.video: prediction.end for prediction, _ in found}
    result = facts | {
        "predictions": [dataclasses.asdict(prediction) for prediction, _ in found],
        "temperature": (scorer.confidence or scorer).temperature,
        "confidences": told_confidence(scorer.confidence),
        "calibration": dataclasses.asdict(scorer.confidence) if scorer.confidence else None,
        "seconds": round(seconds, 3),
        "video_seconds": round(sum(last.values()), 3),
    }
    if overlay is not None and clips:
        begun = time.perf_counter()
        with counter("frame", leave=False) as show:
            place, graph = clips[0].file(Path()), graph_of(live.recipe.layout)
            path = write_overlay(place, overlay, found, graph, show, clips[0].image_fps)
        result |= {"overlay": str(path), "overlay_seconds": round(time.perf_counter() - begun, 3)}
    say(told_confidence(scorer.confidence))
    lines = [sentence(prediction, names, len(clips) > len(last)) for prediction, _ in found]
    lines += [each["reason"] for each in facts["unreadable"]]  # it begins with the name
    failed = {each["video"] for each in facts["unreadable"]} | {each.video for each, _ in found if each.failed}
    if names and failed:
        lines.append(f"{len(failed)} of {len(last) + len(facts['unreadable'])} videos failed.")
    answer(result | {"failures": len(failed)}, "\n".join(lines), as_json)
    if all(prediction.failed for prediction, _ in found):
        raise PosebridgeError(f"No answer: {'none of the videos could be read' if names else found[0][0].reason}.")


def sentence(prediction: Prediction, names: bool, timeline: bool) -> str:
    """One line of the answer: `clip.mp4  1.0-4.0 s  pushing 71%, hugging 20%`."""
    from pipeline.predict.predict import told_shares

    parts = [prediction.video] if names else []
    if timeline:
        parts.append(f"{prediction.start:6.1f} - {prediction.end:6.1f} s")
    return "  ".join([*parts, ", ".join(told_shares(prediction)) or prediction.reason])
