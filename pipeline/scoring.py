"""Scoring clips of a feature table, in eval mode. There is no label among the arguments of any function here.

Reads and writes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.encoding import FeatureTable
from pipeline.methods.adaptation import Adaptation
from pipeline.methods.base import EmbeddingMethod, Method
from pipeline.protocol.guards import require_eval_mode


@torch.no_grad()
def score_table(method: Method, table: FeatureTable, text: Tensor, rows: Tensor) -> Tensor:
    """Scores [N, C] of the unaugmented view of `rows`. There is no label among its arguments."""
    require_eval_mode(method)
    return torch.cat([method.scores(table.batch(part), text) for part in rows.split(64)])


def adapt_table(adaptation: Adaptation, table: FeatureTable, text: Tensor, rows: Tensor) -> Tensor:
    """Adapted scores [N, C] of the unaugmented view of `rows`. They arrive in a random order that is always the same:
    that of a file goes by classes. There is no label among the arguments.
    """
    require_eval_mode(adaptation.method)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    batches = (table.batch(part) for part in rows[order].split(adaptation.batch_size))
    scores = adaptation.scores(batches, text).detach()
    return torch.empty_like(scores).index_copy_(0, order, scores)


@torch.no_grad()
def embed_table(method: EmbeddingMethod, table: FeatureTable, rows: Tensor) -> Tensor:
    """Embeddings [N, d_t] of the unaugmented view of `rows`."""
    require_eval_mode(method)
    return torch.cat([method.embed(table.batch(part)) for part in rows.split(64)])
