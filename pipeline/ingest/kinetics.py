"""Kinetics-400 and its first 200 classes: `train/<class>/<youtube_id>_<start>_<end>.mp4`, `val` likewise.

Reads the folder's annotations too, CSV files with the columns label, youtube_id, time_start, time_end, split: they say
what should be there, and of which class and part a video is. Without them the folders say that, and nothing tells what
is missing. Class names may have underscores for spaces. Training part: `train`; test part: `val`; clips of the split
`test` are not used. Source: Kay et al., The Kinetics Human Action Video Dataset, 2017; the layout is that of
github.com/cvdfoundation/kinetics-dataset, sorted into folders by class.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.files.tables import open_table
from pipeline.ingest.base import Entry, Folder, Layout, Listing, folders_of, stem

NAME = re.compile(r"(?P<id>[\w-]{11})_(?P<start>\d{6})_(?P<end>\d{6})")
COLUMNS = {"label", "youtube_id", "time_start", "time_end", "split"}
PART_FOLDER = re.compile(r"(?:(?:videos|rawframes)[_-])?([a-z]+)(?:[_-]\d+)?")  # train, videos_train, train_256
PARTS = {"train": "train", "training": "train", "val": "test", "validate": "test", "validation": "test"}


@dataclass(frozen=True)
class Wanted:
    """An annotated clip of one of the classes."""

    label: str
    part: str
    where: str  # file and line


def read_kinetics(folder: Folder, classes: Sequence[str], split: str, subset: bool = False) -> Listing:
    """List the videos of `classes`. Those of other classes are counted in a `subset`, else listed as left out."""
    listing = Listing()
    names = {plain(name): name for name in classes}
    known, others = _annotations(folder, names, subset, listing)
    taken: dict[str, str] = {}
    strangers = 0
    for path in folder.videos:
        clip_id = stem(path)
        if not NAME.fullmatch(clip_id):
            listing.left_out.append((path, "the name is not of the form <youtube_id>_<start>_<end>"))
            continue
        said, part = _by_folder(path, names)
        if known or others:
            if clip_id in others:
                strangers += 1
                continue
            if clip_id not in known:
                listing.left_out.append((path, "no annotation names it"))
                continue
            wanted = known[clip_id]
            if (said and said != wanted.label) or (part and part != wanted.part):
                reason = f"its folder contradicts {wanted.where} ({wanted.label}, {wanted.part})"
                listing.left_out.append((path, reason))
                continue
            said, part = wanted.label, wanted.part
        elif subset and part and not said:
            strangers += 1
            continue
        elif not said or not part:
            listing.left_out.append((path, "its folders name no class, or neither train nor val"))
            continue
        if clip_id in taken:
            listing.left_out.append((path, f"the clip is there already, as {taken[clip_id]}"))
            continue
        taken[clip_id] = path
        listing.entries.append(Entry(path, label=said, part=part, clip_id=clip_id))
    for clip_id, wanted in known.items():
        if clip_id not in taken:
            folder_name = "train" if wanted.part == "train" else "val"
            listing.missing.append((f"{folder_name}/{wanted.label}/{clip_id}.mp4", f"{wanted.where} names it"))
    if not known and not others:
        listing.remarks.append("There is no annotation CSV in the folder, so nothing tells what is missing.")
    if strangers:
        listing.remarks.append(f"{strangers} videos of other classes, or of the split `test`, were not listed.")
    return listing


def plain(name: str) -> str:
    """A class name as a key: lower case, without quotes, with spaces for anything but letters and digits."""
    return " ".join(re.sub(r"[^a-z0-9]+", " ", name.lower().replace("'", "")).split())


def _annotations(
    folder: Folder, names: dict[str, str], subset: bool, listing: Listing
) -> tuple[dict[str, Wanted], set[str]]:
    """clip_id -> what is wanted, and the ids of clips that are not: the split `test`, a subset's other classes."""
    known: dict[str, Wanted] = {}
    others: set[str] = set()
    for path in folder.files:
        if not path.lower().endswith(".csv"):
            continue
        for line, row in _rows(folder.place(path)):
            where = f"{path}, line {line}"
            try:
                clip_id = f"{row['youtube_id']}_{_second(row['time_start'])}_{_second(row['time_end'])}"
            except ValueError:
                clip_id = ""
            if not NAME.fullmatch(clip_id):
                listing.left_out.append((where, "youtube_id, time_start and time_end do not name a clip"))
                continue
            label, split = names.get(plain(row["label"])), row["split"].lower()
            if split == "test" or (subset and not label):
                others.add(clip_id)
            elif not label:
                listing.left_out.append((where, f"{row['label']!r} is not a class of this data set"))
            elif split not in PARTS:
                listing.left_out.append((where, f"the split {row['split']!r} is none of train, val and test"))
            elif clip_id in known:
                if (known[clip_id].label, known[clip_id].part) != (label, PARTS[split]):
                    reason = f"contradicts {known[clip_id].where} ({known[clip_id].label}, {known[clip_id].part})"
                    listing.left_out.append((where, reason))
            else:
                known[clip_id] = Wanted(label, PARTS[split], where)
    return known, others - known.keys()


def _rows(path: Path) -> Iterable[tuple[int, dict[str, str]]]:
    """Line and row of a CSV of annotations; nothing of any other table. Raises PosebridgeError for what is no table."""
    table = open_table(path, (), tuple(sorted(COLUMNS)))
    if set(table.places) >= COLUMNS:
        yield from ((row.line, {name: row.text(name) for name in COLUMNS}) for row in table)


def _second(text: str) -> str:
    if not re.fullmatch(r"\d{1,6}(\.\d*)?", text, re.ASCII):
        raise ValueError("no second")
    return f"{int(float(text)):06d}"


def _by_folder(path: str, names: dict[str, str]) -> tuple[str, str]:
    """Class and part that the folders of a video tell; empty where they do not, or contradict one another.

    The part is the whole name of a folder above the class folder: `training_dog` is a class, and no part.
    """
    folders = folders_of(path)
    label = names.get(plain(folders[-1]), "") if folders else ""
    above = folders[:-1] if label else folders
    words = [match[1] for folder in above if (match := PART_FOLDER.fullmatch(folder.lower()))]
    parts = {PARTS[word] for word in words if word in PARTS}
    return label, parts.pop() if len(parts) == 1 else ""


KINETICS200 = Layout(partial(read_kinetics, subset=True), ("train-val",), large=True)
KINETICS400 = Layout(read_kinetics, ("train-val",), large=True)
