"""A restricted unpickler: plain containers, numbers, strings and numpy arrays of them; anything else is refused.

A pickle is a program. This reader lets it call nothing of numpy either: it hands out stand-ins that only collect what
an array consists of (dtype, shape, bytes), and the arrays are made here, after a check.

A small pickle may stand for something huge: lists that name one list again and again, memo numbers that take a table of
gigabytes, tuples as keys that take years to hash. So the Unpickler that is written in Python is used, whose memo is a
dict; keys are plain; and what is read may weigh no more than the file could hold.
"""

from __future__ import annotations

import math
import mmap
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline.errors import PosebridgeError

KINDS = "biufSU"  # bool, integers, floats, bytes, text
MOST_BYTES = 16 << 30  # of a file; all of it is held in memory
SHARED = 4  # how many times a file's own size its content may weigh: an array may serve several clips
SLACK = 1 << 20  # and so much more, for small files
DEEPEST = 50  # lists within lists


class _Refused(Exception):
    """Something in the pickle that is no plain data; the message says what."""


class _Dtype:
    """What a pickle says of a dtype."""

    def __init__(self, code: Any, *_: Any):
        self.code, self.order = _text(code), "="

    def __setstate__(self, state: Any) -> None:
        self.order = _text(state[1])

    def build(self) -> np.dtype:
        known = self.code[:1] in KINDS and self.code[1:].isascii() and self.code[1:].isdigit()
        if len(self.code) > 8 or not known or self.order not in ("=", "|", "<", ">"):
            raise _Refused(f"an array of the type {self.code[:20]!r}")
        return np.dtype(self.code).newbyteorder("=" if self.order == "|" else self.order)  # type: ignore[arg-type]


class _Array:
    """What a pickle says of an array; `value` is there once the state has come."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _array(data, dtype, shape, "F" if fortran else "C")


class _Global:
    """The one thing that a name in a pickle becomes: a call of ours. It has no attributes."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]):
        self._call = call

    def __call__(self, *values: Any) -> Any:
        return self._call(*values)


def _array(data: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, bytearray, str)):
        raise _Refused("an array of objects")
    most = max(len(data), 1000)  # of an axis; only an empty array has more than bytes
    if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(n) is int and 0 <= n <= most for n in shape):
        raise _Refused("an array of an odd shape")
    raw = data.encode("latin1") if isinstance(data, str) else data  # a string where the pickle is of Python 2
    kind, size = dtype.build(), math.prod(shape)
    if kind.itemsize * size != len(raw):
        raise _Refused("an array whose bytes do not fit its shape")
    return plain_array(raw, kind, shape, order == "F")


def plain_array(raw: bytes | bytearray, kind: np.dtype, shape: tuple[int, ...], fortran: bool) -> np.ndarray:
    """A read-only array of these bytes. Raises ValueError for text that is no Unicode, at which numpy breaks later."""
    if kind.kind == "U" and np.frombuffer(raw, np.dtype("u4").newbyteorder(kind.byteorder)).max(initial=0) > 0x10FFFF:
        raise ValueError("text that is no Unicode")
    array = np.frombuffer(raw, kind).reshape(shape, order="F" if fortran else "C")
    array.flags.writeable = False
    return array


def _scalar(dtype: Any, data: Any) -> Any:
    return _array(data, dtype, (1,))[0].item()


def _text(value: Any) -> str:
    if not isinstance(value, (str, bytes)) or len(value) > 1000:
        raise _Refused("a name that is none")
    return value if isinstance(value, str) else value.decode("latin1")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused("text in an odd encoding")
    return text.encode("latin1")


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


_Python: Any = pickle._Unpickler  # type: ignore[attr-defined]


