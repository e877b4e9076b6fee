"""Regularised canonical correlation: directions in which clips and their texts vary alike, in closed form.

After kernel CCA (Hardoon, Szedmak, Shawe-Taylor, Neural Computation 2004).
"""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE, TEXT_RIDGE = 0.3, 3.0  # in terms of the mean variance; chosen for gym, see docs/results.md
LEAST = 1e-6  # of the largest eigenvalue: what is smaller is rounding


@torch.no_grad()
def correlate(x: Tensor, t: Tensor, ridge: float, text_ridge: float, directions: int) -> tuple[Tensor, Tensor]:
    """Of centred rows x [N, D] and t [N, K], float64: the maps [D, directions] and [K, directions] into the space where
    they are compared by their cosine, each direction weighed on both sides by its correlation; zero columns where fewer
    are found.
    """
    one, ones, mine = _axes(x, ridge)
    other, others, theirs = _axes(t, text_ridge)
    u, correlation, v = torch.linalg.svd((one.T * ones[:, None]) @ (other * others), full_matrices=False)
    found = min(directions, len(correlation))
    clips, texts = x.new_zeros(x.shape[1], directions), t.new_zeros(t.shape[1], directions)
    clips[:, :found] = (mine @ (u * correlation))[:, :found]
    texts[:, :found] = (theirs @ (v.T * correlation))[:, :found]
    return clips, texts


def _axes(x: Tensor, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of centred rows x [N, D]: their principal axes in the space of rows [N, R]; by how much each counts, the root of
    w / (w + ridge), w in terms of the rows' mean size [R]; and the map [D, R] of a row to its places on them.
    """
    size = x.square().sum(1).mean().clamp_min(1e-12)
    values, axes = torch.linalg.eigh(x @ x.T / size)
    kept = values > LEAST * values[-1]
    values, axes = values[kept], axes[:, kept]
    shares = (values / (values + ridge)).sqrt()
    return axes, shares, x.T @ (axes / size / values * shares)
