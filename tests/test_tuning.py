"""Tuning a pose model: the losses, resuming, and what `frozen` promises."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from pipeline.hpe.model import PoseBridgeHPE
from pipeline.hpe.tuning import (
    Consecutive,
    StillCrops,
    TuneSettings,
    TuningModel,
    collate,
    save_weights,
    simcc_loss,
    tune,
)
from pipeline.hpe.weights import load_state
from pipeline.synth.objects import OBJECTS
from pipeline.synth.stills import TRAIN_STREAM, every_caption

pytestmark = pytest.mark.e2e
SMALL = TuneSettings(images=32, images_per_epoch=16, batch_size=8, workers=0)


@pytest.fixture(scope="module")
def text() -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """Made-up embeddings in place of a sentence encoder's."""
    captions = {caption: row for row, caption in enumerate(every_caption(tuple(OBJECTS)))}
    generator = torch.Generator().manual_seed(0)
    vectors = {
        "phrases": torch.randn(13, 32, generator=generator),
        "captions": torch.randn(len(captions), 32, generator=generator),
    }
    return {key: F.normalize(value, dim=-1) for key, value in vectors.items()}, captions


def batch(captions: dict[str, int]) -> dict[str, torch.Tensor]:
    return collate([StillCrops(TRAIN_STREAM, (192, 256), captions)[0]])


def test_the_keypoint_loss_is_least_at_the_truth() -> None:
    model = PoseBridgeHPE(SMALL.config)
    keypoints, weights = torch.tensor([[[50.0, 60.0]] * 17]), torch.ones(1, 17)

    def logits(x: float, y: float) -> tuple[torch.Tensor, torch.Tensor]:
        return tuple(  # type: ignore[return-value]
            torch.exp(-((torch.arange(n) - at * 2) ** 2) / (2 * s**2)).expand(1, 17, n).clone()
            for n, at, s in ((384, x, 4.9), (512, y, 5.66))
        )

    right = simcc_loss(*logits(50, 60), keypoints, weights, model.pose)
    wrong = simcc_loss(*logits(58, 60), keypoints, weights, model.pose)
    assert right < 1e-3 < wrong
    weights[0] = 0
    assert simcc_loss(*logits(58, 60), keypoints, weights, model.pose) == 0  # joints outside the crop do not count


def test_semantic_losses_reach_the_backbone_and_vanish_for_a_perfect_answer(text) -> None:
    vectors, captions = text
    settings = TuneSettings(kind="sem", batch_size=4)
    model = TuningModel(PoseBridgeHPE(settings.config, text_width=32), settings, vectors, None).train()
    losses = model(**batch(captions))
    assert set(losses) == {"loss_kp", "loss_hand", "loss_caption", "object_accuracy"}
    (losses["loss_hand"] + losses["loss_caption"]).backward()
    gradient = model.net.pose.model.backbone.stem[0].conv.weight.grad
    assert gradient is not None and gradient.abs().sum() > 0


def test_a_killed_tuning_goes_on_at_its_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longer = TuneSettings(**vars(SMALL) | {"images": 48})
    tune(SMALL, tmp_path)  # two of three epochs: as far as a killed run came
    seen: list[int] = []
    original = StillCrops.__getitem__
    monkeypatch.setattr(StillCrops, "__getitem__", lambda self, group: seen.append(group) or original(self, group))
    tune(longer, tmp_path)
    assert seen == [8, 9, 10, 11], "the third epoch's groups, and no other"
    state = torch.load(tmp_path / "epoch_3.pth", weights_only=True)  # a checkpoint holds nothing but plain values
    assert state["meta"]["epoch"] == 3 and state["meta"]["iter"] == 6
    assert list(Consecutive(4)) == [0, 1, 2, 3]


def test_frozen_leaves_keypoints_bit_identical(tmp_path: Path, text) -> None:
    vectors, captions = text
    base = PoseBridgeHPE(SMALL.config)
    before = copy.deepcopy(base.state_dict())
    settings = TuneSettings(**vars(SMALL) | {"kind": "sem", "mode": "frozen", "images": 16})
    tuned = tune(settings, tmp_path, before, vectors, captions)
    after = tuned.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before if key.startswith("pose."))
    assert any(not torch.equal(before[key], after[key]) for key in before if key.startswith("cue."))


def test_saved_weights_say_what_they_are(tmp_path: Path) -> None:
    model = PoseBridgeHPE(SMALL.config, text_width=8)
    sem = save_weights(model, tmp_path / "sem.safetensors", TuneSettings(kind="sem"), "captions", {"pck": 0.5})
    kp = save_weights(model, tmp_path / "kp.safetensors", TuneSettings(), "none", {"pck": 0.5})
    with safe_open(sem, "pt") as file:
        assert file.metadata()["hpe_text"] == "captions" and '"pck": 0.5' in file.metadata()["quality"]
    assert any(key.startswith("cue.") for key in load_state(sem))
    assert all(key.startswith("pose.") for key in load_state(kp))
