"""Scoring clips of a feature table, in eval mode. There is no label among the arguments of any function here.

Reads and writes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.learn.encode import FeatureTable
from pipeline.methods.adaptation import Adaptation
from pipeline.methods.base import EmbeddingMethod, Method
from pipeline.protocol.guards import require_eval_mode


@torch.no_grad()
def score_table(method: Method, table: FeatureTable, text: Tensor, rows: Tensor) -> Tensor:
    """Scores [N, C] of the unaugmented view of `rows`, all finite. There is no label among its arguments."""
    require_eval_mode(method)
    scores = torch.cat([method.scores(table.batch(part), text) for part in rows.split(64)])
    return _finite(scores, method, table, rows)


def adapt_table(adaptation: Adaptation, table: FeatureTable, text: Tensor, rows: Tensor) -> Tensor:
    """Adapted scores [N, C] of the unaugmented view of `rows`. They arrive in a random order that is always the same:
    that of a file goes by classes. There is no label among the arguments.
    """
    require_eval_mode(adaptation.method)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    batches = (table.batch(part) for part in rows[order].split(adaptation.batch_size))
    scores = adaptation.scores(batches, text).detach()
    return _finite(torch.empty_like(scores).index_copy_(0, order, scores), adaptation.method, table, rows)


@torch.no_grad()
def embed_table(method: EmbeddingMethod, table: FeatureTable, rows: Tensor) -> Tensor:
    """Embeddings [N, d_t] of the unaugmented view of `rows`."""
    require_eval_mode(method)
    return _finite(torch.cat([method.embed(table.batch(part)) for part in rows.split(64)]), method, table, rows)


def _finite(values: Tensor, method: Method, table: FeatureTable, rows: Tensor) -> Tensor:
    """The values [N, X] of the clips `rows` [N]. Raises PosebridgeError where one is not finite: it would rank first or
    last by accident.
    """
    wrong = ~values.isfinite().all(-1)
    if wrong.any():
        first = table.samples.clip_ids[int(rows[wrong][0])]
        raise PosebridgeError(
            f"The method {type(method).__name__} gives scores that are not finite for {int(wrong.sum())} of "
            f"{len(rows)} clips, first {first!r}; train it again with a lower learning rate."
        )
    return values
