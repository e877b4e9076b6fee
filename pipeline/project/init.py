"""A folder of videos becomes a data set: everything that would be written by hand, written.

Reads the names, headers and labels of the videos, params.yaml, and words for classes where there are any. Writes
manifests/<name>/ (classes.csv, clips.csv, texts.csv, a protocol, dvc.yaml, init.csv), and into params.yaml a data set,
two runs and, for weights of one's own, a recipe. Command: posebridge init DIR
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PosebridgeError, short
from pipeline.files.durable import make_folder, write_for_people
from pipeline.files.names import check_name, composed
from pipeline.files.shipped import in_checkout, shipped_file, ships
from pipeline.files.tables import read_text
from pipeline.files.yaml_entry import with_entry
from pipeline.files.yaml_file import MOST_BYTES, read_yaml
from pipeline.ingest.ingest import Ingestion, ingest
from pipeline.manifest.check_texts import check_texts
from pipeline.manifest.clips import Clip, read_classes, read_clips, write_clips
from pipeline.manifest.drafts import draft_texts, write_with_drafts
from pipeline.manifest.texts import read_texts, read_words
from pipeline.params import IMAGE_FPS, load_params
from pipeline.project.asked import Asked, write_asked
from pipeline.project.copy import make_dvc_project
from pipeline.project.labels import wordless
from pipeline.project.look import Found
from pipeline.project.parts import deal_parts, source_of, usual_way
from pipeline.project.pose import Pose, choose_pose
from pipeline.project.table import table_text
from pipeline.protocol.draw import choose_unseen, usual_unseen, write_protocol
from pipeline.protocol.splits import Split

PARAMS = Path("params.yaml")
MANIFESTS = Path("manifests")
FAILURES = 0.1  # of the clips may fail in the extraction
LONGEST_NAME = 40
FEW_SEEN = 10  # classes; with four of five clips each, 0.57 of two unseen ones were told right (docs/results.md)


@dataclass(frozen=True)
class Made:
    """What was written. `findings` are the checker's about texts; so many classes have `drafts` among their texts."""

    dataset: str
    folder: Path
    recipe: str
    runs: tuple[str, ...]
    split: Split
    split_by: str
    parts: dict[str, int]
    sources: int
    drafts: int
    findings: tuple[str, ...]
    listed: Ingestion
    remarks: tuple[str, ...]


def usual_name(root: Path) -> str:
    """A name for the data set, by its folder's; empty where that has no letter or digit."""
    plain = re.sub(r"[^\w-]+", "_", composed(os.fsencode(root.resolve().name).decode(errors="replace")))
    return plain[:LONGEST_NAME].strip("_-")


def check_dataset_name(name: str) -> str:
    """The name itself. Raises PosebridgeError for one that DVC, params.yaml or the command line would read otherwise,
    and for one that is taken.
    """
    check_name(name, "data set")
    if not re.fullmatch(r"\w[\w-]*", name):
        raise PosebridgeError(f"{name!r} cannot be the name of a data set here; use letters, digits, _ and -.")
    if ships(name) and not (MANIFESTS / name).exists():
        raise PosebridgeError(f"{name!r} is a data set that ships with posebridge; choose another name with --name.")
    if (MANIFESTS / name).exists():
        raise PosebridgeError(
            f"{MANIFESTS / name} is there already and stays as it is, and params.yaml does not say that it is of this "
            "folder; choose another name with --name."
        )
    return name


def init(
    found: Found, name: str, asked: Asked, progress: Callable[[int, int], None] = lambda done, total: None
) -> Made:
    """Make a data set `name` of what `look` has found, in the project in the current folder; nothing that is there is
    written over, and where it fails nothing is left behind.

    Raises PosebridgeError for a name that is taken, weights that are missing, too few classes, and texts with an error.
    """
    check_dataset_name(name)
    load_params(shipped_file(PARAMS))  # strict, with a sentence of its own
    drawn = choose_unseen(found.classes, asked.unseen or str(usual_unseen(len(found.classes))), asked.seed)
    pose = _pose(name, asked)
    runs = {name: {"method": "posebridge"}, f"{name}_skeleton": {"method": "skeleton"}}
    _with_entries(name, found.root, asked, pose, runs)  # whether it can be done, before headers are read
    make_folder(MANIFESTS)
    with tempfile.TemporaryDirectory(dir=MANIFESTS, prefix=".init-") as draft:
        listed = ingest(
            name,
            found.root,
            labels=asked.labels,
            pattern=asked.pattern,
            image_fps=asked.image_fps or IMAGE_FPS,
            manifests=Path(draft),
            progress=progress,
        )
        folder = Path(draft) / name
        classes = read_classes(folder / "classes.csv")
        clips = read_clips(folder / "clips.csv", len(classes))
        _require_readable(listed, classes, clips)
        way = asked.split_by or usual_way(clips)
        clips = deal_parts(clips, way)
        write_clips(folder / "clips.csv", clips)
        drafts, findings = _write_texts(folder / "texts.csv", classes, asked.texts)
        _, split = write_protocol(folder / "protocols", name, classes, drawn)
        most = max(1, round(FAILURES * len(clips))) + len(listed.unreadable)
        text = table_text(name, pose.recipe, split.protocol, list(runs), most, in_checkout())
        write_for_people(folder / "dvc.yaml", text.encode())
        write_asked(folder, asked)
        check_dataset_name(name)  # somebody may have taken it, or written into params.yaml, in the meantime
        params = _with_entries(name, found.root, asked, pose, runs)
        folder.rename(MANIFESTS / name)
    try:
        write_for_people(PARAMS, params.encode())
    except BaseException:  # Ctrl-C too
        shutil.rmtree(MANIFESTS / name)
        raise
    make_dvc_project()
    return Made(
        name,
        MANIFESTS / name,
        pose.recipe,
        tuple(runs),
        split,
        way,
        dict(Counter(clip.part or "no part" for clip in clips)),
        len({source_of(clip, way) for clip in clips}),
        drafts,
        tuple(findings),
        listed,
        (*_taken(asked, pose), *listed.remarks, *_remarks(found, split, clips, way)),
    )


