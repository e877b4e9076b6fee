"""ONNX files: reading a graph, what it says of itself, and opening its inner tensors.

Reads .onnx files that hold their weights; never one that keeps them in other files, since a hash of one file is to
name all that is computed.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from pipeline.errors import PosebridgeError

METADATA = "posebridge"  # the key of a graph's metadata that holds `OnnxFacts` as JSON
MOST_BYTES = 2 << 30  # protobuf holds no more
MOST_CALLED = 10_000  # nodes, with every function written out: functions that call functions double without end
# Operators that go round as often as the file says, or read another file. No pose model and no detector needs them.
REFUSED = {"Loop", "Scan", "SequenceMap", "BeamSearch", "WhisperBeamSearch", "GreedySearch", "Sampling", "EPContext"}


@dataclass(frozen=True)
class OnnxFacts:
    """What a file of `export-onnx` says of itself; empty values for files of others.

    `mean` and `std` are of values 0..255 in the order `channels` (rgb or bgr). `taps` are shallow first. `joints` are
    the names of the V joints, in their order.
    """

    hpe_text: str = ""
    hpe_classes: str = ""
    decoding: str = ""
    dark_kernel: int = 11
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channels: str = ""
    taps: tuple[str, ...] = ()
    joints: tuple[str, ...] = ()


def load_graph(path: Path) -> onnx.ModelProto:
    """Read a graph with its weights.

    Raises PosebridgeError for a missing, damaged or incomplete file, and for one whose weights lie elsewhere or whose
    run has no bound: one file is to name all that is computed.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise PosebridgeError(f"{path} is larger than the 2 GiB that ONNX allows; bring another file.")
        model = onnx.ModelProto.FromString(path.read_bytes())
    except FileNotFoundError:
        raise PosebridgeError(f"{path} is missing; bring the file or correct the recipe.") from None
    except (DecodeError, OSError, ValueError) as error:
        raise PosebridgeError(f"{path} is damaged or no ONNX file ({type(error).__name__}); bring it again.") from None
    if not model.graph.output:
        raise PosebridgeError(f"{path} is damaged or no ONNX file (it has no outputs); bring it again.")
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise PosebridgeError(f"{path} keeps its weights in another file; save it as one, with `onnx.save_model`.")
    if refused := sorted({node.op_type for graph in _graphs(model) for node in graph.node} & REFUSED):
        raise PosebridgeError(f"{path} has the operator {refused[0]}, which no pose model needs; export it without.")
    if model.functions and _written_out(model) > MOST_CALLED:
        raise PosebridgeError(f"{path} calls functions without bound, as no pose model does; export it without any.")
    return model


def _written_out(model: onnx.ModelProto) -> float:
    """How many nodes there are where every call of a function is its body; infinite for one that calls itself."""
    bodies = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[tuple[str, str], float] = {}

    def size(nodes: Iterable[onnx.NodeProto]) -> float:
        total = 0.0
        for node in nodes:
            called = (node.domain, node.op_type)
            if called in bodies and called not in sizes:
                sizes[called] = math.inf  # until it is known: whoever meets it now is inside of it
                sizes[called] = size(_nodes_in(bodies[called]))
            total += sizes.get(called, 1)
        return total

    try:
        return size(_nodes_in(model.graph))
    except RecursionError:
        return math.inf


def _nodes_in(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph, and of all that are nested in them."""
    for inner in _nested([graph]):
        yield from inner.node


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """All that holds nodes: the graph, those of training, functions, and the graphs nested in nodes."""
    training = [graph for info in model.training_info for graph in (info.initialization, info.algorithm)]
    return _nested([model.graph, *model.functions, *training])


def _nested(waiting: list[onnx.GraphProto | onnx.FunctionProto]) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """These, and the graphs nested in their nodes."""
    while waiting:
        graph = waiting.pop()
        yield graph
        attributes = [attribute for node in graph.node for attribute in node.attribute]
        attributes += graph.attribute_proto if isinstance(graph, onnx.FunctionProto) else []
        for attribute in attributes:
            waiting += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of the file: initial values, and those in attributes, sparse ones in their two halves."""
    sparse: list[onnx.SparseTensorProto] = []
    for graph in _graphs(model):
        attributes = [attribute for node in graph.node for attribute in node.attribute]
        if isinstance(graph, onnx.FunctionProto):
            attributes += graph.attribute_proto
        else:
            yield from graph.initializer
            sparse += graph.sparse_initializer
        for attribute in attributes:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse += [*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else [])]
            sparse += attribute.sparse_tensors
    for halves in sparse:
        yield from (halves.values, halves.indices)


def read_facts(model: onnx.ModelProto, name: str = "The ONNX file") -> OnnxFacts:
    """What the graph says of itself. Unknown keys, of later versions, are ignored.

    Raises PosebridgeError for metadata that `export-onnx` does not write.
    """
    text = {entry.key: entry.value for entry in model.metadata_props}.get(METADATA, "{}")
    damaged = PosebridgeError(f"The metadata of {name} is damaged; export it again with `export-onnx`.")
    try:
        values = json.loads(text)
        plain: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in values.items()}
    except (ValueError, AttributeError, RecursionError):
        raise damaged from None
    facts = OnnxFacts(**{f.name: plain[f.name] for f in fields(OnnxFacts) if f.name in plain})
    numbers = (*facts.mean, *facts.std) if isinstance(facts.mean, tuple) and isinstance(facts.std, tuple) else ("",)
    names = (*facts.taps, *facts.joints) if isinstance(facts.taps, tuple) and isinstance(facts.joints, tuple) else (0,)
    words = (facts.hpe_text, facts.hpe_classes, facts.decoding, facts.channels, *names)
    sound = all(isinstance(word, str) and len(word) < 1000 for word in words)
    sound = sound and all(type(number) in (int, float) and abs(number) < 1e9 for number in numbers)
    if not sound or type(facts.dark_kernel) is not int or facts.dark_kernel not in range(3, 100, 2):
        raise damaged
    return facts


def write_facts(model: onnx.ModelProto, facts: OnnxFacts) -> None:
    """Put the facts into the graph's metadata, beside what its makers say there."""
    others = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, others | {METADATA: json.dumps(asdict(facts), sort_keys=True)})


def open_taps(model: onnx.ModelProto, taps: tuple[str, ...], name: str) -> None:
    """Make inner tensors outputs of the graph, in memory. Raises PosebridgeError for a missing one, naming others."""
    there = {output.name for output in model.graph.output}
    inner = {tensor for node in model.graph.node for tensor in node.output}
    for tap in taps:
        if tap not in inner:
            raise PosebridgeError(f"{name} has no tensor {tap!r} to tap; it has {', '.join(_suggest(model, tap))}.")
        if tap not in there:
            model.graph.output.append(onnx.ValueInfoProto(name=tap))  # ONNX Runtime infers type and shape
            there.add(tap)


def _suggest(model: onnx.ModelProto, wanted: str) -> list[str]:
    """Near names, the outputs, and a dozen results of sums and joins, or else of convolutions, from front to back."""
    results = {node.output[0]: node.op_type for node in model.graph.node if node.output and node.op_type != "Constant"}
    near = difflib.get_close_matches(wanted, results, n=4)
    fused = [name for name, kind in results.items() if kind in ("Add", "Concat")]
    spread = fused or [name for name, kind in results.items() if kind == "Conv"]
    step = max(1, len(spread) // 8)
    return list(dict.fromkeys([*near, *(output.name for output in model.graph.output), *spread[step - 1 :: step]]))
