"""The text bank: every description slot of every class as a vector.

Reads manifests/<dataset>/texts.csv (`index,slot,text`) and classes.csv, writes cache/text/<encoder>/<dataset>.h5.
Command: posebridge text --dataset skelgap-mini
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from pipeline.cache.sealed import canonical_json
from pipeline.errors import PosebridgeError
from pipeline.files.device import CPU
from pipeline.files.durable import write_for_people
from pipeline.files.hdf5 import hdf5_bytes
from pipeline.files.names import check_name, is_file
from pipeline.files.shipped import dataset_folder
from pipeline.manifest.clips import read_classes
from pipeline.manifest.texts import read_texts, texts_path
from pipeline.text.encoder import SentenceEncoder, encoder_slug, split_variant

SCHEMA = 2
MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class TextBank:
    """Embeddings of C classes in K slots. A slot that a class does not have is a zero vector and False in `mask`.

    `texts_sha256` is of the class names and texts that it was made of, empty where nobody cares.
    """

    embeddings: Tensor  # [C, K, d_t] float32, L2-normalised
    mask: Tensor  # [C, K] bool
    slots: tuple[str, ...]
    class_names: tuple[str, ...]
    encoder: str
    encoder_sha256: str
    texts_sha256: str = ""

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


class BankedEncoder:
    """A sentence encoder that looks up what a bank of its own has already, sentence by sentence."""

    def __init__(self, encoder: SentenceEncoder, known: Mapping[str, np.ndarray]) -> None:
        self.sha256, self._encoder, self._known = encoder.sha256, encoder, known

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """As `SentenceEncoder.encode`."""
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        vectors = {**self._known, **(dict(zip(new, self._encoder.encode(new), strict=True)) if new else {})}
        return np.stack([vectors[text] for text in texts])


def banked(encoder: SentenceEncoder, bank: TextBank, folder: Path) -> BankedEncoder | SentenceEncoder:
    """The encoder beside the bank of manifests/<dataset>, `folder`; itself where another one made the bank, or where
    nobody knows of which texts.
    """
    if bank.encoder_sha256 != encoder.sha256 or not bank.texts_sha256:
        return encoder
    texts = read_texts(texts_path(folder, split_variant(bank.encoder)[1]), bank.class_names)[1]
    rows = ((text, index, bank.slots.index(slot)) for (index, slot), text in texts.items())
    return BankedEncoder(encoder, {text: bank.embeddings[index, slot].numpy() for text, index, slot in rows})


def make_bank(
    dataset: str, encoder: str = "minilm", manifests: Path = Path("manifests"), cache: Path = Path("cache"),
    device: torch.device = CPU,
) -> Path:  # fmt: skip
    """Embed every text of a dataset, on `device`, and write its bank; returns the file's path.

    `encoder` may end in `@<variant>`: then the texts are those of texts.<variant>.csv, and the bank is one of its own.
    """
    folder = dataset_folder(manifests, dataset)
    class_names = read_classes(folder / "classes.csv")
    name, variant = split_variant(encoder)
    slots, texts = read_texts(texts_path(folder, variant), class_names)
    model = SentenceEncoder(name, device)
    vectors = model.encode(list(texts.values()))  # [N, d_t]
    embeddings = np.zeros((len(class_names), len(slots), vectors.shape[1]), np.float32)
    mask = np.zeros(embeddings.shape[:2], bool)
    for (index, slot), vector in zip(texts, vectors, strict=True):
        embeddings[index, slots.index(slot)] = vector
        mask[index, slots.index(slot)] = True

    bank = TextBank(
        torch.from_numpy(embeddings), torch.from_numpy(mask), slots, tuple(class_names), encoder, model.sha256,
        _sources(class_names, texts),
    )  # fmt: skip
    return save_bank(bank, dataset, cache)


def save_bank(bank: TextBank, dataset: str, cache: Path) -> Path:
    """Write a bank; returns the file's path."""
    embeddings, mask, strings = bank.embeddings.numpy(), bank.mask.numpy(), h5py.string_dtype()

    def fill(file: h5py.File) -> None:
        file.attrs.update(schema=SCHEMA, dataset=dataset, encoder=bank.encoder, encoder_sha256=bank.encoder_sha256)
        file.attrs.update(sources_sha256=bank.texts_sha256, sha256=_content(embeddings, mask))
        file.create_dataset("embeddings", data=embeddings).attrs["axes"] = "class, slot, dimension"
        file["mask"] = mask
        file.create_dataset("slots", data=list(bank.slots), dtype=strings)
        file.create_dataset("class_names", data=list(bank.class_names), dtype=strings)

    path = bank_path(dataset, bank.encoder, cache)
    write_for_people(path, hdf5_bytes(fill))
    return path


