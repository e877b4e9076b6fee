"""Class texts of others, into a named variant beside ours: nothing of ours is overwritten.

Reads a CSV (`index,slot,text`), a file of one line a class, or the PURLS spreadsheet saved as CSV (one row a class,
columns for the eight parts); writes manifests/<dataset>/texts.<variant>.csv. `posebridge text --encoder
minilm@<variant>` embeds it, and a run uses it by `text: minilm@<variant>`.
    posebridge text --dataset ntu60 --from purls.csv --form purls --variant purls
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.files.names import check_name
from pipeline.files.tables import open_table, read_lines, write_table
from pipeline.manifest.clips import read_classes
from pipeline.manifest.texts import read_texts, texts_path

FORMS = ("csv", "lines", "purls")
PURLS_SLOTS = {
    "head": ("head",),
    "hands": ("hands", "hand", "arms", "arm"),
    "torso": ("torso", "hip", "hips", "body"),
    "legs": ("legs", "leg", "feet", "foot"),
    "start": ("start", "beginning", "begin", "initial"),
    "middle": ("middle", "mid"),
    "end": ("end", "ending", "final"),
    "global": ("global", "whole", "overall", "description"),
}
CLASS_COLUMNS = ("class", "name", "action", "label")

FILE_OF_TEXTS = "name a file of texts with --from"

Texts = dict[tuple[int, str], str]


def import_texts(
    dataset: str, variant: str, file: Path, form: str, *, slot: str = "one_line", manifests: Path = Path("manifests")
) -> Path:
    """Write the variant; returns its path. Every class gets the slot `label`, its name where the file has none.

    Args:
        variant: letters, digits, dashes and underscores.
        slot: of form `lines`, what the line is; the other forms say it themselves.

    Raises:
        PosebridgeError: naming file and line for a class that is unknown, missing or there twice, or an empty text.
    """
    if not re.fullmatch(r"[\w-]+", variant):
        raise PosebridgeError(f"The variant {variant!r} should be letters, digits, dashes and underscores.")
    if not (slot := slot.strip()):
        raise PosebridgeError("The slot of the lines has no name; name it, as one_line.")
    if form not in FORMS:
        raise PosebridgeError(f"There is no form {form!r}; use {', '.join(FORMS)}.")
    names = read_classes(manifests / check_name(dataset, "data set") / "classes.csv")
    if form == "csv":
        texts = _from_csv(file, names)
    elif form == "lines":
        texts = _from_lines(file, names, slot)
    else:
        texts = _from_purls(file, names)
    texts = {(index, "label"): name for index, name in enumerate(names)} | texts
    path = texts_path(manifests / dataset, variant)
    slots = list(dict.fromkeys(slot for _, slot in texts))
    rows = ((i, s, texts[i, s]) for i in range(len(names)) for s in slots if (i, s) in texts)
    return write_table(path, ("index", "slot", "text"), rows)


def _from_csv(file: Path, names: Sequence[str]) -> Texts:
    return read_texts(file, names, need_labels=False)[1]


def _from_lines(file: Path, names: Sequence[str], slot: str) -> Texts:
    lines = [line.strip() for line in read_lines(file, FILE_OF_TEXTS)]
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) != len(names):
        raise PosebridgeError(f"{file} has {len(lines)} lines for {len(names)} classes; write one line a class.")
    for number, line in enumerate(lines, start=1):
        if not line:
            raise PosebridgeError(f"{file}, line {number}: the text of {names[number - 1]!r} is empty.")
    return {(index, slot): line for index, line in enumerate(lines)}


def _from_purls(file: Path, names: Sequence[str]) -> Texts:
    table = open_table(file, (), (), FILE_OF_TEXTS)
    header, rows = [_key(name) for name in table.columns], list(table)
    columns = {slot: _column(header, words) for slot, words in PURLS_SLOTS.items()}
    if missing := [slot for slot, column in columns.items() if column is None]:
        raise PosebridgeError(f"{file} has no column for {missing[0]}; it should have {', '.join(PURLS_SLOTS)}.")
    by_name = {_key(name): index for index, name in enumerate(names)}
    class_column = _column(header, CLASS_COLUMNS)
    if class_column is None and len(rows) != len(names):
        raise PosebridgeError(
            f"{file} has {len(rows)} rows for {len(names)} classes and no column `class`; add one with their names."
        )
    texts: Texts = {}
    for index, row in enumerate(rows):
        cells, where = row.cells, f"{file}, line {row.line}"
        if class_column is not None:
            name = cells[class_column] if class_column < len(cells) else ""
            if _key(name) not in by_name:
                raise PosebridgeError(f"{where}: {name!r} is not a class of classes.csv.")
            index = by_name[_key(name)]
        for slot, column in columns.items():
            text = cells[column].strip() if column is not None and column < len(cells) else ""
            if not text:
                raise PosebridgeError(f"{where}: {names[index]!r} has no text for {slot}.")
            if (index, slot) in texts:
                raise PosebridgeError(f"{where}: {names[index]!r} is there twice.")
            texts[index, slot] = text
    if len(texts) < len(names) * len(PURLS_SLOTS):
        lacking = next(name for index, name in enumerate(names) if (index, "head") not in texts)
        raise PosebridgeError(f"{file} has no row for the class {lacking!r}.")
    return texts


def _key(text: str) -> str:
    """A heading or class name without case, blanks and punctuation."""
    return re.sub(r"\W+|_", " ", text.lower()).strip()


def _column(header: Sequence[str], words: Sequence[str]) -> int | None:
    """The column whose heading is one of `words`."""
    return next((place for word in words for place, heading in enumerate(header) if heading == word), None)
