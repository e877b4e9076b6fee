"""`doctor`: what is missing is named with its remedy, and only what is needed fails."""

from __future__ import annotations

import ast
import json
import shutil
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import pipeline.doctor
from pipeline.doctor import (
    MISSING,
    NOTE,
    OK,
    check_dvc,
    check_encoder,
    check_packages,
    check_python,
    check_runs,
    check_weights,
)
from pipeline.files.tensors import save_tensors
from pipeline.manifest.clips import Clip, write_clips
from pipeline.recipe import Recipe
from stages.cli import main

pytestmark = pytest.mark.unit


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose recipe `there` has its weights and whose `gone` has not."""
    monkeypatch.chdir(tmp_path)
    save_tensors({"w": torch.zeros(1)}, tmp_path / "w.safetensors")
    (tmp_path / "params.yaml").write_text(
        "datasets:\n  toy: {root: videos}\nrecipes:\n  there: {weights: w.safetensors}\n"
        "  gone: {backend: onnx, weights: gone.onnx, boxes: detector, detector: d.onnx}\n"
    )
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    analytics = false\n")
    write_clips(tmp_path / "manifests/toy/clips.csv", [Clip(f"c{i}", f"{i}.mp4") for i in range(3)])
    return tmp_path


def doctor(*words: str) -> tuple[int, dict[str, dict]]:
    done = CliRunner().invoke(main, ["doctor", *words, "--json"])
    answer = json.loads(done.stdout)
    assert answer["ok"] == (done.exit_code == 0) == (answer["missing"] == 0)
    return done.exit_code, {check["name"]: check for check in answer["checks"]}


def test_another_distribution_that_brings_our_packages_is_told() -> None:
    bringers = {"pipeline": ["posebridge", "luigi-pipe", "luigi-pipe"], "stages": ["posebridge"]}
    found = list(pipeline.doctor.check_names(bringers))
    assert [(check.name, check.state, check.found) for check in found] == [
        ("package pipeline", MISSING, "also brought by luigi-pipe")
    ]
    assert "pip uninstall luigi-pipe" in found[0].remedy and not list(pipeline.doctor.check_names({}))


def test_what_is_imported_is_required() -> None:
    """A package that only others bring may be gone with their next version."""
    root = Path(__file__).parent.parent
    trees = [ast.parse(path.read_text(encoding="utf-8")) for room in ("pipeline", "stages") for path in
             (root / room).rglob("*.py")]  # fmt: skip
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    tops = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"pipeline", "stages", "posebridge"}
    required = {canonicalize_name(Requirement(text).name) for text in pipeline.doctor.requirements()}
    extras = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    required |= {canonicalize_name(Requirement(text).name) for extra in extras.values() for text in extra}
    required |= {*pipeline.doctor.MM, "setuptools"}  # the last builds a wheel
    bringers = packages_distributions()  # of what is installed: mmpose and faiss need not be
    assert not [top for top in tops & set(bringers) if not required & set(map(canonicalize_name, bringers[top]))]


def test_what_nobody_asked_for_is_a_note(project: Path) -> None:
    code, checks = doctor()
    assert code == 0, [check for check in checks.values() if check["state"] == MISSING]
    assert checks["there: weights"]["state"] == OK and checks["dvc settings"]["state"] == OK
    assert checks["gone: weights"]["state"] == checks["gone: detector"]["state"] == NOTE
    assert "gone.onnx is missing" in checks["gone: weights"]["found"] and checks["gone: weights"]["remedy"]
    assert checks["torch"]["found"].startswith("2.") and checks["text encoder minilm"]["state"] == OK
    assert checks["disk: toy, there"]["state"] == OK and "3 clips need" in checks["disk: toy, there"]["found"]


def test_what_is_asked_for_is_needed(project: Path) -> None:
    assert doctor("--recipe", "there", "--dataset", "toy")[0] == 0
    code, checks = doctor("--recipe", "gone")
    assert code == 1 and checks["gone: detector"]["state"] == MISSING
    told = CliRunner().invoke(main, ["doctor", "--recipe", "gone"])
    assert told.exit_code == 1 and "missing gone: weights" in told.stdout
    assert told.stderr.startswith("Error: 2 of ") and "bring the file" in told.stderr
    unknown = CliRunner().invoke(main, ["doctor", "--recipe", "nothing"])
    assert unknown.exit_code == 1 and "no recipe named 'nothing'" in unknown.stderr


@pytest.mark.parametrize("able", [True, False])
def test_emulated_bfloat16_is_a_note(project: Path, monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    assert not any("bfloat16" in name for name in doctor()[1]), "nobody asks for it"
    text = (project / "params.yaml").read_text().replace("w.safetensors", "w.safetensors, precision: bfloat16")
    (project / "params.yaml").write_text(text + "train: {bfloat16: true}\n")
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": able})
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = doctor()[1].get("bfloat16: there, train")
    assert found is None if able else found["state"] == NOTE and "emulated on cpu" in found["found"]


def test_a_small_disk_fails_before_the_work_does(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(pipeline.doctor.shutil, "disk_usage", lambda place: usage)
    assert doctor()[0] == 0
    code, checks = doctor("--dataset", "toy", "--recipe", "there")
    assert code == 1 and checks["disk: toy, there"]["state"] == MISSING and checks["disk: toy, gone"]["state"] == NOTE


def test_a_list_with_an_error_is_told_once(project: Path) -> None:
    (project / "manifests/toy/clips.csv").write_text("nothing\n")
    code, checks = doctor("--dataset", "toy")
    assert code == 0 and [name for name in checks if name.startswith("disk")] == ["disk: toy"]
    assert checks["disk: toy"]["found"].endswith("lacks the column clip_id")


def test_packages_are_compared_with_what_the_project_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.doctor, "requirements", lambda: ["torch>=999", "no-such-thing", "numpy>=2"])
    found = {check.name: check for check in check_packages(mmpose=False)}
    assert [found[name].state for name in ("torch", "no-such-thing", "numpy")] == [MISSING, MISSING, OK]
    assert found["torch"].remedy == "pip install 'torch>=999'" and found["no-such-thing"].found == "not installed"
    monkeypatch.setattr(pipeline.doctor, "version_of", lambda name: None)
    for needed, state in ((True, MISSING), (False, NOTE)):
        assert {check.name: check for check in check_packages(needed)}["mmpose"].state == state


def test_onnx_runtime_and_faiss_are_one_of_two_packages_each(monkeypatch: pytest.MonkeyPatch) -> None:
    def state(there: dict[str, str], needed: bool, name: str = "onnxruntime"):
        monkeypatch.setattr(pipeline.doctor, "version_of", there.get)
        found = {check.name: check for check in check_packages(False, needed)}[name]
        return found.state, found.found, found.remedy

    cpu, gpu = {"onnxruntime": "1.31.1"}, {"onnxruntime-gpu": "1.31.1"}
    assert state(cpu, True) == (OK, "onnxruntime 1.31.1", "") and state(gpu, True)[0] == OK
    assert state({}, False) == (NOTE, "not installed", "pip install 'posebridge[cpu]'")
    assert state({}, True)[0] == MISSING
    assert state({"faiss-cpu": "1", "faiss-gpu": "2"}, True, "faiss")[:2] == (MISSING, "faiss-cpu 1 and faiss-gpu 2")
    assert state({"faiss-gpu": "2"}, True, "faiss") == (OK, "faiss-gpu 2", "") and state({}, True, "faiss")[0] == NOTE
    both = state(cpu | gpu, False)  # one has written over the other
    assert both[0] == MISSING and both[1] == "onnxruntime 1.31.1 and onnxruntime-gpu 1.31.1" and "uninstall" in both[2]


def test_a_tensor_goes_through_every_library() -> None:
    found = {check.name: (check.state, check.found) for check in check_runs(onnx=True)}
    assert found["onnxruntime runs"][0] == found["torch runs"][0] == OK
    if not torch.cuda.is_available():
        assert found["onnxruntime runs"][1] == "CPUExecutionProvider on CPU" and found["torch runs"][1] == "on CPU"
    assert found.get("faiss runs", (OK, ""))[0] == OK


def test_what_cannot_use_the_gpu_that_is_there_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("the GPU here is a real one")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Card")
    for onnx, state in ((True, MISSING), (False, NOTE)):
        found = {check.name: check for check in check_runs(onnx)}
        assert found["onnxruntime runs"].state == state
        assert "cannot use cuda:0 (Card)" in found["onnxruntime runs"].found
        remedy = found["onnxruntime runs"].remedy
        assert "'posebridge[gpu]'" in remedy and "--device cpu" in remedy


def test_python_and_dvc(tmp_path: Path) -> None:
    versions = ((3, 10, 9), (3, 11, 0), (3, 13, 2), (3, 14, 0))
    assert [check_python(version).state for version in versions] == [MISSING, OK, OK, MISSING]
    config = tmp_path / "config"
    assert check_dvc(config).state == NOTE
    for text, state in (("[core]\n    analytics = false\n['remote \"r\"']\n    url = x\n", OK), ("[core]\n", MISSING),
                        ("[core]\nanalytics = true", MISSING), ("what", MISSING)):  # fmt: skip
        config.write_text(text)
        check = check_dvc(config)
        assert check.state == state and (state == OK or check.remedy), text


def test_encoders_and_weights_are_checked_by_their_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.text.encoder.MINILM_SHA256", "0" * 64)
    check = check_encoder("minilm")
    assert check.state == MISSING and "sha256" in check.found and "install" in check.remedy
    assert check_encoder(str(tmp_path)).state == MISSING and check_encoder("someone/encoder").state == NOTE
    save_tensors({"w": torch.zeros(1)}, tmp_path / "w.safetensors")
    (bad,) = check_weights("r", Recipe(weights=str(tmp_path / "w.safetensors"), weights_sha256="0" * 64), needed=True)
    assert bad.state == MISSING and "sha256" in bad.found
    lost = Recipe(weights=str(tmp_path / "w.safetensors"), boxes="detector", detector=str(tmp_path / "none.onnx"))
    good, bad = check_weights("r", lost, needed=True)
    assert good.state == OK and bad.name == "r: detector" and bad.state == MISSING and "none.onnx" in bad.found
    (far,) = check_weights("r", Recipe(backend="onnx", weights="https://example.org/none.onnx"), needed=True)
    assert far.state == NOTE and far.found == "fetched at first use"
    assert list(check_weights("gt", Recipe(backend="ground_truth", cues="none"), needed=True)) == []


def test_without_params_the_machine_is_checked_all_the_same(project: Path) -> None:
    shutil.move(project / "params.yaml", project / "other.yaml")
    code, checks = doctor()
    assert code == 0 and checks["params.yaml"]["state"] == NOTE and checks["python"]["state"] == OK