class _Unpickler(_Python):
    dispatch: ClassVar[dict[int, Any]] = dict(_Python.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise _Refused(f"{module[:100]}.{name[:100]}")
        return _Global(ADMITTED[module, name])

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("a reference to something outside of it")

    def _items(self) -> None:
        """SETITEMS, for plain keys."""
        items = self.pop_mark()
        self._update(self.stack[-1], items)

    def _item(self) -> None:
        """SETITEM."""
        value, key = self.stack.pop(), self.stack.pop()
        self._update(self.stack[-1], [key, value])

    def _dict(self) -> None:
        """DICT."""
        made: dict[Any, Any] = {}
        self._update(made, self.pop_mark())
        self.append(made)

    def _update(self, target: Any, items: list[Any]) -> None:
        if type(target) is not dict or len(items) % 2:
            raise _Refused("entries of something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, bytes, int, float)):
                raise _Refused("a dict whose keys are no text or numbers")
            target[key] = value

    def _list_items(self) -> None:
        """APPENDS."""
        items = self.pop_mark()
        self._extend(self.stack[-1], items)

    def _list_item(self) -> None:
        """APPEND."""
        value = self.stack.pop()
        self._extend(self.stack[-1], [value])

    def _extend(self, target: Any, items: list[Any]) -> None:
        if type(target) is not list:
            raise _Refused("items of something that is no list")
        target.extend(items)

    def _state(self) -> None:
        """BUILD, of our stand-ins only."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_Array, _Dtype)):
            raise _Refused("state for what takes none")
        self.stack[-1].__setstate__(state)

    def _long_array(self) -> None:
        """BYTEARRAY8, of no more bytes than the file has."""
        size = int.from_bytes(self.read(8), "little")
        content = self.read(min(size, MOST_BYTES))
        if len(content) != size:
            raise EOFError
        self.append(content)

    def _refuse(self) -> None:
        raise _Refused("an object that is no plain data")

    dispatch |= {
        pickle.SETITEM[0]: _item,
        pickle.SETITEMS[0]: _items,
        pickle.DICT[0]: _dict,
        pickle.APPEND[0]: _list_item,
        pickle.APPENDS[0]: _list_items,
        pickle.BUILD[0]: _state,
        pickle.BYTEARRAY8[0]: _long_array,
    }
    for code in (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.INST, pickle.OBJ, pickle.NEWOBJ,
                 pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER,
                 pickle.READONLY_BUFFER):  # fmt: skip
        dispatch[code[0]] = _refuse


def read_pickle(path: Path) -> Any:
    """The plain data of a pickle: dicts, lists, tuples, numbers, text and read-only numpy arrays.

    Raises PosebridgeError naming the file where it is missing, damaged, or holds anything else, or more than a file of
    its size could.
    """
    try:
        if not path.is_file():
            raise PosebridgeError(f"{path} is missing or no plain file; name an annotation file.")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise PosebridgeError(f"{path} has more than {MOST_BYTES >> 30} GiB; split it into several files.")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Plain(SHARED * size + SLACK).of(_Unpickler(content, encoding="latin1").load())
    except _Refused as error:
        raise PosebridgeError(
            f"{path} holds {error}; only dicts, lists, numbers, text and numpy arrays are read from a pickle."
        ) from None
    except OSError as error:
        raise PosebridgeError(f"{path} cannot be read ({error.strerror}); correct its permissions.") from None
    except (pickle.UnpicklingError, EOFError, ArithmeticError, AssertionError, AttributeError, LookupError, TypeError,
            ValueError, RecursionError, MemoryError, struct.error) as error:  # fmt: skip
        raise PosebridgeError(f"{path} is no readable pickle ({type(error).__name__}); fetch it again.") from None


class _Plain:
    """Values with arrays in the place of what was collected of them.

    What is named several times is made once, but weighs each time, since whoever reads it goes through it each time: an
    entry as one byte, an array as its bytes.
    """

    def __init__(self, most: int):
        self.most = most
        self.made: dict[int, tuple[Any, int]] = {}  # id -> the plain value and its weight
        self.open: set[int] = set()

    def of(self, value: Any) -> Any:
        """Raises _Refused for what holds itself, is too deep or too much, or a stand-in that never became an array."""
        return self._of(value)[0]

    def _of(self, value: Any) -> tuple[Any, int]:
        if isinstance(value, _Array) and value.value is not None:
            return value.value, value.value.nbytes + 1
        if value is None or isinstance(value, (bool, int, float, str, bytes)):
            return value, 1
        if isinstance(value, np.ndarray):
            return value, value.nbytes + 1
        if not isinstance(value, (dict, list, tuple)):
            raise _Refused(f"a {type(value).__name__.strip('_').lower()} that is not plain data")
        if id(value) in self.made:
            return self.made[id(value)]
        if id(value) in self.open:
            raise _Refused("a list or dict that holds itself")
        if len(self.open) > DEEPEST:
            raise _Refused(f"lists or dicts within more than {DEEPEST} others")
        self.open.add(id(value))
        plain: Any
        if isinstance(value, dict):
            parts = [self._of(item) for item in value.values()]
            plain = dict(zip(value, (part for part, _ in parts), strict=True))
        else:
            parts = [self._of(item) for item in value]
            plain = type(value)(part for part, _ in parts)
        self.open.remove(id(value))
        weight = 1 + sum(weight for _, weight in parts)
        if weight > self.most:
            raise _Refused("lists that name one another so often that they stand for far more than it holds")
        self.made[id(value)] = plain, weight
        return plain, weight
