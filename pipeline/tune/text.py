"""Captions and phrases of a source as vectors; kept in the run's folder, since COCO's captions take minutes.

Reads and writes `<out>.work/text.safetensors`. The encoder is given, so that this room knows no sentence encoder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.files.tensors import save_tensors
from pipeline.tune.data import CropSource

AT_ONCE = 1024  # sentences a step of the progress bar


class Encoder(Protocol):
    """A sentence encoder; `sha256` identifies its weights."""

    sha256: str

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Normalised embeddings, float32 [N, d_t]."""


@dataclass(frozen=True)
class TextVectors:
    """Normalised embeddings of a source's captions [K, d_t] and phrases [O, d_t]; None where it has no phrases.

    `sha256` identifies the sentences and the encoder.
    """

    captions: Tensor
    phrases: Tensor | None = None
    sha256: str = ""


def embed(
    source: CropSource,
    encoder: Encoder,
    folder: Path,
    progress: Callable[[range], Iterator[int]] = iter,
) -> TextVectors:
    """Embed all sentences of a source, or read them where the same ones were embedded by the same encoder before.

    `progress` may wrap the range of steps, AT_ONCE sentences each.
    """
    sentences = (*source.phrases, *source.captions)
    key = hashlib.sha256("\n".join((encoder.sha256, *sentences)).encode()).hexdigest()
    path = folder / "text.safetensors"
    vectors = _read(path, key)
    if vectors is None:
        steps = progress(range(0, len(sentences), AT_ONCE))
        vectors = torch.from_numpy(np.concatenate([encoder.encode(sentences[at : at + AT_ONCE]) for at in steps]))
        save_tensors({"vectors": vectors}, path, {"key": key})
    phrases = len(source.phrases)
    return TextVectors(vectors[phrases:].contiguous(), vectors[:phrases].contiguous() if phrases else None, key)


def _read(path: Path, key: str) -> Tensor | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            return file.get_tensor("vectors") if (file.metadata() or {}).get("key") == key else None
    except (SafetensorError, OSError):  # cut or damaged: embedded anew
        return None
