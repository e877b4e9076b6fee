"""Frozen masked language models: the embedded one is what transformers makes of the same weights."""

from __future__ import annotations

import shutil

import pytest
import torch

from pipeline.errors import PosebridgeError
from pipeline.text import masked
from pipeline.text.encoder import minilm_folder
from pipeline.text.masked import GAP, EmbeddedModel, LanguageModel, read_tokens

pytestmark = pytest.mark.unit
SENTENCES = ("Environment: dinner table | Object: [MASK]", "Object: [MASK] | Target: [MASK]", "nothing")


def test_the_embedded_model_is_that_of_transformers():
    ours, theirs = EmbeddedModel().read(SENTENCES), LanguageModel(str(minilm_folder())).read(SENTENCES)
    assert torch.equal(ours.there, theirs.there) and torch.equal(ours.gaps, theirs.gaps)
    assert ours.gaps.sum(1).tolist() == [1, 2, 0] and not (ours.gaps & ~ours.there).any()
    torch.testing.assert_close(ours.states[ours.there], theirs.states[ours.there], atol=1e-5, rtol=1e-4)


def test_many_sentences_are_read_in_parts_and_once(monkeypatch):
    read_tokens.cache_clear()
    opened = []
    monkeypatch.setattr(masked, "EmbeddedModel", lambda: opened.append(1) or EmbeddedModel())
    many = tuple(f"{'very ' * (i % 3)}long {GAP}" for i in range(70))
    tokens = read_tokens("minilm", many)
    assert tokens.states.shape == (70, int(tokens.there.sum(1).max()), 384)
    assert tokens.gaps.sum(1).tolist() == [1] * 70
    torch.testing.assert_close(tokens.states[69, :4], EmbeddedModel().read(many[69:]).states[0, :4])
    assert read_tokens("minilm", many) is tokens and len(opened) == 1
    read_tokens.cache_clear()


def test_a_folder_without_a_model_is_one_sentence(tmp_path):
    with pytest.raises(PosebridgeError, match="could not be loaded; give `minilm`"):
        read_tokens(str(tmp_path), SENTENCES)


@pytest.mark.fault
def test_weights_that_are_a_pickle_are_not_opened(tmp_path):
    """A whole and harmless model of transformers, but for its pytorch_model.bin, which could be code."""
    from transformers import BertConfig, BertModel

    small = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = BertModel(small)
    model.save_pretrained(tmp_path)
    for path in minilm_folder().glob("*token*"):
        shutil.copy(path, tmp_path)
    shutil.copy(minilm_folder() / "vocab.txt", tmp_path)
    assert LanguageModel(str(tmp_path)).read(SENTENCES).states.shape[2] == 8
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(PosebridgeError, match="could not be loaded; give `minilm`"):
        LanguageModel(str(tmp_path))
