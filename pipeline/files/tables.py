"""The one reader and the one writer of tables, and the reader of plain text, as people and spreadsheets save them.

Text is UTF-8, with a byte order mark or without; UTF-16 by its mark, or where the first characters show it; else
Windows-1252, but only where nothing in the file is UTF-8. Cells are parted by comma, semicolon or tab, by which the
header has the columns that are asked for (a first line `sep=;` says it itself). Headings are taken without case and
outer blanks. Blank rows and empty columns without a heading count as nothing, and so does a first column without one,
the row numbers of pandas; a row that is too short lacks what is unknown, since spreadsheets leave out the commas at its
end. An empty cell is unknown. Whole numbers may be written 3.0; where the cells are parted by semicolon or tab, 1,5 is
one and a half. Every message names line and column. Python's csv does the parsing and not pandas, which tells no line
for a wrong cell.
"""

from __future__ import annotations

import csv
import io
import math
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import PosebridgeError, short
from pipeline.files.durable import write_for_people

MOST_BYTES = 256 << 20  # of a file: 240,000 clips take 50 MB
MOST_LINES = 5_000_000
MOST_COLUMNS = 10_000
LONGEST_CELL = 131_072  # characters; that of Python's csv
EXACT = 16  # digits: of fewer, a float is the whole number that is written
DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_QUOTED = re.compile(r'[,"\r\n]')


@dataclass(frozen=True)
class Row:
    """One row: its cells by heading. `line` is that of the file on which it begins."""

    table: Table
    line: int
    cells: Sequence[str]

    def raw(self, column: str) -> str:
        """The cell as it is, with its blanks; empty where there is none."""
        place = self.table.places.get(column)
        return self.cells[place] if place is not None and place < len(self.cells) else ""

    def text(self, column: str) -> str:
        """The cell without outer blanks."""
        return self.raw(column).strip()

    def needed(self, column: str) -> str:
        """As `text`; raises PosebridgeError for an empty cell."""
        return self.text(column) or self._refuse(column, "the cell is empty; fill it")

    def number(
        self, column: str, least: float = -math.inf, most: float = math.inf, what: str = "a number"
    ) -> float | None:
        """The cell as a finite number within bounds; None where it is empty. Raises PosebridgeError."""
        text = written = self.text(column)
        if not text:
            return None
        if self.table.delimiter != "," and text.count(",") == 1 and "." not in text:
            text = text.replace(",", ".")
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not math.isfinite(value) or not least <= value <= most:
            bounds = "" if math.isinf(least) else f", {least:.10g} or more"
            bounds += "" if math.isinf(most) else f", at most {most:.10g}"
            self._refuse(column, f"{short(written.strip())} is not {what}{bounds}")
        return value

    def whole(self, column: str, least: int, most: int, what: str = "a whole number") -> int | None:
        """As `number`, for whole numbers: 3 and 3.0."""
        digits = self.text(column)
        if digits.isascii() and digits.isdecimal() and len(digits) < EXACT and least <= int(digits) <= most:
            return int(digits)  # nearly all: tables of counts have millions
        value = self.number(column, least, most, what)
        if value is None:
            return None
        if not value.is_integer():
            self._refuse(column, f"{short(self.text(column).strip())} is not {what}")
        return int(value)

    def wrong(self, column: str, why: str) -> PosebridgeError:
        """The error that names this cell."""
        return PosebridgeError(f"{self.table.path}, line {self.line}, column {column}: {why}.")

    def _refuse(self, column: str, why: str) -> str:
        raise self.wrong(column, why)


@dataclass(frozen=True)
class Table:
    """An opened table; iterating gives its rows, one at a time."""

    path: Path
    columns: tuple[str, ...]  # the headings, those that were asked for in the letters that were asked for
    places: Mapping[str, int]
    delimiter: str
    encoding: str  # utf-8, utf-16 or cp1252
    body: str = field(repr=False)

    def __iter__(self) -> Iterator[Row]:
        rows = _rows(self.path, self.body, self.delimiter)
        next(rows, None)  # the header
        bare = "" in self.columns
        for line, cells in rows:
            if bare or len(cells) > len(self.columns):
                self._refuse_without_heading(line, cells)
            yield Row(self, line, cells)

    def _refuse_without_heading(self, line: int, cells: Sequence[str]) -> None:
        for place, cell in enumerate(cells):
            if cell.strip() and not (place < len(self.columns) and self.columns[place] or place == 0):
                raise PosebridgeError(
                    f"{self.path}, line {line}, column {place + 1}: {short(cell.strip())} stands under no heading; put "
                    f"a cell that has {DELIMITERS[self.delimiter]} in it between quotation marks."
                )


