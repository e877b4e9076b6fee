"""What `encode`, `train` and `evaluate` will need, looked up before anything is computed: all that is missing is told
at once, a line each with the command that makes it.

Reads what they read; writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch

from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError, all_missing
from pipeline.files.names import check_name, is_file
from pipeline.learn.dataset import Dataset
from pipeline.learn.run import Opened, open_run, skeletons_of
from pipeline.learn.trained import load_adaptation, load_encoder, load_method, model_folder
from pipeline.manifest.texts import read_texts, texts_path
from pipeline.manifest.variants import of_variant
from pipeline.methods import METHODS, find_adaptation, find_method, takes_cues
from pipeline.methods.base import Method, Shapes
from pipeline.params import RunParams
from pipeline.protocol.ceiling import ceilings, read_twins
from pipeline.protocol.splits import Split, read_split
from pipeline.text.bank import TextBank, load_bank
from pipeline.text.encoder import split_variant

T = TypeVar("T")
NAMED = 8  # classes of a line


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
        split = needs.get(read_split, folder, protocol, dataset.class_names)
        if split is not None:
            return split
    for path in (folder / f"{protocol}.txt", folder / f"{protocol}.val.txt"):
        if not is_file(path) and not any(str(path) in line for line in needs.missing):
            needs.missing.append(f"{path} is missing; list the classes in it, an `index name` line each.")
    return None


def need_parts(needs: Needs, dataset: Dataset, split: Split | None, part: str) -> None:
    """Clips of part `train` for every seen class, or of part `test` for every unseen one, listed in clips.csv."""
    if split is None or not dataset.clips:
        return
    kind, classes = ("seen", split.seen) if part == "train" else ("unseen", split.unseen)
    there = {clip.label for clip in dataset.clips if clip.part == part}
    if lacking := [split.class_names[label] for label in classes if label not in there]:
        needs.missing.append(
            f"{dataset.folder / 'clips.csv'}: {_classes(lacking)} no clip of part `{part}`, but {split.protocol} needs "
            f"some of every {kind} class; write the column `part`."
        )


def need_extraction(needs: Needs, dataset: Dataset, recipe: str, split: Split | None) -> CacheReader | None:
    """An extraction, with train clips of every seen class in it."""
    reader = needs.get(dataset.reader, recipe)
    if reader is None or split is None:
        return reader
    there = set(reader.clip_ids)
    train = [clip for clip in dataset.clips if clip.part == "train"]
    listed = {clip.label for clip in train}
    extracted = {clip.label for clip in train if clip.clip_id in there}
    lacking = [split.class_names[c] for c in split.seen if c in listed and c not in extracted]
    if lacking:
        needs.missing.append(
            f"The extraction by {recipe} holds no train clip of {_names(lacking)}; run `posebridge extract --dataset "
            f"{dataset.name} --recipe {recipe} --retry-failed`."
        )
    return reader


def need_run(
    needs: Needs, dataset: Dataset, protocol: str, run: RunParams, split: Split | None, variants: Sequence[str] = ()
) -> Opened | None:
    """Everything that `open_run` opens, every text that the run asks for, and its extractions of `variants`.

    None where something of it is missing.
    """
    reads_cues = needs.get(takes_cues, run.method, run.flags)
    skeletons = skeletons_of(run)
    recipes = dict.fromkeys([skeletons, run.recipe] if reads_cues else [skeletons])
    readers = [need_extraction(needs, dataset, recipe, split) for recipe in recipes]
    for variant in filter(None, variants):
        for recipe in recipes:
            needs.get(dataset.reader, of_variant(recipe, variant))
    bank = None
    if dataset.class_names:
        bank = needs.get(load_bank, dataset.name, run.text, dataset.class_names, dataset.cache, dataset.folder)
    opened = None
    if split and bank and reads_cues is not None and None not in readers:
        opened = needs.get(open_run, dataset, protocol, run)
    if reads_cues is not None:
        method = needs.get(_any_method, run, opened)
        if split and method is not None:
            need_texts(needs, dataset, run, split, method, bank)
    return opened


def need_texts(
    needs: Needs, dataset: Dataset, run: RunParams, split: Split, method: Method, bank: TextBank | None
) -> None:
    """The method's text slots of every class, in the bank, or in texts.csv where there is no bank yet; and the slots
    whose words it reads, of every seen class.
    """
    path, names = texts_path(dataset.folder, split_variant(run.text)[1]), split.class_names
    found = needs.get(read_texts, path, names) if bank is None or method.word_slots else None
    words = None if found is None else set(found[1])
    vectors = words
    if bank is not None:
        vectors = {(c, slot) for k, slot in enumerate(bank.slots) for c in range(len(names)) if bank.mask[c, k]}
    remedy = f"add it to {path} and run `posebridge text --dataset {dataset.name} --encoder {run.text}`."
    everyone = range(len(names))
    for slots, classes, there in ((method.text_slots, everyone, vectors), (method.word_slots, split.seen, words)):
        if there is None:  # the file is missing
            continue
        for slot in slots:
            lacking = [names[c] for c in classes if (c, slot) not in there]
            if len(lacking) == len(classes):
                known = ", ".join(sorted({slot for _, slot in there})) or "none"
                needs.missing.append(f"The texts have no slot {slot!r}, but {known}; {remedy}")
            elif lacking:
                needs.missing.append(f"The {_classes(lacking)} no text in the slot {slot!r}; {remedy}")


def need_encoders(
    needs: Needs, dataset: Dataset, split: Split | None, protocol: str, run: RunParams, seeds: Sequence[int],
    phases: Sequence[str],
) -> None:  # fmt: skip
    """The skeleton encoders below the run's method, if it has none of its own."""
    if run.method in METHODS and not find_method(run.method).end_to_end:
        comparable = split is not None and bool(dataset.clips)
        for seed in seeds:
            for phase in phases:
                needs.get(load_encoder, dataset, protocol, skeletons_of(run), seed, phase, comparable)


