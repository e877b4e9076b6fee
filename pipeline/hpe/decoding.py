"""From a head's output to keypoints, vectorised in torch: the same answers as mmpose's own codecs.

Sources: SimCC (Li et al., ECCV 2022), the quarter-offset heatmap decoding of MSRA's Simple Baselines (Xiao et al., ECCV
2018) and DARK (Zhang et al., CVPR 2020), as mmpose 1.3.2 implements them (`get_simcc_maximum`, `get_heatmap_maximum`,
`refine_keypoints`, `refine_keypoints_dark`).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

STENCIL = (  # cells around a maximum, x and y, that its place is computed of
    (0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (2, 0), (-2, 0), (0, 2), (0, -2), (1, 1), (1, -1), (-1, 1), (-1, -1),
)  # fmt: skip


def bounded(raw: Tensor) -> Tensor:
    """Raw scores as scores 0..1; one that is not finite is no score, and stays that: not a number."""
    return torch.where(raw.isfinite(), raw.clamp(0, 1), torch.nan)


def decode_simcc(simcc_x: Tensor, simcc_y: Tensor, split_ratio: float) -> tuple[Tensor, Tensor]:
    """Keypoints [N, V, 2] float32 in crop pixels and raw scores [N, V] of SimCC logits [N, V, W * r] and [N, V, H * r].

    The score is the smaller of both maxima, raw and without an upper bound; where it is <= 0 the place means nothing.
    """
    best_x, at_x = simcc_x.max(-1)
    best_y, at_y = simcc_y.max(-1)
    return torch.stack([at_x, at_y], -1).float() / split_ratio, torch.minimum(best_x, best_y).float()


def decode_heatmap(heatmaps: Tensor, scale: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Keypoints [N, V, 2] float32 in crop pixels and scores [N, V] of heatmaps [N, V, H, W].

    The maximum, moved a quarter of a cell towards its larger neighbour; `scale` is crop pixels a cell in x and y.
    """
    n, v, height, width = heatmaps.shape
    heatmaps = heatmaps.float()
    scores, flat = heatmaps.flatten(2).max(-1)
    x, y = flat % width, flat // width
    padded = torch.nn.functional.pad(heatmaps, (1, 1, 1, 1)).flatten(2)  # [N, V, (H+2)*(W+2)]

    def value(dx: int, dy: int) -> Tensor:
        return padded.gather(2, ((y + 1 + dy) * (width + 2) + x + 1 + dx)[..., None])[..., 0]

    # mmpose's own border rule, where x and y are not treated alike.
    inner_x = (x > 1) & (x < width - 1) & (y > 0)
    inner_y = (y > 1) & (y < height - 1) & (x > 0)
    dx = torch.sign(value(1, 0) - value(-1, 0)) * inner_x
    dy = torch.sign(value(0, 1) - value(0, -1)) * inner_y
    keypoints = torch.stack([x, y], -1).float() + 0.25 * torch.stack([dx, dy], -1)
    return keypoints * torch.tensor(scale, dtype=torch.float32, device=heatmaps.device), scores


def decode_dark(heatmaps: Tensor, scale: tuple[float, float], kernel: int = 11) -> tuple[Tensor, Tensor]:
    """Keypoints [N, V, 2] float32 in crop pixels and scores [N, V] of heatmaps [N, V, H, W], distribution-aware.

    The heatmap is smoothed with a Gaussian of `kernel` cells (11 for maps trained with sigma 2, 17 for sigma 3); the
    place is the top of the Taylor expansion of its logarithm around the maximum. A maximum within two cells of a
    border stays where it is. `scale` is crop pixels a cell in x and y.
    """
    n, v, height, width = heatmaps.shape
    heatmaps = heatmaps.float()
    scores, flat = heatmaps.flatten(2).max(-1)
    x, y = flat % width, flat // width
    # Smoothing with zeros beyond the border, as two products with banded matrices.
    smooth = _blur(height, kernel, heatmaps.device) @ heatmaps @ _blur(width, kernel, heatmaps.device)
    peak = smooth.flatten(2).amax(-1)
    inner = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    centre = torch.where(inner, y * width + x, 2 * width + 2)  # anywhere inside, for maxima at the border
    around = centre[..., None] + torch.tensor([dy * width + dx for dx, dy in STENCIL], device=heatmaps.device)
    values = smooth.flatten(2).gather(2, around) * (scores / peak)[..., None]
    at = dict(zip(STENCIL, values.clamp_min(1e-10).log().double().unbind(-1), strict=True))
    dx = 0.5 * (at[1, 0] - at[-1, 0])
    dy = 0.5 * (at[0, 1] - at[0, -1])
    dxx = 0.25 * (at[2, 0] - 2 * at[0, 0] + at[-2, 0])
    dyy = 0.25 * (at[0, 2] - 2 * at[0, 0] + at[0, -2])
    dxy = 0.25 * (at[1, 1] - at[1, -1] - at[-1, 1] + at[-1, -1])
    determinant = dxx * dyy - dxy**2
    usable = inner & (determinant != 0)
    determinant = torch.where(usable, determinant, torch.ones_like(determinant))
    step = -torch.stack([dyy * dx - dxy * dy, dxx * dy - dxy * dx], -1) / determinant[..., None]
    keypoints = torch.stack([x, y], -1) + torch.where(usable[..., None], step, 0)  # an empty map has steps of 0 / 0
    return keypoints.float() * torch.tensor(scale, dtype=torch.float32, device=heatmaps.device), scores


@cache
def _blur(cells: int, kernel: int, device: torch.device) -> Tensor:
    """Smoothing of `cells` values as a symmetric matrix [cells, cells]; OpenCV's rule gives sigma from the kernel."""
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    offsets = torch.arange(kernel, dtype=torch.float64) - kernel // 2
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    matrix = torch.zeros(cells, cells, dtype=torch.float64)
    for offset, weight in zip(offsets.int().tolist(), weights.tolist(), strict=True):
        if abs(offset) < cells:
            matrix += torch.diag(torch.full((cells - abs(offset),), weight, dtype=torch.float64), offset)
    return matrix.float().to(device)
