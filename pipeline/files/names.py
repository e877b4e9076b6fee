"""Names: those that become folders (of data sets, protocols, recipes, runs), and those that files bear.

A file's name is bytes, a list is text. In lists, ids, receipts and shards a path is written as UTF-8, with forward
slashes; what is no UTF-8 or would break a line (control characters) is written `\\xNN`, and so is a backslash that
would be read as the begin of such a form (`\\x5c`). `text_of` writes it, `place_of` finds the file again.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from pathlib import Path, PurePosixPath

from pipeline.errors import PosebridgeError

MOST_CHARACTERS = 100
_ESCAPED = re.compile(r"\\x(0[1-9a-f]|1[0-9a-f]|5c|7f|[89a-f][0-9a-f])")  # never a slash, a dot or NUL
_TO_ESCAPE = re.compile(rf"[\x01-\x1f\x7f\udc80-\udcff]|\\(?={_ESCAPED.pattern[2:]})")


def check_name(name: str, what: str) -> str:
    """The name itself. Raises PosebridgeError for one that is no plain name, since it becomes a file or folder."""
    plain = not name.startswith(".") and all(c.isalnum() or c in "_-.@+" for c in name)
    if not (plain and 0 < len(name) <= MOST_CHARACTERS and len(name.encode()) <= 2 * MOST_CHARACTERS):
        shown = name if len(name) <= MOST_CHARACTERS else name[:40] + "..."
        raise PosebridgeError(
            f"{shown!r} cannot be the name of a {what}; use letters, digits and _ - . @ +, at most "
            f"{MOST_CHARACTERS} of them and no dot in front."
        )
    return name


def own_name(text: str, shown: str = "") -> str:
    """A name for any text, of a file or folder, and another one for every text: the text itself where it is plain and
    `shown` is no other, else what is plain of `shown`, or of the text, and a hash of the text.
    """
    plain = "".join(c if c.isalnum() or c in "_-.+" else "-" for c in shown or text)[:60]
    if plain == text and plain not in ("", ".", ".."):
        return text
    return f"{plain}-{hashlib.sha256(os.fsencode(text)).hexdigest()[:8]}"


def text_of(name: str) -> str:
    """A file's name or path, as Python gives it, as text that every list can hold."""
    return _TO_ESCAPE.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", name)


def name_of(text: str) -> str:
    """The reverse of `text_of`: the name as Python gives it, bytes that are no UTF-8 as surrogates."""

    def character(found: re.Match[str]) -> str:
        value = int(found[1], 16)
        return chr(value if value < 0x80 else 0xDC00 + value)

    return _ESCAPED.sub(character, text)


def composed(text: str) -> str:
    """One form of names that look alike: macOS writes `e` and an accent (NFD) where others write one letter (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def plain_path(text: str) -> str:
    """One form of all ways to write a path: `./a//b.mp4` is `a/b.mp4`, composed."""
    return composed("/".join(part for part in text.split("/") if part not in ("", ".")))


def why_outside(text: str) -> str:
    """Why a path of a list is not followed; empty where it stays below its root."""
    name = name_of(text)
    if not plain_path(name):
        return f"the path {text!r} names no file"
    if name.startswith("/") or ".." in name.split("/"):
        return f"the path {text!r} lies outside of the data set's folder; name videos relative to it"
    return ""


def place_of(root: Path, text: str) -> Path:
    """The file that a list calls `text`, below `root`: by its very name, or by the same one composed otherwise."""
    name = name_of(text)
    path = root / name
    if text.isascii() or os.path.lexists(path):
        return path
    found = root
    for part in PurePosixPath(name).parts:
        forms = (part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD")))
        there = next((form for form in forms if os.path.lexists(found / form)), None)
        if there is None:
            return path
        found = found / there
    return found


def is_file(path: Path) -> bool:
    """Whether a file is there; False, too, for a place that cannot be looked at."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether a folder is there; False, too, for a place that cannot be looked at."""
    try:
        return path.is_dir()
    except OSError:
        return False
