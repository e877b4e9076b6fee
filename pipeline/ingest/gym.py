"""gym: exercises by real people, two photos each, the start and the end: `frames/<id>/0.jpg 1.jpg`.

Reads exercises.csv in the folder, of which `id` and `name` count. An exercise is a class with one clip, of two frames.
So no clip is of a training part or a test part for good: its part is `both`. Source: free-exercise-db (Unlicense),
github.com/yuhonas/free-exercise-db, its images scaled and its JSON files in one table.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.files.tables import open_table
from pipeline.ingest.base import Entry, Folder, Layout, Listing, stem


def read_gym(folder: Folder, classes: Sequence[str], split: str) -> Listing:
    """List the exercises' folders. Raises PosebridgeError for a missing or wrong exercises.csv."""
    listing = Listing()
    there = {stem(path): path for path in folder.image_folders}
    known = set(classes)
    listed: set[str] = set()
    for row in open_table(folder.root / "exercises.csv", ("id", "name"), (), "it comes with the data set"):
        clip_id, name = row.needed("id"), row.needed("name")
        where = f"exercises.csv, line {row.line}"
        if name not in known:
            listing.left_out.append((where, f"{name!r} is not a class of this data set"))
        elif clip_id in listed:
            listing.left_out.append((where, f"the exercise {clip_id} stands there already"))
        elif clip_id not in there:
            listing.missing.append((f"frames/{clip_id}/", f"{where} names it"))
        else:
            listing.entries.append(Entry(there[clip_id], name, part="both", clip_id=clip_id))
        listed.add(clip_id)
    for clip_id, path in there.items():
        if clip_id not in listed:
            listing.left_out.append((path, "exercises.csv does not name it"))
    return listing


GYM = Layout(read_gym, ("by-class",))
