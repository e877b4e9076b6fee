"""Encoders and trained runs whose files are cut, flipped or of another kind: a sentence with file and remedy."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from synthetic import FLAGS, PARAMS, PROTOCOL, make_world

from pipeline.cache.sealed import seal
from pipeline.errors import PosebridgeError
from pipeline.learn.encode import encode
from pipeline.learn.encoders import encoder_folder, load_encoder
from pipeline.learn.evaluate import evaluate
from pipeline.learn.train import train
from pipeline.learn.trained import model_folder
from pipeline.params import RunParams
from pipeline.skeleton.encoders import ENCODERS

pytestmark = pytest.mark.fault
PGFA = {"hidden": [8], "out": 16, "epochs": 1}
RUNS = {
    "skeleton": RunParams(method="skeleton", flags=FLAGS),
    "pgfa": RunParams(method="pgfa", flags=PGFA, adapt="pgfa"),
}
QUICK = replace(PARAMS, encode=replace(PARAMS.encode, epochs=1), train=replace(PARAMS.train, epochs=1))
CUTS = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "flip": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "text": lambda content: b"not this kind of file",
    "deep": lambda content: b"[" * 100_000,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = make_world(tmp_path_factory.mktemp("world"))
    encode(world, PROTOCOL, "refined", QUICK.encode)
    for name, run in RUNS.items():
        train(world, PROTOCOL, name, run, QUICK)
    return world


def refused(path, content, words, go):
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        with pytest.raises(PosebridgeError, match=f"{re.escape(path.name)}.*{words}.$"):
            go()
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", ["final.safetensors", "final.json"])
def test_a_damaged_encoder_is_one_sentence(world, name, cut):
    path = encoder_folder(world.cache, "toy", PROTOCOL, "refined") / "seed-0" / name
    content = CUTS[cut](path.read_bytes())
    refused(path, content, "posebridge encode .* again", lambda: load_encoder(world, PROTOCOL, "refined", 0, "final"))


@pytest.mark.parametrize(
    "change",
    [{"width": 10**9}, {"blocks": [10**9]}, {"blocks": "x"}, {"joints": -1}, {"joints": "17"}, {"classes": 5},
     {"inputs": None}, {"width": 2.5}, {"weights_sha256": 0}],
    ids=str,
)  # fmt: skip
def test_an_encoder_that_its_json_does_not_fit_is_one_sentence(world, change):
    path = encoder_folder(world.cache, "toy", PROTOCOL, "refined") / "seed-0" / "final.json"
    sealed = json.dumps(seal(json.loads(path.read_text()) | change)).encode()
    whole = path.read_bytes()
    path.write_bytes(sealed)
    try:
        with pytest.raises(PosebridgeError, match="final.safetensors .*posebridge encode .* again.$"):
            load_encoder(world, PROTOCOL, "refined", 0, "final")
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("blocks", [[10**9], [10**9, 1 - 10**9]], ids=str)
def test_an_encoder_of_endless_blocks_is_not_begun(world, blocks, monkeypatch):
    monkeypatch.setitem(ENCODERS, "light", lambda *about: pytest.fail("begun"))
    path = encoder_folder(world.cache, "toy", PROTOCOL, "refined") / "seed-0" / "final.json"
    content = json.dumps(seal(json.loads(path.read_text()) | {"blocks": blocks})).encode()
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        with pytest.raises(PosebridgeError, match="posebridge encode .* again.$"):
            load_encoder(world, PROTOCOL, "refined", 0, "final")
    finally:
        path.write_bytes(whole)


def test_a_run_by_the_names_of_its_files(world):
    folder = model_folder(world.cache, "toy", PROTOCOL, "skeleton") / "seed-0"
    assert {path.name for path in folder.iterdir()} == {
        "select.safetensors", "final.safetensors", "selection.json", "params.yaml"
    }, "no draft stays"  # fmt: skip
    assert not (world.cache / "state").exists() or not list((world.cache / "state").rglob("*.*"))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", ["final.safetensors", "selection.json"])
def test_a_damaged_run_is_one_sentence(world, name, cut):
    path = model_folder(world.cache, "toy", PROTOCOL, "skeleton") / "seed-0" / name
    content = CUTS[cut](path.read_bytes())
    go = lambda: evaluate(world, PROTOCOL, "skeleton", RUNS["skeleton"], QUICK)  # noqa: E731
    refused(path, content, "posebridge train .* again", go)


@pytest.mark.parametrize(
    "change",
    [{"gamma": None}, {"gamma": "x"}, {"gamma": True}, {"gamma_place": None}, {"weights_sha256": None},
     {"weights_sha256": {}}, {"adapt": 3}, {"adapt": {"by": "pgfa"}}, {"adapt": {"by": "pgfa", "alpha": [1]}}],
    ids=str,
)  # fmt: skip
def test_a_selection_with_odd_values_is_one_sentence(world, change):
    path = model_folder(world.cache, "toy", PROTOCOL, "pgfa") / "seed-0" / "selection.json"
    whole = path.read_bytes()
    path.write_text(json.dumps(seal(json.loads(whole) | change)))
    try:
        with pytest.raises(PosebridgeError, match="posebridge train.* again.$"):
            evaluate(world, PROTOCOL, "pgfa", RUNS["pgfa"], QUICK)
    finally:
        path.write_bytes(whole)


def test_results_that_cannot_be_written_are_one_sentence(world):
    (world.cache / "results").touch()
    try:
        with pytest.raises(PosebridgeError, match="results/.* cannot be written"):
            evaluate(world, PROTOCOL, "skeleton", RUNS["skeleton"], QUICK)
    finally:
        (world.cache / "results").unlink()