def _pose(name: str, asked: Asked) -> Pose:
    written = read_yaml(shipped_file(PARAMS), "")
    places = [_place_text(Path(place)) if place else "" for place in (asked.weights, asked.detector)]
    return choose_pose(load_params(shipped_file(PARAMS)), written, name, asked.recipe, *places)


def _with_entries(name: str, root: Path, asked: Asked, pose: Pose, runs: dict[str, dict[str, Any]]) -> str:
    """The text of params.yaml with the data set, the runs, and the recipe if it is a new one. A project without one
    begins with what ships.
    """
    text, _ = read_text(shipped_file(PARAMS), "", MOST_BYTES)
    dataset: dict[str, Any] = {"root": _place_text(root)}
    if asked.image_fps:
        dataset["image_fps"] = asked.image_fps
    text = with_entry(text, PARAMS, "datasets", name, dataset)
    if pose.entry is not None:
        text = with_entry(text, PARAMS, "recipes", name, pose.entry)
    for run, values in runs.items():
        values["recipe"] = pose.recipe
        if pose.level_widths and values["method"] == "posebridge":
            values["flags"] = {"level_widths": list(pose.level_widths)}
        text = with_entry(text, PARAMS, "runs", run, values)
    return text


def _place_text(path: Path) -> str:
    """A path as params.yaml names it: relative where it lies in the project. Raises PosebridgeError where it cannot."""
    full, here = path.resolve(), Path().resolve()
    text = str(full.relative_to(here) if full.is_relative_to(here) else full)
    if text.encode(errors="replace").decode() != text:
        raise PosebridgeError(f"The path of {path} is no UTF-8, so params.yaml cannot hold it; rename what lies there.")
    return text


def _require_readable(listed: Ingestion, classes: Sequence[str], clips: Sequence[Clip]) -> None:
    """Raise PosebridgeError where no video of a class can be read."""
    reasons = dict(listed.unreadable)
    if len(reasons) == listed.videos:
        path, reason = listed.unreadable[0]
        raise PosebridgeError(f"None of the {listed.videos} videos can be read; first {path}: {reason}.")
    there = {clip.label for clip in clips if clip.path not in reasons}
    for clip in clips:
        if clip.label is not None and clip.label not in there:
            raise PosebridgeError(
                f"None of the videos of the class {short(classes[clip.label])} can be read; first {clip.path}: "
                f"{reasons[clip.path]}; bring them again, or take the class out."
            )


def _write_texts(path: Path, classes: Sequence[str], words: Path | None) -> tuple[int, list[str]]:
    """Write texts.csv; how many classes have drafts for texts, and what the checker finds."""
    texts = read_words(words, classes) if words else {}
    drafts = draft_texts(classes)
    write_with_drafts(path, texts, drafts)
    _, written = read_texts(path, classes)
    drafted = drafts.keys() - texts.keys()
    return len({index for index, _ in drafted}), check_texts(written, classes, drafted)


def _taken(asked: Asked, pose: Pose) -> Iterator[str]:
    if pose.entry is not None and not asked.weights and not asked.detector:
        yield f"The pose model is {pose.entry['weights']}; --weights takes another one."


def _remarks(found: Found, split: Split, clips: Sequence[Clip], way: str) -> Iterator[str]:
    classes = split.class_names
    if len(split.seen) < FEW_SEEN:
        yield (
            f"{len(split.seen)} seen classes are few: expect hardly more than chance of unseen ones. For naming these "
            f"actions themselves `posebridge predict VIDEO --examples {found.root}` needs no training."
        )
    if found.unlabelled:
        yield f"{found.unlabelled} videos have no label; they are listed, and neither train nor test."
    if silent := wordless(classes):
        yield (
            f"No text encoder understands {', '.join(map(short, silent[:6]))}; give these classes words, with --texts "
            "or in texts.csv."
        )
    both = sorted({clip.label for clip in clips if clip.part == "both" and clip.label is not None})
    if both:
        yield (
            f"{len(both)} of {len(classes)} classes cannot be parted by {way}, first {short(classes[both[0]])}: their "
            "clips train where the class is seen and are tested where it is unseen (part `both`)."
        )
