"""Opening what stage two reads: classes, clips, a protocol, extractions, labels.

Reads manifests/<dataset>/{classes,clips}.csv, protocols/, cache/<dataset>/<recipe>/index.json; writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from pipeline.cache.imported import clips_path
from pipeline.cache.index import index_path
from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError, all_missing
from pipeline.files.names import is_file
from pipeline.files.shipped import dataset_file, dataset_folder
from pipeline.manifest.clips import MOST_CLASSES, Clip, read_classes, read_clips
from pipeline.manifest.texts import read_texts, texts_path
from pipeline.protocol.exposure import require_unexposed
from pipeline.protocol.guards import require_disjoint_sources
from pipeline.protocol.splits import Split, read_split
from pipeline.protocol.training_set import Phase
from pipeline.text.bank import TextBank, bank_path, load_bank
from pipeline.text.encoder import split_variant

T = TypeVar("T")


@dataclass(frozen=True)
class Dataset:
    """A data set's people-written files, read and checked."""

    name: str
    manifests: Path
    cache: Path
    class_names: tuple[str, ...]
    clips: tuple[Clip, ...]
    store_root: Path | None = field(default=None, kw_only=True)  # where the stores lie, if not in <cache>/store
    missing: tuple[str, ...] = field(default=(), kw_only=True)  # what could not be read, if opened all the same
    verify: bool = field(default=True, kw_only=True)  # compare what is read of shards with their checksums
    _read: dict[tuple[str, str], tuple[Any, Any]] = field(default_factory=dict, kw_only=True, repr=False, compare=False)

    @property
    def folder(self) -> Path:
        """manifests/<dataset>, or the folder that ships."""
        return dataset_folder(self.manifests, self.name)

    @property
    def twins(self) -> Path:
        """Where a generated data set names the clips that are twins of one another; others have no such file."""
        return self.cache / "videos" / self.name / "twins.csv"

    def split(self, protocol: str) -> Split:
        """The protocol of this name; raises PosebridgeError as `read_split` does, and for one that trains on another
        data set: `under` of across.py opens both.
        """
        split = read_split(self.folder / "protocols", protocol, self.class_names)
        if split.trains_on:
            raise PosebridgeError(
                f"The protocol {protocol} of {self.name} trains on {split.trains_on}, which this command cannot; "
                "choose another protocol. Those that can are `encode`, `train` and `evaluate`."
            )
        return split

    def bank(self, encoder: str) -> TextBank:
        """The vectors of its texts; raises PosebridgeError as `load_bank` does."""
        sources = bank_path(self.name, encoder, self.cache), texts_path(self.folder, split_variant(encoder)[1])
        return self._once(
            ("bank", encoder), sources,
            lambda: load_bank(self.name, encoder, self.class_names, self.cache, self.folder),
        )  # fmt: skip

    def texts(self, variant: str) -> tuple[tuple[str, ...], dict[tuple[int, str], str]]:
        """Its texts, or an imported variant of them; raises PosebridgeError as `read_texts` does."""
        path = texts_path(self.folder, variant)
        return self._once(("texts", variant), (path,), lambda: read_texts(path, self.class_names))

    def _once(self, what: tuple[str, str], sources: tuple[Path, ...], read: Callable[[], T]) -> T:
        """What `read` returns, as long as these files stay as they are."""
        stamps = [path.stat() if is_file(path) else None for path in sources]
        state = self.name, self.class_names, *(stamp and (stamp.st_mtime_ns, stamp.st_size) for stamp in stamps)
        if self._read.get(what, (None,))[0] != state:
            self._read[what] = state, read()
        return self._read[what][1]  # type: ignore[no-any-return]

    def require_unexposed(self, said: str, recipe: str, split: Split) -> None:
        """Raise PosebridgeError where pose weights have seen texts that `split` keeps from training."""
        require_unexposed(said, recipe, self.name, split, self.split)

    @property
    def trains_on(self) -> str:
        """The data set that its train clips come from."""
        return self.name

    def trained_by(self, recipe: str) -> str:
        """The recipe of its train clips where `recipe` may name two."""
        return recipe

    @property
    def told(self) -> dict[str, object]:
        """What metrics.json is to tell of a data set that trains on another one."""
        return {}

    def of(self, recipe: str) -> Dataset:
        """This data set with the clips of imported features, which their index has beside it; any other recipe's clips
        are those of clips.csv.
        """
        listed = clips_path(index_path(self.cache, self.name, recipe))
        if not is_file(listed):
            return self
        missing = [line for line in self.missing if "clips.csv" not in line]
        clips: tuple[Clip, ...] = ()
        try:
            clips = tuple(read_clips(listed, len(self.class_names) or MOST_CLASSES))
        except PosebridgeError as error:
            missing.append(str(error))
        return replace(self, clips=clips, missing=tuple(missing))

    def reader(self, recipe: str) -> CacheReader:
        """The extraction by this recipe; raises PosebridgeError naming the command that makes it."""
        return CacheReader(index_path(self.cache, self.name, recipe), self.store_root, self.verify)


def open_dataset(
    name: str,
    manifests: Path = Path("manifests"),
    cache: Path = Path("cache"),
    store_root: Path | None = None,
    strict: bool = True,
    verify: bool = True,
) -> Dataset:
    """Read classes and clips. Raises PosebridgeError for missing files, and for one source video in both train and
    test; where not `strict`, notes them in `missing` instead, for whoever looks for all that is missing.
    """
    folder = dataset_folder(manifests, name)
    if not folder.is_dir():  # all the rest would be missing, too
        raise PosebridgeError(
            f"There is no data set {name!r}: {folder} is missing; write {folder / 'classes.csv'} and run `posebridge "
            f"ingest --dataset {name}`."
        )
    classes: list[str] = []
    clips: list[Clip] = []
    missing: list[str] = []
    try:
        classes = read_classes(folder / "classes.csv")
        if not classes:
            raise PosebridgeError(f"{folder / 'classes.csv'} lists no class; write a row `index,name` for each.")
    except PosebridgeError as error:
        missing.append(str(error))
    try:
        clips = read_clips(dataset_file(manifests, name, "clips.csv"), len(classes) or MOST_CLASSES)
        require_disjoint_sources(clips)
    except PosebridgeError as error:
        missing.append(str(error))
    if missing and strict:
        raise all_missing(missing)
    return Dataset(
        name,
        manifests,
        cache,
        tuple(classes),
        tuple(clips),
        store_root=store_root,
        verify=verify,
        missing=tuple(missing),
    )


def label_rows(clips: Iterable[Clip], clip_ids: Sequence[str], classes: Sequence[int]) -> Tensor:
    """Where each clip's class stands in `classes`: [N] int64."""
    column = {label: place for place, label in enumerate(classes)}
    label = {clip.clip_id: clip.label for clip in clips if clip.label is not None}
    return torch.tensor([column[label[clip_id]] for clip_id in clip_ids], dtype=torch.long)


def train_labels(phase: Phase, clip_ids: Sequence[str], class_names: Sequence[str]) -> Tensor:
    """Where the classes of the train clips `clip_ids` stand in the phase's: [N] int64.

    Raises PosebridgeError for a class of which none is among them: it would be learnt from nothing.
    """
    labels = label_rows(phase.train, clip_ids, phase.classes)
    learnt = set(labels.tolist())
    if lacking := [class_names[label] for row, label in enumerate(phase.classes) if row not in learnt]:
        raise PosebridgeError(
            f"No clip of {lacking[0]!r} that the phase {phase.name!r} trains on was extracted; run `posebridge "
            "extract` with --retry-failed."
        )
    return labels
