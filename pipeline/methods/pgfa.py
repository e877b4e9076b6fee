"""PGFA: skeleton encoder and text alignment trained together, by a contrastive loss with fixed scale.

Zhou et al., "PGFA", IEEE TIP 2025 (arXiv 2507.00566), as its released implementation behaves: a small ST-GCN on 50
frames, or Shift-GCN on 64; one linear adapter to text width; loss (KL(Q || softmax L) + KL(Q || softmax L^T)) / 2 with
L = cosines / 0.07 between the clips of a batch and their classes' texts. SGD with momentum .9, weight decay 5e-4,
learning rate .05 (.005 for NTU-120: the run `pgfa_120` of params/paper-ntu-synse.yaml), batch 128, 50 epochs, 5 of them
warm-up, a tenth at 50 and 80: the paper's values are `hidden: [16, 16, 16, 16, 32, 32, 32, 64, 64]`, `out: 256` and
`frames: 50`. The defaults are smaller, for a CPU.

Its alignment of text prototypes at test is an adaptation (`adapt: pgfa`), in adaptation.py. Not as there: text is as
wide as the bank's (384 for MiniLM; published: all-mpnet-base-v2, 768), the best epoch is chosen on pseudo-unseen
classes instead of test accuracy, gradients are clipped at norm 5, warm-up rises step by step (released: epoch by epoch,
from 0), an epoch's last batch may be shorter (released: left out) and an epoch of few clips goes through them several
times, and clips are augmented as for every method here that is trained by gradients. `cues` puts the bridge of cued.py
behind the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import PosebridgeError
from pipeline.files.bounds import within
from pipeline.methods.base import MOST_LAYERS, MOST_WIDE, EmbeddingMethod, Features, Shapes, read_flags
from pipeline.methods.cued import CueFlags, MapBridge
from pipeline.skeleton.base import OUT_CHANNELS, SkeletonEncoder
from pipeline.skeleton.encoders import ENCODERS
from pipeline.skeleton.graph import graph_of
from pipeline.skeleton.resample import resample
from pipeline.skeleton.st_gcn import STGCN

SHARPNESS = 10.0  # of Q


@dataclass(frozen=True)
class AlignmentFlags:
    """The text, then the training."""

    text_slots: tuple[str, ...] = ("one_line",)
    tau: float = within(0.07, above=0)

    lr: float = within(0.05, above=0)
    batch_size: int = within(128, 1, 10**6)
    epochs: int = within(50, 1, 10**6)


class Alignment(EmbeddingMethod):
    """Loss, training and prototypes of PGFA, whatever it is that embeds a clip."""

    flags: AlignmentFlags

    def schedule(self) -> Mapping[str, Any]:
        f = self.flags
        return {
            "optimiser": "sgd", "lr": f.lr, "weight_decay": 5e-4, "batch_size": f.batch_size, "epochs": f.epochs,
            "warmup_epochs": 5, "milestones": (50, 80), "ema": 0.0,
        }  # fmt: skip

    def loss(self, features: Features, labels: Tensor, text: Tensor) -> Tensor:
        labels = labels.to(text.device, non_blocking=True)
        return contrastive_kl(self.embed(features), self.prototypes(text)[labels], labels, self.flags.tau)

    def prototypes(self, text: Tensor) -> Tensor:
        return self.describe(text)


@dataclass(frozen=True)
class Flags(CueFlags, AlignmentFlags):
    """The encoder; the training is inherited."""

    encoder: str = "st_gcn"  # or one of `encode`: shift_gcn, the published one, light, dense
    hidden: tuple[int, ...] = within((16, 16, 32), 1, MOST_WIDE)  # widths of ST-GCN
    out: int = within(64, 1, MOST_WIDE)  # its last one
    kernel: int = within(9, 1, 999)  # frames of its temporal convolutions
    dropout: float = within(0.0, 0, 1)  # within its layers
    width: int = within(16, 1, MOST_WIDE)  # of Shift-GCN; published are 64 and 4, 3, 3 blocks
    blocks: tuple[int, ...] = within((2, 2, 2), 1, MOST_LAYERS)
    frames: int = within(0, 0, MOST_WIDE)  # clips are resampled to so many; 0 leaves them as they were extracted


class PGFA(Alignment):
    """See the module's docstring."""

    end_to_end = True
    flags: Flags

    def __init__(self, shapes: Shapes, classes: int, flags: Mapping[str, Any]) -> None:
        super().__init__(shapes, classes, flags)
        self.flags = f = read_flags(Flags, flags, "pgfa")
        self.text_slots, self.temperature = tuple(f.text_slots), f.tau
        graph = graph_of(shapes.layout)
        if f.kernel % 2 == 0:
            raise PosebridgeError(f"The flag kernel of pgfa should be an odd number, not {f.kernel}.")
        self.encoder: STGCN | SkeletonEncoder
        if f.encoder == "st_gcn":
            self.encoder, channels = STGCN(graph, f.hidden, f.out, f.kernel, f.dropout, shapes.inputs), f.out
        elif made := ENCODERS.get(f.encoder):
            joints, persons = len(graph.joints), shapes.persons
            self.encoder, channels = made(joints, 1, f.width, f.blocks, 0.0, shapes.inputs, persons), OUT_CHANNELS
            del self.encoder.classifier  # the adapter takes its place
        else:
            known = ", ".join(ENCODERS)
            raise PosebridgeError(f"The flag encoder of pgfa should be st_gcn, {known}, not {f.encoder!r}.")
        self.bridge = MapBridge(shapes, f, channels) if f.cues else None
        self.adapter = nn.Linear(channels, shapes.d_text)

    def embed(self, features: Features) -> Tensor:
        x = features.skeleton  # [B, M, T, V, C + 1]
        person = x.flatten(2).any(-1)  # [B, M]
        skeleton = self.encoder.feature_map(resample(x, self.flags.frames or x.shape[2]), person)  # [B, out, T', V]
        if self.bridge is not None:
            skeleton = self.bridge(skeleton, features)
        return F.normalize(self.adapter(skeleton.mean(dim=(2, 3))), dim=-1)


def contrastive_kl(s: Tensor, t: Tensor, labels: Tensor, tau: float) -> Tensor:
    """1/2 [KL(Q || softmax_row L) + KL(Q || softmax_row L^T)], the mean over rows; L = s t^T / tau,
    Q = softmax_row(10 [y_i == y_j]). s, t [B, d] L2-normalised, labels [B].
    """
    logits = s @ t.T / tau
    q = (SHARPNESS * (labels[:, None] == labels).to(logits.dtype)).softmax(1)
    rows, columns = (F.kl_div(each.log_softmax(1), q, reduction="batchmean") for each in (logits, logits.T))
    return 0.5 * (rows + columns)