def need_methods(
    needs: Needs, opened: Opened | None, dataset: Dataset, protocol: str, run_name: str, run: RunParams,
    seeds: Sequence[int],
) -> None:  # fmt: skip
    """What `train` made of the seeds; only whether it is there where the run could not be opened."""
    for seed in seeds:
        if opened is not None and dataset.clips:
            loaded = needs.get(load_method, opened, protocol, run_name, seed)
            if loaded and run.adapt and opened.split.unseen:
                needs.get(load_adaptation, run.adapt, *loaded)
            continue
        path = model_folder(dataset.cache, dataset.name, protocol, run_name) / f"seed-{seed}" / "final.safetensors"
        if not path.is_file():
            command = f"posebridge train --dataset {dataset.name} --protocol {protocol} --run {run_name}"
            needs.missing.append(f"{path} is missing; run `{command}`.")


def need_ceiling(needs: Needs, dataset: Dataset, split: Split | None) -> None:
    """Attributes and twins, where there are such files: they are read when all else is done."""
    attributes, twins = dataset.folder / "attributes.csv", dataset.cache / "videos" / dataset.name / "twins.csv"
    if split is not None and split.unseen and attributes.is_file():
        needs.get(ceilings, attributes, split.unseen, dict.fromkeys(split.unseen, 1))
    if twins.is_file():
        needs.get(read_twins, twins)


def _any_method(run: RunParams, opened: Opened | None) -> Method:
    """A method of the run, to ask it for its text slots; where nothing is opened, of made-up shapes that its flags fit.

    Raises PosebridgeError for flags that cannot be and for an adaptation that does not suit the method.
    """
    flags = run.flags
    lists = [flags[name] if isinstance(flags.get(name), list | tuple) else () for name in ("anchors", "level_widths")]
    anchors = tuple(lists[0]) or ("body", "left_hand", "right_hand")
    shapes = Shapes(384, 2, 1, anchors, sum(width for width in lists[1] if isinstance(width, int)) or 8)
    with torch.random.fork_rng(devices=[]):
        method = opened.method(len(opened.split.seen)) if opened else find_method(run.method)(shapes, 2, flags)
        if run.adapt:
            find_adaptation(run.adapt)(method)
    return method


def _classes(names: Sequence[str]) -> str:
    """`class 'a' has`, `classes 'a', 'b' have`."""
    return f"class {_names(names)} has" if len(names) == 1 else f"classes {_names(names)} have"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(repr(name) for name in names[:NAMED]) + more
