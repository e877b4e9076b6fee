"""A data set of one's own: labels from a CSV, from the names of the files, or from the first sub-folder.

Reads, beside the names, one CSV: path,label[,start,end,subject,camera,part,clip_id].
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import PosebridgeError
from pipeline.files.names import composed, is_file, is_folder, name_of, plain_path, text_of, why_outside
from pipeline.files.tables import Row, open_table
from pipeline.ingest.base import Entry, Folder, Listing, folders_of
from pipeline.manifest.clips import PARTS, part_of, segment

CSV_COLUMNS = ("path", "label", "start", "end", "subject", "camera", "part", "clip_id")
GROUPS = ("label", "subject", "camera", "part")


def read_own(folder: Folder, labels: Path | None, pattern: str) -> Listing:
    """List the videos by `labels`, a CSV, or by `pattern`, a regular expression with the groups of `GROUPS`, or by
    labels.csv in the folder where there is one, or else with the first sub-folder as the label.

    Raises PosebridgeError for a CSV or pattern with an error.
    """
    if labels is None and not pattern and is_file(folder.root / "labels.csv"):
        labels = folder.root / "labels.csv"
    listing = Listing()
    if labels is not None:
        listing.entries.extend(_from_csv(labels, folder, listing))
    elif pattern:
        listing.entries.extend(_from_pattern(pattern, folder, listing))
    else:
        listing.entries.extend(Entry(path, next(iter(folders_of(composed(path))), "")) for path in folder.videos)
    return listing


def _from_pattern(pattern: str, folder: Folder, listing: Listing) -> Iterator[Entry]:
    try:
        expression = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise PosebridgeError(f"The pattern {pattern!r} is not a regular expression: {error}.") from None
    if unknown := set(expression.groupindex) - set(GROUPS):
        raise PosebridgeError(f"The pattern's group {min(unknown)!r} is unknown; known groups are {', '.join(GROUPS)}.")
    for path in folder.videos:
        if match := expression.search(path.rstrip("/")):
            found: dict[str, Any] = {group: text or "" for group, text in match.groupdict().items()}
            found |= {"label": composed(found.get("label", "")), "part": found.get("part", "").lower()}
            if found["part"] in ("", *PARTS):
                yield Entry(path, **found)
            else:
                listing.left_out.append((path, f"its part {found['part']!r} is none of train, test and both"))
        else:
            listing.left_out.append((path, "the name does not fit the pattern"))


def _from_csv(labels: Path, folder: Folder, listing: Listing) -> Iterator[Entry]:
    table = open_table(labels, CSV_COLUMNS[:2], CSV_COLUMNS[2:])
    if unknown := [name for name in table.places if name not in CSV_COLUMNS]:
        raise PosebridgeError(
            f"{labels} has the column {unknown[0][:60]!r}; it should have path and label, and may have "
            f"{', '.join(CSV_COLUMNS[2:])}."
        )
    if table.encoding == "cp1252":
        listing.remarks.append(f"{labels} is no UTF-8 and was read as Windows-1252; look at the names of the classes.")
    listed = {plain_path(path): path for path in (*folder.files, *folder.image_folders)}
    odd = {path for path, _ in folder.odd}
    for row in table:
        start, end = segment(row)
        path = _video_of(row, folder, listed)
        if not path.endswith("/") and not is_file(folder.place(path)):
            if path not in odd:  # which says why
                is_there = is_folder(folder.place(path))
                reason = "it is a folder without images, or with a video" if is_there else "the file does not exist"
                listing.left_out.append((path, reason))
            continue
        others: dict[str, Any] = {name: row.text(name) for name in ("subject", "camera", "clip_id")}
        yield Entry(path, composed(row.text("label")), start, end, part=part_of(row), **others)


def _video_of(row: Row, folder: Folder, listed: dict[str, str]) -> str:
    """The path of a row as the folder has it, or else as it is written. Raises PosebridgeError for one outside."""
    row.needed("path")
    path = row.raw("path") if plain_path(row.raw("path")) in listed else row.text("path")
    absolute = PurePosixPath(name_of(path))
    if absolute.is_absolute() and absolute.is_relative_to(root := folder.root.resolve()) and absolute != root:
        path = text_of(str(absolute.relative_to(root)))
    if why := why_outside(path):
        raise row.wrong("path", why)
    return listed.get(plain_path(path), plain_path(path))
