"""Models of sentence-transformers, of words or of pictures and words: loaded as tensors only, known by a hash."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import PosebridgeError
from pipeline.files.device import CPU


def load_model(place: str, remedy: str, device: torch.device = CPU) -> Any:
    """The `SentenceTransformer` of a folder, or of a name, which is fetched where it is not at hand.

    No code of a model is run. Its network is read of safetensors alone, a layer after it (Dense) where need be of a
    pickle by the unpickler that knows tensors only. Raises PosebridgeError, beginning with `remedy`, which names what
    could not be loaded and what to do.
    """
    # Imported here: it takes seconds, and must come before mmpose's stand-ins where one process needs both.
    from sentence_transformers import SentenceTransformer

    without_bars()
    try:
        return SentenceTransformer(
            place, device=str(device), local_files_only=Path(place).is_dir(), trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        ).eval()  # fmt: skip
    except Exception as error:  # damaged files come out of the libraries as errors of many classes
        raise PosebridgeError(f"{remedy} ({' '.join(str(error).split())[:200]}).") from None


def without_bars() -> None:
    """The library draws a bar for every file that it loads, within a second; ours tell what takes long."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def weights_sha256(model: Any) -> str:
    """A hash of all weights, in the order of their names; the same for every storage format."""
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
