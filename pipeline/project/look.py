"""What a folder holds, before anything is written: clips with labels, or the sentence that says why it will not do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PosebridgeError, short
from pipeline.files.names import composed, is_folder
from pipeline.ingest.base import list_folder
from pipeline.ingest.ingest import nothing_found
from pipeline.ingest.own import read_own
from pipeline.project.labels import check_labels

PARTS = {"train", "training", "test", "testing", "val", "valid", "validation"}


@dataclass(frozen=True)
class Found:
    """The clips of a folder: how many, of which classes (sorted), and how many of them have no label."""

    root: Path
    clips: int
    classes: tuple[str, ...]
    unlabelled: int


def look(root: Path, labels: Path | None = None, pattern: str = "", project: Path = Path()) -> Found:
    """Look at a folder of videos, or of folders of images, as `ingest` will list it; only names are read.

    Raises PosebridgeError for a folder that holds a project, no video, or no label, and for labels that will not do.
    """
    if not is_folder(root):
        raise PosebridgeError(f"{root} is no folder; name the folder of your videos.")
    if project.resolve().is_relative_to(root.resolve()):
        raise PosebridgeError(f"{root} holds this project itself; name a folder that holds nothing but your videos.")
    folder = list_folder(root)
    if inner := next((path for path in folder.files if path.rpartition("/")[2] == "dvc.yaml"), ""):
        raise PosebridgeError(
            f"{root} holds another project ({inner}); name a folder that holds nothing but your videos."
        )
    listing = read_own(folder, labels, pattern)
    if not listing.entries:
        raise nothing_found("your own data set", folder, listing)
    named = [composed(entry.label) for entry in listing.entries if entry.label]
    classes = tuple(sorted(set(named)))
    if not classes:
        raise PosebridgeError(
            f"None of the {len(listing.entries)} videos in {root} has a label; put each into a sub-folder named after "
            "its action, or name a CSV of path,label with --labels, or say with --pattern where the label stands in "
            "the paths."
        )
    check_labels(classes)
    if not labels and not pattern and "labels.csv" not in folder.files:
        _check_folders(root, [entry.path for entry in listing.entries], classes)
    return Found(root, len(listing.entries), classes, len(listing.entries) - len(named))


def _check_folders(root: Path, paths: list[str], classes: tuple[str, ...]) -> None:
    """The first sub-folder is the label: raise PosebridgeError where it seems to be something else."""
    if {name.lower() for name in classes} <= PARTS:
        raise PosebridgeError(
            f"The sub-folders of {root} are {', '.join(classes)}, which are parts and no actions; say what the paths "
            "mean, for example --pattern '^(?P<part>train|test)/(?P<label>[^/]+)/'."
        )
    if len(classes) == 1 and any(path.rstrip("/").count("/") > 1 for path in paths):
        raise PosebridgeError(
            f"All videos in {root} lie in one sub-folder, {short(classes[0])}; name that one instead, if its own "
            "sub-folders are the actions."
        )
