"""What a cue should be near to: its captions, the phrase of what is held, cues of the same scene. Tensors only.

Reconstruction; PoseBridge (arXiv 2605.11497) states a CLIP-style alignment. The losses below are ours.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def caption_loss(cues: Tensor, captions: Tensor, caption: Tensor, scene: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE both ways between cues [N, d_t], normalised, and the batch's rows `caption` [N] of `captions` [K, d_t];
    crops of one `scene` [N] share their captions, and are no negatives of each other.
    """
    similarity = scale * cues @ captions[caption].T  # [N, N]
    same = ((scene[:, None] == scene) | (caption[:, None] == caption)).float()
    same = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same)) / 2


def held_evidence(hands: Tensor, phrases: Tensor, scale: Tensor) -> Tensor:
    """For hands' cues [N, 2, d_t] and phrases [O, d_t], normalised, how much speaks for each phrase [N, O]. Nobody says
    which hand: the better hand explains the phrase.
    """
    return torch.logsumexp(scale * hands @ phrases.T, 1) - math.log(2)
