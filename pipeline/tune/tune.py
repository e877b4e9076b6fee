"""Tuning a PoseBridge-HPE: keypoints first, then semantics with the keypoint model as teacher.

Reads crops from a source (`data.py`); writes mmengine checkpoints while it runs and one safetensors file at the
end. Command: `posebridge tune-hpe --kind kp`, then `posebridge tune-hpe --kind sem --init kp.safetensors`.
"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pipeline.errors import PosebridgeError
from pipeline.files.device import CPU, memory_for
from pipeline.files.durable import write_for_people
from pipeline.files.memory import keep_freed_memory
from pipeline.files.tensors import save_tensors
from pipeline.hpe.mm_compat import import_mmpose
from pipeline.hpe.model import PoseBridgeHPE
from pipeline.hpe.topdown import TopdownModel, channels_last
from pipeline.hpe.weights import load_state
from pipeline.tune.data import Consecutive, CropSource, Groups
from pipeline.tune.degrade import Degradations, Degraded
from pipeline.tune.losses import TuningModel
from pipeline.tune.settings import TuneSettings
from pipeline.tune.start import Start, load_start
from pipeline.tune.text import TextVectors

import_mmpose()
from mmengine.hooks import Hook  # noqa: E402
from mmengine.runner import Runner, find_latest_checkpoint  # noqa: E402


class PlainCheckpoints(Hook):
    """Strips a checkpoint of mmengine's history objects, which torch's weights_only loading refuses."""

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}


class StopsWhenLost(Hook):
    """Ends a tuning whose losses are no finite numbers any more: its weights would be saved as if they were some."""

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        for name, value in (outputs or {}).items():
            if not torch.as_tensor(value).isfinite().all():
                raise PosebridgeError(
                    f"tune-hpe: in epoch {runner.epoch + 1}, step {batch_idx + 1}, {name!r} is not a finite number; "
                    "give a lower --lr, or another --init."
                )


class OnDevice(Runner):
    """mmengine's Runner, on the device where the model lies: its own takes any GPU that there is."""

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        return model


def tune(
    settings: TuneSettings,
    source: CropSource,
    work_dir: Path,
    start: Start | None = None,
    text: TextVectors | None = None,
    device: torch.device = CPU,
) -> PoseBridgeHPE:
    """Run one tuning with mmengine's Runner on `device`; killed and started again it goes on at its last epoch.

    `start` is what to start from, and for a finetuned `sem` the teacher; `text` holds the embeddings of the source's
    captions and phrases. Returns the tuned model in eval mode, on the CPU. Raises PosebridgeError where the start does
    not fit the config, the work folder holds another tuning, or a crop cannot be read.
    """
    if settings.batch_size % source.per_group:
        raise PosebridgeError(f"Stills come in groups of {source.per_group}; give a --batch-size that is a multiple.")
    if settings.images_per_epoch < settings.batch_size:
        raise PosebridgeError(
            f"{settings.images_per_epoch} images make no batch of {settings.batch_size}; give more --images, or a "
            "smaller --batch-size."
        )
    keep_freed_memory()
    torch.manual_seed(settings.seed)
    text_width = int(text.captions.shape[1]) if text is not None else 0
    model = PoseBridgeHPE(settings.config, (), settings.pooled_stride, settings.width, text_width)
    if model.pose.score_kind != "simcc":
        raise PosebridgeError(f"{settings.config} is no SimCC config, which tuning needs; choose an RTMPose.")
    teacher = None
    if start is not None:
        if not load_start(model, start):
            warnings.warn(f"the cue head of {start.name} is of another form; a new one is tuned", stacklevel=2)
        if settings.kind == "sem" and settings.mode == "finetune":
            teacher = TopdownModel(settings.config).eval().requires_grad_(False)
            teacher.load_state_dict(model.pose.state_dict())
            channels_last(teacher)
    channels_last(model)
    if settings.mode == "frozen":
        model.pose.requires_grad_(False)
        _keep_in_eval(model.pose)
    if settings.kind == "kp":
        model.cue.requires_grad_(False)
    inputs = {"init": start.sha256 if start else "", "text": text.sha256 if text else ""}
    how = Degradations(settings.dark, settings.blurred, settings.occluded)
    unasked = [name for name, share in asdict(how).items() if not share]  # a folder of before says nothing of them
    told = {name: value for name, value in asdict(settings).items() if name not in unasked}
    _claim(work_dir, told | source.facts | inputs)
    groups = settings.images_per_epoch // source.per_group
    if len(unasked) < len(asdict(how)):
        source = Degraded(source, how, settings.seed)
    loader = DataLoader(
        Groups(source, model.pose.crop_size),
        batch_size=settings.batch_size // source.per_group, sampler=Consecutive(groups), collate_fn=list,
        num_workers=settings.workers, persistent_workers=settings.workers > 0, drop_last=True,
    )  # fmt: skip
    try:
        enough = memory_for("tune-hpe", settings.batch_size, setting="--batch-size")
        with contextlib.redirect_stdout(sys.stderr), enough:
            _run(TuningModel(model, settings, text, teacher).to(device), loader, settings, work_dir)
    except PosebridgeError as error:
        # A loader's worker puts its traceback before the sentence.
        raise PosebridgeError(str(error).strip().rpartition("PosebridgeError: ")[2]) from None
    return model.cpu().eval()


