"""`posebridge ingest`: a folder of videos to a list of clips.

Reads names, headers and labels; writes manifests/<dataset>/clips.csv, classes.csv where there is none, and for
published data sets missing.csv. Command: posebridge ingest --dataset ntu60 /data/nturgbd
"""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.errors import PosebridgeError
from pipeline.files.shipped import is_shipped
from pipeline.ingest.ingest import Ingestion, ingest
from pipeline.params import DatasetParams, choose, load_params
from stages.bars import counter
from stages.shell import Place, answer, json_option, manifests_option, own_dataset, params_option, plain_errors, say

SHOWN = 10  # lines of each kind; missing.csv has them all


@click.command()
@click.option("--dataset", required=True, help="A published data set, see above, or one of your own.")
@click.argument("folder", metavar="[DIR]", required=False, type=Place())
@click.option("--split", default="", help="Who trains, who is tested; see above.  [default: the first one there]")
@click.option("--without-missing", is_flag=True, help="NTU: leave out the published samples without skeletons.")
@click.option(
    "--labels",
    type=Place(),
    help="CSV: path,label[,start,end,subject,camera,part,clip_id].  [default: labels.csv among the videos, if any]",
)
@click.option("--pattern", default="",
              help="Regular expression for paths, instead of --labels; its groups label, subject, camera and part are "
              "taken.")  # fmt: skip
@click.option("--probe/--no-probe", "probe", default=None, help="Read every header.  [default: yes; no: NTU, Kinetics]")
@click.option("--hash", "hash_files", is_flag=True, help="Note the sha256 of every file.")
@manifests_option
@params_option
@json_option
@plain_errors
def command(
    dataset: str,
    folder: Path | None,
    split: str,
    without_missing: bool,
    labels: Path | None,
    pattern: str,
    probe: bool | None,
    hash_files: bool,
    manifests: Path,
    params_path: Path,
    as_json: bool,
) -> None:
    """List a folder of videos as clips. DIR is by default the data set's root in params.yaml.

    A video is a file, or a folder of images, a frame each, at the rate `image_fps` of the data set in params.yaml.
    The names of a published data set tell class, subject, camera and part; what is missing is listed beside
    clips.csv, in missing.csv. For any other data set labels come from sub-folders, a CSV or the file names.

    \b
    Published data sets and their splits, the first by default:
      ntu60           cross-subject, cross-view
      ntu120          cross-subject, cross-setup
      pku_mmd         cross-subject, cross-view (its own files)
      kinetics200/400 train-val
      gym             by-class (each clip trains where its class is seen, and tests where it is unseen)
      ut_interaction  halves (first five sequences of a set train), leave-out-1 ... leave-out-10
    \b
    Examples:
      posebridge ingest --dataset ntu120 /data/nturgbd --split cross-setup
      posebridge ingest --dataset skelgap-mini
      posebridge ingest --dataset mine --labels segments.csv
      posebridge ingest --dataset mine --pattern '(?P<subject>s\\d+)_(?P<label>\\w+)_(?P<part>train|test)'
    """
    if labels and pattern:
        raise click.UsageError("Give --labels or --pattern, not both.")
    root = folder or Path(_place(dataset, params_path).root)
    if root.is_dir():
        own_dataset(manifests, dataset)
    with counter("video", "ingest") as show:
        result = ingest(
            dataset,
            root,
            labels=labels,
            pattern=pattern,
            split=split,
            without_missing=without_missing,
            read_headers=probe,
            hash_files=hash_files,
            image_fps=_image_fps(dataset, params_path),
            manifests=manifests,
            progress=show,
        )
    _list("unreadable", result.unreadable, result)
    _list("left out", result.left_out, result)
    _list("missing", result.missing, result)
    for remark in result.remarks:
        say(remark)
    if folder and not _is_root(dataset, folder, params_path):
        own = "params.yaml (`posebridge shipped get params.yaml`)" if is_shipped(params_path) else params_path
        say(f"For `extract`, note the folder in {own}, under datasets: `{dataset}: {{root: {folder}}}`.")
    values = {
        "clips_csv": str(result.clips_csv),
        "missing_csv": str(result.missing_csv) if result.missing_csv else None,
        "split": result.split or None,
        "clips": result.clips,
        "videos": result.videos,
        "new_classes": result.new_classes,
        "without_skeleton": result.without_skeleton,
        "unreadable": [{"path": path, "reason": reason} for path, reason in result.unreadable],
        "left_out": [{"path": path, "reason": reason} for path, reason in result.left_out],
        "missing": [{"name": name, "reason": reason} for name, reason in result.missing],
        "remarks": list(result.remarks),
    }
    answer(values, _sentence(result), as_json)


def _sentence(result: Ingestion) -> str:
    split = f" ({result.split})" if result.split else ""
    sentence = f"Wrote {result.clips_csv}: {result.clips} clips of {result.videos} videos{split}"
    sentence += f", {len(result.unreadable)} of them unreadable" if result.unreadable else ""
    sentence += f"; {result.without_skeleton} without skeletons taken out" if result.without_skeleton else ""
    if result.missing_csv:
        counts = f"{len(result.missing)} missing and {len(result.left_out)} left out"
        sentence += f"; {counts}, listed in {result.missing_csv}"
    return sentence + "."


def _list(kind: str, rows: tuple[tuple[str, str], ...], result: Ingestion) -> None:
    """Rows for the person at the terminal: all, or the first ones where a file has them all."""
    shown = rows[:SHOWN] if result.missing_csv else rows
    for name, reason in shown:
        say(f"{kind}: {name}: {reason}")
    if len(shown) < len(rows):
        say(f"{kind}: {len(rows) - len(shown)} more in {result.missing_csv}")


def _place(dataset: str, params_path: Path) -> DatasetParams:
    return choose(load_params(params_path).datasets, dataset, "data set")


def _image_fps(dataset: str, params_path: Path) -> float:
    """The data set's rate of images, if there is a params.yaml that has it."""
    listed = load_params(params_path).datasets if params_path.exists() else {}
    return listed.get(dataset, DatasetParams("")).image_fps


def _is_root(dataset: str, folder: Path, params_path: Path) -> bool:
    """Whether params.yaml, if there is one, has this folder as the data set's root."""
    try:
        return Path(_place(dataset, params_path).root).resolve() == folder.resolve()
    except PosebridgeError:
        return False
