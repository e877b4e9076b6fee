"""Prototype residual adaptation: move language prototypes towards where seen classes really lie.

Reconstruction; the paper (PoseBridge, arXiv 2605.11497) states that prototypes are calibrated towards the pose-
semantic space estimated from seen classes while text stays the zero-shot anchor. Ours: kernel ridge regression, since
thirty classes cannot fit a d x d map, with its strength chosen by leaving one class out, in closed form.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRENGTHS = tuple(10.0**e for e in (-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2))


class RidgeResidual(nn.Module):
    """R(p): text prototype -> (visual class mean - text prototype), fitted on seen classes; 0 before it is fitted.

    The kernel is linear: a class that is put together from seen parts gets the residuals of its parts.
    """

    anchors: Tensor  # [C, d] seen prototypes
    weights: Tensor  # [C, d] dual weights
    strength: Tensor  # [] the chosen ridge

    def __init__(self, classes: int, d: int) -> None:
        super().__init__()
        self.register_buffer("anchors", torch.zeros(classes, d))
        self.register_buffer("weights", torch.zeros(classes, d))
        self.register_buffer("strength", torch.zeros(()))

    def forward(self, prototypes: Tensor) -> Tensor:
        """Residuals [U, d] of prototypes [U, d]."""
        return prototypes @ self.anchors.T @ self.weights

    @torch.no_grad()
    def fit(self, prototypes: Tensor, means: Tensor) -> None:
        """prototypes [C, d] and visual class means [C, d] of the seen classes, both L2-normalised."""
        target = means - prototypes
        errors = torch.stack([leave_one_out(prototypes, target, s).square().sum() for s in STRENGTHS])
        strengths = torch.tensor(STRENGTHS, dtype=torch.float64, device=errors.device)
        strength = strengths[errors.argmin(0, keepdim=True)]  # [1]
        kernel = (prototypes @ prototypes.T).double()
        ridge = kernel + strength * torch.eye(len(kernel), dtype=torch.float64, device=kernel.device)
        self.anchors.copy_(prototypes)
        self.weights.copy_(torch.linalg.solve(ridge, target.double()))
        self.strength.copy_(strength[0])


def leave_one_out(prototypes: Tensor, target: Tensor, strength: float) -> Tensor:
    """Residual of each class [C, d] when predicted from the others: (y - H y) / (1 - diag H), H = K (K + s I)^-1."""
    kernel = (prototypes @ prototypes.T).double()
    ridge = kernel + strength * torch.eye(len(kernel), dtype=torch.float64, device=kernel.device)
    hat = torch.linalg.solve(ridge, kernel).T
    y = target.double()
    return (y - hat @ y) / (1 - hat.diagonal()).clamp_min(1e-9)[:, None]


@torch.no_grad()
def whitening(centred: Tensor, ridge: float) -> Tensor:
    """The symmetric map [d, d] after which the descriptions of the classes trained on, [C, d] and centred, vary alike
    in all directions, as far as `ridge` times their mean variance lets them: (S + ridge tr(S) / d I)^(-1/2).

    Sentences that are composed alike share a few strong directions, in which all classes resemble one another.
    """
    covariance = (centred.T @ centred).double() / len(centred)
    values, axes = torch.linalg.eigh(covariance)
    evened = values.clamp_min(0) + ridge * values.clamp_min(0).mean().clamp_min(1e-12)
    return ((axes / evened.sqrt()) @ axes.T).to(centred.dtype)


@torch.no_grad()
def class_means(batches: Iterable[Tensor], labels: Tensor, classes: int) -> Tensor:
    """L2-normalised mean embedding of each class [C, d]. Embeddings [B, d] batch by batch, N in all; labels [N] in
    0..C-1, none empty.
    """
    start, sums = 0, torch.empty(0)
    for batch in batches:
        if not start:
            sums = batch.new_zeros(classes, batch.shape[1])
        sums.index_add_(0, labels[start : start + len(batch)], batch)
        start += len(batch)
    return F.normalize(sums, dim=-1)
