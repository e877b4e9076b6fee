"""SkeletonContext's prompt: three slots of a class's context, some of them masked, read by a frozen language model.

Source: Wang et al., "SkeletonContext", CVPR 2026 (arXiv 2603.29692): the prompt, its slots, and a curriculum that masks
one, two, then all of them. Ours: which slots are masked is drawn for every clip; an answer, however many words it has
("dinner table"), is one entry of the vocabulary and one mask; the vocabulary holds the answers of the classes trained
on, and nothing else. What the frozen model makes of a prompt depends on no clip, so it is read once, before training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import torch
from torch import Tensor, nn

from pipeline.errors import PosebridgeError
from pipeline.text.masked import GAP, read_tokens

SLOTS = ("environment", "used_object", "target_object")
PROMPT = "Environment: {} | Manipulable object: {} | Target object: {}"
MASKS = tuple(product((False, True), repeat=len(SLOTS)))[1:]  # every way to mask at least one slot; the last masks all
IGNORED = -100  # cross_entropy's own mark of what has no answer


class Prompts(nn.Module):
    """The prompts of C classes in every way to mask them. For training only: no weight and no buffer is saved."""

    states: Tensor  # [U, L, d_lm] of the U different prompts
    there: Tensor  # [U, L] bool, no padding
    gaps: Tensor  # [U, 3] where each slot's mask stands; 0 where its words do
    row: Tensor  # [C, 7] of each class and mask, in U
    answers: Tensor  # [C, 3] entries of `vocabulary`

    def __init__(self, words: Sequence[Mapping[str, str]], language_model: str) -> None:
        """words: of each class, slot -> text. Raises PosebridgeError as `read_tokens` does."""
        super().__init__()
        phrases = [[own[slot].strip().lower() for slot in SLOTS] for own in words]  # [C][3]
        self.vocabulary = tuple(sorted({phrase for own in phrases for phrase in own}))
        texts = [[fill(own, mask) for mask in MASKS] for own in phrases]  # [C][7]
        different = tuple(dict.fromkeys(text for own in texts for text in own))
        tokens = read_tokens(language_model, different)
        masked = torch.zeros(len(different), len(SLOTS), dtype=torch.bool)
        for own in texts:
            for text, mask in zip(own, MASKS, strict=True):
                masked[different.index(text)] = torch.tensor(mask)
        if tokens.gaps.sum() != masked.sum():
            raise PosebridgeError("The context words of a class are too long for the language model; shorten them.")
        gaps = torch.zeros(masked.shape, dtype=torch.long)
        gaps[masked] = tokens.gaps.nonzero()[:, 1]  # both from left to right
        row = torch.tensor([[different.index(text) for text in own] for own in texts])
        answers = torch.tensor([[self.vocabulary.index(phrase) for phrase in own] for own in phrases])
        tensors = {"states": tokens.states, "there": tokens.there, "gaps": gaps, "row": row, "answers": answers}
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)

    def all_masked(self) -> Tensor:
        """States of the prompt without any word of any class: [L, d_lm]."""
        row = self.row[0, -1]
        return self.states[row][self.there[row]]

    def draw(self, labels: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of clips of classes `labels` [B], the prompts with `count` slots masked at random: states [B, L, d_lm],
        there [B, L], gaps [B, 3] and the answers [B, 3], IGNORED where a slot is not masked.
        """
        order = torch.rand(len(labels), len(SLOTS), device=labels.device).argsort(1).argsort(1)
        masked = order < count  # [B, 3]
        digits = torch.arange(len(SLOTS) - 1, -1, -1, device=labels.device)
        number = (masked.long() << digits).sum(1) - 1  # in MASKS
        rows = self.row[labels, number]
        return self.states[rows], self.there[rows], self.gaps[rows], self.answers[labels].masked_fill(~masked, IGNORED)


def fill(phrases: Sequence[str], mask: Sequence[bool]) -> str:
    """The prompt of a class with the slots of `mask` masked."""
    return PROMPT.format(*(GAP if hidden else phrase for phrase, hidden in zip(phrases, mask, strict=True)))


def masked_slots(progress: float) -> int:
    """The curriculum: how many slots are masked when the share `progress` (below 1) of the epochs is done."""
    return 1 + int(len(SLOTS) * progress)
