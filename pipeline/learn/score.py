"""Scoring clips of a feature table, in eval mode. There is no label among the arguments of any function here.

Reads and writes nothing.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.files.device import memory_for
from pipeline.learn.feature_table import Encoder, Table, feature_table
from pipeline.learn.features import Samples, StoredSamples
from pipeline.learn.run import Opened
from pipeline.methods.adaptation import Adaptation
from pipeline.methods.base import EmbeddingMethod, Method
from pipeline.protocol.calibration import gamma_at, margins, some_of
from pipeline.protocol.guards import (
    require_eval_mode,
    require_online,
    require_seen_centre,
    require_seen_spread,
    require_seen_vocabulary,
)
from pipeline.protocol.training_set import training_phase

BATCH = 64  # clips that are scored together
FIRST = 2  # batches, at most, by which an online adaptation is held to its word


@memory_for("Scoring")
def score_clips(
    opened: Opened, encoder: Encoder, method: Method, samples: Samples | StoredSamples, text: Tensor | None = None
) -> np.ndarray:
    """Scores of all classes, or of those that `text` [C, K, d_t] describes, for every clip: float32 [N, C].

    Neither a label nor another clip has a say in a row. Each distinct input is scored once, so that equal inputs
    (twins, to whom sees true skeletons only) score equally in every bit.
    """
    require_eval_mode(encoder)
    require_seen_text(opened, method)
    distinct, where = samples.unique()
    table = feature_table(encoder, distinct, opened.shapes.anchors, device=method.device)
    if text is None:
        text = opened.bank.take(range(len(opened.split.class_names)), method.text_slots)
    scores = score_table(method, table, text, torch.arange(len(distinct)))
    return (scores if len(distinct) == len(samples) else scores[where]).numpy()  # no copy where none is needed


def calibrated_gamma(opened: Opened, encoder: Encoder, method: Method, selection: Mapping[str, Any]) -> float:
    """Gamma for all classes of the protocol, at the place that the selection phase chose among the margins of clips
    that were trained on. A run that was trained before there were places, or whose selection phase kept no clip out,
    has its bare gamma.
    """
    if "gamma_place" not in selection:
        return float(selection["gamma"])
    split = opened.split
    clips = some_of(training_phase("final", split, opened.dataset.clips).train)
    scores = score_clips(opened, encoder, method, opened.samples(clips))
    return gamma_at(selection["gamma_place"], margins(scores, np.isin(np.arange(scores.shape[1]), split.seen)))


def require_seen_text(opened: Opened, method: Method) -> None:
    """Text may be centred on and whitened by the seen classes only, and words that a method names be theirs only."""
    split = opened.split
    if method.centre.any():
        seen_text = opened.bank.take(split.seen, method.text_slots).to(method.device)
        require_seen_centre(method.centre, method.describe(seen_text))
    if method.evened is not None:
        anew = copy.deepcopy(method)
        anew.see_text(opened.bank.take(split.seen, method.text_slots).to(method.device))
        require_seen_spread(method.evened, anew.get_buffer("evened"))
    if method.vocabulary:
        seen, unseen = (opened.words(classes, method.word_slots) for classes in (split.seen, split.unseen))
        require_seen_vocabulary(method.vocabulary, seen, unseen)


@torch.no_grad()
def score_table(method: Method, table: Table, text: Tensor, rows: Tensor) -> Tensor:
    """Scores [N, C] of the unaugmented view of `rows`, all finite, on the CPU. No label is among the arguments."""
    require_eval_mode(method)
    text, start, scores = text.to(method.device), 0, torch.empty(0)
    for features in table.batches(rows.split(BATCH)):
        found = method.scores(features, text)
        if not start:
            scores = found.new_empty(len(rows), found.shape[1])  # never held twice: half a gigabyte of 240,000 clips
        scores[start : start + len(found)] = found
        start += len(found)
    return _finite(scores.cpu(), method, table, rows)


def adapt_table(adaptation: Adaptation, table: Table, text: Tensor, rows: Tensor) -> Tensor:
    """Adapted scores [N, C] of the unaugmented view of `rows`, on the CPU. They arrive in a random order that is always
    the same: that of a file goes by classes. There is no label among the arguments.

    An online adaptation must say the same of the first batches when the rest does not come. Within one batch every clip
    may have its say, so where there is only one, the adaptation is held to its word by both halves of it.
    """
    require_eval_mode(adaptation.method)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    parts, text = rows[order].split(adaptation.batch_size), text.to(adaptation.method.device)
    scores = adaptation.scores(table.batches(parts), text).detach().cpu()
    placed = _finite(torch.empty_like(scores).index_copy_(0, order, scores), adaptation.method, table, rows)
    if adaptation.online and len(rows) > 1:
        if len(parts) == 1:
            parts = parts[0].split(math.ceil(len(rows) / 2))
            scores = adaptation.scores(table.batches(parts), text).detach().cpu()
        first = parts[: min(FIRST, len(parts) - 1)]
        require_online(scores, adaptation.scores(table.batches(first), text).detach().cpu())
    return placed


@torch.no_grad()
def embed_batches(method: EmbeddingMethod, table: Table, rows: Tensor) -> Iterator[Tensor]:
    """Embeddings [B, d_t] of the unaugmented view of `rows`, batch by batch, where the method lies."""
    require_eval_mode(method)
    parts = rows.split(BATCH)
    for part, features in zip(parts, table.batches(parts), strict=True):
        yield _finite(method.embed(features), method, table, part)


def _finite(values: Tensor, method: Method, table: Table, rows: Tensor) -> Tensor:
    """The values [N, X] of the clips `rows` [N]. Raises PosebridgeError where one is not finite: it would rank first or
    last by accident.
    """
    least, most = values.aminmax(dim=-1)  # they pass nan on
    wrong = ~(least.isfinite() & most.isfinite()).cpu()
    if wrong.any():
        first = table.samples.clip_ids[int(rows[wrong][0])]
        raise PosebridgeError(
            f"The method {type(method).__name__} gives scores that are not finite for {int(wrong.sum())} of "
            f"{len(rows)} clips, first {first!r}; train it again with a lower learning rate."
        )
    return values
