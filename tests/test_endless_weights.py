"""Weights files that ask for more memory or time than they have bytes, and odd words in them: one sentence each."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from pipeline.bench.cues import load_maps
from pipeline.errors import PosebridgeError
from pipeline.hpe.detector import Detector
from pipeline.hpe.joints import check_joints
from pipeline.hpe.mmpose_adapter import MmposeEstimator
from pipeline.hpe.onnx_adapter import OnnxEstimator
from pipeline.hpe.onnx_file import METADATA, load_graph
from pipeline.hpe.topdown import TopdownModel
from pipeline.hpe.weights import find_weights, load_state, resolve_weights
from pipeline.recipe import Recipe

pytestmark = pytest.mark.unit
ONES = torch.ones(2, 2)
OWN = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]


class Call:
    """Pickled, it is a call."""

    def __init__(self, function: Callable[..., object], *arguments: object):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("value", "words"),
    [(Call(bytearray, 2**30), "more than tensors"), (Call(print, "code ran"), "more than tensors"),
     (torch.nested.nested_tensor([ONES, ONES]), ""), (torch.zeros(9, device="meta"), "no plain tensor")],
    ids=["bytearray", "print", "nested", "meta"],
)  # fmt: skip
def test_what_a_checkpoint_holds_besides_numbers_is_not_made(tmp_path, capsys, value, words, legacy):
    file = io.BytesIO()
    torch.save({"a": value}, file, _use_new_zipfile_serialization=not legacy)
    (tmp_path / "odd.pth").write_bytes(file.getvalue())
    with pytest.raises(PosebridgeError, match=f"odd.pth.*{words}"):
        load_state(tmp_path / "odd.pth")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["odd.pth", "odd.safetensors", "odd.onnx"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x75}.", b"text\n" * 9])
def test_noise_is_one_sentence_and_no_warning(tmp_path, recwarn, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PosebridgeError, match=name) as caught:
        load_state(tmp_path / name)
    assert "\n" not in str(caught.value) and not list(recwarn)


@pytest.mark.parametrize("said", ["x" * 10**5, "", "None"])
def test_an_exposure_that_there_is_not_is_one_sentence(tmp_path, said):
    save_file({"a": ONES}, tmp_path / "w.safetensors", {"hpe_text": said})
    with pytest.raises(PosebridgeError, match="none of none, captions-strict, captions") as caught:
        find_weights(Recipe(weights=str(tmp_path / "w.safetensors")))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "", ".", "https://nowhere.invalid/", "http://no where/x.pth"])
@pytest.mark.parametrize("backend", ["mmpose", "onnx"])
def test_names_that_are_no_files_are_one_sentence(tmp_path, monkeypatch, name, backend):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PosebridgeError):
        find_weights(Recipe(backend=backend, weights=name, weights_sha256="0" * 64))


@pytest.mark.e2e
def test_a_probe_of_weights_without_a_whole_refinement_looks_at_the_levels(tmp_path):
    recipe = Recipe(weights="w")
    state = {f"pose.{key}": value.contiguous() for key, value in TopdownModel(recipe.config).state_dict().items()}
    for odd in ({"cue.x": ONES}, {"cue.project.weight": torch.tensor(1.0)}, {"cue.project.weight": torch.empty(0, 9)}):
        save_file(state | odd, tmp_path / "w.safetensors")
        assert load_maps(recipe, tmp_path / "w.safetensors")[1] == {}
        with pytest.raises(PosebridgeError, match="w.safetensors"):
            MmposeEstimator(recipe, tmp_path / "w.safetensors")


def model(nodes: list, initial: list, functions: tuple = ()) -> onnx.ModelProto:
    """A graph from x [N, 3, 32, 24] to y."""
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 3, 32, 24))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], initial,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=OWN, ir_version=8, functions=functions)


def pose_model(facts: dict) -> onnx.ModelProto:
    weight = np.random.default_rng(0).normal(size=(17, 3, 4, 4)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["map"], strides=[4, 4]), helper.make_node("Relu", ["map"], ["y"])]
    made = model(nodes, [numpy_helper.from_array(weight, "w")])
    helper.set_model_props(made, {METADATA: json.dumps(facts)})
    return made


def twice(name: str) -> list[onnx.NodeProto]:
    return [helper.make_node(name, ["x"], ["m"], domain="own"), helper.make_node(name, ["m"], ["y"], domain="own")]


def functions(last: list[onnx.NodeProto], levels: int) -> list[onnx.FunctionProto]:
    """Functions F0 to F<levels>, each of which calls the one before it twice; F0 is `last`."""
    bodies = [last, *(twice(f"F{level}") for level in range(levels))]
    return [helper.make_function("own", f"F{level}", ["x"], ["y"], body, OWN) for level, body in enumerate(bodies)]


@pytest.mark.parametrize("last", [[helper.make_node("Relu", ["x"], ["y"])], twice("F60"), twice("F0")])
def test_functions_that_call_functions_without_bound_are_refused(tmp_path, last):
    (tmp_path / "m.onnx").write_bytes(model(twice("F60"), [], functions(last, 60)).SerializeToString())
    with pytest.raises(PosebridgeError, match="calls functions without bound"):
        resolve_weights(Recipe(backend="onnx", weights=str(tmp_path / "m.onnx")))


@pytest.mark.parametrize("kind", ["Loop", "BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"])
def test_an_operator_without_bound_is_found_in_a_function(tmp_path, kind):
    (tmp_path / "m.onnx").write_bytes(
        model(twice("F1"), [], functions([helper.make_node(kind, ["x"], ["y"])], 1)).SerializeToString()
    )
    with pytest.raises(PosebridgeError, match=f"the operator {kind}, which no pose model needs"):
        load_graph(tmp_path / "m.onnx")


def test_a_few_functions_and_branches_are_read_and_run(tmp_path):
    made = model(twice("F2"), [], functions([helper.make_node("Relu", ["x"], ["y"])], 2))
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    assert OnnxEstimator(Recipe(backend="onnx", cues="none"), tmp_path / "m.onnx").joints == 3


@pytest.mark.parametrize("facts", [{"mean": [10**400] * 3}, {"hpe_text": "x" * 10**5}, {"decoding": "x" * 10**5}])
def test_facts_beyond_all_bounds_are_one_sentence(tmp_path, facts):
    (tmp_path / "odd.onnx").write_bytes(pose_model(facts).SerializeToString())
    with pytest.raises(PosebridgeError, match="metadata of odd.onnx is damaged"):
        resolve_weights(Recipe(backend="onnx", weights=str(tmp_path / "odd.onnx")))


@pytest.mark.parametrize("count", [50, pytest.param(5000, marks=pytest.mark.slow)])
def test_random_damage_to_a_graph_is_a_sentence_or_a_good_file(tmp_path: Path, capfd, count: int) -> None:
    """Read as a pose model and as a detector; nothing but the sentence is printed."""
    facts = {"mean": [1, 2, 3], "std": [1, 2, 3], "taps": ["map"], "decoding": "dark", "hpe_text": "none"}
    whole, path, draw, good = pose_model(facts).SerializeToString(), tmp_path / "g.onnx", random.Random(0), 0
    for round in range(count):
        content = bytearray(whole)
        for _ in range(draw.choice([1, 1, 2, 5])):
            at = draw.randrange(len(content))
            content[at : at + draw.choice([0, 1, 1, 4])] = draw.randbytes(draw.choice([0, 1, 1, 3]))
        path.write_bytes(content)
        for read in (as_pose_model, Detector):
            try:
                read(path)
                good += 1
            except PosebridgeError as error:
                assert "\n" not in str(error) and len(str(error)) < 600, round
    assert good and capfd.readouterr() == ("", "")


def as_pose_model(path: Path) -> None:
    recipe = resolve_weights(Recipe(backend="onnx", weights=str(path), cues="levels"))
    estimator = OnnxEstimator(recipe, path)
    check_joints(recipe, estimator)
    width, height = estimator.crop_size
    estimator.estimate(np.zeros((2, height, width, 3), np.uint8), np.zeros(2, bool))
