"""`posebridge init`: a folder of videos to a data set, ready for one `dvc repro`.

Reads the videos' names and headers, and params.yaml; writes manifests/<name>/ and into params.yaml.
Command: posebridge init DIR
"""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import click

from pipeline.errors import some_names
from pipeline.ingest.ingest import Ingestion
from pipeline.project.again import made_of, take_up
from pipeline.project.asked import INIT_CSV, Asked, as_before
from pipeline.project.init import MANIFESTS, PARAMS, Made, check_dataset_name, init, usual_name
from pipeline.project.look import Found, look
from pipeline.project.parts import WAYS
from pipeline.protocol.draw import usual_unseen
from stages.bars import counter
from stages.shell import STARTED, FiniteRange, Place, answer, json_option, plain_errors, refuse_inner_folder, say

SHOWN = 10  # lines of each kind


@click.command()
@click.argument("folder", metavar="DIR", type=Place())
@click.option("--name", default="", help="The data set's name.  [default: by DIR]")
@click.option("--unseen", default="", metavar="N|NAMES", help="How many classes are unseen, drawn by lot; or their "
              "names, divided by commas.  [default: a fifth, at least 2]")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True,
              help="Another number draws other classes.")  # fmt: skip
@click.option("--labels", type=Place(), help="CSV: path,label[,start,end,subject,camera,part,"
              "clip_id].  [default: labels.csv in DIR, else sub-folders are the labels]")  # fmt: skip
@click.option("--pattern", default="",
              help="Regular expression for paths, instead of --labels; its groups label, subject, camera and part are "
              "taken.")  # fmt: skip
@click.option("--split-by", type=click.Choice(WAYS), help="What is never in both train and test.  [default: subject "
              "where labels or pattern tell it, else camera, else video]")  # fmt: skip
@click.option("--texts", type=Place(), help="CSV: label,slot,text. Your words; the other slots get "
              "drafts.")  # fmt: skip
@click.option("--recipe", default="", help="A recipe named in params.yaml.  [default: tinypose]")
@click.option("--weights", type=Place(), metavar="FILE", help="The pose model's ONNX file.  [default: the recipe's, "
              "else what `weights get` has fetched]")  # fmt: skip
@click.option("--detector", type=Place(), metavar="FILE", help="The person detector's.  [default: the recipe's]")
@click.option("--image-fps", type=FiniteRange(0, 10**6, min_open=True), help="Frames a second of folders of images.  "
              "[default: 25]")  # fmt: skip
