"""What `encode`, `train` and `evaluate` will all need, looked up before anything is computed.

All that is missing is told at once, a line each with the command that makes it. Reads what they read; writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from pipeline.cache.imported import clips_path
from pipeline.cache.index import index_path
from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError, all_missing, some_names
from pipeline.files.names import check_name, is_file
from pipeline.learn.dataset import Dataset
from pipeline.protocol.splits import Split

T = TypeVar("T")
NAMED = 8  # classes of a line
IMPORT = "posebridge cache import-features FILE"


class Needs:
    """Gathers what is missing. `known` are sentences on what was found missing before."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self.missing = list(known)

    def get(self, opening: Callable[..., T], *arguments: object) -> T | None:
        """What `opening` returns; None where it raises a PosebridgeError, which is noted."""
        try:
            return opening(*arguments)
        except PosebridgeError as error:
            self.missing.append(str(error))
            return None

    def require(self) -> None:
        """Raise PosebridgeError with everything that was noted, each sentence once."""
        if self.missing:
            raise all_missing(self.missing)


def need_split(needs: Needs, dataset: Dataset, protocol: str) -> Split | None:
    """Both files of the protocol. None too where the class list is not known. Raises PosebridgeError for no name."""
    check_name(protocol, "protocol")
    folder = dataset.folder / "protocols"
    if dataset.class_names:
        split = needs.get(dataset.split, protocol)
        if split is not None:
            return split
    for path in (folder / f"{protocol}.txt", folder / f"{protocol}.val.txt"):
        if not is_file(path) and not any(str(path) in line for line in needs.missing):
            needs.missing.append(f"{path} is missing; list the classes in it, an `index name` line each.")
    return None


def need_parts(needs: Needs, dataset: Dataset, split: Split | None, part: str, skeletons: str) -> None:
    """Clips of part `train` for every seen class, or of part `test` for every unseen one, listed in clips.csv, or
    beside the index where the recipe `skeletons` is one of imported features.
    """
    if split is None or not dataset.clips:
        return
    kind, classes = ("seen", split.seen) if part == "train" else ("unseen", split.unseen)
    there = {clip.label for clip in dataset.clips if (clip.trains if part == "train" else clip.tests)}
    name = dataset.trains_on if part == "train" else dataset.name
    listed, remedy = dataset.manifests / name / "clips.csv", "write the column `part`"
    if is_file(imported := clips_path(index_path(dataset.cache, dataset.name, skeletons))):
        command = f"`{IMPORT} --dataset {dataset.name} --protocol {split.protocol} --recipe NAME`"
        listed, remedy = imported, f"import the features of that protocol under another name by {command}"
    if lacking := [split.class_names[label] for label in classes if label not in there]:
        needs.missing.append(
            f"{listed}: {classes_have(lacking)} no clip of part `{part}`, but {split.protocol} needs some of every "
            f"{kind} class; {remedy}."
        )


def need_extraction(needs: Needs, dataset: Dataset, recipe: str, split: Split | None) -> CacheReader | None:
    """An extraction, with train clips of every seen class in it."""
    reader = needs.get(dataset.reader, recipe)
    if reader is None or split is None:
        return reader
    there = set(reader.clip_ids)
    train = [clip for clip in dataset.clips if clip.trains]
    listed = {clip.label for clip in train}
    extracted = {clip.label for clip in train if clip.clip_id in there}
    lacking = [split.class_names[c] for c in split.seen if c in listed and c not in extracted]
    if lacking:
        recipe = dataset.trained_by(recipe)
        remedy = f"run `posebridge extract --dataset {dataset.trains_on} --recipe {recipe} --retry-failed`"
        if reader.recipe.backend == "features":
            command = f"{IMPORT} --dataset {dataset.name} --protocol {split.protocol} --recipe {recipe}"
            remedy = f"import a file that has some, too, by `{command}`"
        told = some_names(lacking, NAMED)
        needs.missing.append(f"The extraction by {recipe} holds no train clip of {told}; {remedy}.")
    return reader


def is_imported(dataset: Dataset, recipe: str) -> bool:
    """Whether an extraction that is there holds features of an encoder of others."""
    try:
        return dataset.reader(recipe).recipe.backend == "features"
    except PosebridgeError:
        return False  # which has been noted


def classes_have(names: Sequence[str]) -> str:
    """`class 'a' has`, `classes 'a', 'b' have`."""
    told = some_names(names, NAMED)
    return f"class {told} has" if len(names) == 1 else f"classes {told} have"
