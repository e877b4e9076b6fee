"""Tuning a PoseBridge-HPE: keypoints first, then semantics with the keypoint model as teacher.

Reads rendered stills (skelgap) made on the fly; writes mmengine checkpoints while it runs and one safetensors file
at the end. Command: `posebridge tune-hpe --kind kp`, then `posebridge tune-hpe --kind sem --init kp.safetensors`.

Reconstruction; PoseBridge (arXiv 2605.11497) states that a CLIP-style alignment keeps action-relevant evidence in the
pose estimator and that distillation is used. The losses below are ours. No action label and no action video is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.hpe.mm_compat import import_mmpose
from pipeline.hpe.model import PoseBridgeHPE
from pipeline.hpe.topdown import TopdownModel, channels_last
from pipeline.recipe import ANCHORS
from pipeline.tensors import save_tensors

import_mmpose()
from mmengine.hooks import Hook  # noqa: E402
from mmengine.model import BaseModel  # noqa: E402

SIMCC_BETA = 10.0  # as mmpose's KLDiscretLoss for RTMPose


@dataclass(frozen=True)
class TuneSettings:
    """One tuning run. `mode` is `finetune` (everything learns) or `frozen` (only refinement and projection learn)."""

    kind: str = "kp"  # kp or sem
    mode: str = "finetune"
    config: str = "rtmpose-t_8xb256-420e_coco-256x192"
    images: int = 96_000
    images_per_epoch: int = 6_400  # a checkpoint each
    batch_size: int = 32
    lr: float = 1.5e-3
    lambda_hand: float = 1.0
    lambda_caption: float = 0.15
    lambda_kd: float = 0.5
    width: int = 96
    pooled_stride: int = 16
    sigma: float = 0.08
    seed: int = 0
    workers: int = 1

    @staticmethod
    def of(kind: str) -> TuneSettings:
        """The settings that the shipped weights were tuned with."""
        return TuneSettings() if kind == "kp" else TuneSettings(kind="sem", images=57_600, lr=6e-4)


class TuningModel(BaseModel):
    """The losses of tuning, as mmengine's Runner wants them."""

    def __init__(
        self,
        model: PoseBridgeHPE,
        settings: TuneSettings,
        vectors: dict[str, Tensor] | None,
        teacher: TopdownModel | None,
    ) -> None:
        super().__init__()
        self.net, self.settings = model, settings
        self.teacher = [teacher] if teacher is not None else []  # in a list: not a part of the checkpoint
        if vectors is not None:
            self.register_buffer("phrases", vectors["phrases"], persistent=False)  # [O, d_t], normalised
            self.register_buffer("captions", vectors["captions"], persistent=False)  # [K, d_t], normalised
        self.logit_scale = nn.Parameter(torch.tensor(2.7))

    def forward(
        self, crops: Tensor, keypoints: Tensor, weights: Tensor, held: Tensor, caption: Tensor, mode: str = "loss"
    ) -> dict[str, Tensor]:
        """Losses of a batch: crops [N, H, W, 3] uint8, keypoints [N, 17, 2] and weights [N, 17] float, indices [N]."""
        settings, pose = self.settings, self.net.pose
        with torch.autocast(crops.device.type, torch.bfloat16):
            images = pose.normalise(crops).contiguous(memory_format=torch.channels_last)
            (simcc_x, simcc_y), features = pose(images)
        simcc_x, simcc_y = simcc_x.float(), simcc_y.float()
        losses: dict[str, Tensor] = {}
        if settings.mode == "finetune":
            losses["loss_kp"] = simcc_loss(simcc_x, simcc_y, keypoints, weights, pose)
        if settings.kind == "sem":
            losses |= self._semantic_losses(features, simcc_x, simcc_y, keypoints, weights, held, caption)
            if settings.mode == "finetune" and self.teacher:
                with torch.no_grad(), torch.autocast(crops.device.type, torch.bfloat16):
                    (teacher_x, teacher_y), _ = self.teacher[0](images)
                losses["loss_kd"] = settings.lambda_kd * (_distance(simcc_x, teacher_x) + _distance(simcc_y, teacher_y))
        return losses

    def _semantic_losses(
        self,
        features: list[Tensor],
        simcc_x: Tensor,
        simcc_y: Tensor,
        keypoints: Tensor,
        weights: Tensor,
        held: Tensor,
        caption: Tensor,
    ) -> dict[str, Tensor]:
        assert self.net.to_text is not None
        with torch.no_grad():
            predicted, raw = self.net.pose.decode((simcc_x, simcc_y))
            # True places in training and predicted ones in use lose points: mix predicted and jittered true ones.
            jittered = keypoints + torch.randn_like(keypoints) * 4.0
            own = (torch.rand(len(keypoints), 1, 1, device=keypoints.device) < 0.7).float()
            places = own * predicted + (1 - own) * jittered
            seen = torch.where(own[:, :, 0] > 0, raw.clamp(0, 1), torch.ones_like(raw))
        with torch.autocast(places.device.type, torch.bfloat16):
            cues, _ = self.net.cues(features, places, seen, ANCHORS, self.settings.sigma)  # [N, A, D]
            text = F.normalize(self.net.to_text(cues), dim=-1).float()
        scale = self.logit_scale.exp()
        body, hands = text[:, ANCHORS.index("body")], text[:, [ANCHORS.index("left_hand"), ANCHORS.index("right_hand")]]
        # Nobody says which hand: the better hand explains the phrase.
        objects = torch.logsumexp(scale * hands @ self.phrases.T, 1) - torch.log(torch.tensor(2.0))  # [N, O]
        loss_hand = F.cross_entropy(objects, held)
        similarity = scale * body @ self.captions[caption].T  # [N, N]
        same = (caption[:, None] == caption[None]).float()
        same = same / same.sum(1, keepdim=True)
        loss_caption = (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same)) / 2
        return {
            "loss_hand": self.settings.lambda_hand * loss_hand,
            "loss_caption": self.settings.lambda_caption * loss_caption,
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


def _distance(student: Tensor, teacher: Tensor) -> Tensor:
    """How far a student's SimCC is from its teacher's: KL(teacher || student), mean over all joints."""
    return _divergence(student, (teacher.float() * SIMCC_BETA).softmax(-1), torch.ones_like(student[..., 0]))


def _divergence(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean over seen joints of KL(target || softmax(beta * logits))."""
    divergence = F.kl_div((logits * SIMCC_BETA).log_softmax(-1), target, reduction="none").sum(-1)  # [N, V]
    return (divergence * weights).sum() / weights.sum().clamp_min(1.0)


class StillCrops(Dataset):
    """Groups of augmented crops of rendered stills; group g is always the same, so a resumed run sees the same data."""

    def __init__(
        self, stream: int, crop_size: tuple[int, int], captions: dict[str, int], objects: tuple[str, ...] | None = None
    ) -> None:
        from pipeline.synth.objects import OBJECTS

        self.stream, self.crop_size, self.captions = stream, crop_size, captions
        self.all_objects = tuple(OBJECTS)
        self.objects = objects or self.all_objects

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, group: int) -> list[dict[str, Any]]:
        from pipeline.synth.stills import stills, training_crop

        rng = np.random.default_rng([self.stream, group, 1])
        items = []
        for still in stills(self.stream, group, self.objects):
            crop, keypoints = training_crop(still, rng, self.crop_size)
            width, height = self.crop_size
            inside = ((keypoints >= 0) & (keypoints < [width, height])).all(-1)
            held = 0 if still.held == "none" else 1 + self.all_objects.index(still.held)
            items.append(
                {
                    "crops": torch.from_numpy(crop),
                    "keypoints": torch.from_numpy(keypoints),
                    "weights": torch.from_numpy(inside.astype(np.float32)),
                    "held": torch.tensor(held),
                    "caption": torch.tensor(self.captions.get(still.caption, 0)),
                }
            )
        return items


def collate(groups: list[list[dict[str, Any]]]) -> dict[str, Tensor]:
    """Stack the items of several groups into one batch."""
    items = [item for group in groups for item in group]
    return {key: torch.stack([item[key] for item in items]) for key in items[0]}


class Consecutive(Sampler[int]):
    """Epoch e reads the groups [e * n, (e + 1) * n): nothing is seen twice, and a resumed epoch is the same."""

    def __init__(self, groups: int) -> None:
        self.groups, self.epoch = groups, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.epoch * self.groups, (self.epoch + 1) * self.groups))

    def __len__(self) -> int:
        return self.groups


class PlainCheckpoints(Hook):
    """Strips a checkpoint of mmengine's history objects, which torch's weights_only loading refuses."""

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}


def tune(
    settings: TuneSettings,
    work_dir: Path,
    init: dict[str, Tensor] | None = None,
    vectors: dict[str, Tensor] | None = None,
    captions: dict[str, int] | None = None,
    objects: tuple[str, ...] | None = None,
    resume: bool = True,
) -> PoseBridgeHPE:
    """Run one tuning with mmengine's Runner; killed and started again it goes on at its last epoch.

    `init` is the state of a PoseBridgeHPE to start from (for `sem` also the teacher); `vectors` holds normalised text
    embeddings `phrases` [13, d_t] (empty hands, then the objects) and `captions` [K, d_t]; `captions` maps a caption to
    its row. Returns the tuned model in eval mode.
    """
    from mmengine.runner import Runner

    from pipeline.synth.stills import PER_BACKGROUND, TRAIN_STREAM

    torch.manual_seed(settings.seed)
    text_width = int(vectors["phrases"].shape[1]) if vectors is not None else 0
    model = PoseBridgeHPE(settings.config, (), settings.pooled_stride, settings.width, text_width)
    teacher = None
    if init is not None:
        model.load_state_dict(init, strict=False)
        if settings.kind == "sem" and settings.mode == "finetune":
            teacher = TopdownModel(settings.config).eval().requires_grad_(False)
            teacher.load_state_dict({k.removeprefix("pose."): v for k, v in init.items() if k.startswith("pose.")})
            channels_last(teacher)
    channels_last(model)
    if settings.mode == "frozen":
        model.pose.requires_grad_(False)
        _keep_in_eval(model.pose)
    if settings.kind == "kp":
        model.cue.requires_grad_(False)
    groups = settings.images_per_epoch // PER_BACKGROUND
    epochs = max(1, round(settings.images / settings.images_per_epoch))
    steps = epochs * groups * PER_BACKGROUND // settings.batch_size
    warm_up = max(1, min(200, steps // 10))
    stream = TRAIN_STREAM + 10 * settings.seed + (5 if settings.kind == "sem" else 0)  # other stills for other phases
    loader = DataLoader(
        StillCrops(stream, model.pose.crop_size, captions or {}, objects),
        batch_size=settings.batch_size // PER_BACKGROUND, sampler=Consecutive(groups), collate_fn=collate,
        num_workers=settings.workers, persistent_workers=settings.workers > 0, drop_last=True,
    )  # fmt: skip
    runner = Runner(
        model=TuningModel(model, settings, vectors, teacher),
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg={"by_epoch": True, "max_epochs": epochs},
        optim_wrapper={
            "type": "OptimWrapper",
            "optimizer": {"type": "AdamW", "lr": settings.lr, "weight_decay": 0.02},
            "paramwise_cfg": {"norm_decay_mult": 0, "bias_decay_mult": 0},
            "clip_grad": {"max_norm": 35},
        },
        param_scheduler=[
            {"type": "LinearLR", "start_factor": 0.01, "by_epoch": False, "begin": 0, "end": warm_up},
            {
                "type": "CosineAnnealingLR", "eta_min": settings.lr * 0.01, "by_epoch": False,
                "begin": warm_up, "end": steps, "T_max": steps - warm_up,
            },
        ],
        default_hooks={
            "checkpoint": {"type": "CheckpointHook", "interval": 1, "max_keep_ckpts": 2},
            "logger": {"type": "LoggerHook", "interval": 50},
        },
        custom_hooks=[PlainCheckpoints()],
        default_scope="mmpose",
        resume=resume,
        log_level="INFO",
        experiment_name=f"tune-{settings.kind}",
    )  # fmt: skip
    runner.train()
    return model.eval()


def save_weights(
    model: PoseBridgeHPE, path: Path, settings: TuneSettings, hpe_text: str, quality: dict[str, float]
) -> Path:
    """Write weights as float16 safetensors; what they were exposed to and measured at travels in the header."""
    state = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    drop = ("to_text.",) if settings.kind == "sem" else ("to_text.", "cue.")  # untrained cues are not worth keeping
    state = {key: value.contiguous() for key, value in state.items() if not key.startswith(drop)}
    header = {"kind": settings.kind, "config": settings.config, "hpe_text": hpe_text}
    header |= {"settings": json.dumps(asdict(settings)), "quality": json.dumps(quality)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_tensors(state, partial, header)
    partial.replace(path)
    return path


def _keep_in_eval(module: nn.Module) -> None:
    """Frozen means frozen: batch-norm statistics too, so that keypoints stay bit-identical."""
    module.eval()
    module.train = lambda mode=True: module  # type: ignore[method-assign]
