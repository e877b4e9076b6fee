"""Weights of others, odd and damaged: one sentence each, nothing read beside the file, nothing without a bound."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pipeline.errors import PosebridgeError
from pipeline.hpe.detector import Detector
from pipeline.hpe.mmpose_adapter import MmposeEstimator
from pipeline.hpe.onnx_adapter import OnnxEstimator
from pipeline.hpe.onnx_file import METADATA, load_graph, read_facts
from pipeline.hpe.topdown import config_path
from pipeline.hpe.weights import find_weights, load_checkpoint, load_state, metadata
from pipeline.recipe import Recipe
from pipeline.tune.start import find_start

pytestmark = pytest.mark.unit
FAULTS = Path(__file__).parents[2] / "shared/faults/weights"
PLAIN = Recipe(backend="onnx", config="", cues="none", mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))


def odd_states() -> dict[str, object]:
    wide = torch.zeros(1, dtype=torch.float16).expand(1 << 40)
    nested: object = torch.zeros(1)
    for _ in range(400):
        nested = {"state_dict": nested}
    return {
        "an int": 3, "ints": {"a": 1}, "a list": [torch.zeros(1)], "a tensor": torch.zeros(2), "nothing": {},
        "list inside": {"state_dict": [1, 2]}, "none inside": {"state_dict": None}, "number keys": {0: torch.zeros(1)},
        "dicts": {"state_dict": {"a": {"b": torch.zeros(1)}}}, "declared": {"a": wide}, "nested": nested,
        "sparse": {"a": torch.eye(2).to_sparse()}, "complex": {"a": torch.zeros(1, dtype=torch.complex64)},
        "text": "state_dict",
    }  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", odd_states())
def test_what_is_no_state_dict_is_one_sentence(tmp_path: Path, kind: str, legacy: bool) -> None:
    path = tmp_path / "odd.pth"
    torch.save(odd_states()[kind], path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(PosebridgeError, match=r"odd\.pth"):
        load_state(path)


def test_the_odd_files_of_others_are_one_sentence_each() -> None:
    if not FAULTS.is_dir():
        pytest.skip("needs ../shared/faults")
    for path in sorted(FAULTS.glob("*.pth")):
        with pytest.raises(PosebridgeError, match=path.name):
            MmposeEstimator(Recipe(weights=str(path), cues="none"), path)
    for path in sorted(FAULTS.glob("*.onnx")):
        with pytest.raises(PosebridgeError):
            OnnxEstimator(PLAIN, path)


def test_a_packed_checkpoint_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "b.pth", "w") as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry), zipfile.ZIP_DEFLATED)
    with pytest.raises(PosebridgeError, match="declares more than it holds"):
        load_state(tmp_path / "b.pth")


def test_a_checkpoint_tells_its_joints_and_shares_its_tensors(tmp_path: Path) -> None:
    one = torch.rand(3, 4).half()
    meta = {"dataset_meta": {"keypoint_id2name": {1: "neck", 0: "nose"}}}
    torch.save({"state_dict": OrderedDict(a=one, b=one), "meta": meta}, tmp_path / "a.pth")
    state, names = load_checkpoint(tmp_path / "a.pth")
    assert names == ("nose", "neck") and torch.equal(state["a"], one.float()) and torch.equal(state["b"], one.float())


def mutants(content: bytes, count: int) -> list[bytes]:
    """Bytes changed, taken out, doubled, or the end cut off; always the same ones."""
    rng, made = random.Random(0), []
    for _ in range(count):
        data = bytearray(content)
        for _ in range(rng.choice((1, 1, 4, 30))):
            at, length = rng.randrange(len(data)), rng.randrange(1, 9)
            change = rng.randrange(4)
            if change == 0:
                data[at] = rng.randrange(256)
            elif change == 1:
                del data[at : at + length]
            elif change == 2:
                data[at:at] = data[at : at + length]
            elif len(data) > 200 and rng.random() < 0.2:
                del data[at:]
            data = data or bytearray(b"\0")
        made.append(bytes(data))
    return made


@pytest.mark.parametrize("count", [100, pytest.param(4000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damaged_checkpoints_are_read_or_one_sentence(tmp_path: Path, kind: str, count: int) -> None:
    from safetensors.torch import save

    state = {"backbone.a": torch.rand(2, 3), "b": torch.arange(3), "c": torch.rand(2).half()}
    whole = io.BytesIO()
    if kind == "safetensors":
        whole.write(save(state, {"hpe_text": "none", "without": "[]"}))
    else:
        torch.save({"state_dict": state, "meta": {"x": [1, "2"]}}, whole, _use_new_zipfile_serialization=kind == "zip")
    path, refused = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth"), 0
    for content in mutants(whole.getvalue(), count):
        path.write_bytes(content)
        try:
            load_state(path)
            metadata(path)
        except PosebridgeError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > count // 5


def graph(nodes: list, outputs: dict[str, tuple] | None = None, **rest) -> onnx.ModelProto:
    outputs = outputs or {"y": ("N", 17, 16, 12)}
    made = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 3, 64, 48))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()], **rest,
    )  # fmt: skip
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def elsewhere(name: str = "w") -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="beside.bin")
    return tensor


def branch(tensor: TensorProto) -> onnx.GraphProto:
    value = helper.make_tensor_value_info("out", TensorProto.FLOAT, (4,))
    return helper.make_graph([helper.make_node("Identity", ["w"], ["out"])], "b", [], [value], [tensor])


def hidden() -> dict[str, onnx.ModelProto]:
    """Graphs that keep a tensor in another file, in every place where one may stand."""
    constant = helper.make_node("Constant", [], ["w"], value=elsewhere())
    inner = helper.make_graph([constant], "i", [], [])
    sparse = onnx.SparseTensorProto(dims=[9])
    sparse.values.CopyFrom(elsewhere())
    indices = onnx.SparseTensorProto(dims=[9])
    indices.indices.CopyFrom(elsewhere())
    function = helper.make_function("own", "F", [], ["w"], [constant], [helper.make_opsetid("", 17)])
    found = {
        "initial value": graph([], initializer=[elsewhere()]),
        "constant": graph([constant]),
        "list of tensors": graph([helper.make_node("Odd", [], ["w"], many=[elsewhere("a"), elsewhere("b")])]),
        "branch": graph([helper.make_node("If", ["c"], ["w"], then_branch=branch(elsewhere()))]),
        "constant in a branch": graph([helper.make_node("If", ["c"], ["w"], else_branch=inner)]),
        "branch of a branch": graph([helper.make_node("If", ["c"], ["w"], then_branch=helper.make_graph(
            [helper.make_node("If", ["c"], ["w"], then_branch=inner)], "o", [], []))]),
        "sparse constant": graph([helper.make_node("Constant", [], ["w"], sparse_value=sparse)]),
        "sparse initial value": graph([], sparse_initializer=[indices]),
        "function": graph([]), "training": graph([]), "place without the flag": graph([], initializer=[elsewhere()]),
    }  # fmt: skip
    found["function"].functions.append(function)
    found["training"].training_info.add().algorithm.CopyFrom(inner)
    found["place without the flag"].graph.initializer[0].data_location = TensorProto.DEFAULT
    return found


@pytest.mark.parametrize("where", hidden())
def test_weights_in_another_file_are_found_wherever_they_are_named(tmp_path: Path, where: str) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(hidden()[where].SerializeToString())
    with pytest.raises(PosebridgeError, match=r"a\.onnx keeps its weights in another file"):
        load_graph(path)
    with pytest.raises(PosebridgeError, match="keeps its weights in another file"):
        find_weights(Recipe(backend="onnx", weights=str(path)))


@pytest.mark.parametrize("kind", ["Loop", "Scan", "SequenceMap", "EPContext"])
@pytest.mark.parametrize("nested", [False, True])
def test_operators_without_a_bound_are_refused_before_they_run(tmp_path: Path, kind: str, nested: bool) -> None:
    node = helper.make_node(kind, ["trips"], ["y"], body=helper.make_graph([], "b", [], []))
    if nested:
        node = helper.make_node("If", ["c"], ["y"], then_branch=helper.make_graph([node], "t", [], []))
    trips = numpy_helper.from_array(np.array(1 << 62), "trips")
    (tmp_path / "a.onnx").write_bytes(graph([node], initializer=[trips]).SerializeToString())
    for opened in (lambda path: OnnxEstimator(PLAIN, path), Detector):
        with pytest.raises(PosebridgeError, match=f"a.onnx has the operator {kind}, which no pose model needs"):
            opened(tmp_path / "a.onnx")


def small_pose(text: str | None = None) -> onnx.ModelProto:
    model = graph([helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[4, 4], strides=[4, 4])],
                  {"y": ("N", 3, 16, 12)})  # fmt: skip
    if text is not None:
        helper.set_model_props(model, {METADATA: text})
    return model


ODD_FACTS = (
    {"hpe_text": 3}, {"decoding": ["dark"]}, {"dark_kernel": 10**12}, {"dark_kernel": "11"}, {"dark_kernel": True},
    {"dark_kernel": 0}, {"mean": "abc"}, {"mean": [1, "2", 3]}, {"mean": 5}, {"std": [[1], [2], [3]]}, {"channels": {}},
    {"taps": [1, 2]}, {"taps": None}, {"joints": [None]}, {"mean": [True, False, True]},
)  # fmt: skip


@pytest.mark.parametrize("text", [*map(json.dumps, ODD_FACTS), "[]", "3", "null", "{", "[" * 10**5, "\ufeff{}"])
def test_odd_metadata_is_one_sentence(text: str) -> None:
    with pytest.raises(PosebridgeError, match=r"metadata of a\.onnx is damaged"):
        read_facts(small_pose(text), "a.onnx")


@pytest.mark.parametrize(
    "facts",
    [{"mean": [float("nan")] * 3}, {"std": [0, 1, 1]}, {"std": [1.0]}, {"channels": "cmyk"}, {"decoding": "magic"},
     {"mean": [1e999, 0, 0]}],
)  # fmt: skip
def test_values_that_cannot_be_are_one_sentence_that_names_the_file(tmp_path: Path, facts: dict) -> None:
    (tmp_path / "a.onnx").write_bytes(small_pose(json.dumps(facts)).SerializeToString())
    with pytest.raises(PosebridgeError, match=r"a\.onnx"):
        OnnxEstimator(Recipe(backend="onnx", config="", cues="none"), tmp_path / "a.onnx")


def odd_graphs() -> dict[str, onnx.ModelProto]:
    large = graph([helper.make_node("Identity", ["x"], ["y"])], {"y": (1, 3, 1, 1)})
    large.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 10**6, 10**6)))
    many = small_pose()
    many.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, (10**9, 3, 64, 48)))
    none = small_pose()
    del none.graph.input[:]
    simcc = [
        helper.make_node("Reshape", ["x", "rows"], ["y"]),
        helper.make_node("Cast", ["y"], ["whole"], to=TensorProto.INT64),
    ]
    rows = numpy_helper.from_array(np.array([0, 3, -1]), "rows")
    beside = graph(simcc, {"y": ("N", 3, 3072), "whole": ("N", 3, 3072)}, initializer=[rows])
    beside.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    shape, one_row = numpy_helper.from_array(np.array([1, 3, 16, 12]), "s"), {"y": (1, 3, 16, 12)}
    return {
        "large": large, "many": many, "no input": none,
        "one row": graph([helper.make_node("ConstantOfShape", ["s"], ["y"])], one_row, initializer=[shape]),
        "whole numbers": graph([helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT32)]),
        "whole numbers beside": beside,
        "a scalar": graph([helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)], {"y": ()}),
        "a sequence": graph([helper.make_node("SequenceConstruct", ["x", "x"], ["y"])]),
        "text": graph([helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING)]),
        "unknown": graph([helper.make_node("Dog", ["x"], ["y"], domain="of.mine")]),
    }  # fmt: skip


@pytest.mark.parametrize("kind", odd_graphs())
def test_graphs_that_are_no_model_are_one_sentence(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.onnx").write_bytes(odd_graphs()[kind].SerializeToString())
    for opened in (lambda path: OnnxEstimator(PLAIN, path), Detector):
        with pytest.raises(PosebridgeError, match=r"a\.onnx"):
            opened(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    "outputs",
    [{"dets": (1, 7, 5), "labels": (1, 6)}, {"dets": (1, 7, 4), "labels": (1, 7)}, {"dets": (7, 5), "labels": (7,)},
     {"map": (1, 0, 4, 5)}, {"map": (1, 4, 4, 6)}],
)  # fmt: skip
def test_a_detector_of_other_shapes_is_one_sentence(tmp_path: Path, outputs: dict) -> None:
    nodes = [helper.make_node("ConstantOfShape", [f"s_{name}"], [name]) for name in outputs]
    shapes = [numpy_helper.from_array(np.array(shape), f"s_{name}") for name, shape in outputs.items()]
    (tmp_path / "a.onnx").write_bytes(graph(nodes, outputs, initializer=shapes).SerializeToString())
    with pytest.raises(PosebridgeError, match=r"a\.onnx is no RTMDet for persons: it should yield"):
        Detector(tmp_path / "a.onnx")


def test_a_detector_that_gives_no_numbers_is_told_at_once(tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.full((1, 4, 4, 5), np.nan, np.float32), "c")
    model = graph([helper.make_node("Identity", ["c"], ["map"])], {"map": (1, 4, 4, 5)}, initializer=[value])
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(PosebridgeError, match=r"a\.onnx gives numbers that are not finite"):
        Detector(tmp_path / "a.onnx")


def test_a_start_of_tuning_with_an_odd_header_is_one_sentence(tmp_path: Path) -> None:
    from safetensors.torch import save

    for text in ("[", "{}", "[1]", "null"):
        (tmp_path / "a.safetensors").write_bytes(save({"a": torch.zeros(1)}, {"without": text}))
        with pytest.raises(PosebridgeError, match=r"header of .*a\.safetensors"):
            find_start(str(tmp_path / "a.safetensors"), "rtmpose-t_8xb256-420e_coco-256x192")


@pytest.mark.parametrize("name", ["../../../../setup", "*", "", "rtmpose/../x", "[", "/etc/passwd"])
def test_a_config_is_found_by_its_bare_name_only(name: str) -> None:
    with pytest.raises(PosebridgeError, match="no body config named"):
        config_path(name)
