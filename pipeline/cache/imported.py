"""What stands beside the index of imported features: their clips, which are in no other list, and what they were made
with.

Features come from an encoder that was trained for one protocol, often without names of clips. So their clips are listed
here, and not in manifests/, and only protocols may use them that leave no class unseen which the encoder has learnt.
Reads and writes cache/<dataset>/<recipe>/{clips.csv,imported.json}.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from pipeline.cache.sealed import read_sealed, seal, typed
from pipeline.cache.store import Sha256
from pipeline.errors import PosebridgeError
from pipeline.files.durable import make_folder, write_durably
from pipeline.files.hashing import sha256_file
from pipeline.files.names import is_file
from pipeline.manifest.clips import Clip, write_clips
from pipeline.recipe import Recipe

CLIPS, NOTE = "clips.csv", "imported.json"


@dataclass(frozen=True)
class Note:
    """imported.json."""

    of: Sha256  # the fingerprint of the extraction
    clips_sha256: Sha256  # of clips.csv
    protocol: str
    learnt: list[int]  # the classes that the encoder was trained on
    sources: dict[str, str]  # file -> sha256


NOTES = TypeAdapter(Note)


def clips_path(index: Path) -> Path:
    """The list of clips beside an index, which only imported features have."""
    return index.with_name(CLIPS)


def list_of_clips(index: Path, folder: Path) -> Path:
    """Where an extraction's clips are listed: beside its index those of imported features, else in the data set's
    `folder` of manifests/.
    """
    listed = clips_path(index)
    return listed if is_file(listed) else folder / CLIPS


def require_no_import(index: Path) -> None:
    """Raise PosebridgeError where an extraction is to take the name of imported features, whose list of clips would be
    read as its own.
    """
    if is_file(clips_path(index)):
        raise PosebridgeError(
            f"{index.parent} holds imported features; give the recipe another name, or delete that folder."
        )


def require_skeletons(index: Path, recipe: Recipe) -> None:
    """Raise PosebridgeError where imported features are to be exported, whose file says all that they are."""
    if recipe.backend == "features":
        raise PosebridgeError(f"{index.parent} holds imported features; hand on the file that was imported.")


def require_no_extraction(index: Path) -> None:
    """Raise PosebridgeError where imported features are to take the name of an extraction, and its place."""
    if is_file(index) and not is_file(clips_path(index)):
        raise PosebridgeError(
            f"{index.parent} holds an extraction; choose another name with --recipe, or delete that folder."
        )


def note_import(
    index: Path, clips: Sequence[Clip], fingerprint: str, protocol: str, learnt: Sequence[int], sources: dict[str, str]
) -> None:
    """Write both files. Raises PosebridgeError where the disk does not take them."""
    make_folder(index.parent)
    write_clips(clips_path(index), clips)
    note = Note(fingerprint, sha256_file(clips_path(index)), protocol, list(learnt), sources)
    write_durably(index.with_name(NOTE), json.dumps(seal(asdict(note)), indent=1).encode() + b"\n")


def require_unlearnt(
    index: Path, fingerprint: str, protocol: str, unseen: Sequence[int], class_names: Sequence[str]
) -> None:
    """Raise PosebridgeError where a class that is unseen in a protocol has been learnt by the encoder of these imported
    features, and where list, note and extraction are not of one import.
    """
    path = index.with_name(NOTE)
    again = f"run `posebridge cache import-features` again for {index.parent}"
    note = typed(NOTES, read_sealed(path, again), path, again)
    listed = clips_path(index)
    if note.of != fingerprint or not is_file(listed) or sha256_file(listed) != note.clips_sha256:
        raise PosebridgeError(f"{path}, the list of clips and the index beside it are not of one import; {again}.")
    if learnt := [class_names[c] for c in unseen if c in note.learnt]:
        raise PosebridgeError(
            f"The features of {index.parent} come from an encoder that was trained for {note.protocol} and has learnt "
            f"{learnt[0]!r} (of {len(learnt)} classes that are unseen in {protocol}): a leak; import features of "
            f"{protocol}'s own encoder."
        )
