"""What clips are compared by: the bridged embedding of a trained run, or the movement of their skeletons.

Reads cache/models, cache/encoders, a text bank and, for examples, videos; writes nothing.
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.errors import PosebridgeError
from pipeline.files.device import CPU, memory_for
from pipeline.files.hashing import fingerprint
from pipeline.learn.dataset import open_dataset
from pipeline.learn.feature_table import feature_table
from pipeline.learn.features import Samples
from pipeline.learn.run import open_listed
from pipeline.learn.score import embed_batches, require_seen_text
from pipeline.learn.trained import load_method, method_and_flags, model_folder, skeleton_encoder
from pipeline.methods.base import EmbeddingMethod
from pipeline.params import RunParams
from pipeline.predict.examples import Descriptors
from pipeline.text.encoder import split_variant
from pipeline.text.minilm import MiniLM, open_encoder

LONGEST = 2000  # characters of a query
UNKNOWN = 1 / 3  # of a query's words, from which on a language model is not at home


class Embedder(ABC):
    """Clips as unit vectors. `model` is a hash of all that they depend on beside the clips."""

    model: str
    recipe: str  # of the skeletons
    cue_recipe: str  # of the cues, empty without
    fingerprints: tuple[str, ...]  # that an extraction of the recipe may have; any where there is none
    place: tuple[str, ...]  # folders below cache/search where its vectors lie

    @abstractmethod
    def embed(self, samples: Samples) -> np.ndarray:
        """[N, D] float32."""

    def ask(self, samples: Samples) -> np.ndarray:
        """What is asked for clips like these: [Q, D] float32."""
        return self.embed(samples)


class Skeletons(Embedder):
    """As `predict --examples` compares: skeletons free of place and size, also mirrored. Nothing is trained."""

    def __init__(self, recipe: str, recipe_fingerprint: str):
        self.recipe, self.cue_recipe, self.fingerprints = recipe, "", (recipe_fingerprint,)
        self.model = fingerprint("skeletons", recipe_fingerprint, 1)
        self.place = ("skeletons", recipe)

    def embed(self, samples: Samples) -> np.ndarray:
        return Descriptors(samples).skeleton.numpy()

    def ask(self, samples: Samples) -> np.ndarray:
        found = Descriptors(samples)
        return torch.cat([found.skeleton, found.mirrored]).numpy()


class Trained(Embedder):
    """One seed of a trained run. Raises PosebridgeError where it is not trained, or its method gives a clip no vector
    without knowing the candidates.
    """

    def __init__(
        self, dataset: str, protocol: str, run_name: str, run: RunParams, seed: int = 0,
        manifests: Path = Path("manifests"), cache: Path = Path("cache"), store_root: Path | None = None,
        device: torch.device = CPU,
    ):  # fmt: skip
        run = run.of(protocol)
        folder = model_folder(cache, dataset, protocol, run_name) / f"seed-{seed}"
        if not (folder / "final.safetensors").is_file():
            raise PosebridgeError(
                f"The run {run_name!r} is not trained on {dataset}, protocol {protocol}, seed {seed}; run `posebridge "
                f"train --dataset {dataset} --protocol {protocol} --run {run_name}`."
            )
        listed = open_dataset(dataset, manifests, cache, store_root, strict=False)
        self.opened = opened = open_listed(listed, protocol, run)
        method, selection = load_method(opened, protocol, run_name, seed, unchanged=False)
        if not isinstance(method, EmbeddingMethod):
            raise PosebridgeError(
                f"The method {run.method} gives a clip no vector of its own, since it looks at it by the candidates; "
                "search with a run of posebridge, skeleton, pgfa or skeletoncontext."
            )
        self._encoder = skeleton_encoder(opened, seed, "final", unchanged=False).to(device)
        self.method = method.to(device)
        require_seen_text(opened, self.method)
        self.fingerprints = opened.fingerprints
        self.recipe, self.cue_recipe = opened.skeletons, run.recipe if opened.shapes.d_cue else ""
        told = method_and_flags(run), selection["weights_sha256"], opened.bank.encoder_sha256, self.fingerprints
        self.model = fingerprint("trained", *told, 1)
        self.place = (dataset, protocol, run_name, f"seed-{seed}")
        self.seen = tuple(opened.dataset.class_names[label] for label in opened.split.seen)

    @memory_for("The search")
    def embed(self, samples: Samples) -> np.ndarray:
        table = feature_table(self._encoder, samples, self.opened.shapes.anchors, device=self.method.device)
        parts = [part.cpu() for part in embed_batches(self.method, table, torch.arange(len(samples)))]
        return F.normalize(torch.cat(parts), dim=-1).numpy()

    @torch.no_grad()
    def say(self, query: str) -> tuple[np.ndarray, list[str]]:
        """The vector [1, D] of a sentence, and what is to be warned of. It is put into every slot of the method, since
        nothing else is known of it. Raises PosebridgeError for one without a word, and for another text encoder.
        """
        words = check_query(query)
        encoder = open_encoder(split_variant(self.opened.run.text)[0], self.method.device)
        if encoder.sha256 != self.opened.bank.encoder_sha256:
            name = self.opened.dataset.name
            raise PosebridgeError(
                f"The text bank of {name} is of another encoder than {self.opened.run.text!r} is now; run `posebridge "
                f"text --dataset {name} --encoder {self.opened.run.text}` and train the run again."
            )
        vector = torch.from_numpy(encoder.encode([words])).to(self.method.device)  # [1, d_t]
        text = vector[:, None].expand(-1, len(self.method.text_slots), -1)
        asked = F.normalize(self.method.prototypes(text), dim=-1).cpu().numpy()
        return asked, foreign(words, encoder) if isinstance(encoder, MiniLM) else []


def check_query(query: str) -> str:
    """The query with single blanks. Raises PosebridgeError for one that is empty, has no letter, or is a book."""
    words = " ".join(query.split())
    if not any(letter.isalpha() for letter in words):
        raise PosebridgeError('The query has no word; describe a movement, such as "a person lifts a barbell".')
    if len(words) > LONGEST:
        raise PosebridgeError(f"The query has {len(words)} characters; describe the movement in at most {LONGEST}.")
    return words


def foreign(query: str, encoder: MiniLM) -> list[str]:
    """What to warn of where a query does not look English, the language of minilm: other letters than Latin ones, or
    too many words that its vocabulary has in pieces only.
    """
    other = [letter for letter in query if letter.isalpha() and "LATIN" not in unicodedata.name(letter, "")]
    if other:
        return [f"minilm reads English; {other[0]!r} and its like mean little to it, so ask in English, or train a run "
                "whose `text` is an encoder of your language."]  # fmt: skip
    pieces = encoder.in_pieces(query)
    words = [word for word in query.split() if any(map(str.isalpha, word))]
    if len(words) > 2 and len(pieces) / len(words) > UNKNOWN:
        return [f"minilm reads English and does not know {_listed(pieces)}; if this is another language, ask in "
                "English."]  # fmt: skip
    return []


def _listed(words: Sequence[str]) -> str:
    return ", ".join(repr(word) for word in words[:3])
