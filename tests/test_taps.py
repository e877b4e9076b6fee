"""Comparing the inner maps of a pose model: what is chosen, by which clips, and how maps and controls are pooled."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from synthetic import FakeDataset, FakeReader
from test_gap import world

from pipeline.bench.taps import COLOURS, PATCH, Seen, colour_patches, pooled_of, probe_taps
from pipeline.errors import PosebridgeError
from pipeline.gap.known import SKELETON, block
from pipeline.gap.question import Question, ask, fold_by
from pipeline.hpe.onnx_maps import inner_maps, one_a_stride
from pipeline.manifest.clips import Clip
from pipeline.recipe import Recipe
from stages.cli import main

pytestmark = pytest.mark.unit
ANCHORS = ("body", "left_hand", "right_hand", "background")
N = 90
FOLDS, ANSWERS = np.arange(N) % 5, np.arange(N) // 5 % 3
QUESTION = Question("thing", "subject", tuple(map(str, range(N))), ("a", "b", "c"), ANSWERS,
                    tuple(str(fold) for fold in FOLDS), FOLDS, ())  # fmt: skip
CHOOSING = FOLDS < 3


def seen() -> Seen:
    """Six maps of noise, but: `told` knows the answer at the hands, `room` where nobody is, and `peek` everywhere, of
    the clips that do not choose.
    """
    rng = np.random.default_rng(0)
    maps = {"told": (8, 8), "peek": (8, 8), "late": (8, 8), "early": (8, 4), "room": (8, 16), COLOURS: (8, 8)}
    answer = 3 * np.eye(3, 8)[ANSWERS]
    blocks = {SKELETON: torch.from_numpy(rng.normal(size=(N, 12))).float()}
    for name in maps:
        for anchor in ANCHORS:
            values = rng.normal(size=(N, 8))
            values += answer * (name == "told" and "hand" in anchor) + answer * (name == "room" and "back" in anchor)
            values += 2 * answer * (name == "peek") * ~CHOOSING[:, None]
            blocks[block(name, anchor)] = torch.from_numpy(values).half()
    return Seen(blocks, maps, ANCHORS)


def test_one_tap_a_stride_is_chosen_by_the_clips_that_choose_alone():
    found = probe_taps(QUESTION, CHOOSING, seen(), "r", ("late", "early"), 0.0)
    assert (found.compared, found.choosing, found.clips) == (5, 54, N)
    assert found.chosen == ("early", "told", "room"), "shallow first; of stride 8 not what knows the other clips"
    read = {(each.what, each.place): each for each in found.readings}
    assert read["told", "hands"].accuracy > 0.9 > 0.5 > read["told", "background"].accuracy
    assert read["room", "background"].accuracy > 0.9 > 0.5 > read["room", "all"].accuracy
    assert read["peek", "all"].others > 0.9 > 0.5 > read["peek", "all"].choosing
    assert read["chosen taps", "all"].accuracy > read["the recipe's taps", "all"].accuracy + 0.3
    assert read["skeleton", "body"].accuracy < 0.5 and read[COLOURS, "hands"].accuracy < 0.5
    assert (read["chosen taps", "all"].channels, read["the recipe's taps", "all"].channels) == (24, 16)


def test_the_maps_of_a_graph_are_those_of_a_stride_that_cues_have(tmp_path):
    def conv(source: str, name: str, inputs: int, channels: int, step: int, size: int = 0) -> list:
        zeros = np.zeros((channels, inputs, size or step, size or step), np.float32)
        weight = numpy_helper.from_array(zeros, f"{name}_w")
        node = helper.make_node("Conv", [source, weight.name], [name], strides=[step, step])
        return [node, weight]

    pairs = [conv("image", "fine", 3, 16, 2), conv("fine", "four", 16, 16, 2), conv("four", "eight", 16, 20, 2),
             conv("eight", "thin", 20, 4, 1), conv("eight", "odd", 20, 16, 1, 3), conv("eight", "heat", 20, 17, 1)]
    nodes = [node for node, _ in pairs]
    nodes += [helper.make_node("Relu", ["eight"], ["relu"]), helper.make_node("Sigmoid", ["eight"], ["sure"]),
              helper.make_node("Add", ["eight", "relu"], ["sum"]),
              helper.make_node("Concat", ["sum"], ["flat"], axis=1)]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 64, 48])],
        [helper.make_tensor_value_info("heat", TensorProto.FLOAT, None)], [weight for _, weight in pairs],
    )  # fmt: skip
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    assert inner_maps(path) == ("four", "eight", "relu", "sum", "flat")
    assert one_a_stride(path) == ("four", "flat")
    pairs[1:1] = [conv("fine", "broad", 16, 33, 2)]  # beside which `four` is thin
    graph.node.insert(1, pairs[1][0])
    graph.initializer.append(pairs[1][1])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    assert one_a_stride(path) == ("broad", "flat")
    del graph.node[1:]
    graph.output[0].name = "fine"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(PosebridgeError, match=r"m.onnx has no inner map of 4 or 8 or 16 or 32 pixels a cell to tap\.$"):
        inner_maps(path)


@pytest.mark.parametrize("shape, why", [
    ([2], r"should have one input of shape"), ([2, 3], r"should have one input of shape"),
    ([1, 3, 64, 48, 2], r"should have one input of shape"), (["n", 3, "h", "w"], r"has no fixed size"),
    ([1, 3, 200_000, 200_000], r"at most 2048 x 2048 pixels"), ([1024, 3, 2048, 2048], r"in all 134 million"),
], ids=str)  # fmt: skip
def test_a_graph_of_another_input_is_one_sentence(tmp_path, shape, why):
    graph = helper.make_graph(
        [helper.make_node("Relu", ["image"], ["relu"]), helper.make_node("Relu", ["relu"], ["heat"])], "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("heat", TensorProto.FLOAT, None)],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(PosebridgeError, match=why):
        inner_maps(tmp_path / "m.onnx")


def test_raw_colours_are_the_means_around_each_cell():
    crops = np.zeros((1, 64, 48, 3), np.uint8)
    crops[0, 16:24, 8:16, 1] = 255  # one cell, row 2 and column 1
    found = colour_patches(crops)
    assert found.shape == (1, 3 * PATCH**2, 8, 6)
    places = found[0].unflatten(0, (3, PATCH, PATCH))
    assert places[1, 2, 2, 2, 1] == 1 and places[1, 0, 1, 4, 2] == 1, "from 2 cells before a cell to 3 behind it"
    assert found.sum() == 5 * 4, "as often as the cell is near another: the map's edge is near"


class Painter:
    """An estimator whose one map shows the crop's red, and a person in its middle."""

    crop_size, taps = (48, 64), {"red": (1, 16)}

    def tapped(self, crops: np.ndarray):
        red = torch.from_numpy(crops[..., 0].astype(np.float32)).mean((1, 2))[:, None, None, None].expand(-1, 1, 4, 3)
        points = torch.tensor([24.0, 32.0]) + 6 * torch.randn(17, 2, generator=torch.Generator().manual_seed(0))
        return [red], points.expand(len(crops), 17, 2), torch.ones(len(crops), 17)


