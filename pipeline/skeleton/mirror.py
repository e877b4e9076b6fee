"""Skeletons as in a mirror."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from pipeline.skeleton.graph import COCO_17, Graph


def mirror(x: Tensor, graph: Graph = COCO_17) -> Tensor:
    """The mirror image of joints [..., V, C], centred: the first coordinate changes sign, left and right change places.

    Whatever else is among the C, a score say, goes along with its joint.
    """
    mirrored = x[..., _order(graph, x.device), :]
    mirrored[..., 0].neg_()
    return mirrored


@functools.cache  # a device that is handed a list lets everybody wait for it
def _order(graph: Graph, device: torch.device) -> Tensor:
    return torch.tensor(graph.mirror, device=device)
