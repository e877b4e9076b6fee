"""`posebridge ingest`: a folder of videos to a list of clips.

Reads the videos' headers and labels, writes manifests/<dataset>/clips.csv and, where there is none, classes.csv.
Command: posebridge ingest --dataset skelgap-mini
"""

from __future__ import annotations

from pathlib import Path

import click
from tqdm import tqdm

from pipeline.ingestion import ingest
from pipeline.params import DatasetParams, choose, load_params
from stages.shell import answer, json_option, params_option, plain_errors, say


@click.command()
@click.option("--dataset", required=True, help="A data set named in params.yaml, which tells where its videos lie.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="CSV: path,label[,start,end,subject,camera,part,clip_id].  [default: labels.csv among the videos, if any]",
)
@click.option("--pattern", default="", help="Regular expression for paths; groups label, subject, camera, part.")
@click.option("--hash", "hash_files", is_flag=True, help="Note the sha256 of every file.")
@click.option("--manifests", type=click.Path(path_type=Path), default=Path("manifests"), show_default=True)
@params_option
@json_option
@plain_errors
def command(
    dataset: str,
    labels: Path | None,
    pattern: str,
    hash_files: bool,
    manifests: Path,
    params_path: Path,
    as_json: bool,
) -> None:
    """List a folder of videos as clips, with labels from sub-folders, a CSV or the file names.

    \b
    Examples:
      posebridge ingest --dataset skelgap-mini
      posebridge ingest --dataset mine --labels segments.csv
      posebridge ingest --dataset mine --pattern '(?P<subject>s\\d+)_(?P<label>\\w+)_(?P<part>train|test)'
    """
    if labels and pattern:
        raise click.UsageError("Give --labels or --pattern, not both.")
    place: DatasetParams = choose(load_params(params_path).datasets, dataset, "data set")
    with tqdm(unit="video", disable=None, desc="ingest") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = ingest(
            dataset,
            Path(place.root),
            labels=labels,
            pattern=pattern,
            hash_files=hash_files,
            manifests=manifests,
            progress=show,
        )
    for path, reason in result.unreadable:
        say(f"unreadable: {path}: {reason}")
    for path, reason in result.left_out:
        say(f"left out: {path}: {reason}")
    values = {
        "clips_csv": str(result.clips_csv),
        "clips": result.clips,
        "videos": result.videos,
        "new_classes": result.new_classes,
        "unreadable": [{"path": path, "reason": reason} for path, reason in result.unreadable],
        "left_out": [{"path": path, "reason": reason} for path, reason in result.left_out],
    }
    unreadable = f", {len(result.unreadable)} of them unreadable" if result.unreadable else ""
    answer(values, f"Wrote {result.clips_csv}: {result.clips} clips of {result.videos} videos{unreadable}.", as_json)
