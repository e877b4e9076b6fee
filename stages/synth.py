"""`posebridge synth`: render the controlled benchmark as real video files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from pipeline.params import SynthParams, choose, load_params
from stages.shell import answer, json_option, params_option, plain_errors, progress, say


@click.command()
@click.option("--dataset", default="skelgap-mini", show_default=True, help="skelgap or skelgap-mini.")
@click.option("--ceiling", "protocol", default=None, help="Render nothing; print the ceilings of this PROTOCOL.")
@params_option
@json_option
@plain_errors
def command(dataset: str, protocol: str | None, params_path: Path, as_json: bool) -> None:
    """Render skelgap: videos whose actions a skeleton alone cannot tell apart, with exact ground truth.

    \b
    Example:
      posebridge synth --dataset skelgap-mini
      posebridge synth --dataset skelgap-mini --ceiling compositional_18_6
    """
    params = load_params(params_path)
    if protocol is not None:
        _print_ceiling(dataset, protocol, params.synth, as_json)
        return
    from pipeline.synth.dataset import plan, write_dataset

    total = len(plan(dataset, params.synth))  # an unknown name fails before anything else
    root = Path(choose(params.datasets, dataset, "data set").root)
    say(f"Rendering {total} clips of {dataset}.")
    counts = write_dataset(dataset, root, params.synth, lambda clips: progress(clips, total, "clip", "synth"))
    answer(
        {"root": str(root), **counts},
        f"Wrote {counts['clips']} clips to {root}; those for testing are {counts['tuples']} tuples of twins.",
        as_json,
    )


def _print_ceiling(dataset: str, protocol: str, settings: SynthParams, as_json: bool) -> None:
    from pipeline.manifest import read_classes
    from pipeline.protocol.ceiling import ceilings
    from pipeline.protocol.splits import read_split
    from pipeline.synth.dataset import plan

    clips, folder = plan(dataset, settings), Path("manifests") / dataset
    names = read_classes(folder / "classes.csv")
    counts = Counter(names.index(clip.action.name) for clip in clips if clip.part == "test")
    unseen = read_split(folder / "protocols", protocol, names).unseen
    found = ceilings(folder / "attributes.csv", unseen, counts)
    answer(
        {"protocol": protocol, **found},
        f"{protocol}: no skeleton-only predictor passes {found['skeleton']:.3f}, no cue-only one {found['cue']:.3f}.",
        as_json,
    )
