"""`posebridge report`: tables, pictures and one HTML page of all results.

Reads cache/results/**/metrics.json and manifests/, writes cache/results/leaderboard.csv and cache/report/.
Command: posebridge report
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.errors import PosebridgeError
from pipeline.params import Params, load_params
from stages.shell import Place, answer, find_params, json_option, plain_errors, root_option, say

if TYPE_CHECKING:  # imported late, since it loads matplotlib
    from pipeline.report.clip_frames import FramesOf


@click.command()
@click.option("--results", type=Place(), default=Path("cache/results"), show_default=True,
              help="Where `evaluate` wrote.")  # fmt: skip
@click.option("--out", type=Place(), default=Path("cache/report"), show_default=True,
              help="Where the page and the pictures go.")  # fmt: skip
@click.option("--manifests", type=Place(), default=Path("manifests"), show_default=True,
              help="Class lists and protocols.")  # fmt: skip
@click.option("--params", "params_path", type=Place(), callback=find_params,
              help="Only the data sets and runs of this file: one table of params/.")  # fmt: skip
@click.option("--dataset", "datasets", multiple=True, help="Only this data set; may be repeated.  [default: all]")
@root_option
@json_option
@plain_errors
def command(
    results: Path, out: Path, manifests: Path, params_path: Path | None, datasets: tuple[str, ...],
    cache_root: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Gather every result into a leaderboard and one HTML page, beside published figures where there are any.

    Means and standard deviations are over seeds; one seed is called a single run. An incomplete metrics.json is named
    and left out.

    \b
    Examples:
      posebridge report
      posebridge report --params params/paper-pku.yaml --out cache/tables/paper-pku
      posebridge report --dataset mine --out cache/tables/mine
    """
    from pipeline.report import published  # after parsing, so that --help needs no matplotlib
    from pipeline.report.leaderboard import LEGEND, text_table
    from pipeline.report.report import make_report

    only = load_params(params_path) if params_path else None
    frames_of = frames(results, manifests, only, cache_root)
    report = make_report(results, out, manifests, only, frames_of, cache_root, datasets)
    for complaint in report.complaints:
        say(f"Left out: {complaint}")
    written = {"leaderboard": report.csv, "markdown": report.markdown, "html": report.html}
    if not as_json:
        plain = [run for run in report.runs if not run.first.test_variant]  # the page has the others
        click.echo(f"{text_table(plain or report.runs)}\n\n{LEGEND}\n")
        if report.comparisons:
            click.echo(f"{published.text_table(report.comparisons)}\n")
    answer({**written, "runs": len(report.runs), "left_out": list(report.complaints),
            "published": [{**each.cells(), "text_sha256": each.run.text_sha256 if each.run else ""}
                          for each in report.comparisons]},
           f"The report: {report.html}", as_json)  # fmt: skip


def own_params() -> Params:
    """Those of the project, where there are any that can be read: a report needs none."""
    try:
        return load_params(Path("params.yaml"))
    except PosebridgeError:
        return Params()


def frames(results: Path, manifests: Path, only: Params | None, store_root: Path | None) -> FramesOf:
    """Where frames for the pictures come from: roots in the parameters, and the generated videos, if they are there."""
    videos = results.parent / "videos"
    roots = {name: Path(d.root) for name, d in (only or own_params()).datasets.items()}
    if not (videos.is_dir() or roots):
        return lambda *_: {}
    from pipeline.report.clip_frames import ClipFrames

    return ClipFrames(videos, manifests, roots, results.parent, store_root)
