"""Losses that methods share. Every embedding is L2-normalised, every temperature a plain float."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_ce(z: Tensor, prototypes: Tensor, labels: Tensor, tau: float) -> Tensor:
    """Cross-entropy of cos / tau. z [B, d], prototypes [C, d], labels [B] rows of `prototypes`."""
    return F.cross_entropy(z @ prototypes.T / tau, labels)


def sup_con(z: Tensor, labels: Tensor, tau: float = 0.1) -> Tensor:
    """Supervised contrastive loss (Khosla et al., NeurIPS 2020, equation 2) of z [B, d]; 0 where nobody has a
    positive.
    """
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    positive = (labels[:, None] == labels) & ~itself
    log_share = (z @ z.T / tau).masked_fill(itself, -torch.inf).log_softmax(dim=1).masked_fill(itself, 0.0)
    counts = positive.sum(1)
    each = -(log_share * positive).sum(1) / counts.clamp_min(1)
    return (each * (counts > 0)).sum() / (counts > 0).sum().clamp_min(1)


def info_nce(a: Tensor, b: Tensor, labels: Tensor, tau: float) -> Tensor:
    """Symmetric InfoNCE between rows of a and b [B, d]; pairs of equal label are positives too, with equal shares."""
    same = (labels[:, None] == labels).float()
    target = same / same.sum(1, keepdim=True)
    logits = a @ b.T / tau
    return -0.5 * ((target * logits.log_softmax(1)).sum(1) + (target * logits.T.log_softmax(1)).sum(1)).mean()
