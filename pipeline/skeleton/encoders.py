"""The skeleton encoders by name, as `encode.encoder` in params.yaml has them."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.skeleton.base import SkeletonEncoder
from pipeline.skeleton.dense import Dense
from pipeline.skeleton.light_shift_gcn import LightShiftGCN
from pipeline.skeleton.shift_gcn import ShiftGCN

ENCODERS: Mapping[str, type[SkeletonEncoder]] = {"light": LightShiftGCN, "shift_gcn": ShiftGCN, "dense": Dense}
