"""Sessions of ONNX Runtime: on the device that was asked for, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from torch import Tensor

from pipeline.errors import PosebridgeError, first_line
from pipeline.files.device import CPU, name_of

if TYPE_CHECKING:
    import onnxruntime

ON_CPU, ON_GPU = "CPUExecutionProvider", "CUDAExecutionProvider"
NUMPY = {torch.float16: np.float16, torch.float32: np.float32, torch.float64: np.float64}


def open_session(
    model: onnx.ModelProto, name: str, device: torch.device = CPU, threads: int | None = None
) -> onnxruntime.InferenceSession:
    """A session on `device`; what of it is left to the CPU takes `threads` threads (torch's number of them).

    Raises PosebridgeError for a graph that cannot be run, and where ONNX Runtime is missing or gives the CPU for a GPU.
    """
    runtime = import_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 4  # its errors come as exceptions
    providers = wanted_providers(runtime, device)
    try:
        session = runtime.InferenceSession(
            model.SerializeToString(), options, providers=providers, enable_fallback=False
        )
    except Exception as error:  # ONNX Runtime's own error types, one a cause
        raise _cannot_run(name, error, device.type == "cuda") from None
    if provider_of(session) != providers[0][0]:  # it says so in its log alone where CUDA's libraries do not load
        raise PosebridgeError(
            f"ONNX Runtime {runtime.__version__} runs {name} on the CPU, for {device} ({name_of(device)}), since it "
            "could not load CUDA or cuDNN; install their versions that it was built for, or say --device cpu."
        )
    return session


def import_runtime() -> Any:
    """The module. Raises PosebridgeError where neither of its packages is installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise PosebridgeError(
            f"ONNX Runtime cannot be imported ({error}); install it with `pip install 'posebridge[cpu]'`, or [gpu]."
        ) from None
    return onnxruntime


def wanted_providers(runtime: Any, device: torch.device) -> list[tuple[str, dict[str, str]]]:
    """ONNX Runtime's providers for a device, with their settings. Raises PosebridgeError where it has none for it."""
    if device.type != "cuda":
        return [(ON_CPU, {})]
    if ON_GPU not in runtime.get_available_providers():
        raise PosebridgeError(
            f"ONNX Runtime {runtime.__version__} is built for the CPU alone, and cannot use {device} "
            f"({name_of(device)}); run `pip uninstall onnxruntime faiss-cpu` and `pip install 'posebridge[gpu]'`, or "
            "say --device cpu."
        )
    # float32 as the CPU has it, and a convolution's algorithm by its shape alone, not by what was fast when it began.
    settings = {"device_id": str(device.index or 0), "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    return [(ON_GPU, settings), (ON_CPU, {})]


def provider_of(session: onnxruntime.InferenceSession) -> str:
    """What the session itself says that it runs on: `CPUExecutionProvider`, say."""
    return str(session.get_providers()[0])


def run_session(
    session: onnxruntime.InferenceSession, outputs: Sequence[str], inputs: dict[str, np.ndarray], name: str
) -> list[np.ndarray]:
    """The outputs, arrays of numbers with at least one side. Raises PosebridgeError for a graph that gives others."""
    try:
        found = session.run(list(outputs), inputs)
    except Exception as error:
        raise _cannot_run(name, error, provider_of(session) == ON_GPU) from None
    for output, value in zip(outputs, found, strict=True):
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or not value.ndim:
            raise PosebridgeError(f"The output {output!r} of {name} is no array of numbers; bring another file.")
    return found


def run_bound(
    session: onnxruntime.InferenceSession, inputs: dict[str, Tensor], outputs: dict[str, Tensor], name: str
) -> None:
    """Run a graph from and into contiguous tensors of the session's device. Raises PosebridgeError where it cannot be
    run, or its outputs are of other shapes.
    """
    binding = session.io_binding()
    for bind, tensors in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
        for key, tensor in tensors.items():
            place = tensor.device.type, tensor.device.index or 0
            bind(key, *place, NUMPY[tensor.dtype], tuple(tensor.shape), tensor.data_ptr())
            if tensor.is_cuda:
                torch.cuda.current_stream(tensor.device).synchronize()  # ONNX Runtime has a stream of its own
    try:
        session.run_with_iobinding(binding)
    except Exception as error:
        raise _cannot_run(name, error, provider_of(session) == ON_GPU) from None


def _cannot_run(name: str, error: Exception, on_gpu: bool) -> PosebridgeError:
    remedy = "set a smaller batch_size, say --device cpu, or bring another file" if on_gpu else "bring another file"
    return PosebridgeError(f"ONNX Runtime cannot run {name} ({first_line(error)}); {remedy}.")