def _run(model: TuningModel, loader: DataLoader, settings: TuneSettings, work_dir: Path) -> None:
    epochs = max(1, round(settings.images / settings.images_per_epoch))
    warm_up = max(1, min(200, epochs * len(loader) // 10))
    steps = max(epochs * len(loader), warm_up + 1)
    OnDevice(
        model=model,
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
        custom_hooks=[PlainCheckpoints(), StopsWhenLost()],
        default_scope="mmpose",
        resume=True,
        log_level="INFO",
        experiment_name=f"tune-{settings.kind}",
    ).train()  # fmt: skip


def save_weights(
    model: PoseBridgeHPE,
    path: Path,
    settings: TuneSettings,
    hpe_text: str,
    quality: dict[str, float],
    facts: dict[str, str] | None = None,
) -> Path:
    """Write weights as float16 safetensors; what they were exposed to and measured at travels in the header.

    What float16 would round of a frozen pose model stays float32: its keypoints would no longer be the base model's.
    """
    exact = "pose." if settings.mode == "frozen" else "\0"
    state = {
        key: value.half() if value.is_floating_point() and not (key.startswith(exact) and _rounds(value)) else value
        for key, value in model.state_dict().items()
    }
    drop = ("to_text.",) if settings.kind == "sem" else ("to_text.", "cue.")  # untrained cues are not worth keeping
    state = {key: value.contiguous() for key, value in state.items() if not key.startswith(drop)}
    header = {"kind": settings.kind, "config": settings.config, "hpe_text": hpe_text}
    header |= {"settings": json.dumps(asdict(settings)), "quality": json.dumps(quality)} | (facts or {})
    save_tensors(state, path, header)
    return path


def _rounds(value: Tensor) -> bool:
    return not torch.equal(value.half().to(value.dtype), value)


def _claim(work_dir: Path, values: dict[str, Any]) -> None:
    """A folder goes on with its own tuning only: another one would mix two runs without a word.

    Raises PosebridgeError for a folder of another tuning, for a damaged one, and where nothing can be written.
    """
    values = {key: value for key, value in values.items() if key != "workers"}  # of speed only
    path = work_dir / "tuning.json"
    if path.is_file():
        try:
            before = dict(json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError, RecursionError):
            raise PosebridgeError(
                f"{path} is damaged; delete {work_dir} to begin anew, or choose another --out."
            ) from None
        if other := sorted(key for key in values | before if values.get(key) != before.get(key)):
            raise PosebridgeError(
                f"{work_dir} holds a tuning with another {other[0]} ({before.get(other[0])}, now "
                f"{values.get(other[0])}); delete the folder, or choose another --out."
            )
    write_for_people(path, json.dumps(values, indent=1).encode())
    # mmengine prints a line on stdout where it finds none
    if (work_dir / "last_checkpoint").is_file() and (latest := find_latest_checkpoint(str(work_dir))):
        try:
            load_state(Path(latest))
        except PosebridgeError:
            raise PosebridgeError(
                f"{latest}, where the tuning was to go on, is damaged; delete {work_dir} to begin anew."
            ) from None


def _keep_in_eval(module: nn.Module) -> None:
    """Frozen means frozen: batch-norm statistics too, so that keypoints stay bit-identical."""
    module.eval()
    module.train = lambda mode=True: module  # type: ignore[method-assign]
