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

The released code does two things that look unintended, and that the paper's summary does not tell of. Its rate goes up
and down, .01 at the first step, .001 at the second, since its cosine has a period of two steps:
`dynapurls_alternating`. And its bank keeps not clips but their losses as they were when they came in, so that a clip
always pulls as it did then (in memory, a text of all candidates for each of 16 clips a class): `dynapurls_old_losses`.
`dynapurls_released` does both. `dynapurls`, the default, has one rate, and looks at every clip of the bank anew. With
PURLS's flag `loss: published`, confidences are the released ones, too. Not as released in any of them: a batch with one
sure clip makes a step, and one with none does where somebody is in the bank already (released: two at the least, or
neither a step nor a place in the bank); losses are those of a method at rest, dropout and batch statistics off
(released: of train mode).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Protocol, runtime_checkable

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
LOW_LR = 1e-3  # of every second step, as released
BETA, BETA_SQUARE, EPSILON = 0.9, 0.999, 1e-8  # Adam's own


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

    online = True
    alternating: ClassVar[bool] = False
    old_losses: ClassVar[bool] = False

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
        refinement = Refinement(self.comparing.compare, text, self.alternating, self.old_losses)
        logits = []
        for features in batches:
            with torch.no_grad():
                kept = self.comparing.keep(features, text)
            logits.append(refinement(kept))
        return torch.cat(logits)


class DynaPurlsAlternating(DynaPurls):
    """With the released rate, which goes up and down."""

    alternating = True


class DynaPurlsOldLosses(DynaPurls):
    """With the released bank, which holds old losses."""

    old_losses = True


class DynaPurlsReleased(DynaPurlsAlternating, DynaPurlsOldLosses):
    """With both, as its code was released."""


class Refinement:
    """W, b, their optimiser and the bank, from the first batch to the last. W is 1 and b is 0 at first."""

    def __init__(
        self, compare: Callable[[Tensor, Tensor], Tensor], text: Tensor, alternating: bool = False,
        old_losses: bool = False,
    ) -> None:  # fmt: skip
        self.compare, self.text, self.alternating, self.old_losses = compare, text, alternating, old_losses
        self.weight = torch.ones_like(text).requires_grad_()
        self.bias = torch.zeros_like(text).requires_grad_()
        self.means, self.squares = ([torch.zeros_like(text), torch.zeros_like(text)] for _ in range(2))  # of gradients
        self.steps = torch.zeros((), dtype=torch.float64, device=text.device)
        self.bank = Bank(len(text), PER_CLASS)

    def refined(self) -> Tensor:
        """T~ [U, K, d_t], L2-normalised."""
        return F.normalize(self.weight * self.text + self.bias, dim=-1)

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Tensor:
        """Take in a batch of clips [B, ...] and give its logits [B, U] by the text as refined with it."""
        confidence, pseudo = self.compare(clips, self.refined()).softmax(1).max(1)
        self.bank.push(self.pulls(clips, pseudo) if self.old_losses else clips, confidence, pseudo)
        self.step()
        return self.compare(clips, self.refined())

    def pulls(self, clips: Tensor, pseudo: Tensor) -> Tensor:
        """The gradient of each clip's cross-entropy in W * T + b as it is now: [B, U, K, d_t]."""
        with torch.enable_grad():
            moved = (self.weight * self.text + self.bias).detach().requires_grad_()
            each = F.cross_entropy(self.compare(clips, F.normalize(moved, dim=-1)), pseudo, reduction="none")
        one_by_one = torch.eye(len(each), dtype=each.dtype, device=each.device)
        return torch.autograd.grad(each, moved, one_by_one, is_grads_batched=True)[0]

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of the mean cross-entropy of the whole bank in W and in b, and whether somebody is in it."""
        kept, pseudo, there = self.bank.everything()
        count = there.sum().clamp_min(1)
        if self.old_losses:
            pull = (kept * there.view(-1, 1, 1, 1)).sum(0) / count
            return self.text * pull, pull, there.any()
        with torch.enable_grad():
            each = F.cross_entropy(self.compare(kept, self.refined()), pseudo, reduction="none")
            loss = (each * there).sum() / count
        weight, bias = torch.autograd.grad(loss, [self.weight, self.bias])
        return weight, bias, there.any()

    @torch.no_grad()
    def step(self) -> None:
        """One step of Adam on the mean cross-entropy of the whole bank; no gradient reaches the method.

        Written out, since an empty bank causes none, and a GPU would have to be waited for to know that it is empty.
        """
        *gradients, somebody = self.gradients()
        goes = somebody.double()  # 1 or 0
        rate = LR + (LOW_LR - LR) * (self.steps % 2) if self.alternating else LR
        self.steps += goes
        t = self.steps.clamp_min(1)
        changed = (self.weight, self.bias)
        for value, gradient, mean, square in zip(changed, gradients, self.means, self.squares, strict=True):
            gradient = gradient + WEIGHT_DECAY * value
            mean += goes * (1 - BETA) * (gradient - mean)
            square += goes * (1 - BETA_SQUARE) * (gradient.square() - square)
            length = (square / (1 - BETA_SQUARE**t)).sqrt() + EPSILON
            value -= goes * rate * mean / (1 - BETA**t) / length


class Bank:
    """The most confident clips of each pseudo-class, at most `per_class` of each, so that none outweighs the others.

    It has room for all of them from the first batch on, so that nobody waits for a GPU to know how many there are.
    """

    def __init__(self, classes: int, per_class: int) -> None:
        self.classes, self.per_class, self.room = classes, per_class, classes * per_class
        self.confidence = torch.zeros(self.room + 1)  # 0: an empty place; the last one is for clips that get none
        self.clips: Tensor | None = None  # [room + 1, ...]

    def push(self, clips: Tensor, confidence: Tensor, pseudo: Tensor) -> None:
        """Take those of B clips [B, ...] with a confidence [B] above the threshold; pseudo [B] is what they are
        predicted as. Where a class is full, a clip replaces the least confident one, if it is more confident.
        """
        if self.clips is None:
            self.confidence = self.confidence.to(confidence)
            self.clips = clips.new_zeros(self.room + 1, *clips.shape[1:])
        label = torch.arange(self.classes, device=pseudo.device)[:, None]
        offered = torch.where((pseudo == label) & (confidence > THRESHOLD), confidence, 0.0)  # [classes, B]
        all_of_them = torch.cat([self.confidence[:-1].view(self.classes, -1), offered], 1)
        best = all_of_them.sort(dim=1, descending=True, stable=True).indices[:, : self.per_class]  # who came first wins
        chosen = torch.zeros_like(all_of_them, dtype=torch.bool).scatter(1, best, True)
        stays, comes = chosen.split([self.per_class, len(clips)], 1)  # of each class, as many come as go
        free = stays.long().argsort(dim=1, stable=True)  # its places, those of who goes first
        number = (comes.cumsum(1) - 1).clamp_min(0)  # of a clip among those who come
        place = (label * self.per_class + free.gather(1, number)).where(comes, self.room).amin(0)  # [B]
        self.clips.index_copy_(0, place, clips)
        self.confidence.index_copy_(0, place, confidence)
        self.confidence[-1] = 0

    def everything(self) -> tuple[Tensor, Tensor, Tensor]:
        """Every place's clip [room, ...], pseudo-class [room] int64, and whether somebody has it [room]."""
        assert self.clips is not None
        pseudo = torch.arange(self.classes, device=self.clips.device).repeat_interleave(self.per_class)
        return self.clips[:-1], pseudo, self.confidence[:-1] > 0
