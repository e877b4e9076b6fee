"""The text bank: every description slot of every class as a vector.

Reads manifests/<dataset>/texts.csv (`index,slot,text`) and classes.csv, writes cache/text/<encoder>/<dataset>.h5.
Command: posebridge text --dataset skelgap-mini
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from pipeline.durable import write_for_people
from pipeline.errors import PosebridgeError
from pipeline.hdf5 import hdf5_bytes
from pipeline.manifest import read_classes
from pipeline.text.encoder import SentenceEncoder, encoder_slug

SCHEMA = 1


@dataclass(frozen=True)
class TextBank:
    """Embeddings of C classes in K slots. A slot that a class does not have is a zero vector and False in `mask`."""

    embeddings: Tensor  # [C, K, d_t] float32, L2-normalised
    mask: Tensor  # [C, K] bool
    slots: tuple[str, ...]
    class_names: tuple[str, ...]
    encoder: str
    encoder_sha256: str

    def take(self, classes: Sequence[int], slots: Sequence[str]) -> Tensor:
        """The chosen slots of the chosen classes and of no other: [len(classes), len(slots), d_t] float32.

        Raises PosebridgeError for an unknown slot, or for one that a class lacks.
        """
        for slot in slots:
            if slot not in self.slots:
                raise PosebridgeError(f"The text bank has no slot {slot!r}; it has {', '.join(self.slots)}.")
        columns = [self.slots.index(slot) for slot in slots]
        missing = ~self.mask[list(classes)][:, columns]  # [U, k]
        if bool(missing.any()):
            row, column = (int(i) for i in missing.nonzero()[0])
            name = self.class_names[classes[row]]
            raise PosebridgeError(
                f"Class {name!r} has no text in the slot {slots[column]!r}; add it to texts.csv and run "
                f"`posebridge text`."
            )
        return self.embeddings[list(classes)][:, columns]


def read_texts(
    path: Path, class_names: Sequence[str], need_labels: bool = True
) -> tuple[tuple[str, ...], dict[tuple[int, str], str]]:
    """Slots in order of appearance, and text by (class index, slot).

    Every class needs the slot `label` (unless `need_labels` is off); other slots may be left out, but not left empty.
    Raises PosebridgeError naming class and slot.
    """
    if not path.is_file():
        raise PosebridgeError(
            f"{path} is missing; write it as `index,slot,text`, at least the slot `label` for every class."
        )
    texts: dict[tuple[int, str], str] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if missing := {"index", "slot", "text"} - set(reader.fieldnames or ()):
            raise PosebridgeError(
                f"{path} lacks the column {sorted(missing)[0]}; its header should be index,slot,text."
            )
        for line, row in enumerate(reader, start=2):
            index, slot, text = row["index"] or "", row["slot"] or "", (row["text"] or "").strip()
            if not index.isdigit() or int(index) >= len(class_names):
                raise PosebridgeError(
                    f"{path}, line {line}: {index!r} is not an index of classes.csv (0 to {len(class_names) - 1})."
                )
            name = class_names[int(index)]
            if not text:
                raise PosebridgeError(
                    f"{path}, line {line}: class {name!r} has an empty text in the slot {slot!r}; "
                    f"write it or drop the row."
                )
            if (int(index), slot) in texts:
                raise PosebridgeError(f"{path}, line {line}: class {name!r} has the slot {slot!r} twice; keep one.")
            texts[int(index), slot] = text
    for index, name in enumerate(class_names):
        if need_labels and (index, "label") not in texts:
            raise PosebridgeError(f"{path}: class {name!r} has no text in the slot 'label'; add a row.")
    return tuple(dict.fromkeys(slot for _, slot in texts)), texts


def make_bank(
    dataset: str, encoder: str = "minilm", manifests: Path = Path("manifests"), cache: Path = Path("cache")
) -> Path:
    """Embed every text of a dataset and write its bank; returns the file's path.

    `encoder` may end in `@<variant>`: then the texts are those of texts.<variant>.csv, and the bank is one of its own.
    """
    folder = manifests / dataset
    class_names = read_classes(folder / "classes.csv")
    name, _, variant = encoder.partition("@")
    slots, texts = read_texts(texts_path(folder, variant), class_names)
    model = SentenceEncoder(name)
    vectors = model.encode(list(texts.values()))  # [N, d_t]
    embeddings = np.zeros((len(class_names), len(slots), vectors.shape[1]), np.float32)
    mask = np.zeros(embeddings.shape[:2], bool)
    for (index, slot), vector in zip(texts, vectors, strict=True):
        embeddings[index, slots.index(slot)] = vector
        mask[index, slots.index(slot)] = True

    strings = h5py.string_dtype()

    def fill(file: h5py.File) -> None:
        file.attrs.update(schema=SCHEMA, dataset=dataset, encoder=encoder_slug(encoder), encoder_sha256=model.sha256)
        file.create_dataset("embeddings", data=embeddings).attrs["axes"] = "class, slot, dimension"
        file["mask"] = mask
        file.create_dataset("slots", data=list(slots), dtype=strings)
        file.create_dataset("class_names", data=class_names, dtype=strings)

    path = bank_path(dataset, encoder, cache)
    write_for_people(path, hdf5_bytes(fill))
    return path


def texts_path(folder: Path, variant: str = "") -> Path:
    """The texts of a dataset in manifests/<dataset>: ours, or an imported variant."""
    return folder / (f"texts.{variant}.csv" if variant else "texts.csv")


def bank_path(dataset: str, encoder: str, cache: Path = Path("cache")) -> Path:
    """Where the bank of (dataset, encoder) lies."""
    return cache / "text" / encoder_slug(encoder) / f"{dataset}.h5"


def load_bank(dataset: str, encoder: str, class_names: Sequence[str], cache: Path = Path("cache")) -> TextBank:
    """Read a bank. Raises PosebridgeError if it is missing or was made of another class list."""
    path = bank_path(dataset, encoder, cache)
    remedy = f"run `posebridge text --dataset {dataset} --encoder {encoder}`"
    if not path.is_file():
        raise PosebridgeError(f"{path} is missing; {remedy}.")
    with h5py.File(path, "r") as file:
        if file.attrs.get("schema") != SCHEMA:
            raise PosebridgeError(f"{path} has another schema; {remedy}.")
        bank = TextBank(
            embeddings=torch.from_numpy(file["embeddings"][()]),
            mask=torch.from_numpy(file["mask"][()]),
            slots=tuple(file["slots"].asstr()[()]),
            class_names=tuple(file["class_names"].asstr()[()]),
            encoder=str(file.attrs["encoder"]),
            encoder_sha256=str(file.attrs["encoder_sha256"]),
        )
    if list(bank.class_names) != list(class_names):
        raise PosebridgeError(f"{path} was made of another classes.csv; {remedy}.")
    return bank
