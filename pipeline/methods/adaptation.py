"""Adaptation at test time: scores of many unlabelled clips together. Never part of the scores that a method gives.

An adaptation is told what a method is told, clips and descriptions of the candidates, and no label. What it gives is
reported in a column of its own. Its values, where there are any to choose, are chosen by the selection phase, on
train-part clips of the pseudo-unseen classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.methods.base import EmbeddingMethod, Features, Method


class Adaptation(ABC):
    """The contract. One is made for a trained method, in eval mode and without gradients, and leaves it as it is."""

    choices: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    """Attributes that the selection phase chooses, each from these values, as those of a method: the first one unless
    another is clearly better.
    """

    batch_size: ClassVar[int] = 64  # clips that arrive together

    online: ClassVar[bool] = False
    """Whether a clip's scores are made of it and of those before it, and of none that comes after its batch."""

    def __init__(self, method: Method) -> None:
        """Raises PosebridgeError for a method that it does not suit."""
        self.method = method

    @abstractmethod
    def scores(self, batches: Iterable[Features], text: Tensor) -> Tensor:
        """Adapted scores [N, C] of all clips, in the order in which they arrive. `text` [C, K, d_t] is that of the
        candidates. Every call starts anew. It is called with gradients enabled.
        """


class PrototypeAlignment(Adaptation):
    """PGFA's prototype-guided text alignment: the mean of a class's surest clips takes the place of its text.

    Zhou et al., "PGFA", IEEE TIP 2025 (arXiv 2507.00566): transductive, without gradients. Its `alpha` was chosen per
    data set on test data (.9, .4, 1.0); here the selection phase chooses it.

    It goes by cosines of one vector a clip and one a class. A method that scores otherwise (SkeletonContext: the mean
    of cosines to several sentences) is adapted from pseudo-labels that are not quite its own answers.
    """

    choices = {"alpha": (1.0, 0.9, 0.8, 0.6, 0.4, 0.2)}

    def __init__(self, method: Method) -> None:
        if not isinstance(method, EmbeddingMethod):
            raise PosebridgeError(
                "The adaptation pgfa needs a method that embeds a clip without knowing the candidates; leave `adapt` "
                "out for this run."
            )
        self.method: EmbeddingMethod = method
        self.alpha = 1.0

    @torch.no_grad()
    def scores(self, batches: Iterable[Features], text: Tensor) -> Tensor:
        embeddings = torch.cat([self.method.embed(batch) for batch in batches])  # [N, d_t]
        prototypes = align_prototypes(embeddings, self.method.prototypes(text), self.alpha)
        return F.normalize(embeddings, dim=-1) @ prototypes.T


def align_prototypes(embeddings: Tensor, prototypes: Tensor, alpha: float) -> Tensor:
    """The prototypes [C, d_t] by which PGFA decides, L2-normalised, from clips [N, d_t] and text prototypes [C, d_t].

    A clip's pseudo-label is the argmax of its cosines, its entropy that of their softmax (no temperature). Of the n_c
    clips of a pseudo-class the floor(alpha n_c) of lowest entropy are kept, the first of equals; their mean is the
    prototype. Where none is kept, the text stays.
    """
    z, p = F.normalize(embeddings, dim=-1), F.normalize(prototypes, dim=-1)
    share = (z @ p.T).softmax(dim=-1)  # [N, C]
    entropy, label = torch.special.entr(share).sum(-1), share.argmax(-1)
    order = entropy.argsort(stable=True)
    order = order[label[order].argsort(stable=True)]  # class by class, the surest first
    own = label[order, None] == torch.arange(len(p), device=p.device)  # [N, C]
    count = own.sum(0)
    rank = torch.arange(len(z), device=z.device)[:, None] - (count.cumsum(0) - count)  # in each class, from its first
    kept = own & (rank < (alpha * count.double() + 1e-9).floor())  # 0.6 * 5 is 3, not 2.9999...
    means = F.normalize(kept.to(z.dtype).T @ z[order], dim=-1)
    return torch.where(kept.any(0)[:, None], means, p)
