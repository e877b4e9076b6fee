"""Which trained run answers where none is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipeline.cache.sealed import seal
from pipeline.errors import PosebridgeError
from pipeline.files.tensors import save_tensors
from pipeline.manifest.clips import write_classes
from pipeline.params import load_params
from pipeline.predict.choose import best_run

pytestmark = pytest.mark.unit
PARAMS = """
datasets: {home: {root: home}, street: {root: street}}
recipes: {fake: {weights: fake.safetensors}, gone: {weights: gone.safetensors}}
runs: {a: {recipe: fake}, b: {recipe: fake}, lost: {recipe: gone}, exact: {recipe: fake, skeletons: gt}}
"""
CLASSES = {"home": ["cook", "eat", "wash", "sleep", "read"], "street": ["walk", "run", "ride", "wait", "sweep", "cook"]}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    save_tensors({"w": torch.zeros(1)}, tmp_path / "fake.safetensors")
    for dataset, names in CLASSES.items():
        write_classes(tmp_path / f"manifests/{dataset}/classes.csv", names)
        for protocol, unseen in (("first", "4 " + names[4]), ("all_seen", "")):
            folder = tmp_path / f"manifests/{dataset}/protocols"
            folder.mkdir(exist_ok=True)
            (folder / f"{protocol}.txt").write_text(unseen + "\n")
            (folder / f"{protocol}.val.txt").write_text(f"0 {names[0]}\n1 {names[1]}\n")
    return tmp_path


def trained(dataset: str, protocol: str, run: str, score: float) -> None:
    folder = Path("cache/models") / dataset / protocol / run / "seed-0"
    folder.mkdir(parents=True)
    (folder / "final.safetensors").write_bytes(b"")
    (folder / "selection.json").write_text(json.dumps(seal({"gzsl_ausuc": score})))


def chosen(labels: str, video: str = "else/x.mp4", **options: str) -> tuple[str, str, str]:
    best = best_run(load_params(Path("params.yaml")), labels.split(", "), [Path(video)], **options)
    return best.dataset, best.protocol, best.run


def test_home_then_known_labels_then_seen_classes_then_the_score_of_the_selection(project: Path) -> None:
    trained("home", "first", "a", 0.5)
    trained("home", "first", "b", 0.6)
    assert chosen("cook, dance") == ("home", "first", "b")
    trained("home", "all_seen", "a", 0.1)
    assert chosen("cook, dance") == ("home", "all_seen", "a")
    trained("street", "first", "a", 0.1)
    assert chosen("eat, read") == ("home", "all_seen", "a") and chosen("Walk, run") == ("street", "first", "a")
    assert chosen("Walk, run", "home/x.mp4") == ("home", "all_seen", "a")
    assert chosen("Walk, run", protocol="all_seen") == ("home", "all_seen", "a")
    assert chosen("eat, read", dataset="street") == ("street", "first", "a")


def test_what_does_not_fit_is_left_out_and_told_of_where_nothing_else_is(project: Path) -> None:
    with pytest.raises(PosebridgeError, match=r"No run of the parameters is trained here; make one .* --examples"):
        chosen("eat, read")
    trained("home", "first", "lost", 0.9)
    with pytest.raises(PosebridgeError, match=r"The one trained run does not fit \(lost of home, first: .*gone"):
        chosen("eat, read")
    trained("home", "first", "exact", 0.9)
    with pytest.raises(PosebridgeError, match="None of the 2 trained runs fits"):
        chosen("eat, read")
    trained("home", "first", "a", 0.1)
    assert chosen("eat, read") == ("home", "first", "a")


def test_what_is_no_name_is_no_pattern_either(project: Path) -> None:
    trained("home", "first", "a", 0.1)
    for odd in ({"dataset": "ho**"}, {"dataset": "h*"}, {"protocol": "**"}, {"dataset": ""}):
        with pytest.raises(PosebridgeError, match="cannot be the name of a (data set|protocol)"):
            chosen("eat, read", **odd)


def test_a_run_of_generated_people_answers_about_these_only(project: Path) -> None:
    write_classes(project / "manifests/skelgap-mini/classes.csv", CLASSES["home"])
    folder = project / "manifests/skelgap-mini/protocols"
    folder.mkdir()
    (folder / "p.txt").write_text("4 read\n")
    (folder / "p.val.txt").write_text("0 cook\n1 eat\n")
    (project / "params.yaml").write_text(PARAMS.replace("{home:", "{skelgap-mini: {root: drawn}, home:"))
    trained("skelgap-mini", "p", "a", 0.9)
    assert chosen("eat, read", "drawn/x.mp4") == ("skelgap-mini", "p", "a")
    with pytest.raises(PosebridgeError, match=r"a of skelgap-mini, p: it is trained on generated people\); name it"):
        chosen("eat, read")
