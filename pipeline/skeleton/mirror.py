"""Skeletons as in a mirror."""

from __future__ import annotations

from torch import Tensor

from pipeline.skeleton.graph import COCO_17, Graph


def mirror(x: Tensor, graph: Graph = COCO_17) -> Tensor:
    """The mirror image of joints [..., V, C], centred: the first coordinate changes sign, left and right change places.

    Whatever else is among the C, a score say, goes along with its joint.
    """
    return x[..., list(graph.mirror), :] * x.new_tensor([-1.0] + [1.0] * (x.shape[-1] - 1))
