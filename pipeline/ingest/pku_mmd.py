"""PKU-MMD (phase 1): untrimmed videos, label files of segments, and the data set's own split files.

Reads, anywhere below the folder: `0002-L.avi` (1076 videos from the views L, M and R; RGB_VIDEO), `0002-L.txt` in a
folder with `label` in its name (Train_Label_PKU_final; rows `class,start_frame,end_frame,confidence`, class 1-based)
and `cross-subject.txt`, `cross-view.txt` (`Training videos:` and `Validation videos:`, each followed by a comma list).
A clip is a segment, from its start frame to its end frame by the video's own frame rate.
Source: Liu et al., PKU-MMD: A Large Scale Benchmark for Continuous Multi-Modal Human Action Understanding, 2017.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.files.names import place_of
from pipeline.files.tables import read_lines
from pipeline.ingest.base import Entry, Folder, Layout, Listing, stem
from pipeline.manifest.clips import MOST_FRAMES

NAME = re.compile(r"\d{4}-[LMR]")
_HEADINGS = "there are `Training videos:` and `Validation videos:`"
HEADINGS = {"training videos": "train", "validation videos": "test"}


def read_pku_mmd(folder: Folder, classes: Sequence[str], split: str) -> Listing:
    """List the labelled segments. What should be there is what the labels and the split name.

    Raises PosebridgeError where the split or all labels are missing, and for a wrong split file, with its line.
    """
    listing = Listing()
    videos: dict[str, str] = {}
    for path in folder.videos:
        if _is_other_modality(path):
            continue
        name = stem(path)
        if not NAME.fullmatch(name):
            listing.left_out.append((path, "the name is not of the form 0002-L"))
        elif name in videos:
            listing.left_out.append((path, f"the video is there already, as {videos[name]}"))
        else:
            videos[name] = path
    labels = _label_files(folder, listing)
    if not labels:
        raise PosebridgeError(
            f"{folder.root} has no label files; unpack Label_PKUMMD (Train_Label_PKU_final/0002-L.txt) into it."
        )
    parts = read_parts(_split_file(folder, split))
    for name in sorted(videos.keys() | labels.keys() | parts.keys()):
        if name not in videos:
            listing.missing.append((f"{name}.avi", "the labels or the split name it"))
        if name not in labels:
            listing.missing.append((f"{name}.txt", "no label file for this video"))
        if name not in parts:
            listing.left_out.append((name, f"it stands in neither list of {split}.txt"))
        if name in videos and name in labels and name in parts:
            _read_segments(folder.root, labels[name], videos[name], parts[name], classes, listing)
    return listing


def read_parts(path: Path) -> dict[str, str]:
    """Video -> train or test, from a split file.

    Raises PosebridgeError, with the line, for a name of another form or one that stands twice.
    """
    parts: dict[str, str] = {}
    lines: dict[str, int] = {}
    part = ""
    for line, text in enumerate(read_lines(path, "it comes with the data set"), start=1):
        heading, colon, rest = text.partition(":")
        if colon:
            heading = heading.strip()
            if heading.lower() not in HEADINGS:
                raise PosebridgeError(f"{path}, line {line}: the heading {heading!r} is unknown; {_HEADINGS}.")
            part, text = HEADINGS[heading.lower()], rest
        for name in filter(None, re.split(r"[,\s]+", text)):
            if not part or not NAME.fullmatch(name):
                raise PosebridgeError(
                    f"{path}, line {line}: {name!r} is not a video under `Training videos:` or `Validation videos:`."
                )
            if name in parts:
                raise PosebridgeError(f"{path}, line {line}: {name!r} stands on line {lines[name]} already.")
            parts[name], lines[name] = part, line
    if set(parts.values()) != {"train", "test"}:
        raise PosebridgeError(f"{path} does not have both lists, `Training videos:` and `Validation videos:`.")
    return parts


def _is_other_modality(path: str) -> bool:
    """Depth and infrared videos have the same names as the colour ones."""
    folders = path.lower().split("/")[:-1]
    return any(re.match(r"(depth|ir)(?![a-z])", folder) for folder in folders)


def _label_files(folder: Folder, listing: Listing) -> dict[str, str]:
    """Video -> label file; skeleton files have the same names, so the folder tells."""
    labels: dict[str, str] = {}
    for path in folder.files:
        parent, _, name = path.rpartition("/")
        nearest = parent.rpartition("/")[2].lower()  # `PKU_with_labels/skeleton` holds no labels
        if name.endswith(".txt") and "label" in nearest and NAME.fullmatch(stem(path)):
            if stem(path) in labels:
                listing.left_out.append((path, f"the labels are there already, as {labels[stem(path)]}"))
            else:
                labels[stem(path)] = path
    return labels


def _split_file(folder: Folder, split: str) -> Path:
    found = [path for path in folder.files if path.rpartition("/")[2] == f"{split}.txt"]
    if not found:
        raise PosebridgeError(f"{folder.root} has no {split}.txt; the split comes with the data set (folder Split).")
    if len(found) > 1:
        raise PosebridgeError(f"{folder.root} has {split}.txt twice, {found[0]} and {found[1]}; take one away.")
    return folder.place(found[0])


def _read_segments(
    root: Path, label_file: str, video: str, part: str, classes: Sequence[str], listing: Listing
) -> None:
    name = stem(video)
    lines: dict[tuple[int, int], int] = {}
    for line, text in enumerate(read_lines(place_of(root, label_file), "it comes with the data set"), start=1):
        if not text.strip():
            continue
        where = f"{label_file}, line {line}"
        try:
            label, start, end = (int(value) for value in text.split(",")[:3])
        except ValueError:
            listing.left_out.append((where, f"{text.strip()[:60]!r} is not class,start_frame,end_frame,confidence"))
            continue
        if not 1 <= label <= len(classes):
            listing.left_out.append((where, f"there is no class {label} (1 to {len(classes)})"))
        elif not 0 <= start < end:
            listing.left_out.append((where, f"the segment {start} to {end} is empty"))
        elif end > MOST_FRAMES:
            listing.left_out.append((where, f"no video has more than {MOST_FRAMES} frames"))
        elif (start, end) in lines:
            listing.left_out.append((where, f"the segment {start} to {end} stands on line {lines[start, end]} already"))
        else:
            lines[start, end] = line
            clip_id = f"{name}@{start}-{end}"
            listing.entries.append(
                Entry(video, classes[label - 1], frames=(start, end), camera=name[-1], part=part, clip_id=clip_id)
            )


PKU_MMD = Layout(read_pku_mmd, ("cross-subject", "cross-view"), in_frames=True)
