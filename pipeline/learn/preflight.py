"""What a run needs beside what needs.py looks up: texts, encoders, methods, and what its test reads.

Reads what `train` and `evaluate` read; writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import compress

import torch

from pipeline.learn.dataset import Dataset
from pipeline.learn.encoders import load_encoder
from pipeline.learn.needs import Needs, classes_have, is_imported, need_extraction
from pipeline.learn.run import Opened, open_run, skeletons_of
from pipeline.learn.trained import load_adaptation, load_method, place_of_method
from pipeline.manifest.texts import texts_path
from pipeline.manifest.variants import of_variant
from pipeline.methods import METHODS, find_adaptation, find_method, takes_cues
from pipeline.methods.base import Method, Shapes
from pipeline.params import RunParams
from pipeline.protocol.ceiling import ceilings, read_twins
from pipeline.protocol.splits import Split
from pipeline.recipe import VIEWS
from pipeline.text.bank import TextBank
from pipeline.text.encoder import split_variant


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
        bank = needs.get(dataset.bank, run.text)
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
    variant, names = split_variant(run.text)[1], split.class_names
    path = texts_path(dataset.folder, variant)
    found = needs.get(dataset.texts, variant) if bank is None or method.word_slots else None
    words = None if found is None else set(found[1])
    vectors = words
    if bank is not None:
        vectors = {(c, slot) for c, has in enumerate(bank.mask.tolist()) for slot in compress(bank.slots, has)}
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
                needs.missing.append(f"The {classes_have(lacking)} no text in the slot {slot!r}; {remedy}")


def need_encoders(
    needs: Needs, dataset: Dataset, split: Split | None, protocol: str, run: RunParams, seeds: Sequence[int],
    phases: Sequence[str],
) -> None:  # fmt: skip
    """The skeleton encoders below the run's method, if it has none of its own and reads no imported features."""
    if is_imported(dataset, skeletons_of(run)):
        return
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
        if opened is None or not dataset.clips:
            needs.get(place_of_method, dataset, protocol, run_name, seed)
            continue
        loaded = needs.get(load_method, opened, protocol, run_name, seed)
        if loaded and run.adapt and opened.split.unseen:
            needs.get(load_adaptation, run.adapt, *loaded)


def need_ceiling(needs: Needs, dataset: Dataset, split: Split | None) -> None:
    """Attributes and twins, where there are such files: they are read when all else is done."""
    attributes = dataset.folder / "attributes.csv"
    if split is not None and split.unseen and attributes.is_file():
        needs.get(ceilings, attributes, split.unseen, dict.fromkeys(split.unseen, 1))
    if dataset.twins.is_file():
        needs.get(read_twins, dataset.twins)


def _any_method(run: RunParams, opened: Opened | None) -> Method:
    """A method of the run, to ask it for its text slots; where nothing is opened, of made-up shapes that its flags fit.

    Raises PosebridgeError for flags that cannot be and for an adaptation that does not suit the method.
    """
    flags, kind = run.flags, find_method(run.method)
    lists = [flags[name] if isinstance(flags.get(name), list | tuple) else () for name in ("anchors", "level_widths")]
    anchors = tuple(lists[0]) or ("body", "left_hand", "right_hand")
    shapes = Shapes(384, 2, 1, anchors, sum(width for width in lists[1] if isinstance(width, int)) or 8)
    if kind.one_model:
        shapes = replace(shapes, anchors=VIEWS, d_cue=384)
    with torch.random.fork_rng(devices=[]):
        method = opened.method(len(opened.split.seen)) if opened else kind(shapes, 2, flags)
        if run.adapt:
            find_adaptation(run.adapt)(method)
    return method
