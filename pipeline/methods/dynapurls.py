"""DynaPURLS's refinement: while clips come in, descriptions move towards the clips that are surely theirs.

Source: Zhu et al., "DynaPURLS: Dynamic Refinement of Part-aware Representations for Skeleton-based Zero-Shot Action
Recognition", arXiv 2512.11941, TPAMI 2026; its released behaviour as described, written anew. For each incoming batch:
predict; keep what is predicted with a confidence above a threshold in a bank of a few clips a pseudo-class; one step of
Adam on the bank's cross-entropy, for W and b of T~ = norm(W * T + b); predict the batch again.

This adapts at test time, online, to unlabelled test clips: a figure made so stands in a column of its own. The result
depends on the order of the clips and on the batch size, and is told no label. The order must not tell one either: an
order by class, as of a data set's files, would. Ours, where the source is silent: W and b are as large as the
candidates' text [U, K, d_t]; a new clip replaces the least confident one where it is more confident. Not as released:
features stay pooled by each candidate's description as written, where the released code pools by the true class's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.methods.adaptation import Adaptation
from pipeline.methods.base import EmbeddingMethod, Features, Method
from pipeline.protocol.guards import require_eval_mode

PER_CLASS = 16
THRESHOLD = 0.1
LR, WEIGHT_DECAY = 1e-2, 1e-3


@runtime_checkable
class Comparing(Protocol):
    """A method whose scores are made in two steps: what is kept of a clip, and its comparison with text. PURLS is one;
    every EmbeddingMethod becomes one by `Embedded`.
    """

    def keep(self, features: Features, text: Tensor) -> Tensor:
        """Something of each clip, [B, ...], by the candidates' text [U, K, d_t] as written."""
        ...

    def compare(self, kept: Tensor, text: Tensor) -> Tensor:
        """Logits [B, U] against the text as refined, and differentiable in it."""
        ...


class Embedded:
    """A method that embeds a clip without knowing the candidates."""

    def __init__(self, method: EmbeddingMethod) -> None:
        self.method = method

    def keep(self, features: Features, text: Tensor) -> Tensor:
        return self.method.embed(features)

    def compare(self, kept: Tensor, text: Tensor) -> Tensor:
        return kept @ self.method.prototypes(text).T / self.method.temperature


class DynaPurls(Adaptation):
    """See the module's docstring. Its values are the published ones; none is chosen."""

    def __init__(self, method: Method) -> None:
        comparing = Embedded(method) if isinstance(method, EmbeddingMethod) else method
        if not isinstance(comparing, Comparing):
            raise PosebridgeError(
                "The adaptation dynapurls needs a method that makes something of a clip and then compares it with "
                "text; leave `adapt` out for this run."
            )
        self.method, self.comparing = method, comparing

    def scores(self, batches: Iterable[Features], text: Tensor) -> Tensor:
        """Logits [N, C], those of each clip after the step that its own batch has caused."""
        require_eval_mode(self.method)
        refinement = Refinement(self.comparing.compare, text)
        logits = []
        for features in batches:
            with torch.no_grad():
                kept = self.comparing.keep(features, text)
            logits.append(refinement(kept))
        return torch.cat(logits)


class Refinement:
    """W, b, their optimiser and the bank, from the first batch to the last. W is 1 and b is 0 at first."""

    def __init__(self, compare: Callable[[Tensor, Tensor], Tensor], text: Tensor) -> None:
        self.compare, self.text = compare, text
        self.weight = torch.ones_like(text).requires_grad_()
        self.bias = torch.zeros_like(text).requires_grad_()
        self.optimizer = torch.optim.Adam([self.weight, self.bias], lr=LR, weight_decay=WEIGHT_DECAY)
        self.bank = Bank(len(text), PER_CLASS)

    def refined(self) -> Tensor:
        """T~ [U, K, d_t], L2-normalised."""
        return F.normalize(self.weight * self.text + self.bias, dim=-1)

    def __call__(self, clips: Tensor) -> Tensor:
        """Take in a batch of clips [B, ...] and give its logits [B, U] by the text as refined with it."""
        with torch.no_grad():
            confidence, pseudo = self.compare(clips, self.refined()).softmax(1).max(1)
            self.bank.push(clips, confidence, pseudo)
        if len(self.bank):
            self.step()
        with torch.no_grad():
            return self.compare(clips, self.refined())

    def step(self) -> None:
        """One step of Adam on the mean cross-entropy of the whole bank; no gradient reaches the method."""
        kept, pseudo = self.bank.content()
        with torch.enable_grad():
            loss = F.cross_entropy(self.compare(kept, self.refined()), pseudo)
            self.weight.grad, self.bias.grad = torch.autograd.grad(loss, [self.weight, self.bias])
        self.optimizer.step()


class Bank:
    """The most confident clips of each pseudo-class, at most `per_class` of each, so that none outweighs the others."""

    def __init__(self, classes: int, per_class: int) -> None:
        self.confidence = torch.zeros(classes, per_class)  # 0: an empty place
        self.clips: Tensor | None = None  # [classes, per_class, ...]

    def __len__(self) -> int:
        return int((self.confidence > 0).sum())

    def push(self, clips: Tensor, confidence: Tensor, pseudo: Tensor) -> None:
        """Take those of B clips [B, ...] with a confidence [B] above the threshold; pseudo [B] is what they are
        predicted as. Where a class is full, a clip replaces the least confident one, if it is more confident.
        """
        if self.clips is None:
            self.confidence = self.confidence.to(confidence)
            self.clips = clips.new_zeros(*self.confidence.shape, *clips.shape[1:])
        for row in (confidence > THRESHOLD).nonzero()[:, 0].tolist():
            label = int(pseudo[row])
            place = int(self.confidence[label].argmin())
            if confidence[row] > self.confidence[label, place]:
                self.confidence[label, place] = confidence[row]
                self.clips[label, place] = clips[row]

    def content(self) -> tuple[Tensor, Tensor]:
        """The kept clips [n, ...] and their pseudo-classes [n] int64."""
        assert self.clips is not None
        there = self.confidence > 0
        return self.clips[there], there.nonzero()[:, 0]
