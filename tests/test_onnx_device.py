"""ONNX Runtime computes where it was asked to, or says why not: never on the CPU in silence."""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from fakes import FakeEstimator, write_video
from safetensors.torch import save_file
from test_decoders import bright_detector, detecting, extracted
from test_onnx import PLAIN, heatmap_graph, red_spot

import stages.extract
from pipeline.cache.sealed import canonical_json, seal
from pipeline.cache.store import open_store
from pipeline.errors import PosebridgeError
from pipeline.hpe.base import computed_with
from pipeline.hpe.detector import Detector
from pipeline.hpe.onnx_adapter import OnnxEstimator
from pipeline.hpe.transfer import to_arrays
from pipeline.ingest.ingest import ingest
from stages.cli import main

pytestmark = pytest.mark.unit
GPU = torch.device("cuda", 1)
BOTH = ["CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch):
    """An ONNX Runtime that is built for GPUs, and sessions that run on what `got` says; `asked` collects what for."""

    class Session(onnxruntime.InferenceSession):
        got: list[str] = ["CPUExecutionProvider"]
        asked: list[tuple] = []

        def __init__(self, content, options, providers, **others):
            self.asked.append((providers, others))
            super().__init__(content, options, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return self.got

    Session.asked = []
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: BOTH)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return Session


def test_a_gpu_that_the_session_did_not_get_is_an_error(runtime, tmp_path: Path) -> None:
    said = r"ONNX Runtime \S+ runs \S+ on the CPU, for cuda:1 \(Card 1\), .* say --device cpu"
    with pytest.raises(PosebridgeError, match=said):
        OnnxEstimator(PLAIN, heatmap_graph(tmp_path / "pose.onnx"), GPU)
    with pytest.raises(PosebridgeError, match=said):
        Detector(bright_detector(tmp_path / "detector.onnx", 1), GPU)


def test_a_package_for_the_cpu_alone_is_named_with_the_one_to_install(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Card")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: BOTH[1:])
    with pytest.raises(PosebridgeError, match=r"built for the CPU alone, .* install 'posebridge\[gpu\]'`, or say -"):
        Detector(bright_detector(tmp_path / "detector.onnx", 1), GPU)


def test_a_gpu_is_asked_for_by_its_number_in_full_precision_and_without_a_way_back(runtime, tmp_path: Path) -> None:
    runtime.got = BOTH
    assert Detector(bright_detector(tmp_path / "detector.onnx", 1), GPU).provider == BOTH[0]
    ((gpu, settings), (rest, _)), others = runtime.asked[0]
    assert [gpu, rest] == BOTH and others == {"enable_fallback": False}
    assert settings["device_id"] == "1" and settings["use_tf32"] == "0"


def test_the_cpu_is_asked_for_nothing_else(runtime, tmp_path: Path) -> None:
    estimator = OnnxEstimator(PLAIN, heatmap_graph(tmp_path / "pose.onnx"))
    assert runtime.asked[0][0] == [("CPUExecutionProvider", {})]
    assert (str(estimator.device), estimator.provider) == ("cpu", "CPUExecutionProvider")


def test_without_onnx_runtime_both_ways_to_get_it_are_told(monkeypatch, tmp_path: Path) -> None:
    path = heatmap_graph(tmp_path / "pose.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PosebridgeError, match=r"cannot be imported .*'posebridge\[cpu\]'`, or \[gpu\]"):
        OnnxEstimator(PLAIN, path)


def test_answers_come_back_as_they_are(tmp_path: Path) -> None:
    tensors = torch.rand(2, 3, 2), torch.rand(2, 3), torch.zeros(0, 6, 8), torch.tensor([[torch.nan, torch.inf]])
    for tensor, array in zip(tensors, to_arrays(*tensors), strict=True):
        assert np.array_equal(tensor.numpy(), array, equal_nan=True) and array.shape == tuple(tensor.shape)


def test_the_gpu_finds_what_the_cpu_finds(tmp_path: Path) -> None:
    if not torch.cuda.is_available() or BOTH[0] not in onnxruntime.get_available_providers():
        pytest.skip("PyTorch or ONNX Runtime has no CUDA GPU here")
    path = heatmap_graph(tmp_path / "pose.onnx", joints=17)
    recipe = replace(PLAIN, cues="levels", taps=("middle",))
    cpu, gpu = (OnnxEstimator(recipe, path, torch.device(name)) for name in ("cpu", "cuda"))
    found = [each.estimate(red_spot(5), np.arange(5) % 2 == 0) for each in (cpu, gpu)]
    assert gpu.provider == BOTH[0] and np.allclose(found[0].keypoints, found[1].keypoints)
    assert np.allclose(found[0].cues, found[1].cues, atol=1e-5)
    path = bright_detector(tmp_path / "detector.onnx", "N")
    frame = np.full((128, 128, 3), 90, np.uint8)
    boxes = [Detector(path, torch.device(name)).detect(frame, 0.5)[0] for name in ("cpu", "cuda")]
    assert np.allclose(*boxes, atol=1e-3)


def test_a_receipt_says_where_its_clips_were_computed_and_one_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    write_video(tmp_path / "videos/0.mp4")
    ingest("d", tmp_path / "videos", manifests=tmp_path / "manifests")
    index = extracted(tmp_path, detecting(bright_detector(tmp_path / "d.onnx", 1)), "cache")[0]
    (path,) = (tmp_path / "cache").rglob("shard-*.json")
    receipt = json.loads(path.read_text())
    assert receipt["computed"] == {"device": "CPU", "detector": "CPUExecutionProvider"}  # the fake tells no more
    del receipt["computed"]
    path.write_bytes(canonical_json(seal(receipt)))
    assert extracted(tmp_path, detecting(tmp_path / "d.onnx"), "cache")[0] == index, "nothing is made again"
    del receipt["host"]
    path.write_bytes(canonical_json(seal(receipt)))
    with pytest.raises(PosebridgeError, match="is not a receipt"):
        open_store(path.parent).read_receipt(path)


def test_estimators_say_what_a_receipt_keeps(tmp_path: Path) -> None:
    found = computed_with(OnnxEstimator(PLAIN, heatmap_graph(tmp_path / "pose.onnx")))
    assert found == {"device": "CPU", "provider": "CPUExecutionProvider", "precision": "float32"}


def test_the_command_chooses_the_device_and_a_gpu_that_is_not_there_is_refused(tmp_path: Path, monkeypatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "videos/0.mp4")
    ingest("d", tmp_path / "videos", manifests=tmp_path / "manifests")
    save_file({"w": torch.zeros(1)}, tmp_path / "w.safetensors")
    (tmp_path / "params.yaml").write_text("datasets: {d: {root: videos}}\nrecipes: {r: {weights: w.safetensors}}\n")
    for words in (["extract"], ["bench", "extract"], ["cache", "estimate"]):
        done = CliRunner().invoke(main, [*words, "--dataset", "d", "--recipe", "r", "--device", "cuda"])
        assert done.exit_code == 1 and "There is no GPU for 'cuda'" in done.stderr and done.stderr.count("\n") == 1
    asked = []
    build = functools.cache(stages.extract.build_estimator.__wrapped__)  # what it keeps goes with this test
    monkeypatch.setattr("pipeline.hpe.factory.build_estimator", lambda *given: asked.append(given) or FakeEstimator())
    monkeypatch.setattr(stages.extract, "build_estimator", build)
    done = CliRunner().invoke(main, ["extract", "--dataset", "d", "--recipe", "r", "--device", "cpu"])
    assert done.exit_code == 0 and [str(device) for _, device in asked] == ["cpu"], done.stderr