def bank_path(dataset: str, encoder: str, cache: Path = Path("cache")) -> Path:
    """Where the bank of (dataset, encoder) lies."""
    return cache / "text" / encoder_slug(encoder) / f"{check_name(dataset, 'data set')}.h5"


def load_bank(
    dataset: str, encoder: str, class_names: Sequence[str], cache: Path = Path("cache"), folder: Path | None = None
) -> TextBank:
    """Read a bank; `folder` is manifests/<dataset>, whose texts it is compared with.

    Raises PosebridgeError if it is missing or damaged, of another encoder, or was made of other classes or texts.
    """
    path = bank_path(dataset, encoder, cache)
    remedy = f"run `posebridge text --dataset {dataset} --encoder {encoder}`"
    if not is_file(path):
        raise PosebridgeError(f"{path} is missing; {remedy}.")
    try:
        bank, schema, sound = _read(path)
    except Exception as error:  # damaged structures come out of HDF5 as errors of many classes
        raise PosebridgeError(f"{path} is damaged or no text bank ({type(error).__name__}); {remedy}.") from None
    if schema != SCHEMA:
        raise PosebridgeError(f"{path} has another schema; {remedy}.")
    if not sound:
        raise PosebridgeError(f"{path} is damaged: its vectors are not those that were written; {remedy}.")
    if bank.encoder != encoder:
        raise PosebridgeError(f"{path} was made by the encoder {bank.encoder!r}, not {encoder!r}; {remedy}.")
    if list(bank.class_names) != list(class_names):
        raise PosebridgeError(f"{path} was made of another classes.csv; {remedy}.")
    texts = texts_path(folder, split_variant(encoder)[1]) if folder else None
    made_of = bank.texts_sha256
    if texts and made_of and is_file(texts) and _sources(class_names, read_texts(texts, class_names)[1]) != made_of:
        raise PosebridgeError(f"{path} was made of another {texts.name} than is there now; {remedy}.")
    return bank


def _read(path: Path) -> tuple[TextBank, int, bool]:
    """The bank, its schema, and whether it is whole. Raises what HDF5 raises."""
    with h5py.File(path, "r", locking=False) as file:
        shape = file["embeddings"].shape
        count = len(file["class_names"]), len(file["slots"])
        if len(shape) != 3 or file["mask"].shape != shape[:2] or shape[:2] != count:
            raise ValueError("the shapes do not fit each other")
        if any(file[name].nbytes > MOST_BYTES for name in file):  # before memory is taken for them
            raise ValueError("it is too large")
        embeddings, mask = np.asarray(file["embeddings"][()], np.float32), np.asarray(file["mask"][()], bool)
        bank = TextBank(
            embeddings=torch.from_numpy(embeddings),
            mask=torch.from_numpy(mask),
            slots=tuple(file["slots"].asstr()[()]),
            class_names=tuple(file["class_names"].asstr()[()]),
            encoder=str(file.attrs["encoder"]),
            encoder_sha256=str(file.attrs["encoder_sha256"]),
            texts_sha256=str(file.attrs.get("sources_sha256", "")),
        )
        written = file.attrs.get("sha256", "")
        sound = not written or written == _content(embeddings, mask)
        return bank, int(file.attrs["schema"]), sound


def _sources(class_names: Sequence[str], texts: dict[tuple[int, str], str]) -> str:
    """A hash of what a bank is made of, whatever the form of the files."""
    rows = sorted([index, slot, text] for (index, slot), text in texts.items())
    return hashlib.sha256(canonical_json([list(class_names), rows])).hexdigest()


def _content(embeddings: np.ndarray, mask: np.ndarray) -> str:
    return hashlib.sha256(embeddings.tobytes() + mask.tobytes()).hexdigest()