def open_table(path: Path, needed: Sequence[str], known: Sequence[str] = (), missing: str = "") -> Table:
    """Open a table with at least the columns `needed`; `known` others may be there, and unknown ones, too.

    `missing` is the end of the sentence where there is no such file. Raises PosebridgeError for a file that is none,
    is too large or no text, lacks a column, or has one twice.
    """
    text, encoding = read_text(path, missing or f"write it with the header {','.join((*needed, *known))}")
    said = re.match(r"sep=([,;\t])(?=[\r\n])", text)
    body = text[said.end() :] if said else text
    spelt = {name.lower(): name for name in (*needed, *known)}

    def header(delimiter: str) -> tuple[int, list[str]]:
        line, cells = next(_rows(path, body[: 1 << 16], delimiter, strict=False), (1, []))
        return line, [spelt.get(cell.strip().lower(), cell.strip()) for cell in cells]

    def fits(delimiter: str) -> tuple[int, int]:
        columns = header(delimiter)[1]
        return len(set(columns) & set(needed)), min(len(columns), 2)

    delimiter = said[1] if said else max(DELIMITERS, key=fits)
    line, columns = header(delimiter)
    if len(columns) > MOST_COLUMNS:
        raise PosebridgeError(f"{path} has more than {MOST_COLUMNS} columns; this is no table of ours.")
    places: dict[str, int] = {}
    for place, name in enumerate(columns):
        if name in places:
            where = f"{path}, line {line}, column {place + 1}"
            raise PosebridgeError(f"{where}: {short(name.strip())} stands there twice; keep one.")
        if name:
            places[name] = place
    if lacking := [name for name in needed if name not in places]:
        raise PosebridgeError(
            f"{path} lacks the column {lacking[0]}; its header should be {','.join((*needed, *known))}."
        )
    return Table(path, tuple(columns), places, delimiter, encoding, body)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> Path:
    """Write a table whole or not at all; None is an empty cell. Raises PosebridgeError where it cannot be written."""
    write_for_people(path, b"".join(map(table_line, (header, *rows))))
    return path


def table_line(cells: Iterable[object]) -> bytes:
    """A row as `write_table` writes it, for a table that grows."""
    return (",".join(map(_cell, cells)) + "\n").encode("utf-8", "backslashreplace")


def read_lines(path: Path, missing: str) -> list[str]:
    """The lines of a plain text. Raises PosebridgeError as `read_text` does."""
    return [line.rstrip("\n") for line in io.StringIO(read_text(path, missing)[0], newline=None)]


def read_text(path: Path, missing: str, most: int = MOST_BYTES) -> tuple[str, str]:
    """A text file and its encoding. Raises PosebridgeError, with the place, for one that is missing or no text."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PosebridgeError(f"{path} is a folder or a device, no file; {missing}.")
        if status.st_size > most:
            raise PosebridgeError(f"{path} has {status.st_size} bytes, more than {most}; this is no file of ours.")
        with path.open("rb") as file:
            content = file.read(min(most, status.st_size) + 1)
    except FileNotFoundError:
        raise PosebridgeError(f"{path} is missing; {missing}.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise PosebridgeError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise PosebridgeError(f"{path} is a spreadsheet's own file, no text; save the spreadsheet as CSV (UTF-8).")
    text, encoding = _decoded(path, content)
    if (place := text.find("\0")) >= 0:
        raise PosebridgeError(f"{path}, {position(text, place)}: there is a NUL character; this is no text.")
    return text, encoding


def _decoded(path: Path, content: bytes) -> tuple[str, str]:
    head = content[:8]
    wide = ""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        wide = "utf-16"
    elif len(head) == 8 and not any(head[1::2]) and all(head[::2]):
        wide = "utf-16-le"
    elif len(head) == 8 and not any(head[::2]) and all(head[1::2]):
        wide = "utf-16-be"
    if wide:
        try:
            return content.decode(wide), "utf-16"
        except UnicodeDecodeError as error:
            place = position(content[: error.start].decode(wide, "replace"))
            raise PosebridgeError(f"{path}, {place}: the text is not UTF-16, as it began; save it as UTF-8.") from None
    try:
        return content.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError as error:
        first = error.start
    kept = content.decode("utf-8", "surrogateescape")
    place = f"{path}, {position(content[:first].decode('utf-8', 'replace'))}"
    if any(c > "\x7f" and not "\udc80" <= c <= "\udcff" for c in kept):
        raise PosebridgeError(f"{place}: the byte {content[first]:#04x} is no UTF-8, as the rest is; save it as UTF-8.")
    try:
        return content.decode("cp1252"), "cp1252"
    except UnicodeDecodeError:
        raise PosebridgeError(f"{place}: the text is neither UTF-8 nor Windows-1252; save it as UTF-8.") from None


def _rows(path: Path, body: str, delimiter: str, strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Line and cells of every row that is not blank."""
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, strict=strict)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            why = f"the quotation marks are odd ({error})"
            if "field limit" in str(error):
                why = f"a cell has more than {LONGEST_CELL} characters"
            raise PosebridgeError(f"{path}, line {line}: {why}; correct it.") from None
        if cells is None:
            return
        if line > MOST_LINES:
            raise PosebridgeError(f"{path} has more than {MOST_LINES} lines; this is no table of ours.")
        if any(cells) and any(cell.strip() for cell in cells):
            yield line, cells


def position(text: str, place: int | None = None) -> str:
    """Where a character stands, or the end: `line 3, character 7`."""
    before = text if place is None else text[:place]
    return f"line {before.count(chr(10)) + 1}, character {len(before) - before.rfind(chr(10))}"


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text
