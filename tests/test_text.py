"""Sentence encoders and text banks."""

from __future__ import annotations

import dataclasses
import json

import h5py
import numpy as np
import pytest
import torch

from pipeline.errors import PosebridgeError
from pipeline.manifest.clips import write_classes
from pipeline.manifest.texts import read_texts
from pipeline.text import encoder as encoders
from pipeline.text.bank import bank_path, banked, load_bank, make_bank
from pipeline.text.encoder import SentenceEncoder, check_sha256, encoder_slug, split_variant
from pipeline.text.masked import LanguageModel

pytestmark = pytest.mark.unit
NAMES = ["drink", "phone"]


def texts(tmp_path, *rows):
    path = tmp_path / "texts.csv"
    path.write_text("\n".join(["index,slot,text", *rows]) + "\n")
    return path


class FakeEncoder:
    sha256 = "f" * 64

    def __init__(self, name, device):
        pass

    def encode(self, lines):
        vectors = np.random.default_rng(0).normal(size=(len(lines), 5)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def bank(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.text.bank.SentenceEncoder", FakeEncoder)
    folder = tmp_path / "manifests" / "toy"
    write_classes(folder / "classes.csv", NAMES)
    texts(folder, "0,label,drinking", "0,global,a cup", "1,label,phoning")
    make_bank("toy", "minilm", tmp_path / "manifests", tmp_path)
    return load_bank("toy", "minilm", NAMES, tmp_path)


def test_a_bank_holds_every_slot_and_masks_those_that_are_not_there(bank):
    assert bank.slots == ("label", "global") and bank.class_names == tuple(NAMES)
    assert bank.mask.tolist() == [[True, True], [True, False]]
    assert torch.isfinite(bank.embeddings).all() and not bank.embeddings[1, 1].any()
    assert bank.take([1, 0], ["label"]).shape == (2, 1, 5)
    assert bank.encoder_sha256 == FakeEncoder.sha256


@pytest.mark.parametrize(
    ("slot", "words"), [("global", ["'phone'", "'global'"]), ("legs", ["'legs'", "label, global"])]
)
def test_taking_a_slot_that_is_missing_names_class_and_slot(bank, slot, words):
    with pytest.raises(PosebridgeError) as error:
        bank.take([0, 1], [slot])
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["0,label,drinking", "1,label, "], ["line 3", "'phone'", "'label'", "empty"]),
        (["0,label,drinking", "1,global,x"], ["'phone'", "'label'"]),
        (["0,label,x", "0,label,y", "1,label,z"], ["line 3", "'drink'", "twice"]),
        (["0,label,x", "2,label,z"], ["line 3", "'2'"]),
    ],
)
def test_bad_texts_are_refused_with_class_slot_and_line(tmp_path, rows, words):
    with pytest.raises(PosebridgeError) as error:
        read_texts(texts(tmp_path, *rows), NAMES)
    assert all(word in str(error.value) for word in words)


def test_a_bank_of_another_class_list_is_refused(bank, tmp_path):
    with pytest.raises(PosebridgeError, match="another classes.csv; run `posebridge text"):
        load_bank("toy", "minilm", ["drink", "call"], tmp_path)
    with pytest.raises(PosebridgeError, match="is missing; run `posebridge text"):
        load_bank("toy", "other", NAMES, tmp_path)


def test_every_encoder_has_a_folder_of_its_own(tmp_path):
    assert encoder_slug("minilm") == "minilm" and encoder_slug("minilm@theirs") == "minilm@theirs"
    names = ["org_a/clip", "org_b/clip", "/models/clip", "models/clip", "clip", "clip/", "../clip", "..", "/", "c l"]
    slugs = [encoder_slug(name) for name in names]
    assert len(set(slugs)) == len(names) and slugs[0].startswith("clip-") and slugs[4] == "clip"
    assert not [slug for slug in slugs if "/" in slug or slug in ("", ".", "..")]
    assert encoder_slug("org_a/clip@theirs") == slugs[0] + "@theirs"
    assert split_variant("/home/me@lab/clip") == ("/home/me@lab/clip", "")
    assert bank_path("toy", "clip", tmp_path) == tmp_path / "text" / "clip" / "toy.h5"
    for dataset, encoder in (("../toy", "minilm"), ("toy", "minilm@..")):
        with pytest.raises(PosebridgeError, match="cannot be the name of"):
            bank_path(dataset, encoder, tmp_path)


def test_a_bank_of_texts_that_have_changed_is_refused(bank, tmp_path):
    folder = tmp_path / "manifests" / "toy"
    texts(folder, "1,label, phoning", "0,label,drinking", '0,global,"a cup"')  # the same, written otherwise
    assert load_bank("toy", "minilm", NAMES, tmp_path, folder).slots == bank.slots
    texts(folder, "0,label,drinking", "0,global,a mug", "1,label,phoning")
    with pytest.raises(PosebridgeError, match="made of another texts.csv than is there now; run `posebridge text --da"):
        load_bank("toy", "minilm", NAMES, tmp_path, folder)


def test_a_bank_of_another_encoder_is_refused(bank, tmp_path):
    path = bank_path("toy", "other", tmp_path)
    path.parent.mkdir()
    path.write_bytes(bank_path("toy", "minilm", tmp_path).read_bytes())
    with pytest.raises(PosebridgeError, match="made by the encoder 'minilm', not 'other'; run"):
        load_bank("toy", "other", NAMES, tmp_path)


