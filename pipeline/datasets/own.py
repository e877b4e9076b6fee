"""A data set of one's own: labels from a CSV, from the names of the files, or from the first sub-folder.

Reads, beside the names, one CSV: path,label[,start,end,subject,camera,part,clip_id].
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.datasets.base import Entry, Folder, Listing
from pipeline.errors import PosebridgeError

CSV_COLUMNS = ("path", "label", "start", "end", "subject", "camera", "part", "clip_id")
GROUPS = ("label", "subject", "camera", "part")


def read_own(folder: Folder, labels: Path | None, pattern: str) -> Listing:
    """List the videos by `labels`, a CSV, or by `pattern`, a regular expression with the groups of `GROUPS`, or by
    labels.csv in the folder where there is one, or else with the first sub-folder as the label.

    Raises PosebridgeError for a CSV or pattern with an error.
    """
    if labels is None and not pattern and (folder.root / "labels.csv").is_file():
        labels = folder.root / "labels.csv"
    listing = Listing()
    if labels is not None:
        listing.entries.extend(_from_csv(labels, folder.root, listing.left_out))
    elif pattern:
        listing.entries.extend(_from_pattern(pattern, folder, listing.left_out))
    else:
        listing.entries.extend(Entry(path, path.split("/")[0] if "/" in path else "") for path in folder.videos)
    return listing


def _from_pattern(pattern: str, folder: Folder, left_out: list[tuple[str, str]]) -> Iterator[Entry]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise PosebridgeError(f"The pattern {pattern!r} is not a regular expression: {error}.") from None
    if unknown := set(expression.groupindex) - set(GROUPS):
        raise PosebridgeError(f"The pattern's group {min(unknown)!r} is unknown; known groups are {', '.join(GROUPS)}.")
    for path in folder.videos:
        if match := expression.search(path):
            found: dict[str, Any] = {group: text or "" for group, text in match.groupdict().items()}
            yield Entry(path, **found)
        else:
            left_out.append((path, "the name does not fit the pattern"))


def _from_csv(labels: Path, root: Path, left_out: list[tuple[str, str]]) -> Iterator[Entry]:
    if not labels.is_file():
        raise PosebridgeError(f"{labels} is missing; its header should be {','.join(CSV_COLUMNS)}.")
    with labels.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or ()
        if {"path", "label"} - set(header) or set(header) - set(CSV_COLUMNS):
            raise PosebridgeError(
                f"{labels} has the header {','.join(header)}; it should have path and label, and may have "
                f"{', '.join(CSV_COLUMNS[2:])}."
            )
        for line, row in enumerate(reader, start=2):
            values = {name: (row.get(name) or "").strip() for name in header}
            where = f"{labels}, line {line}"
            try:
                start, end = (float(values[name]) if values.get(name) else None for name in ("start", "end"))
            except ValueError as error:
                raise PosebridgeError(f"{where}: {error}; give start and end in seconds.") from None
            if (start or 0) < 0 or (end is not None and not end > (start or 0)):
                raise PosebridgeError(f"{where}: the segment {start} to {end} is empty; start must be before end.")
            path = Path(values["path"])
            if path.is_absolute() and path.is_relative_to(root.resolve()):
                path = path.relative_to(root.resolve())
            if path.is_absolute() or ".." in path.parts:
                raise PosebridgeError(f"{where}: {path} lies outside of {root}; name videos relative to it.")
            if not (root / path).is_file():
                left_out.append((path.as_posix(), "the file does not exist"))
                continue
            others: dict[str, Any] = {name: values.get(name, "") for name in (*GROUPS, "clip_id")}
            yield Entry(path.as_posix(), start=start, end=end, **others)
