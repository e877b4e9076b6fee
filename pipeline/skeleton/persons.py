"""The persons of a clip. Who is not there is not computed: who is there is packed, and the maps are put back clip by
clip. Most clips have one person of M = 2.

In training, persons change places at random, since which of them comes first, the surer one, means nothing.
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


def random_order(there: Tensor, generator: torch.Generator) -> Tensor:
    """Who of a clip stands in the place of whom: [B, M] int64. Only those who are `there`, [B, M] bool, change places,
    so that `there` holds as it is; `generator` draws on its device.
    """
    place = (~there).long().argsort(dim=1, stable=True)  # of those who are there, first
    luck = torch.rand(there.shape, generator=generator, device=there.device)
    who = luck.masked_fill(~there, 2).argsort(dim=1, stable=True)
    return torch.empty_like(place).scatter_(1, place, who)


def in_order(x: Tensor, order: Tensor) -> Tensor:
    """The persons of x [B, M, ...] as `order` [B, N] has them. Where x knows fewer, those that it knows keep among each
    other the order that they are given; where it knows more, those stay.
    """
    known, named = x.shape[1], order.shape[1]
    if known < named:
        order = order.gather(1, (order >= known).long().argsort(dim=1, stable=True)[:, :known])
    elif known > named:
        order = torch.cat([order, torch.arange(named, known, device=order.device).expand(len(order), -1)], 1)
    return x[torch.arange(len(x), device=x.device)[:, None], order]
