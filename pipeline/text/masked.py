"""Frozen masked language models: what they make of every token of a sentence with gaps.

Any BERT-like model by name or local folder, through transformers. The default, `minilm`, is the embedded sentence
encoder: the same transformer and the same word for a gap, further trained for whole sentences, without a head that
names words. No such head is used of any model: a method that wants words in the gaps trains its own.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.files.sentence_model import without_bars
from pipeline.text.minilm import MiniLM

GAP = "[MASK]"  # in the sentences given; each model has its own word for it


class Tokens(NamedTuple):
    """N sentences as tokens, padded at their ends to the longest."""

    states: Tensor  # [N, L, d_lm] float32, of the last layer
    there: Tensor  # [N, L] bool, no padding
    gaps: Tensor  # [N, L] bool


@functools.lru_cache(maxsize=2)  # both phases of a run, for all its seeds
def read_tokens(name: str, sentences: tuple[str, ...]) -> Tokens:
    """What the model `name` makes of `sentences`. Raises PosebridgeError when it cannot be loaded."""
    model = EmbeddedModel() if name == "minilm" else LanguageModel(name)
    parts = [model.read(sentences[i : i + 64]) for i in range(0, len(sentences), 64)]
    longest = max(part.there.shape[1] for part in parts)
    return Tokens(*(torch.cat([_pad(x, longest) for x in column]) for column in zip(*parts, strict=True)))


class EmbeddedModel:
    """The embedded MiniLM."""

    def __init__(self) -> None:
        self._model = MiniLM()

    def read(self, sentences: Sequence[str]) -> Tokens:
        """Tokens of a few sentences."""
        ids, there, states = self._model.read(sentences)
        return Tokens(states, there, ids == self._model.token(GAP))


class LanguageModel:
    """A BERT-like model of transformers. Raises PosebridgeError when it cannot be loaded or knows no gaps."""

    def __init__(self, name: str) -> None:
        # Imported here: it takes seconds, and must come before mmpose's stand-ins where one process needs both.
        from transformers import AutoModel, AutoTokenizer

        without_bars()
        local = Path(name).is_dir()
        try:
            data = {"local_files_only": local, "trust_remote_code": False}  # None would ask the person at the terminal
            self._tokenizer = AutoTokenizer.from_pretrained(name, **data)
            model = AutoModel.from_pretrained(name, use_safetensors=True, **data)
        except Exception as error:  # damaged files come out of the libraries as errors of many classes
            raise PosebridgeError(
                f"The language model {name!r} could not be loaded; give `minilm`, the name of a BERT-like model or a "
                f"folder with model.safetensors ({' '.join(str(error).split())[:200]})."
            ) from None
        if self._tokenizer.mask_token is None:
            raise PosebridgeError(f"The language model {name!r} knows no gaps; give a masked one, such as BERT.")
        self._model = model.eval().requires_grad_(False)

    @torch.no_grad()
    def read(self, sentences: Sequence[str]) -> Tokens:
        """Tokens of a few sentences."""
        given = [sentence.replace(GAP, self._tokenizer.mask_token) for sentence in sentences]
        batch = self._tokenizer(given, padding=True, padding_side="right", truncation=True, return_tensors="pt")
        states = self._model(**batch).last_hidden_state.float()
        return Tokens(states, batch["attention_mask"].bool(), batch["input_ids"] == self._tokenizer.mask_token_id)


def _pad(x: Tensor, length: int) -> Tensor:
    """x [N, L, ...] with zeros after L."""
    return torch.cat([x, x.new_zeros(len(x), length - x.shape[1], *x.shape[2:])], 1)
