"""The values of one tuning run. Light on purpose (no torch), for the command line's help."""

from __future__ import annotations

from dataclasses import dataclass


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
    lambda_hand: float = 1.0  # 0 where nobody says what a hand holds
    lambda_caption: float = 0.15
    lambda_kd: float = 0.5
    width: int = 96
    pooled_stride: int = 16
    sigma: float = 0.08
    seed: int = 0
    workers: int = 1
    dark: float = 0.0  # shares of crops that are degraded; see degrade.py
    blurred: float = 0.0
    occluded: float = 0.0

    @staticmethod
    def of(kind: str, mode: str = "finetune", coco: bool = False) -> TuneSettings:
        """For stills, the settings that the shipped weights were tuned with: `skelgap-sem` first to the end, then a
        head alone (`frozen`).

        For COCO, a start that nobody has measured yet: RTMPose-s, about ten passes over COCO's people, a rate below
        that of the shipped weights since it starts from a trained model; no hand term, since captions do not say what
        a hand holds.
        """
        if coco:
            return TuneSettings(
                kind=kind, mode=mode, config="rtmpose-s_8xb256-420e_coco-256x192", images=1_200_000,
                images_per_epoch=24_000, batch_size=128, lr=5e-4, lambda_hand=0.0, workers=8,
            )  # fmt: skip
        if mode == "frozen":
            return TuneSettings(kind=kind, mode=mode, images=89_600, lr=3e-3)
        return TuneSettings() if kind == "kp" else TuneSettings(kind="sem", images=57_600, lr=6e-4)


@dataclass(frozen=True)
class HeadSettings:
    """One tuning of a cue head on a frozen pose model, on a CPU."""

    images: int = 6_000  # crops whose maps are kept; a person of a frame comes several times, moved and relit
    epochs: int = 20  # over them, at the most
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.05
    patience: int = 6  # epochs without a better validation
    lambda_hand: float = 0.5
    width: int = 96
    pooled_stride: int = 16
    sigma: float = 0.08
    seed: int = 0
