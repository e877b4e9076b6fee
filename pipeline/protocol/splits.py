"""Protocols: which classes are unseen, and which of the seen ones play unseen while values are chosen.

Reads manifests/<dataset>/protocols/<protocol>.txt and <protocol>.val.txt: `#` lines, then one `index name` line a
class. A line `# Trains on: ntu60` names another data set that is trained on; then the validation classes are of that
one, and what across.py tells of both class lists.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.files.names import check_name, composed, is_file
from pipeline.files.shipped import SHIPPED, dataset_folder
from pipeline.files.tables import read_lines
from pipeline.manifest.clips import read_classes
from pipeline.protocol.across import SAME_NAMES, Merged, merge_classes, plain, read_same_names


@dataclass(frozen=True)
class Split:
    """Class indices, 0-based and sorted. `validation` lies inside the seen classes."""

    protocol: str
    class_names: tuple[str, ...]
    unseen: tuple[int, ...]
    validation: tuple[int, ...]
    trains_on: str = ""  # another data set; then `class_names` are those of `merged`
    merged: Merged | None = None

    @cached_property  # asked for every clip
    def seen(self) -> tuple[int, ...]:
        """Every class that is not unseen."""
        return tuple(i for i in range(len(self.class_names)) if i not in self.unseen)

    @cached_property
    def phase_one(self) -> tuple[int, ...]:
        """The classes that the selection phase trains on: seen, and not pseudo-unseen."""
        return tuple(i for i in self.seen if i not in self.validation)


def read_split(folder: Path, protocol: str, class_names: Sequence[str]) -> Split:
    """Read and validate both files of a protocol from `folder` (manifests/<dataset>/protocols).

    Raises PosebridgeError naming file and line for an unknown class, an index that disagrees with its name or stands
    twice, another number of classes than the file says, a validation class that is unseen, and for a protocol that
    leaves nothing to train on.
    """
    path = folder / f"{check_name(protocol, 'protocol')}.txt"
    if not is_file(path):
        there = ", ".join(sorted(p.stem for p in folder.glob("*.txt") if not p.stem.endswith(".val"))) or "none"
        raise PosebridgeError(f"{path} is missing; the protocols there are: {there}.")
    val_path = folder / f"{protocol}.val.txt"
    if not is_file(val_path):
        raise PosebridgeError(
            f"{val_path} is missing; name the pseudo-unseen validation classes in it, in the form of {path.name}."
        )
    unseen = _read(path, class_names)
    if training := trains_on(folder, protocol):
        return _across(path, val_path, training, class_names, unseen)
    validation = _read(val_path, class_names)
    _check_counts(path, protocol, len(class_names), unseen)
    for index, line in validation.items():
        if index in unseen:
            raise PosebridgeError(
                f"{val_path}, line {line}: {class_names[index]!r} is unseen in {path.name}; "
                f"validation classes must be seen ones."
            )
    return _enough(path, Split(protocol, tuple(class_names), tuple(sorted(unseen)), tuple(sorted(validation))))


def trains_on(folder: Path, protocol: str) -> str:
    """The other data set that a protocol of `folder` trains on; empty where it does not, or is not there."""
    path = folder / f"{check_name(protocol, 'protocol')}.txt"
    lines = read_lines(path, "bring it back") if is_file(path) else ()
    return next((found[1] for line in lines if (found := re.match(r"#\s*Trains on:\s*(\S+)", line))), "")


def read_merged(folder: Path, dataset: str, class_names: Sequence[str], training: str) -> tuple[Merged, list[str]]:
    """The classes of a data set of the manifests in `folder` and of one to train on, and the latter's own names.

    Raises PosebridgeError as `read_classes` and `merge_classes` do, and where both are one data set.
    """
    if training == dataset:
        raise PosebridgeError(f"{dataset} would train on itself; take the line `# Trains on: {dataset}` away.")
    names = read_classes(dataset_folder(folder, training) / "classes.csv")
    table = folder / SAME_NAMES
    same = read_same_names(table if table.exists() else SHIPPED / "manifests" / SAME_NAMES)
    return merge_classes(dataset, class_names, training, names, same), names


def told_overlap(dataset: str, split: Split) -> str:
    """Which classes of a data set are not unseen, since the one that is trained on has them; empty for other splits."""
    if split.merged is None:
        return ""
    names = []
    for place in split.merged.shared:
        own, known = split.class_names[place], split.merged.training_names[split.merged.trained(place)]
        names.append(repr(own) if plain(own) == plain(known) else f"{own!r} ({known!r} there)")
    if not names:
        return f"{split.protocol} of {dataset} trains on {split.trains_on}; no class is in both."
    return (
        f"{split.protocol} of {dataset} trains on {split.trains_on}, which has {len(names)} of its classes, so they "
        f"count as seen: {', '.join(names)}."
    )


def _across(path: Path, val_path: Path, training: str, class_names: Sequence[str], unseen: dict[int, int]) -> Split:
    """The split of a protocol that trains on another data set. Raises PosebridgeError for a class that is trained on
    and should be unseen, and for one that is neither.
    """
    merged, names = read_merged(path.parents[2], path.parents[1].name, class_names, training)
    for index, line in unseen.items():
        if index in merged.shared:
            raise PosebridgeError(
                f"{path}, line {line}: {class_names[index]!r} is {names[merged.trained(index)]!r} of {training}, which "
                "is trained on, and so it is not unseen; take the line away."
            )
    if not unseen:
        raise PosebridgeError(
            f"{path} leaves no class unseen, so there is nothing to test; choose a data set with classes that "
            f"{training} lacks."
        )
    for index, name in enumerate(class_names):
        if index not in unseen and index not in merged.shared:
            raise PosebridgeError(
                f"{path}: {name!r} is neither unseen here nor a class of {training}; add the line `{index} {name}`."
            )
    _check_counts(path, path.stem, len(merged.class_names), unseen)
    validation = sorted(merged.of_training[index] for index in _read(val_path, names))
    return _enough(
        path, Split(path.stem, merged.class_names, tuple(sorted(unseen)), tuple(validation), training, merged)
    )


def _enough(path: Path, split: Split) -> Split:
    """The split; raises PosebridgeError where too few classes are left to choose by, or to train on."""
    val_path = path.with_name(f"{split.protocol}.val.txt")
    if len(split.validation) < 2:
        raise PosebridgeError(
            f"{val_path} names {len(split.validation)} classes; the selection phase needs at least 2."
        )
    if len(split.phase_one) < 2:
        raise PosebridgeError(
            f"{path} and {val_path.name} leave {len(split.phase_one)} classes to train on; at least 2 are needed."
        )
    return split


def _check_counts(path: Path, protocol: str, classes: int, unseen: dict[int, int]) -> None:
    """A class that is missing from a list is seen in silence; two things tell how many there should be.

    They are a line `# Counts: 55 seen, 5 unseen.` and the ending of a name like synse_55_5. Raises PosebridgeError.
    """
    said = [
        (f"line {line}", match)
        for line, text in enumerate(read_lines(path, "bring it back"), start=1)
        if (match := re.match(r"#\s*Counts:\s*(\d+) seen, (\d+) unseen", text))
    ]
    ending = re.search(r"_(\d+)_(\d+)$", protocol)
    if ending and int(ending[1]) + int(ending[2]) == classes:
        said.append((f"line {max(unseen.values(), default=1)}, the last", ending))
    for where, match in said:
        seen, count = int(match[1]), int(match[2])
        if (seen, count) != (classes - len(unseen), len(unseen)):
            raise PosebridgeError(
                f"{path}, {where}: {len(unseen)} of {classes} classes are unseen here, which is not {seen} seen and "
                f"{count} unseen; complete the list, or correct the counts."
            )


def _read(path: Path, class_names: Sequence[str]) -> dict[int, int]:
    """Class index -> line number."""
    found: dict[int, int] = {}
    indices = {composed(name): index for index, name in enumerate(class_names)}
    for line, text in enumerate(read_lines(path, "bring it back"), start=1):
        text = text.strip()
        if not text or text.startswith("#"):
            continue
        first, name = [*text.split(maxsplit=1), ""][:2]  # by blanks or a tab
        if composed(name) not in indices:
            close = difflib.get_close_matches(name, class_names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "see classes.csv."
            raise PosebridgeError(f"{path}, line {line}: {name!r} is not a class of this dataset; {hint}")
        index = indices[composed(name)]
        if first != str(index):
            raise PosebridgeError(f"{path}, line {line}: the index of {name!r} is {index} (0-based), not {first}.")
        if index in found:
            raise PosebridgeError(f"{path}, line {line}: {name!r} stands on line {found[index]} already.")
        found[index] = line
    return found
