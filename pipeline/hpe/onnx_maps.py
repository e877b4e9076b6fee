"""The inner maps of an ONNX graph that cues may be pooled of: all results of convolutions, sums, joins and ReLUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.hpe.onnx_file import load_graph, open_taps
from pipeline.hpe.onnx_input import input_of
from pipeline.hpe.onnx_session import NUMPY, open_session, run_session

KINDS = ("Conv", "Add", "Concat", "Relu")
STRIDES = (4, 8, 16, 32)
FEWEST = 16  # channels


def inner_maps(path: Path) -> tuple[str, ...]:
    """The names of the maps [N, C, h, w] of one of STRIDES, in the order of the graph; its own answer is none of them.

    Raises PosebridgeError where the graph cannot be run, or has no such map.
    """
    return tuple(name for name, _, _ in _maps(path))


def one_a_stride(path: Path) -> tuple[str, ...]:
    """Of each stride the last map with half the channels of its widest, or more: in RTMPose the ends of its stages, and
    not the thin map before its answer. Raises PosebridgeError as `inner_maps`.
    """
    found = _maps(path)
    widest = {stride: max(channels for _, other, channels in found if other == stride) for _, stride, _ in found}
    last = {stride: name for name, stride, channels in found if 2 * channels >= widest[stride]}
    return tuple(last[stride] for stride in sorted(last))


def _maps(path: Path) -> list[tuple[str, int, int]]:
    """Name, stride and channels of each of `inner_maps`."""
    model = load_graph(path)
    answer = model.graph.output[0].name
    results = [node.output[0] for node in model.graph.node if node.op_type in KINDS and node.output]
    names = tuple(name for name in dict.fromkeys(results) if name and name != answer)
    open_taps(model, names, path.name)
    session = open_session(model, path.name)
    entry = input_of(session, path.name)
    (width, height), count = entry.crop_size, entry.batch or 1
    picture = np.zeros(entry.shape(count), NUMPY[entry.dtype])
    maps = run_session(session, list(names), {entry.name: picture}, path.name) if names else []  # of none it gives all
    found = []
    for name, values in zip(names, maps, strict=True):
        if values.ndim == 4 and values.dtype.kind == "f" and values.shape[1] >= FEWEST and len(values) == count:
            strides = {height / values.shape[2], width / values.shape[3]}
            if len(strides) == 1 and strides <= set(STRIDES):
                found.append((name, int(strides.pop()), values.shape[1]))
    if not found:
        raise PosebridgeError(f"{path.name} has no inner map of {' or '.join(map(str, STRIDES))} pixels a cell to tap.")
    return found
