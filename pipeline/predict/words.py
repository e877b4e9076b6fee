"""What a person asks for: labels, and what they say of each of them.

`punching, pushing` are labels alone; `punching: a fist is thrust at somebody; pushing: both hands push somebody away`
has a sentence for each; and a table `label,slot,text`, as `init --texts` reads it, whatever slots a person has words
for. Reads the table; writes nothing.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import PosebridgeError, short
from pipeline.files.tables import open_table
from pipeline.learn.confidence import NONE
from pipeline.learn.run import Opened
from pipeline.manifest.check_texts import check_texts
from pipeline.manifest.drafts import draft_texts
from pipeline.manifest.texts import one_line, read_words
from pipeline.methods.base import Method
from pipeline.text.encoder import SentenceEncoder, split_variant
from pipeline.text.minilm import MiniLM, open_encoder

MOST_LABELS = 1000
LONGEST_LABEL = 200  # characters; more is a description
AT_ONCE = 256  # texts that are encoded together
EXAMPLE = '--labels "punching: a fist is thrust at somebody; pushing: both hands push somebody away"'


@dataclass(frozen=True)
class Asked:
    """Labels, and texts by (index of the label, slot) where a person has words for them."""

    labels: tuple[str, ...]
    texts: Mapping[tuple[int, str], str] = field(default_factory=dict)

    @property
    def findings(self) -> list[str]:
        """What the checker of texts has against a person's words."""
        drafts = {key: text for key, text in draft_texts(self.labels).items() if key not in self.texts}
        return check_texts({**drafts, **self.texts}, self.labels, drafts.keys()) if self.texts else []


def read_asked(labels: str | None, texts: Path | None = None, table: Path | None = None) -> Asked:
    """Labels as --labels has them, or a `table` of them with words; and a table of words for labels, `texts`, which
    alone is a table of labels, too.

    Raises PosebridgeError for fewer than two labels, two that are equal but for their case, words for a label that
    nobody asks for, and what is wrong with a table.
    """
    if table is not None and texts is not None:
        raise PosebridgeError(f"{table} and {texts} are two tables of words; give one of them.")
    if (alone := table or (texts if labels is None else None)) is not None:
        found = open_table(alone, ("label",), ("slot", "text"))
        names = check_labels(tuple(dict.fromkeys(one_line(row.needed("label")) for row in found)))
        return Asked(names, read_words(alone, names) if {"slot", "text"} & found.places.keys() else {})
    asked = parse_labels(labels or "")
    if texts is None:
        return asked
    if asked.texts:
        raise PosebridgeError(f"There are words in --labels and in {texts}; put all of them into the table.")
    known = f"not asked for; --labels has {short(', '.join(asked.labels))}"
    return Asked(asked.labels, read_words(texts, asked.labels, known))


def parse_labels(text: str) -> Asked:
    """Labels divided by commas, one with a comma of its own between quotation marks; or, where there is a colon, labels
    divided by semicolons, a sentence behind each colon.
    """
    if ":" not in text:
        parts = next(csv.reader([one_line(text)], skipinitialspace=True), [])
        return Asked(check_labels([part for part in map(one_line, parts) if part]))
    pairs = [part.partition(":") for part in text.split(";") if part.strip()]
    named = [(one_line(label), one_line(words)) for label, _, words in pairs]
    for label, words in named:
        if not label:
            raise PosebridgeError(f"The words {short(words)} have no label; write them as in {EXAMPLE}.")
    labels = check_labels([label for label, _ in named])
    return Asked(labels, {(index, "one_line"): words for index, (_, words) in enumerate(named) if words})


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels. Raises PosebridgeError for fewer than two, more than MOST_LABELS, two that are equal, or NONE."""
    if len(labels) < 2:
        count = f"is one label, {short(labels[0])}," if labels else "are no labels"
        raise PosebridgeError(
            f"There {count} to choose from; give at least two, divided by commas, or by semicolons where words follow "
            "a colon."
        )
    if len(labels) > MOST_LABELS:
        raise PosebridgeError(f"There are {len(labels)} labels; ask about {MOST_LABELS} at the most.")
    lower = [label.lower() for label in labels]
    if twice := next((label for label, low in zip(labels, lower, strict=True) if lower.count(low) > 1), None):
        raise PosebridgeError(f"The label {short(twice)} is there twice; name every action once.")
    if NONE in lower:
        raise PosebridgeError(f"{NONE!r} is an answer by itself, not a label; leave it out.")
    return tuple(labels)


def label_text(opened: Opened, method: Method, asked: Asked) -> tuple[Tensor, str]:
    """The labels in the slots of the method, [C, K, d_t] float32, and whose words they are: `classes`, `words`, or
    `labels` where some have none.

    A person's words come first, then the descriptions that a class of the data set has in `evaluate`, where every
    label is described. Else a label is all that is known of its action, and fills every slot: long descriptions beside
    short ones would win or lose by their length. A slot without words has the sentence `one_line`, or the label.
    """
    names, slots = [name.lower() for name in opened.dataset.class_names], method.text_slots
    own: list[dict[str, str]] = [{} for _ in asked.labels]
    for (index, slot), text in asked.texts.items():
        own[index][slot] = text
    known = [names.index(label.lower()) if label.lower() in names else None for label in asked.labels]
    whole = all(words or c is not None for words, c in zip(own, known, strict=True))
    if whole and not asked.texts:
        return opened.bank.take([c for c in known if c is not None], slots), "classes"
    encoder = open_encoder(split_variant(opened.run.text)[0], method.device)
    if encoder.sha256 != opened.bank.encoder_sha256:
        raise PosebridgeError(
            f"The text bank of {opened.dataset.name} is of another encoder than {opened.run.text!r} is now; run "
            f"`posebridge text --dataset {opened.dataset.name} --encoder {opened.run.text}` and train the run again."
        )
    said = [[words_of(label, words, slot) for slot in slots] for label, words in zip(asked.labels, own, strict=True)]
    vectors = encode_each(encoder, [text for texts in said for text in texts])
    rows = [torch.stack([vectors[text] for text in texts]) for texts in said]
    if whole:
        rows = [
            row if words or c is None else opened.bank.take([c], slots)[0]
            for row, words, c in zip(rows, own, known, strict=True)
        ]
    return torch.stack(rows), "words" if whole else "labels"


def words_of(label: str, words: Mapping[str, str], slot: str) -> str:
    """What stands in a slot. Raises PosebridgeError for a label that no encoder understands and nobody has described.
    """
    if slot in words:
        return words[slot]
    plain = any(character.isalnum() for character in label)
    if "one_line" in words and (slot != "label" or not plain):
        return words["one_line"]
    if not plain:
        raise PosebridgeError(f"No text encoder understands the label {short(label)}; add words, as in {EXAMPLE}.")
    if len(label) > LONGEST_LABEL:
        raise PosebridgeError(
            f"The label {short(label)} has {len(label)} characters, more than {LONGEST_LABEL}; name the action in a "
            f"few words and describe it behind a colon, as in {EXAMPLE}."
        )
    return label


def encode_each(encoder: MiniLM | SentenceEncoder, texts: Sequence[str]) -> dict[str, Tensor]:
    """A vector [d_t] for every text, each encoded once."""
    each = list(dict.fromkeys(texts))
    parts = [encoder.encode(each[i : i + AT_ONCE]) for i in range(0, len(each), AT_ONCE)]
    return dict(zip(each, torch.from_numpy(np.concatenate(parts)), strict=True))
