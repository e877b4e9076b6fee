"""The one exception that a user is meant to read."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path

LONGEST = 2000  # characters of a line
LIST = "\n  "  # before each thing that an error lists
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlevel = 2


class PosebridgeError(Exception):
    """Something the user can put right. The message is one sentence that names the file or clip and the remedy.

    However long a name or a cell of a table in it may be, it stays readable: a long line loses its middle.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__("\n".join(map(_readable, sentence.split("\n"))))


def all_missing(sentences: Iterable[str]) -> PosebridgeError:
    """The error of one sentence, or the one that lists several, each once."""
    lines = list(dict.fromkeys(sentences))
    return PosebridgeError(lines[0] if len(lines) == 1 else LIST.join([f"{len(lines)} things are missing:", *lines]))


def reason_of(error: PosebridgeError, path: Path) -> str:
    """What an error says of the file that it names first, to stand in another sentence."""
    return str(error).removeprefix(str(path)).strip(" .,:")


def short(value: object) -> str:
    """A value that somebody wrote, as it stands in a sentence: its middle is left out where it is long."""
    return _SHORT.repr(value)


def some_names(names: Sequence[str], most: int = 6) -> str:
    """The first of many names, and how many more there are, as a sentence tells them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(short(name) for name in names[:most]) + more


def first_line(error: Exception, most: int = 160) -> str:
    """What an error of a library says, to stand in a sentence: its first line, or its name where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:most]


def _readable(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 4 :]}"
