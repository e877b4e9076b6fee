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

from pipeline.errors import short
from pipeline.params import IMAGE_FPS, Params, choose, load_params
from pipeline.recipe import Recipe
from stages.bars import counter
from stages.predict_answers import Wanted, run_predictions
from stages.shell import (
    Place,
    device_option,
    devices_of,
    json_option,
    params_option,
    plain_errors,
    root_option,
    say,
    seed_option,
)

if TYPE_CHECKING:
    import torch

    from pipeline.hpe.base import Estimator
    from pipeline.predict.live import LivePoses
    from pipeline.predict.predict import Scorer
    from pipeline.predict.words import Asked

CACHE = Path("cache")
TABLES = (".csv", ".tsv")  # what the names of tables end in
FINDINGS = 5  # of the checker of texts that are told


class LabelsOrTable(click.ParamType):
    """Labels as they are typed, or the name of a table of them, which is meant as `Place` has it."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        table = str(value).strip().lower().endswith(TABLES)
        return str(Place().convert(value, param, ctx)) if table else str(value)


@click.command()
@click.argument("video", type=Place())
@click.option("--labels", type=LabelsOrTable(), help="What it may be: actions divided by commas; or, with words for "
              "them, `punching: a fist is thrust at somebody; pushing: both hands push somebody away`; or a table "
              "label,slot,text, e.g. labels.csv.")  # fmt: skip
@click.option("--texts", type=Place(), help="CSV: label,slot,text. Your words for --labels, as `init --texts` takes "
              "them; its labels are asked about where --labels is left out.")  # fmt: skip
@click.option("--run", "run_name", help="A trained run named in params.yaml.  [default: the best one that fits]")
@click.option("--examples", type=Place(), help="Instead of a run: a folder with a sub-folder of "
              "clips for every action.")  # fmt: skip
@click.option("--dataset", help="The data set that the run is trained on.  [default: the only one]")
@click.option("--protocol", help="The protocol that it is trained with.  [default: all_seen, else the only one]")
@seed_option
@click.option("--recipe", "recipe_name", help="A recipe named in params.yaml.  [default: the run's; tinypose with "
              "--examples]")  # fmt: skip
@click.option("--detector", type=Place(), help="An RTMDet ONNX file, for recipes without one.")
@click.option("--window", type=float, help="Seconds: answer for windows of this length.  [default: the whole video]")
@click.option("--stride", type=float, help="Seconds from window to window.  [default: half a window]")
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="How many labels to tell.")
@click.option("--neighbours", type=click.IntRange(0), default=1, show_default=True,
              help="With --examples: how many of an action's clips count; 0 compares with their mean.")  # fmt: skip
@click.option("--cues", is_flag=True, help="With --examples: compare cues as well, not the skeletons alone.")
@click.option("--timeline", "timelines", type=Place(dir_okay=False), multiple=True,
              help="A table (.csv), subtitles (.srt) or a picture (.png) of when which answer holds; may be repeated.")
@click.option("--table", type=Place(dir_okay=False), help="A CSV that gets a row as each video is done, e.g. "
              "answers.csv; the same command goes on where it was killed.")  # fmt: skip
@click.option("--overlay", type=Place(dir_okay=False), help="An MP4 to draw what was seen into.")
@device_option
@root_option
@params_option
@json_option
@plain_errors
def command(
    video: Path, labels: str | None, texts: Path | None, run_name: str | None, examples: Path | None,
    dataset: str | None, protocol: str | None, seed: int, recipe_name: str | None, detector: Path | None,
    window: float | None, stride: float | None, top: int, neighbours: int, cues: bool, timelines: tuple[Path, ...],
    table: Path | None, overlay: Path | None, device: str, cache_root: Path | None, params_path: Path, as_json: bool,
) -> None:  # fmt: skip
    """Name the action in a video, a folder of videos, or the windows of a long one.

    A folder of images is a video, at the rate `image_fps` of --dataset in params.yaml, or of 25 a second.

    Without --run that trained run answers which fits best: whose data set these videos are of, which knows most of the
    labels as classes, and has seen most classes. It tells which one.

    Shares are calibrated on clips that the run's training kept out, with `none of these` as one more answer; it tells
    on how many, and where they were too few.

    \b
    Examples:
      posebridge predict clip.mp4 --labels "shaking hands, pushing, hugging" --overlay seen.mp4
      posebridge predict long.mp4 --labels "pushing, hugging" --run posebridge --window 3 --stride 1 --timeline long.png
      posebridge predict folder/ --labels labels.csv --table answers.csv
      posebridge predict clip.mp4 --examples my_actions/
    """
    refuse_contradictions(labels or texts, run_name, examples, timelines, table, overlay)
    begun = time.perf_counter()
    from pipeline.predict.answers import Windows  # after parsing, so that --help needs no torch
    from pipeline.predict.live import check_windows, find_videos, windows
    from pipeline.predict.timeline import check_form
    from pipeline.predict.words import read_asked
    from stages.extract import estimator_on

    table_of = Path(labels) if labels is not None and labels.strip().lower().endswith(TABLES) else None
    asked = read_asked(None if table_of else labels, texts, table_of) if examples is None else None
    for path in timelines:
        check_form(path)
    check_windows(window, stride)
    params = load_params(params_path)
    (place,) = devices_of(device)
    videos = find_videos(video)
    fps = params.datasets[dataset].image_fps if dataset in params.datasets else IMAGE_FPS
    if (overlay or timelines) and len(videos) > 1:
        raise click.UsageError(f"--{'overlay' if overlay else 'timeline'} takes one video, not a folder; see --table.")
    for path in (*timelines, *filter(None, (table, overlay))):
        if path.exists() and any(path.samefile(each) for each in videos[:1]):
            raise click.UsageError(f"{path} is the video itself; name another file.")
    clips = windows(video, window, stride, fps) if videos == [video] else []
    warnings: list[str] = []
    if asked is not None:
        if run_name is None:
            run_name, dataset, protocol = chosen_run(params, asked.labels, videos, dataset, protocol, seed)
        live, scorer, facts = open_trained(
            run_name, asked, videos, dataset, protocol, seed, recipe_name, detector, cache_root, params, warnings,
            place, estimator_on(device),
        )  # fmt: skip
        load_seconds = time.perf_counter() - begun
    else:
        assert examples is not None
        live = open_poses(params, recipe_name or "tinypose", detector, warnings, estimator_on(device))
        load_seconds = time.perf_counter() - begun
        scorer, facts = open_examples(examples, live, neighbours, cues, warnings)
        facts["examples_seconds"] = round(time.perf_counter() - begun - load_seconds, 3)
    for each in warnings:
        say(f"Warning: {each}")
    run_predictions(
        video, videos, clips, Windows(window, stride, fps), live, scorer,
        Wanted(top, timelines, table, overlay, as_json),
        facts | {"warnings": warnings, "load_seconds": round(load_seconds, 3)},
    )  # fmt: skip


def refuse_contradictions(
    labels: object, run_name: str | None, examples: Path | None, timelines: tuple[Path, ...], table: Path | None,
    overlay: Path | None,
) -> None:  # fmt: skip
    """Options that cannot stand together, or lack another."""
    if run_name is not None and examples is not None:
        raise click.UsageError("Give either --run or --examples.")
    if examples is None and labels is None:
        raise click.UsageError("Give --labels, what it may be, or --examples." if run_name is None else "--run needs "
                               "--labels.")  # fmt: skip
    if examples is not None and labels is not None:
        raise click.UsageError("With --examples the names of the sub-folders are the labels; leave --labels out.")
    if overlay is not None and overlay.suffix.lower() != ".mp4":
        raise click.UsageError(f"--overlay writes a video; name it {overlay.with_suffix('.mp4')}.")
    if table is not None and table.suffix.lower() != ".csv":
        raise click.UsageError(f"--table writes a CSV; name it {table.with_suffix('.csv')}.")
    if table is not None and (overlay or timelines):
        raise click.UsageError("--table is for many videos; give --timeline and --overlay with one, without it.")


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
    run_name: str, asked: Asked, videos: list[Path], dataset: str | None, protocol: str | None, seed: int,
    recipe_name: str | None, detector: Path | None, cache_root: Path | None, params: Params,
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
    scorer = RunScorer(model, asked)
    root = Path(params.datasets[dataset].root).resolve() if dataset in params.datasets else None
    boxes = listed_boxes(model.opened.dataset, root, model.recipe, videos) if root else None
    live = LivePoses(model.recipe, build_estimator, params.extract.batch_size, detector, boxes)
    if model.synthetic and not all(root and path.resolve().is_relative_to(root) for path in videos):
        warnings.append(
            f"The run {run_name!r} is trained on generated data only ({dataset}); its answers about real footage are "
            "not to be relied on."
        )
    warn_of_words(asked, scorer.described, warnings)
    if boxes is None:
        warn_of_boxes(model.recipe.boxes, detector, warnings)
    facts = {
        "run": run_name, "dataset": dataset, "protocol": protocol, "seed": seed, "recipe": model.opened.run.recipe,
        "labels": asked.labels, "texts": scorer.described, "synthetic": model.synthetic,
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


def warn_of_words(asked: Asked, described: str, warnings: list[str]) -> None:
    """Say what is odd about a person's words, and that bare labels answer worse than described ones."""
    described_ones = {index for index, _ in asked.texts}
    if asked.texts and described == "labels":
        bare = next(label for index, label in enumerate(asked.labels) if index not in described_ones)
        warnings.append(f"{short(bare)} has no words, others have; a bare label beside described ones wins or loses by "
                        "its length, so describe all of them.")  # fmt: skip
    findings = asked.findings
    warnings += findings[:FINDINGS]
    if len(findings) > FINDINGS:
        warnings.append(f"The checker of texts finds {len(findings) - FINDINGS} more like these.")


def warn_of_boxes(boxes: str, detector: Path | None, warnings: list[str]) -> None:
    """Say where a recipe finds no persons by itself."""
    if boxes != "detector" and detector is None:
        warnings.append(
            f"The recipe has `boxes: {boxes}`, so the whole frame is taken as the box of one person; give --detector "
            "to find persons."
        )