@json_option
@plain_errors
def command(
    folder: Path, name: str, unseen: str, seed: int, labels: Path | None, pattern: str, split_by: str | None,
    texts: Path | None, recipe: str, weights: Path | None, detector: Path | None, image_fps: float | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Make a data set of the videos in DIR: every file that would be written by hand.

    Labels come from sub-folders, a CSV or the file names, and the rest has defaults; on a terminal the name and the
    unseen classes are asked for. A video is a file, or a folder of images. About half of the clips of each class are
    for the test, so that no subject, camera or video is on both sides. Class descriptions are drafts made of the
    labels, marked so in texts.csv: your own words make better ones. Nothing that is there is written over: where videos
    have come or gone, `posebridge init DIR` again takes them up, with --name, --labels, --pattern and --split-by as
    before unless you give others, and keeps all else.

    \b
    Examples:
      posebridge init ~/videos
      posebridge init ~/videos --name mine --unseen "waving, throwing" --weights pose.onnx --detector rtmdet.onnx
      posebridge init ~/videos --pattern '(?P<label>\\w+)/(?P<subject>s\\d+)_'
    """
    if labels and pattern:
        raise click.UsageError("Give --labels or --pattern, not both.")
    if is_new := not PARAMS.exists():
        refuse_inner_folder(click.get_current_context(), PARAMS)
    asks = at_a_terminal() and not as_json
    models = [str(place) if place else "" for place in (weights, detector)]
    asked = Asked(unseen, seed, labels, pattern, split_by or "", texts, recipe, *models, image_fps)
    if known := _known(folder, name):
        asked, kept = as_before(asked, MANIFESTS / known)
        _take_up(look(folder, asked.labels, asked.pattern), known, asked, kept, as_json)
        return
    found = look(folder, labels, pattern)
    name = name or _asked_name(usual_name(folder), asks)
    check_dataset_name(name)
    if not unseen and asks:
        asked = replace(asked, unseen=_asked_unseen(found))
    with counter("video", "init") as show:
        made = init(found, name, asked, show)
    if is_new:
        say(f"{Path.cwd()} is a project now; its params.yaml begins as posebridge's own.")
    _list_odd(made.listed)
    _list([f"texts.csv: {finding}" for finding in made.findings])
    for remark in made.remarks:
        say(remark)
    run = f"{_path()}dvc repro {made.folder}/dvc.yaml"
    names = made.split.class_names
    values = {
        "dataset": made.dataset, "folder": str(made.folder), "recipe": made.recipe, "runs": made.runs,
        "protocol": made.split.protocol, "clips": made.listed.clips, "classes": names,
        "unseen": [names[index] for index in made.split.unseen],
        "validation": [names[index] for index in made.split.validation], "split_by": made.split_by,
        "parts": made.parts, "sources": made.sources, "drafts": made.drafts, "findings": made.findings,
        **_odd(made.listed), "remarks": made.remarks, "command": run,
        "report": f"cache/tables/{made.dataset}/index.html",
    }  # fmt: skip
    answer(values, _told(made, run), as_json)


def _known(folder: Path, name: str) -> str:
    """The data set that is looked at again, the one of this name or the only one of the folder; empty for a new one."""
    made = made_of(folder)
    if name or not made:
        return name if name in made else ""
    if len(made) > 1 and (usual := usual_name(folder)) not in made:
        raise click.UsageError(f"{folder} is of the data sets {some_names(made)}; name one with --name.")
    return made[0] if len(made) == 1 else usual


def _take_up(found: Found, name: str, asked: Asked, kept: dict[str, str], as_json: bool) -> None:
    """New videos of a data set that there is; says what came and what went, and what of an earlier time counts."""
    if kept:
        said = " ".join(f"{option} {shlex.quote(value)}" for option, value in kept.items())
        say(f"As {MANIFESTS / name / INIT_CSV} has it from before: {said}")
    with counter("video", "init") as show:
        taken = take_up(found, name, asked, show)
    _list_odd(taken.listed)
    for remark in taken.listed.remarks:
        say(remark)
    if taken.idle:
        say(f"{', '.join(taken.idle)} counts for a new data set only; what {name} has stays, in params.yaml and "
            f"{taken.folder}.")  # fmt: skip
    count, run = sum(taken.new.values()), f"{_path()}dvc repro {taken.folder}/dvc.yaml"
    parts = ", ".join(f"{n} {part}" for part, n in sorted(taken.new.items(), reverse=True))
    came = f"{count} new clips ({parts})" if count else "No new clip"
    values = {
        "dataset": name, "folder": str(taken.folder), "clips": taken.listed.clips, "new": taken.new,
        "gone": taken.gone, "kept": kept, **_odd(taken.listed), "remarks": taken.listed.remarks, "command": run,
    }  # fmt: skip
    lines = [f"{taken.folder} is there already: {came}, {taken.gone} gone; classes, protocols and words stay.",
             "Bring all up to date with:", f"  {run}"]  # fmt: skip
    answer(values, "\n".join(lines), as_json)


def _odd(listed: Ingestion) -> dict[str, list[dict[str, str]]]:
    kinds = {"unreadable": listed.unreadable, "left_out": listed.left_out}
    return {kind: [{"path": path, "reason": reason} for path, reason in rows] for kind, rows in kinds.items()}


def _list_odd(listed: Ingestion) -> None:
    for kind, rows in (("unreadable", listed.unreadable), ("left out", listed.left_out)):
        _list([f"{kind}: {path}: {reason}" for path, reason in rows])


def at_a_terminal() -> bool:
    """Whether a person can answer."""
    return sys.stdin.isatty()


def _told(made: Made, run: str) -> str:
    names, split = made.split.class_names, made.split
    unseen = some_names([names[index] for index in split.unseen])
    parts = ", ".join(f"{count} {part}" for part, count in sorted(made.parts.items(), reverse=True))
    how = f"by {made.split_by}, {made.sources} of them"
    if made.split_by == "video":
        how += "; nothing tells who is in a video, and one person may be in both"
    drafts = f"{made.drafts} of {len(names)} classes have draft texts; write your words into {made.folder}/texts.csv"
    return "\n".join([
        f"Wrote {made.folder} and, in params.yaml, the data set and the runs {', '.join(made.runs)} ({made.recipe}).",
        f"  {made.listed.clips} clips of {len(names)} classes: {parts} ({how})",
        f"  protocol {split.protocol}: {len(split.seen)} seen, unseen {unseen}",
        *([f"  {drafts}"] if made.drafts else []),
        "Run all of it, poses to report, with:",
        f"  {run}",
    ])  # fmt: skip


def _asked_name(usual: str, asks: bool) -> str:
    if asks:
        return str(click.prompt("Name of the data set", default=usual or None, err=True))
    if not usual:
        raise click.UsageError("DIR's name makes no name for a data set; give --name.")
    return usual


def _asked_unseen(found: Found) -> str:
    say(f"{found.clips} clips of {len(found.classes)} classes: {some_names(found.classes)}")
    usual = usual_unseen(len(found.classes))
    return str(click.prompt("Unseen classes: how many by lot, or their names", default=str(usual), err=True))


def _path() -> str:
    """What stands before `dvc`: a step into a project elsewhere; and, where neither it nor `posebridge` is on the PATH,
    the folder of this Python.
    """
    there = f"cd {shlex.quote(str(Path.cwd()))} && " if STARTED in click.get_current_context().meta else ""
    here = Path(sys.executable).parent
    if all(map(shutil.which, ("dvc", "posebridge"))) or not (here / "dvc").exists():
        return there
    return f'{there}PATH={shlex.quote(str(here))}:"$PATH" '


def _list(lines: list[str]) -> None:
    for line in lines[:SHOWN]:
        say(line)
    if len(lines) > SHOWN:
        say(f"... and {len(lines) - SHOWN} more of these.")
