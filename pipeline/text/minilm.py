"""The embedded sentence encoder without its framework: a user's labels as vectors in a tenth of a second.

Importing sentence-transformers takes longer than a prediction may. This is the same network on the same, hash-checked
weights: BERT (Devlin et al., NAACL 2019) of six layers, mean-pooled as in Sentence-BERT (Reimers and Gurevych,
EMNLP 2019); a test compares both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from pipeline.files.device import CPU
from pipeline.text.encoder import MINILM_SHA256, SentenceEncoder, minilm_folder

LONGEST = 256  # tokens


class MiniLM:
    """all-MiniLM-L6-v2. `encode` and `sha256` are as SentenceEncoder's; raises PosebridgeError as `minilm_folder`."""

    sha256 = MINILM_SHA256

    def __init__(self) -> None:
        folder = minilm_folder()
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._layers, self._heads = config["num_hidden_layers"], config["num_attention_heads"]
        self._epsilon = config["layer_norm_eps"]
        self._weights = load_file(folder / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(LONGEST)
        self._tokenizer.enable_padding()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """L2-normalised embeddings of `texts`, float32 [N, 384]."""
        _, there, x = self.read(texts)
        share = there[..., None].float()
        return F.normalize((x * share).sum(1) / share.sum(1), dim=-1).numpy()

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Every token of `texts`: its id [N, L], whether it is no padding [N, L] bool, its last state [N, L, 384]."""
        tokens = self._tokenizer.encode_batch(list(texts))
        ids = torch.tensor([t.ids for t in tokens])
        there = torch.tensor([t.attention_mask for t in tokens]).bool()
        w = self._weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x + w["embeddings.position_embeddings.weight"][: ids.shape[1]], "embeddings")
        for layer in range(self._layers):
            x = self._layer(x, there, f"encoder.layer.{layer}")
        return ids, there, x

    def in_pieces(self, text: str) -> list[str]:
        """The words of a text that the vocabulary does not have whole."""
        words = "".join(letter if letter.isalpha() else " " for letter in text.lower()).split()
        return [word for word in words if len(self._tokenizer.encode(word, add_special_tokens=False).ids) > 1]

    def token(self, word: str) -> int:
        """The id of a word of the vocabulary."""
        return self._tokenizer.get_vocab()[word]

    def _layer(self, x: Tensor, there: Tensor, name: str) -> Tensor:
        """x [N, L, width]: self-attention, then the feed-forward part, each added and normalised."""
        query, key, value = (
            self._linear(x, f"{name}.attention.self.{part}").unflatten(-1, (self._heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=there[:, None, None])
        seen = self._linear(seen.transpose(1, 2).flatten(2), f"{name}.attention.output.dense")
        x = self._norm(x + seen, f"{name}.attention.output")
        wide = F.gelu(self._linear(x, f"{name}.intermediate.dense"))
        return self._norm(x + self._linear(wide, f"{name}.output.dense"), f"{name}.output")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._weights[f"{name}.LayerNorm.weight"], self._weights[f"{name}.LayerNorm.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias, self._epsilon)


def open_encoder(name: str, device: torch.device = CPU) -> MiniLM | SentenceEncoder:
    """The quickest form of an encoder: ours for `minilm`, always on the CPU, else sentence-transformers'."""
    return MiniLM() if name == "minilm" else SentenceEncoder(name, device)
