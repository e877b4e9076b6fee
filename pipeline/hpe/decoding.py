"""From a head's output to keypoints, vectorised in torch: the same answers as mmpose's own codecs.

Sources: SimCC (Li et al., ECCV 2022) and the quarter-offset heatmap decoding of MSRA's Simple Baselines (Xiao et al.,
ECCV 2018), as mmpose 1.3.2 implements them (`get_simcc_maximum`, `get_heatmap_maximum`, `refine_keypoints`).
"""

from __future__ import annotations

import torch
from torch import Tensor


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
