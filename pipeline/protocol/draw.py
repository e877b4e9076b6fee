"""A protocol of one's own: unseen classes by name or by lot, and validation classes to go with them.

Reads classes.csv; writes protocols/<protocol>.txt and <protocol>.val.txt in manifests/<dataset>, in the form that
splits.py reads. Command: posebridge protocol --dataset mine --unseen 5 --seed 0
Or all classes of one data set are unseen that another one, which is trained on, lacks:
posebridge protocol --dataset pku_mmd --trains-on ntu60
"""

from __future__ import annotations

import csv
import difflib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PosebridgeError, short, some_names
from pipeline.files.durable import write_for_people
from pipeline.files.names import check_name, composed
from pipeline.manifest.clips import read_classes
from pipeline.protocol.across import SAME_NAMES
from pipeline.protocol.splits import Split, read_merged, read_split

LEAST_VALIDATION = LEAST_TRAINED = 2  # what splits.py asks for


@dataclass(frozen=True)
class Drawn:
    """Unseen classes, 0-based and sorted, the name that a protocol of them gets, and how they were chosen."""

    unseen: tuple[int, ...]
    name: str
    source: str


def choose_unseen(class_names: Sequence[str], wanted: str, seed: int) -> Drawn:
    """`wanted` is a number of classes, drawn by lot with the seed, or their names, divided by commas.

    A name with a comma in it, or one that is a number, stands in quotation marks, as in a CSV.
    Raises PosebridgeError for a name that is no class, and where too few classes would be left.
    """
    text = wanted.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        count = int(text)
        _check_enough(class_names, count)
        unseen = tuple(sorted(random.Random(seed).sample(range(len(class_names)), count)))
        name, source = f"seed{seed}", f"drawn once: Python's random.Random({seed}).sample({len(class_names)}, {count})"
    else:
        unseen = tuple(sorted(_named(class_names, text)))
        _check_enough(class_names, len(unseen))
        name, source = "chosen", "chosen by name"
    return Drawn(unseen, f"{name}_{len(class_names) - len(unseen)}_{len(unseen)}", source)


