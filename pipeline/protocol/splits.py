"""Protocols: which classes are unseen, and which of the seen ones play unseen while values are chosen.

Reads manifests/<dataset>/protocols/<protocol>.txt and <protocol>.val.txt: `#` lines, then one `index name` line a
class.
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
from pipeline.files.tables import read_lines


@dataclass(frozen=True)
class Split:
    """Class indices, 0-based and sorted. `validation` lies inside the seen classes."""

    protocol: str
    class_names: tuple[str, ...]
    unseen: tuple[int, ...]
    validation: tuple[int, ...]

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
    validation = _read(val_path, class_names)
    _check_counts(path, protocol, len(class_names), unseen)
    for index, line in validation.items():
        if index in unseen:
            raise PosebridgeError(
                f"{val_path}, line {line}: {class_names[index]!r} is unseen in {path.name}; "
                f"validation classes must be seen ones."
            )
    split = Split(protocol, tuple(class_names), tuple(sorted(unseen)), tuple(sorted(validation)))
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
