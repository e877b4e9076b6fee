"""`posebridge synth`: render the controlled benchmark as real video files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from pipeline.files.shipped import dataset_folder
from pipeline.params import SynthParams, choose, load_params
from stages.bars import progress
from stages.shell import answer, json_option, params_option, plain_errors, say


@click.command()
@click.option("--dataset", default="skelgap-mini", show_default=True, help="skelgap or skelgap-mini.")
@click.option("--variant", default="", help="Only test clips, made harder (occlusion, blur, low_light, small, "
              "two_persons or compression, each -1, -2 or -3), or with other distractors, another background or "
              "another subject.")  # fmt: skip
@click.option("--protocol", default=None, help="With --variant: only the classes that are unseen in this PROTOCOL.")
@click.option("--ceiling", default=None, metavar="PROTOCOL", help="Render nothing; print the ceilings of PROTOCOL.")
@params_option
@json_option
@plain_errors
def command(
    dataset: str, variant: str, protocol: str | None, ceiling: str | None, params_path: Path, as_json: bool
) -> None:
    """Render skelgap: videos whose actions a skeleton alone cannot tell apart, with exact ground truth.

    \b
    Examples:
      posebridge synth --dataset skelgap-mini
      posebridge synth --dataset skelgap-mini --variant occlusion-2 --protocol compositional_18_6
      posebridge synth --dataset skelgap-mini --ceiling compositional_18_6
    """
    if protocol is not None and not variant:
        raise click.UsageError("--protocol goes with --variant; a data set is rendered for all its protocols.")
    params = load_params(params_path)
    if ceiling is not None:
        _print_ceiling(dataset, ceiling, params.synth, as_json)
        return
    from pipeline.manifest.variants import of_variant, variant_root
    from pipeline.synth.dataset import plan, plan_variant, write_dataset, write_variant
    from pipeline.synth.knobs import choose_variant

    clips = plan(dataset, params.synth)  # an unknown name fails before anything else
    root = Path(choose(params.datasets, dataset, "data set").root)
    bar = lambda rendered: progress(rendered, len(clips), "clip", "synth")  # noqa: E731
    if variant:
        knobs = choose_variant(variant)
        classes = {c.action.name for c in clips} if protocol is None else _unseen(dataset, protocol)
        root, clips = variant_root(root, variant), plan_variant(dataset, params.synth, knobs, classes)
        say(f"Rendering {len(clips)} clips of {of_variant(dataset, variant)}.")
        counts = write_variant(root, clips, knobs, bar)
    else:
        say(f"Rendering {len(clips)} clips of {dataset}.")
        counts = write_dataset(dataset, root, params.synth, bar)
    answer(
        {"root": str(root), **counts},
        f"Wrote {counts['clips']} clips to {root}; those for testing are {counts['tuples']} tuples of twins.",
        as_json,
    )


def _unseen(dataset: str, protocol: str) -> set[str]:
    from pipeline.manifest.clips import read_classes
    from pipeline.protocol.splits import read_split

    folder = dataset_folder(Path("manifests"), dataset)
    names = read_classes(folder / "classes.csv")
    return {names[index] for index in read_split(folder / "protocols", protocol, names).unseen}


def _print_ceiling(dataset: str, protocol: str, settings: SynthParams, as_json: bool) -> None:
    from pipeline.manifest.clips import read_classes
    from pipeline.protocol.ceiling import ceilings
    from pipeline.synth.dataset import plan

    clips, folder = plan(dataset, settings), dataset_folder(Path("manifests"), dataset)
    names = read_classes(folder / "classes.csv")
    counts = Counter(names.index(clip.action.name) for clip in clips if clip.part == "test")
    unseen = sorted(names.index(name) for name in _unseen(dataset, protocol))
    found = ceilings(folder / "attributes.csv", unseen, counts)
    answer(
        {"protocol": protocol, **found},
        f"{protocol}: no skeleton-only predictor passes {found['skeleton']:.3f}, no cue-only one {found['cue']:.3f}.",
        as_json,
    )