@pytest.mark.fault
def test_a_bank_takes_no_memory_for_what_it_merely_claims(bank, tmp_path):
    path = bank_path("toy", "minilm", tmp_path)
    with h5py.File(path, "a") as file:
        for name in ("embeddings", "mask", "slots"):
            del file[name]
        file.create_dataset("embeddings", (2, 1 << 40, 0), "f4", chunks=(1, 1, 1), maxshape=(2, None, None))
        file.create_dataset("mask", (2, 1 << 40), bool, chunks=(1, 1))
        file.create_dataset("slots", (1 << 40,), h5py.string_dtype(), chunks=(1,))
    with pytest.raises(PosebridgeError, match="ValueError.*run `posebridge text"):
        load_bank("toy", "minilm", NAMES, tmp_path)


@pytest.mark.fault
@pytest.mark.parametrize("make", [encoders.SentenceEncoder, LanguageModel])
@pytest.mark.parametrize(
    ("name", "content"),
    [("model.safetensors", b"cut"), ("tokenizer.json", b"{"), ("config.json", b"[]"), ("config.json", b"")],
)
def test_a_damaged_encoder_is_a_sentence(tmp_path, make, name, content):
    folder = tmp_path / "encoder"
    folder.mkdir()
    for path in encoders.minilm_folder().iterdir():
        (folder / path.name).symlink_to(path)
    (folder / name).unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(PosebridgeError, match=r"encoder' could not be loaded; give `minilm`, .*\.$"):
        make(str(folder))


@pytest.mark.fault
@pytest.mark.parametrize("make", [encoders.SentenceEncoder, LanguageModel])
def test_code_in_an_encoders_folder_does_not_run(tmp_path, monkeypatch, make):
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # transformers would ask
    folder = tmp_path / "encoder"
    folder.mkdir()
    for path in encoders.minilm_folder().iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    (folder / "modules.json").unlink()
    (folder / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "evil.Evil"}]')
    if make is LanguageModel:
        (folder / "config.json").unlink()
        maps = dict.fromkeys(("AutoConfig", "AutoModel", "AutoTokenizer"), "evil.Evil")
        (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": maps}))
    with pytest.raises(PosebridgeError, match="could not be loaded"):
        make(str(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.fault
def test_a_damaged_bank_is_a_sentence(bank, tmp_path):
    path = bank_path("toy", "minilm", tmp_path)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    damages = [whole[:cut] for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1)]
    for place in random.integers(0, len(whole), 60):
        damages.append(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
    place = whole.index(bank.embeddings.numpy().tobytes()[:8])
    damages.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    refused = 0
    for content in damages:
        path.write_bytes(content)
        try:
            found = load_bank("toy", "minilm", NAMES, tmp_path)
            assert torch.equal(found.embeddings, bank.embeddings) and torch.equal(found.mask, bank.mask)
        except PosebridgeError as error:
            refused += "run `posebridge text" in str(error)
    assert refused >= 6


def test_a_wrong_hash_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"something else")
    with pytest.raises(PosebridgeError, match="sha256"):
        check_sha256(path, encoders.MINILM_SHA256)
    monkeypatch.setattr(encoders, "MINILM_SHA256", "0" * 64)
    with pytest.raises(PosebridgeError, match="sha256"):
        encoders.minilm_folder()


def test_the_embedded_encoder_gives_unit_vectors_that_know_meaning(capfd):
    from transformers.utils import logging

    logging.enable_progress_bar()
    model = encoders.SentenceEncoder("minilm")
    assert not capfd.readouterr().err, "a bar of the library would stand among what commands tell"
    drink, sip, phone = model.encode(["drinking from a cup", "sipping from a mug", "talking on a phone"])
    assert drink.shape == (384,) and drink.dtype == np.float32
    assert np.linalg.norm(drink) == pytest.approx(1, abs=1e-5)
    assert drink @ sip > drink @ phone + 0.2


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_encoder_that_yields_no_numbers_is_one_sentence(monkeypatch, value):
    model = encoders.SentenceEncoder("minilm")
    monkeypatch.setattr(model.model, "encode", lambda texts, **_: np.full((len(texts), 3), value))
    with pytest.raises(PosebridgeError, match="'minilm' yields no numbers; bring its weights again"):
        model.encode(["a"])


def test_an_encoder_that_is_not_there_is_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PosebridgeError, match="could not be loaded"):
        encoders.SentenceEncoder(str(tmp_path / "empty"))


def test_an_encoder_beside_a_bank_embeds_only_what_is_not_in_it(tmp_path):
    folder = tmp_path / "manifests" / "two"
    folder.mkdir(parents=True)
    (folder / "classes.csv").write_text("index,name\n0,wave\n1,drink\n")
    (folder / "texts.csv").write_text("index,slot,text\n0,label,wave\n1,label,drink\n1,hands,a cup\n")
    make_bank("two", manifests=tmp_path / "manifests", cache=tmp_path / "cache")
    bank = load_bank("two", "minilm", ["wave", "drink"], tmp_path / "cache", folder)
    encoder, asked = SentenceEncoder(), []
    plain = encoder.encode(["a cup", "a hat", "wave"])
    embed = encoder.encode
    encoder.encode = lambda texts: asked.extend(texts) or embed(texts)
    found = banked(encoder, bank, folder).encode(["a cup", "a hat", "a hat", "wave"])
    assert asked == ["a hat"]
    np.testing.assert_allclose(found, plain[[0, 1, 1, 2]], atol=1e-6)
    others = dataclasses.replace(bank, encoder_sha256="another"), dataclasses.replace(bank, texts_sha256="")
    assert all(banked(encoder, other, folder) is encoder for other in others)
