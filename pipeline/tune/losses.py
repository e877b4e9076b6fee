"""The losses of tuning: keypoints, captions, held objects, and closeness to the teacher.

Reconstruction; PoseBridge (arXiv 2605.11497) states that a CLIP-style alignment keeps action-relevant evidence in the
pose estimator and that distillation is used. The losses below are ours. No action label and no action video is used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.files.device import has_bfloat16
from pipeline.hpe.mm_compat import import_mmpose
from pipeline.hpe.model import PoseBridgeHPE
from pipeline.hpe.topdown import TopdownModel
from pipeline.recipe import ANCHORS
from pipeline.tune.contrast import caption_loss, held_evidence
from pipeline.tune.data import TrainingCrop, collate
from pipeline.tune.settings import TuneSettings
from pipeline.tune.text import TextVectors

import_mmpose()
from mmengine.model import BaseDataPreprocessor, BaseModel  # noqa: E402

SIMCC_BETA = 10.0  # as mmpose's KLDiscretLoss for RTMPose


class Collated(BaseDataPreprocessor):
    """Makes a batch on the model's device of the groups that a loader's workers send. They send arrays, through a pipe:
    tensors would take shared memory, and where it does not suffice, as in many a container, wait for ever.
    """

    def forward(self, data: list[list[TrainingCrop]], training: bool = False) -> dict[str, Tensor]:
        """A batch as `collate` makes it."""
        return self.cast_data(collate(data))


class TuningModel(BaseModel):
    """The losses of tuning, as mmengine's Runner wants them.

    `kind` sem needs `text`; the hand term is on where `text` has phrases and `lambda_hand` is not 0.
    """

    def __init__(
        self, model: PoseBridgeHPE, settings: TuneSettings, text: TextVectors | None, teacher: TopdownModel | None
    ) -> None:
        super().__init__(Collated())
        self.net, self.settings = model, settings
        self.teacher = [teacher] if teacher is not None else []  # in a list: not a part of the checkpoint
        self.has_hands = settings.lambda_hand > 0 and text is not None and text.phrases is not None
        if text is not None:
            self.register_buffer("captions", text.captions, persistent=False)  # [K, d_t], normalised
            self.register_buffer("phrases", text.phrases, persistent=False)  # [O, d_t], normalised
        self.logit_scale = nn.Parameter(torch.tensor(2.7))

    def forward(
        self,
        crops: Tensor,
        keypoints: Tensor,
        weights: Tensor,
        caption: Tensor,
        scene: Tensor,
        held: Tensor,
        degraded: Tensor,
        mode: str = "loss",
    ) -> dict[str, Tensor]:
        """Losses of a batch as `collate` makes it."""
        settings, pose = self.settings, self.net.pose
        with self._autocast(crops.device):
            images = pose.normalise(crops).contiguous(memory_format=torch.channels_last)
            (simcc_x, simcc_y), features = pose(images)
        simcc_x, simcc_y = simcc_x.float(), simcc_y.float()
        losses: dict[str, Tensor] = {}
        if settings.mode == "finetune":
            losses["loss_kp"] = simcc_loss(simcc_x, simcc_y, keypoints, weights, pose)
        if settings.kind == "sem":
            text = self._described(features, simcc_x, simcc_y, keypoints, weights)
            losses |= self._caption_loss(text[:, ANCHORS.index("body")], caption, scene)
            if self.has_hands:
                hands = text[:, [ANCHORS.index("left_hand"), ANCHORS.index("right_hand")]]
                losses |= self._hand_loss(hands, held)
        for teacher in self.teacher:
            with torch.no_grad(), self._autocast(crops.device):
                (teacher_x, teacher_y), _ = teacher.to(crops.device)(images)
            known = (~degraded).float()[:, None].expand(simcc_x.shape[:2])  # [N, V]
            distance = _distance(simcc_x, teacher_x, known) + _distance(simcc_y, teacher_y, known)
            losses["loss_kd"] = settings.lambda_kd * distance
        return losses

    @staticmethod
    def _autocast(device: torch.device) -> torch.autocast:
        """Computes in bfloat16 where that is faster."""
        return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))

    def _described(
        self, features: list[Tensor], simcc_x: Tensor, simcc_y: Tensor, keypoints: Tensor, weights: Tensor
    ) -> Tensor:
        """What every anchor's cue says, [N, A, d_t], normalised; 0 where an anchor has vanished."""
        assert self.net.to_text is not None
        with torch.no_grad():
            predicted, raw = self.net.pose.decode((simcc_x, simcc_y))
            # True places in training and predicted ones in use lose points: mix predicted and jittered true ones.
            jittered = keypoints + torch.randn_like(keypoints) * 4.0
            own = (torch.rand(len(keypoints), 1, 1, device=keypoints.device) < 0.7).float()
            places = own * predicted + (1 - own) * jittered
            seen = torch.where(own[:, :, 0] > 0, raw.clamp(0, 1), weights)
        with self._autocast(places.device):
            cues, _ = self.net.cue.cues(features, places, seen, ANCHORS, self.settings.sigma)  # [N, A, D]
            return F.normalize(self.net.to_text(cues), dim=-1).float()

    def _caption_loss(self, body: Tensor, caption: Tensor, scene: Tensor) -> dict[str, Tensor]:
        """Between body cues and the batch's captions."""
        loss = caption_loss(body, self.captions, caption, scene, self.logit_scale.exp())
        return {"loss_caption": self.settings.lambda_caption * loss}

    def _hand_loss(self, hands: Tensor, held: Tensor) -> dict[str, Tensor]:
        """Which phrase names what is held."""
        objects = held_evidence(hands, self.phrases, self.logit_scale.exp())  # [N, O]
        return {
            "loss_hand": self.settings.lambda_hand * F.cross_entropy(objects, held),
            "object_accuracy": (objects.argmax(1) == held).float().mean(),
        }


def simcc_loss(simcc_x: Tensor, simcc_y: Tensor, keypoints: Tensor, weights: Tensor, pose: TopdownModel) -> Tensor:
    """KL between predicted and Gaussian SimCC targets: mmpose's KLDiscretLoss up to a constant factor."""
    codec = pose.model.head.decoder
    loss = torch.zeros((), device=simcc_x.device)
    for axis, logits in enumerate((simcc_x, simcc_y)):
        bins = torch.arange(logits.shape[-1], device=logits.device, dtype=torch.float32)
        centre = (keypoints[..., axis : axis + 1] * codec.simcc_split_ratio).round()
        target = torch.exp(-((bins - centre) ** 2) / (2 * float(codec.sigma[axis]) ** 2))
        loss = loss + _divergence(logits, (target * SIMCC_BETA).softmax(-1), weights)
    return loss


def _distance(student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
    """How far a student's SimCC is from its teacher's: KL(teacher || student), mean over the joints of `weights`."""
    return _divergence(student, (teacher.float() * SIMCC_BETA).softmax(-1), weights)


def _divergence(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean over seen joints of KL(target || softmax(beta * logits))."""
    divergence = F.kl_div((logits * SIMCC_BETA).log_softmax(-1), target, reduction="none").sum(-1)  # [N, V]
    return (divergence * weights).sum() / weights.sum().clamp_min(1.0)
