"""ONNX files: reading a graph, what it says of itself, opening its inner tensors, and a session that runs it.

Reads .onnx files that hold their weights; never one that keeps them in other files, since a hash of one file is to
name all that is computed.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from google.protobuf.message import DecodeError

from pipeline.errors import PosebridgeError

METADATA = "posebridge"  # the key of a graph's metadata that holds `OnnxFacts` as JSON


@dataclass(frozen=True)
class OnnxFacts:
    """What a file of `export-onnx` says of itself; empty values for files of others.

    `mean` and `std` are of values 0..255 in the order `channels` (rgb or bgr). `taps` are shallow first.
    """

    hpe_text: str = ""
    decoding: str = ""
    dark_kernel: int = 11
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channels: str = ""
    taps: tuple[str, ...] = ()


def load_graph(path: Path) -> onnx.ModelProto:
    """Read a graph with its weights. Raises PosebridgeError for a missing, damaged or incomplete file."""
    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise PosebridgeError(f"{path} is missing; bring the file or correct the recipe.") from None
    except (DecodeError, OSError, ValueError) as error:
        raise PosebridgeError(f"{path} is damaged or no ONNX file ({type(error).__name__}); bring it again.") from None
    if not model.graph.output:
        raise PosebridgeError(f"{path} is damaged or no ONNX file (it has no outputs); bring it again.")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise PosebridgeError(f"{path} keeps its weights in another file; save it as one, with `onnx.save_model`.")
    return model


def read_facts(model: onnx.ModelProto) -> OnnxFacts:
    """What the graph says of itself. Unknown keys, of later versions, are ignored."""
    text = {entry.key: entry.value for entry in model.metadata_props}.get(METADATA, "{}")
    try:
        values = json.loads(text)
        plain: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in values.items()}
        return OnnxFacts(**{f.name: plain[f.name] for f in fields(OnnxFacts) if f.name in plain})
    except (ValueError, TypeError, AttributeError):
        raise PosebridgeError("The ONNX file's metadata is damaged; export it again with `export-onnx`.") from None


def write_facts(model: onnx.ModelProto, facts: OnnxFacts) -> None:
    """Put the facts into the graph's metadata."""
    onnx.helper.set_model_props(model, {METADATA: json.dumps(asdict(facts), sort_keys=True)})


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
    results = {node.output[0]: node.op_type for node in model.graph.node if node.op_type != "Constant"}
    near = difflib.get_close_matches(wanted, results, n=4)
    fused = [name for name, kind in results.items() if kind in ("Add", "Concat")]
    spread = fused or [name for name, kind in results.items() if kind == "Conv"]
    step = max(1, len(spread) // 8)
    return list(dict.fromkeys([*near, *(output.name for output in model.graph.output), *spread[step - 1 :: step]]))


def open_session(model: onnx.ModelProto, name: str, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A session on the GPU where ONNX Runtime has one, else on `threads` CPU threads (torch's number of them)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    there = onnxruntime.get_available_providers()
    providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in there]
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    except Exception as error:  # ONNX Runtime's own error types, one a cause
        reason = str(error).splitlines()[0][:160]
        raise PosebridgeError(f"ONNX Runtime cannot run {name} ({reason}); bring another file.") from None