def test_maps_are_pooled_over_everybody_in_the_boxes_of_the_extraction(tmp_path):
    (tmp_path / "c").mkdir()
    for name, red in (("0.png", 50), ("1.png", 150)):
        cv2.imwrite(str(tmp_path / "c" / name), np.full((100, 80, 3), (0, 0, red), np.uint8))
    arrays = {
        "boxes": np.array([[[[20, 20, 30, 40]] * 2] * 2], np.float32),
        "person_valid": np.array([[[True, True], [True, False]]]),
        "frame_index": np.array([[0, 1]]),
        "cue_frame": np.array([[0, 1]]),
    }
    reader = FakeReader(Recipe(persons=2, frames=2, cue_frames=2), ["c"], arrays)
    clip = Clip("c", "c/", fps=1.0)
    found = pooled_of(clip, tmp_path, reader, Painter(), ("body", "left_hand"), 0.08)
    assert found.shape == (2, 1 + 3 * PATCH**2)
    assert found[:, 0].tolist() == pytest.approx([(50 + 50 + 150) / 3] * 2, abs=1), "two persons first, one then"
    arrays["person_valid"][:] = False
    assert not pooled_of(clip, tmp_path, reader, Painter(), ("body", "left_hand"), 0.08).any()
    (tmp_path / "c" / "1.png").write_text("no picture")
    arrays["person_valid"][:] = True
    with pytest.raises(PosebridgeError, match=r"The clip 'c' cannot be read any more, as it was extracted"):
        pooled_of(clip, tmp_path, reader, Painter(), ("body",), 0.08)
    (tmp_path / "c" / "1.png").unlink()
    with pytest.raises(PosebridgeError, match=r"The clip 'c' cannot be .* \(it has 1 frames and no frame 2\); bring"):
        pooled_of(clip, tmp_path, reader, Painter(), ("body",), 0.08)


def test_folds_may_be_the_unseen_classes_of_protocols(tmp_path, monkeypatch):
    toy, unseen = world(tmp_path), {"one": (0,), "two": (1,), "both": (0, 1)}
    monkeypatch.setattr(FakeDataset, "split", lambda self, name: SimpleNamespace(unseen=unseen[name]))
    asked = ask(toy, toy.reader("levels").index["clips"], "thing")
    found = fold_by(asked, toy, ["one", "two"])
    label = {clip.clip_id: clip.label for clip in toy.clips}
    assert found.folds.tolist() == [label[clip_id] for clip_id in found.clip_ids] and len(found.clip_ids) == 120
    by_class = ask(toy, toy.reader("levels").index["clips"], "height")
    with pytest.raises(PosebridgeError, match="height 'high' are unseen in fewer than two of one, two"):
        fold_by(by_class, toy, ["one", "two"])
    with pytest.raises(PosebridgeError, match="thing 'book' are unseen in fewer than two of one, both"):
        fold_by(asked, toy, ["one", "both"])


@pytest.mark.parametrize("words", ["--choose-on a", "--protocol a", "--protocol a --choose-on a", "--protocol a "
                                   "--protocol b --choose-on c"])  # fmt: skip
def test_some_folds_choose_and_others_show_what_that_is_worth(words: str) -> None:
    done = CliRunner().invoke(main, ["bench", "cues", "--dataset", "d", "--recipe", "r", *words.split()])
    assert done.exit_code == 1 and done.stderr.startswith("Error: Name with --choose-on some of the --protocol folds")


@pytest.mark.parametrize("words", ["", "--weights a --dataset b --recipe c", "--dataset b",
                                   "--dataset b --recipe c --stills 5", "--weights a --taps x"])  # fmt: skip
def test_either_stills_or_clips_are_looked_at(words: str) -> None:
    assert CliRunner().invoke(main, ["bench", "cues", *words.split()]).exit_code == 2
