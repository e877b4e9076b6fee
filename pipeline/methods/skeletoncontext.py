"""SkeletonContext: one branch guesses the context that a skeleton does not show, one weighs the joints that matter.

Source: Wang et al., "SkeletonContext", CVPR 2026 (arXiv 2603.29692); behaviour of its released model files and of notes
by third parties, written anew. Each branch compares its feature with every sentence of a class; the branches' scores
are added, and there is one answer. Their losses, the naming of masked context words and the calibration of the joints'
weights count alike.

Not as released, because it leaks or flatters: a clip is never right by either branch alone; in training it is shown the
context of its own class, never of a random and maybe unseen one, and at test none at all; the calibration between seen
and unseen classes comes from the selection phase.

Other deviations: the context words and key parts are our own (texts.csv), theirs being unpublished; the vocabulary
has one entry an answer, of the classes trained on only; text is as wide as the bank's (384 for MiniLM; published: 768);
the language model is the embedded MiniLM unless the flag names another (published: BERT); gradients are clipped at norm
5, and clips are augmented as for every method here that is trained by gradients, unless their features are imported.
`cues` puts the bridge of cued.py in front of both branches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.files.bounds import within
from pipeline.methods.base import EmbeddingMethod, Features, Shapes, read_flags
from pipeline.methods.context import ContextBranch
from pipeline.methods.cued import CueFlags, MapBridge
from pipeline.methods.key_parts import KeyPartBranch, calibration, joint_priors
from pipeline.methods.prompts import SLOTS, Prompts
from pipeline.skeleton.graph import graph_of


@dataclass(frozen=True)
class Flags(CueFlags):
    """The published values, where they are known."""

    language_model: str = "minilm"  # or any BERT-like model by name or local folder
    text_slots: tuple[str, ...] = ("one_line", "hands", "global")  # the sentences of a class
    heads: int = within(12, 1)
    dropout: float = within(0.1, 0, 1)
    scale: float = within(0.1, above=0)  # of the mean cosine; on as few clips as skelgap has, 10 is better in phase one

    lr: float = within(0.1, above=0)
    batch_size: int = within(64, 1, 10**6)
    epochs: int = within(30, 1, 10**6)


class SkeletonContext(EmbeddingMethod):
    """See the module's docstring."""

    word_slots = (*SLOTS, "key_parts")
    priors: Tensor  # [C, V] of the classes trained on

    def __init__(self, shapes: Shapes, classes: int, flags: Mapping[str, Any]) -> None:
        super().__init__(shapes, classes, flags)
        self.flags = f = read_flags(Flags, flags, "skeletoncontext")
        if shapes.d_text % f.heads:
            raise PosebridgeError(f"The flag heads, {f.heads}, should divide the width of the text, {shapes.d_text}.")
        self.text_slots = tuple(f.text_slots)
        self.graph = graph_of(shapes.layout)
        self.bridge = MapBridge(shapes, f) if f.cues else None
        self.context = ContextBranch(shapes.d_text, f.heads, f.dropout)
        self.key_parts = KeyPartBranch(shapes.d_text)
        self.register_buffer("priors", torch.zeros(classes, len(self.graph.joints)), persistent=False)

    def schedule(self) -> Mapping[str, Any]:
        """As published; no early stop, since the curriculum comes to what is tested, all masked, in its last third."""
        f = self.flags
        return {
            "optimiser": "sgd", "nesterov": True, "lr": f.lr, "weight_decay": 5e-4, "batch_size": f.batch_size,
            "epochs": f.epochs, "milestones": (4, 20), "warmup": 0, "ema": 0.0, "patience": 0,
        }  # fmt: skip

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word that the method knows of a class's context."""
        return self.context.vocabulary

    def see_words(self, words: Sequence[Mapping[str, str]]) -> None:
        for slot in self.word_slots:
            if missing := sum(slot not in own for own in words):
                raise PosebridgeError(
                    f"The method skeletoncontext needs the slot {slot!r} of every class trained on, but {missing} of "
                    f"{len(words)} lack it; add it to texts.csv."
                )
        self.context.see(Prompts(words, self.flags.language_model))
        self.priors = joint_priors([own["key_parts"] for own in words], self.graph).to(self.priors.device)

    def loss(self, features: Features, labels: Tensor, text: Tensor) -> Tensor:
        labels = labels.to(text.device, non_blocking=True)
        skeleton = self.map(features)
        context, naming = self.context.train_with(skeleton, labels, self.progress)
        key_parts, weights = self.key_parts(skeleton)
        right = sum(F.cross_entropy(self.compare(x, text), labels) for x in (context, key_parts))
        return right + naming + calibration(weights, self.priors[labels])

    def compare(self, x: Tensor, text: Tensor) -> Tensor:
        """A branch's score of every class: scaled mean of the cosines to its sentences. x [B, d_t] -> [B, C]."""
        return self.flags.scale * F.normalize(x, dim=-1) @ F.normalize(text, dim=-1).mean(1).T

    def branches(self, features: Features) -> tuple[Tensor, Tensor]:
        """Features of both branches, each [B, d_t]. Every context slot is masked."""
        skeleton = self.map(features)
        return self.context(skeleton), self.key_parts(skeleton)[0]

    def map(self, features: Features) -> Tensor:
        """[B, 256, T', V], informed by the cues where the method reads them."""
        return features.skeleton if self.bridge is None else self.bridge(features.skeleton, features)

    def scores(self, features: Features, text: Tensor) -> Tensor:
        context, key_parts = self.branches(features)
        return self.compare(context, text) + self.compare(key_parts, text)

    def embed(self, features: Features) -> Tensor:
        """For an adaptation, which compares by one cosine; `scores` has the mean of the sentences' cosines."""
        context, key_parts = self.branches(features)
        return F.normalize(F.normalize(context, dim=-1) + F.normalize(key_parts, dim=-1), dim=-1)

    def prototypes(self, text: Tensor) -> Tensor:
        return self.describe(text)
