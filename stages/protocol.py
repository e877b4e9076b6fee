"""`posebridge protocol`: which classes are unseen, by name or by lot.

Reads manifests/<dataset>/classes.csv, writes protocols/<protocol>.txt and <protocol>.val.txt beside it.
Command: posebridge protocol --dataset mine --unseen 5 --seed 0
"""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.errors import some_names
from pipeline.protocol.draw import make_across, make_protocol
from pipeline.protocol.splits import told_overlap
from stages.shell import answer, dataset_option, json_option, manifests_option, own_dataset, plain_errors, say


@click.command()
@dataset_option
@click.option("--unseen", metavar="N|NAMES", help="How many classes are unseen, drawn by lot; or their names, divided "
              "by commas, one with a comma in it in quotation marks.")  # fmt: skip
@click.option("--trains-on", "training", metavar="DATASET", help="Instead: train on another data set; unseen is every "
              "class that it lacks.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True,
              help="Another number draws other classes.")  # fmt: skip
@click.option("--name", default="", help="The protocol's name.  [default: seed0_18_6 where 18 are seen and 6 unseen "
              "by seed 0, chosen_18_6 where they are named; from_<other data set>]")  # fmt: skip
@manifests_option
@json_option
@plain_errors
def command(
    dataset: str, unseen: str | None, training: str | None, seed: int, name: str, manifests: Path, as_json: bool
) -> None:
    """Choose the unseen classes of a protocol, and validation classes among the others by lot.

    Values are chosen on the validation classes (as many as the unseen ones, at most a sixth of the seen ones, two at
    least). A protocol that is there stays.

    \b
    Examples:
      posebridge protocol --dataset mine --unseen 5 --seed 0
      posebridge protocol --dataset mine --unseen "waving, throwing a ball" --name first
      posebridge protocol --dataset pku_mmd --trains-on ntu60
    """
    if (unseen is None) == (training is None):
        raise click.UsageError("Give --unseen or --trains-on, one of them.")
    own_dataset(manifests, dataset)
    if training is not None:
        path, split = make_across(dataset, training, name, manifests)
        say(told_overlap(dataset, split))
    else:
        path, split = make_protocol(dataset, unseen or "", seed, name, manifests)
    names = split.class_names
    values = {
        "protocol": split.protocol,
        "files": [str(path), str(path.with_suffix(".val.txt"))],
        "seen": len(split.seen),
        "unseen": [names[index] for index in split.unseen],
        "validation": [names[index] for index in split.validation],
    }
    if split.merged:
        values |= {"trains_on": split.trains_on, "overlapping": [names[index] for index in split.merged.shared]}
    table = manifests / dataset / "dvc.yaml"
    if table.is_file():
        say(f"Add {split.protocol} to `protocols` in {table}, and `dvc repro` trains and tests it.")
    told = some_names(values["unseen"])
    answer(values, f"Wrote {path} and {split.protocol}.val.txt: {len(split.seen)} seen, unseen {told}.", as_json)
