"""A person who is not there is not computed: who is there is packed, and the maps are put back clip by clip.

Most clips have one person of M = 2.
"""

from __future__ import annotations

import torch
from torch import Tensor


def places(person: Tensor) -> Tensor:
    """Where those who are there stand among all B * M of `person` [B, M] bool: [P] int64, on its device.

    Their number shapes what follows: on a GPU it must be waited for, so `person` had better stay on the CPU. torch's
    meta device knows no values: there, everybody is.
    """
    everybody = person.flatten()
    if everybody.is_meta:
        return torch.arange(len(everybody), device=everybody.device)
    return everybody.nonzero()[:, 0]


def mean_over_persons(y: Tensor, place: Tensor, person: Tensor) -> Tensor:
    """The mean over each clip's persons, [B, ...], of what was made of those at `place`, y [P, ...]; 0 for nobody."""
    all_of_them = y.new_zeros(person.numel(), *y.shape[1:]).index_copy(0, place.to(y.device, non_blocking=True), y)
    share = (person / person.sum(1, keepdim=True).clamp_min(1)).to(y, non_blocking=True)  # [B, M]
    return (all_of_them.unflatten(0, person.shape) * share.view(*share.shape, *[1] * (y.ndim - 1))).sum(1)
