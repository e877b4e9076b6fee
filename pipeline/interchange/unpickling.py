"""A restricted unpickler: plain containers, numbers, strings and numpy arrays of them; anything else is refused.

A pickle is a program. This reader lets it call nothing of numpy either: it hands out stand-ins that only collect what
an array consists of (dtype, shape, bytes), and the arrays are made here, after a check.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PosebridgeError

KINDS = "biufSU"  # bool, integers, floats, bytes, text


class _Refused(Exception):
    """Something in the pickle that is no plain data; the message says what."""


class _Dtype:
    """What a pickle says of a dtype."""

    def __init__(self, code: Any, *_: Any):
        self.code, self.order = str(code), "="

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1])

    def build(self) -> np.dtype:
        if len(self.code) > 8 or self.code[:1] not in KINDS or not self.code[1:].isdigit():
            raise _Refused(f"an array of the type {self.code[:20]!r}")
        return np.dtype(self.code).newbyteorder("=" if self.order == "|" else self.order)  # type: ignore[arg-type]


class _Array:
    """What a pickle says of an array; `value` is there once the state has come."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _array(data, dtype, shape, "F" if fortran else "C")


class _Global:
    """The one thing that a name in a pickle becomes: a call of ours. It takes no state and has no attributes."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]):
        self._call = call

    def __call__(self, *values: Any) -> Any:
        return self._call(*values)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("state for a function")


def _array(data: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, bytearray, str)):
        raise _Refused("an array of objects")
    raw = data.encode("latin1") if isinstance(data, str) else data  # a string where the pickle is of Python 2
    kind, size = dtype.build(), math.prod(shape)
    if kind.itemsize * size != len(raw):
        raise _Refused("an array whose bytes do not fit its shape")
    return np.frombuffer(raw, kind).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: Any, data: Any) -> Any:
    return _array(data, dtype, (1,))[0].item()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"text in {encoding!r}")
    return str(text).encode("latin1")


def _empty_bytes(*values: Any) -> bytes:
    if values:
        raise _Refused("bytes built by a call")
    return b""


def _no_call(*_: Any) -> Any:
    raise _Refused("an array built by a call")


_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")  # numpy 1 and 2
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _no_call,
    ("_codecs", "encode"): _encode,
    **{(module, "bytes"): _empty_bytes for module in ("builtins", "__builtin__")},
    **{(module, "_reconstruct"): lambda *_: _Array() for module in _MULTIARRAY},
    **{(module, "scalar"): _scalar for module in _MULTIARRAY},
    **{(module, "_frombuffer"): _array for module in _NUMERIC},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise _Refused(f"{module}.{name}")
        return _Global(ADMITTED[module, name])

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("a reference to something outside of it")


def read_pickle(path: Path) -> Any:
    """The plain data of a pickle: dicts, lists, tuples, numbers, text and read-only numpy arrays.

    Raises PosebridgeError naming the file where it is missing, damaged, or holds anything else.
    """
    if not path.is_file():
        raise PosebridgeError(f"{path} is missing; name an annotation file.")
    try:
        with path.open("rb") as file:
            return _plain(_Unpickler(file, encoding="latin1").load())
    except _Refused as error:
        raise PosebridgeError(
            f"{path} holds {error}; only dicts, lists, numbers, text and numpy arrays are read from a pickle."
        ) from None
    except (pickle.UnpicklingError, EOFError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError,
            RecursionError, MemoryError) as error:  # fmt: skip
        raise PosebridgeError(f"{path} is no readable pickle ({type(error).__name__}); fetch it again.") from None


def _plain(value: Any) -> Any:
    """`value` with arrays in the place of what was collected of them. Raises _Refused for a stand-in without one."""
    if isinstance(value, _Array) and value.value is not None:
        return value.value
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    if value is None or isinstance(value, (bool, int, float, str, bytes, np.ndarray)):
        return value
    raise _Refused(f"a {type(value).__name__.strip('_').lower()} that is not plain data")