def usual_unseen(classes: int) -> int:
    """How many of so many classes are unseen where nobody says it: a fifth, two at least."""
    return max(2, classes // 5)


def validation_of(unseen: Sequence[int], classes: int) -> tuple[int, ...]:
    """The pseudo-unseen classes: as many as the unseen ones, at most a sixth of the seen ones, two at least. Drawn by
    the sum of the unseen indices, so that one split has the same ones under every name.
    """
    seen = sorted(set(range(classes)) - set(unseen))
    sixth = len(seen) // 6
    count = max(LEAST_VALIDATION, min(len(unseen) or sixth, sixth))
    return tuple(sorted(random.Random(sum(unseen)).sample(seen, count)))


def make_protocol(
    dataset: str, wanted: str, seed: int = 0, name: str = "", manifests: Path = Path("manifests")
) -> tuple[Path, Split]:
    """Choose and write a protocol of a data set that has a classes.csv; returns the file of the unseen classes.

    Raises PosebridgeError as `choose_unseen` and `write_protocol` do.
    """
    folder = manifests / check_name(dataset, "data set")
    class_names = read_classes(folder / "classes.csv")
    drawn = choose_unseen(class_names, wanted, seed)
    return write_protocol(folder / "protocols", dataset, class_names, drawn, name)


def write_protocol(
    folder: Path, dataset: str, class_names: Sequence[str], drawn: Drawn, name: str = ""
) -> tuple[Path, Split]:
    """Write both files, under `name` or the one that goes with the choice.

    Raises PosebridgeError where one of them is there already.
    """
    name = check_name(name or drawn.name, "protocol")
    unseen, seen = len(drawn.unseen), len(class_names) - len(drawn.unseen)
    validation = validation_of(drawn.unseen, len(class_names))
    head = (
        f"# {dataset}, {unseen} of {len(class_names)} classes are unseen.\n# Counts: {seen} seen, {unseen} unseen.\n"
        f"# Source: this project, {drawn.source}.\n"
        f"# Validates: the pseudo-unseen classes of {name}.val.txt, which are seen classes.\n"
    )
    val_head = (
        f"# {dataset}, pseudo-unseen validation classes of {name}: {len(validation)} of the {seen} seen classes.\n"
        f"# Source: this project, drawn once: Python's random.Random({sum(drawn.unseen)}).sample(seen, "
        f"{len(validation)}); the seed is the sum of the unseen indices.\n"
        "# Validates: hyper-parameters and calibration are chosen on these, in the selection phase; the final phase "
        "trains on them too.\n"
    )
    files = {
        f"{name}.txt": (head, [(index, class_names[index]) for index in drawn.unseen]),
        f"{name}.val.txt": (val_head, [(index, class_names[index]) for index in validation]),
    }
    return _write(folder, files, name, class_names)


def make_across(
    dataset: str, training: str, name: str = "", manifests: Path = Path("manifests")
) -> tuple[Path, Split]:
    """Write a protocol that trains on another data set: unseen is every class that this one lacks, by their names.

    Raises PosebridgeError as `make_protocol` does, and where no class is unseen.
    """
    folder = manifests / check_name(dataset, "data set")
    class_names = read_classes(folder / "classes.csv")
    merged, training_names = read_merged(manifests, dataset, class_names, training)
    unseen = [index for index in range(len(class_names)) if index not in set(merged.shared)]
    if not unseen:
        raise PosebridgeError(f"Every class of {dataset} is one of {training}, so none is unseen; choose another.")
    name, seen = check_name(name or f"from_{training}", "protocol"), len(training_names)
    if seen < LEAST_VALIDATION + LEAST_TRAINED:
        raise PosebridgeError(
            f"{training} has {seen} classes; {LEAST_VALIDATION} are needed to choose values on and {LEAST_TRAINED} to "
            "train on."
        )
    validation = [merged.trained(place) for place in validation_of(unseen, len(merged.class_names))]
    lacks = f"the {len(unseen)} of its {len(class_names)} classes that {training} lacks are unseen"
    head = (
        f"# {dataset}, {lacks}.\n# Trains on: {training}\n# Counts: {seen} seen, {len(unseen)} unseen.\n"
        f"# Source: this project, by the names of both class lists and {SAME_NAMES}.\n"
        f"# Validates: the pseudo-unseen classes of {name}.val.txt, which are classes of {training}.\n"
    )
    val_head = (
        f"# {training}, pseudo-unseen validation classes of {name} of {dataset}: {len(validation)} of the {seen} seen "
        f"classes.\n# Source: this project, drawn once: Python's random.Random({sum(unseen)}).sample(seen, "
        f"{len(validation)}); the seed is the sum of the unseen indices.\n"
        "# Validates: hyper-parameters and calibration are chosen on these, in the selection phase; the final phase "
        "trains on them too.\n"
    )
    files = {
        f"{name}.txt": (head, [(index, class_names[index]) for index in unseen]),
        f"{name}.val.txt": (val_head, [(index, training_names[index]) for index in sorted(validation)]),
    }
    return _write(folder / "protocols", files, name, class_names)


def _write(
    folder: Path, files: dict[str, tuple[str, list[tuple[int, str]]]], name: str, class_names: Sequence[str]
) -> tuple[Path, Split]:
    """Write both files of a protocol: their heads, and a line a class. Raises PosebridgeError where one is there."""
    if there := [folder / file for file in files if (folder / file).exists()]:
        raise PosebridgeError(f"{there[0]} is there already; choose another name with --name, or delete it.")
    try:
        for file, (top, members) in reversed(files.items()):
            lines = "".join(f"{index} {known}\n" for index, known in members)
            write_for_people(folder / file, f"{top}{lines}".encode())
        return folder / f"{name}.txt", read_split(folder, name, class_names)
    except BaseException:  # the name ends in other counts, the disk is full, Ctrl-C
        for file in files:
            (folder / file).unlink(missing_ok=True)
        raise


def _named(class_names: Sequence[str], text: str) -> set[int]:
    indices = {composed(name): index for index, name in enumerate(class_names)}
    if composed(text) in indices:  # one class whose name has a comma
        return {indices[composed(text)]}
    try:
        parts = next(csv.reader([" ".join(text.splitlines())], skipinitialspace=True), [])
    except csv.Error as error:
        raise PosebridgeError(f"The unseen classes {short(text)} cannot be read ({error}); correct them.") from None
    names = [part.strip() for part in parts if part.strip()]
    for name in names:
        if composed(name) not in indices:
            close = difflib.get_close_matches(name, class_names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the classes are {some_names(class_names)}."
            raise PosebridgeError(f"There is no class {short(name)} to be unseen; {hint}")
    return {indices[composed(name)] for name in names}


def _check_enough(class_names: Sequence[str], unseen: int) -> None:
    needed = unseen + LEAST_VALIDATION + LEAST_TRAINED
    if not unseen:
        raise PosebridgeError("No class would be unseen; name at least one, or a number of them.")
    if len(class_names) < needed:
        there = f"there {'is' if len(class_names) == 1 else 'are'} {len(class_names)} ({some_names(class_names)})"
        raise PosebridgeError(
            f"With {unseen} unseen, {needed} classes are needed, {LEAST_VALIDATION} of them to choose values on and "
            f"{LEAST_TRAINED} to train on, and {there}; bring more, let fewer be unseen, or ask `posebridge predict "
            "--examples`, which needs no training."
        )
