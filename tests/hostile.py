"""Odd files for `cache import`, each by what is odd about it: made here, small, and of every kind that we know."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Iterator

import numpy as np

POSE = np.random.default_rng(0).uniform(10, 90, (1, 8, 17, 2)).astype(np.float32)
RECORD = {"frame_dir": "a", "label": 0, "total_frames": 8, "img_shape": (100, 100), "keypoint": POSE}


def record(**changes: object) -> dict:
    return RECORD | changes


def nested(value: object, depth: int, pair: bool = False) -> object:
    """A value in lists within lists, or in pairs that name one another twice."""
    for _ in range(depth):
        value = [value, value] if pair else [value]
    return value


def shared_tuple(depth: int) -> bytes:
    """Opcodes of a tuple that names one tuple twice, and so on: years to hash."""
    return b"\x80\x04)" + b"2\x86" * depth


def itself() -> list:
    made: list = []
    made.append(made)
    return made


def odd_values() -> Iterator[tuple[str, object]]:
    """What a pickle may hold in the place of annotations."""
    for name, value in {
        "an empty list": [], "an empty dict": {}, "none": None, "a number": 7, "text": "annotations", "a tuple": (),
        "an array": POSE, "annotations none": {"annotations": None}, "annotations text": {"annotations": "ab"},
        "annotations a dict": {"annotations": {"a": record()}}, "a list of none": [None], "a list of text": ["a"],
        "a list of lists": [[record()]], "itself": itself(), "deep": nested(1, 300), "shared": nested(1, 60, True),
        "shared records": nested(record(), 60, True),
    }.items():  # fmt: skip
        yield name, value
    many = np.zeros((1, 2000, 17, 2), np.float32)
    yield "one array for all", [record(frame_dir=str(i), keypoint=many) for i in range(5000)]
    for name, split in {
        "number": {"train": 5}, "text": {"train": "abc"}, "a list": ["a"],
        "name": {5: ["a"]}, "inside": {"train": [[1]]},
        "none": {"train": None}, "deep": {"train": nested("a", 40)}, "nan": {"train": [float("nan")]},
        "array": {"train": POSE}, "0-d": {"train": np.array(3)}, "surrogate": {"train": ["\ud800"]},
    }.items():  # fmt: skip
        yield f"split: {name}", {"split": split, "annotations": [record()]}
    yield "split an array", {"split": POSE, "annotations": [record()]}
    for name, changes in {
        "inf": float("inf"), "nan": float("nan"), "half": 1.5, "text": "one", "none": None, "list": [1], "true": True,
        "huge": 10**400, "negative": -7, "array": np.arange(3), "text array": np.array("x"), "complex": 1j,
        "shared": nested(1, 30, True), "beyond": 99, "float array": np.array([np.nan]), "empty array": np.zeros(0),
    }.items():  # fmt: skip
        yield f"label: {name}", [record(label=changes)]
    for name, changes in {
        "none": None, "empty": "", "blank": " ", "blanks": " a ", "nul": "a\0b", "line": "a\nb", "return": "a\rb",
        "surrogate": "a\udcff", "long": "x" * 100_000, "up": "../../a", "root": "/etc/passwd", "dots": "..",
        "list": ["a"], "dict": {}, "shared": nested("a", 30, True), "nan": float("nan"), "true": True, "huge": 10**5000,
        "bytes": b"\xff\xfe", "array": np.array(["a", "b"]), "slash": "a/", "paragraph": "a\u2028b",
    }.items():  # fmt: skip
        yield f"frame_dir: {name}", [record(frame_dir=changes)]
    yield "frame_dir twice", [record(), record()]
    yield "frame_dir twice, composed otherwise", [record(frame_dir="\u00e9"), record(frame_dir="e\u0301")]
    for name, changes in {
        "none": None, "text": "abc", "texts": ["a" * 9999] * 9999, "number": 1, "dict": {}, "0-d": np.array(1.0),
        "no person": POSE[:0], "no frame": POSE[:, :0], "no joint": POSE[:, :, :0], "no place": POSE[..., :0],
        "one place": POSE[..., :1], "four places": np.concatenate([POSE, POSE], -1), "flat": POSE[0, 0],
        "five axes": POSE[None], "words": np.full(POSE.shape, "ab"), "bytes": np.full(POSE.shape, b"ab"),
        "bool": POSE > 50, "ragged": [[[[1, 2]], [[1, 2], [3, 4]]]], "lists of none": [[[[None, None]]]],
        "other joints": POSE[:, :, :5], "metres": POSE / 100, "far": POSE * 1e12,
        "endless": np.full(POSE.shape, np.inf),
        "deep": nested(1.0, 45), "shared": nested(1.0, 30, True), "huge numbers": [[[[10**400, 1]] * 17]],
        "strings of numbers": [[[["1", "2"]] * 17]],
    }.items():  # fmt: skip
        yield f"keypoint: {name}", [record(keypoint=changes)]
    yield "mixed joints", [record(), record(frame_dir="b", keypoint=POSE[:, :, :5])]
    for name, changes in {
        "text": "abc", "flat": np.ones(8), "none inside": [None], "more": np.ones((2, 8, 17)), "bool": POSE[..., 0] > 5,
        "words": np.full((1, 8, 17), "x"), "shared": nested(1, 30, True),
    }.items():  # fmt: skip
        yield f"keypoint_score: {name}", [record(keypoint_score=changes)]
    for name, changes in {
        "text": "ab", "number": 5, "three": (1, 2, 3), "nan": (float("nan"), 1), "negative": (-1, 5),
        "texts": ("a", "b"), "huge": (10**30, 1), "lists": ([1], [2]), "square": np.ones((2, 2)),
        "0-d": np.array(2), "dict": {1: 2, 3: 4},
    }.items():  # fmt: skip
        yield f"img_shape: {name}", [record(img_shape=changes)]
    for name, changes in {"nan": float("nan"), "text": "8", "list": [8], "inf": float("inf"), "half": 7.5}.items():
        yield f"total_frames: {name}", [record(total_frames=changes)]
    for name, changes in {"list": ["a"], "number": 1.5, "surrogate": "\ud800", "dict": {}}.items():
        yield f"annotation's split: {name}", [record(split=changes)]


def odd_pickles() -> Iterator[tuple[str, bytes]]:
    """Whole files."""
    for name, value in odd_values():
        yield name, pickle.dumps(value, 4)
    whole = pickle.dumps([record()], 4)
    yield "no byte", b""
    yield "cut", whole[:-50]
    yield "twice cut", whole[: len(whole) // 2]
    yield "text file", b"frame_dir,label\n"
    yield "zip", zipped({"a.npy": npy(POSE)})
    yield "a memo of gigabytes", b"\x80\x02]r\xff\xff\xff\x7f."
    yield "a long string", b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"."
    yield "long bytes", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"."
    yield "a long bytearray", b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"."
    yield "a long frame", b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"."
    yield "a long whole number", b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + b"."
    yield "a negative length", b"\x80\x02\x8b" + struct.pack("<i", -5) + b"."
    yield "a whole number of many digits", b"I" + b"9" * 100_000 + b"\n."
    yield "a key that takes years", b"\x80\x04}" + shared_tuple(60)[2:] + b"Ns."
    yield "a key among others that takes years", b"\x80\x04}(" + shared_tuple(60)[2:] + b"Nu."
    yield "tuples as keys of a dict", b"(" + shared_tuple(60)[2:] + b"Nd."
    yield "a set of tuples", b"\x80\x04\x8f(" + shared_tuple(60)[2:] + b"\x90."
    yield "a frozen set", b"\x80\x04(" + shared_tuple(60)[2:] + b"\x91."
    yield "a dtype named by tuples", b"\x80\x04cnumpy\ndtype\n" + shared_tuple(60)[2:] + b"\x85R."
    yield "text encoded as tuples", b"\x80\x04c_codecs\nencode\n" + shared_tuple(60)[2:] + b"2\x86R."
    yield "very deep", b"(" * 100_000 + b"l" * 100_000 + b"."
    yield "very deep tuples", b"\x80\x04)" + b"\x85" * 100_000 + b"."
    yield "no stop", b"\x80\x04]"
    yield "an empty stack", b"0."
    yield "protocol 99", b"\x80\x63N."
    yield "an extension", b"\x82\x01."
    yield "an object", b"\x80\x02cnumpy\ndtype\n)\x81."
    yield "state for a list", b"\x80\x02]}b."
    yield "a shape of huge numbers", pickle.dumps(POSE, 2).replace(b"K\x08", b"\x8b\x04\x00\x00\x00\xff\xff\xff\x7f", 1)
    for name in ("M8[s]", "m8[s]"):
        yield f"dates {name}", pickle.dumps([record(keypoint=np.zeros(POSE.shape, name))])
    yield "complex", pickle.dumps([record(keypoint=POSE.astype(complex))])
    yield "objects", pickle.dumps([record(keypoint=np.full(POSE.shape, None))])
    yield "records", pickle.dumps([record(keypoint=np.zeros(4, "f4,i4"))])


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=True)
    return file.getvalue()


def header(text: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """A .npy whose header says what we like."""
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + size + text.encode("latin1") + data


def zipped(members: dict[str, bytes], pack: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", pack) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return file.getvalue()


GOOD = {"frame_dir": np.array(["a", "b"]), "label": np.array([0, 1]), "keypoint": np.stack([POSE, POSE + 1])}


def npz(**changes: object) -> bytes:
    """A good file with some members changed; None leaves one out."""
    members = {name: npy(array) for name, array in GOOD.items()}
    for name, value in changes.items():
        if value is None:
            del members[name]
        else:
            members[name] = value if isinstance(value, bytes) else npy(np.asarray(value))
    return zipped({f"{name}.npy": content for name, content in members.items()})


def odd_npz() -> Iterator[tuple[str, bytes]]:
    """Whole files."""
    whole = npz()
    yield "no byte", b""
    yield "cut", whole[: len(whole) // 2]
    yield "renamed npy", npy(POSE)
    yield "no member", zipped({})
    yield "members of another name", zipped({"arr_0.npy": npy(POSE)})
    yield "an array twice", zipped({"label.npy": npy(GOOD["label"]), "label": npy(GOOD["label"])})
    yield "zeros that pack well", zipped({"keypoint.npy": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)
    yield "packed by lzma", zipped({"label.npy": npy(GOOD["label"])}, zipfile.ZIP_LZMA)
    for name in GOOD:
        yield f"without {name}", npz(**{name: None})
        yield f"{name} is no npy", npz(**{name: b"text"})
        yield f"{name} is empty", npz(**{name: b""})
        yield f"{name} of objects", npz(**{name: np.array([None, 1], object)})
    shape = "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }\n"
    for name, text in {
        "huge": "(2, 1099511627776)", "negative": "(2, -1)", "many axes": f"({'1,' * 60})", "nothing": "()",
        "overflow": f"({'4294967296,' * 4})", "no tuple": "7", "text": "('a',)",
        "zero and huge": "(2, 0, 1099511627776)",
    }.items():  # fmt: skip
        yield f"shape: {name}", npz(keypoint=header(shape % text, bytes(64)))
    for descr in ("'O'", "'<c8'", "'<M8[s]'", "'V8'", "'<f3'", "[('a', '<f4')]", "'<U0'", "5", "'|b1'"):
        yield f"descr {descr}", npz(keypoint=header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': (2,), }}\n"))
    yield "a header that is code", npz(keypoint=header("__import__('os').getcwd()\n"))
    yield "a deep header", npz(keypoint=header("(" * 5000 + "\n"))
    yield "a long header", npz(keypoint=header(" " * 60_000 + "{}\n"))
    yield "version 9", npz(keypoint=header("{}", version=b"\x09\x00"))
    yield "lengths differ", npz(label=np.arange(3))
    yield "0-d", npz(label=np.array(1))
    yield "label nan", npz(label=np.array([0, np.nan]))
    yield "label text", npz(label=np.array(["a", "b"]))
    yield "label of two axes", npz(label=np.zeros((2, 2), int))
    yield "frame_dir no Unicode", npz(frame_dir=header("{'descr': '<U1', 'fortran_order': False, 'shape': (2,), }\n",
                                                      b"\xff" * 8))  # fmt: skip
    yield "frame_dir twice", npz(frame_dir=np.array(["a", "a"]))
    yield "frame_dir surrogate", npz(frame_dir=np.array(["a", "\ud800"]))
    yield "frame_dir numbers", npz(frame_dir=np.array([1.5, 2.5]))
    yield "no clip", npz(frame_dir=GOOD["frame_dir"][:0], label=GOOD["label"][:0], keypoint=GOOD["keypoint"][:0])
    yield "no frame", npz(keypoint=GOOD["keypoint"][:, :, :0])
    yield "other joints", npz(keypoint=GOOD["keypoint"][:, :, :, :5])
    yield "img_shape of three", npz(img_shape=np.ones((2, 3), int))
    yield "total_frames text", npz(total_frames=np.array(["a", "b"]))
    yield "scores of another shape", npz(keypoint_score=np.ones((2, 3)))


def declared(name: str, size: int) -> bytes:
    """A good file in which the directory of the zip says that a member unpacks to `size` bytes."""
    content = npz()
    place = content.rindex(f"{name}.npy".encode()) - 46
    return content[: place + 24] + struct.pack("<I", size) + content[place + 28 :]
