"""Tuning a pose model: the losses, resuming, and what `frozen` promises."""

import copy
import json
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file

from pipeline.errors import PosebridgeError
from pipeline.hpe.model import PoseBridgeHPE
from pipeline.hpe.weights import SHIPPED, load_state, metadata
from pipeline.tune.contrast import caption_loss
from pipeline.tune.data import Consecutive, collate
from pipeline.tune.losses import TuningModel, simcc_loss
from pipeline.tune.settings import TuneSettings
from pipeline.tune.start import Start, exposure, find_start
from pipeline.tune.stills import StillSource
from pipeline.tune.text import TextVectors, embed
from pipeline.tune.tune import _claim, save_weights, tune
from stages.tune_hpe import command

pytestmark = pytest.mark.e2e
SMALL = TuneSettings(images=32, images_per_epoch=16, batch_size=8, workers=0)


class MadeUp:
    """Random vectors in place of a sentence encoder's; remembers every text."""

    sha256 = "0" * 64
    seen: list[str] = []

    def __init__(self, name: str = "", device: torch.device | None = None) -> None:
        MadeUp.seen = []

    def encode(self, texts):
        MadeUp.seen += texts
        rows = [torch.randn(32, generator=torch.Generator().manual_seed(sum(map(ord, text)))) for text in texts]
        return F.normalize(torch.stack(rows), dim=-1).numpy()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> TextVectors:
    return embed(StillSource("sem"), MadeUp(), tmp_path_factory.mktemp("text"))


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


def test_each_axis_is_held_against_its_own_places(monkeypatch: pytest.MonkeyPatch) -> None:
    model = TuningModel(PoseBridgeHPE(SMALL.config), SMALL, None, None)
    batch = collate([StillSource().crops(0, (192, 256))])
    simcc = tuple(
        torch.exp(-((torch.arange(n) - (batch["keypoints"][..., axis, None] * 2).round()) ** 2) / (2 * s**2))
        for axis, (n, s) in enumerate(((384, 4.9), (512, 5.66)))
    )
    monkeypatch.setattr(model.net.pose, "forward", lambda images: (simcc, []))
    assert model(**batch)["loss_kp"] < 1e-3


def test_the_weights_of_losses_are_factors_and_either_hand_explains(text: TextVectors) -> None:
    def losses(held: int, **weights: float) -> list[float]:
        settings = TuneSettings(kind="sem", **weights)
        model = TuningModel(PoseBridgeHPE(settings.config, text_width=32), settings, text, None)
        rows = torch.tensor([0, 1])
        caption = model._caption_loss(text.captions[rows], rows, rows)["loss_caption"]
        assert text.phrases is not None
        hand = model._hand_loss(text.phrases[torch.tensor([[1, 2]])], torch.tensor([held]))["loss_hand"]
        return [hand.item(), caption.item()]

    once = losses(1, lambda_hand=1.0, lambda_caption=0.1)
    assert losses(1, lambda_hand=3.0, lambda_caption=0.3) == pytest.approx([3 * value for value in once])
    assert losses(2)[0] == pytest.approx(once[0], rel=0.2) and losses(3)[0] > 3 * once[0]


def test_semantic_losses_reach_the_backbone(text: TextVectors) -> None:
    settings = TuneSettings(kind="sem", batch_size=4)
    model = TuningModel(PoseBridgeHPE(settings.config, text_width=32), settings, text, None).train()
    losses = model(**collate([StillSource("sem").crops(0, (192, 256))]))
    assert set(losses) == {"loss_kp", "loss_hand", "loss_caption", "object_accuracy"}
    (losses["loss_hand"] + losses["loss_caption"]).backward()
    gradient = model.net.pose.model.backbone.stem[0].conv.weight.grad
    assert gradient is not None and gradient.abs().sum() > 0


@pytest.mark.parametrize("able", [True, False])
def test_a_cpu_that_only_emulates_bfloat16_computes_in_float32(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx2": True, "avx512_bf16": able})
    settings, found = TuneSettings(batch_size=4), []
    model = TuningModel(PoseBridgeHPE(settings.config), settings, None, None)
    model.net.pose.register_forward_hook(lambda module, given, output: found.append(output[0][0].dtype))
    model(**collate([StillSource("kp").crops(0, (192, 256))]))
    assert found == [torch.bfloat16 if able else torch.float32]


def test_people_of_one_scene_are_no_negatives_of_each_other(text: TextVectors) -> None:
    settings = TuneSettings(kind="sem")
    model = TuningModel(PoseBridgeHPE(settings.config, text_width=32), settings, text, None)

    def loss(caption: list[int], scene: list[int]) -> float:
        body = text.captions[torch.tensor([3, 4, 5])]  # each says its own caption, and no other
        return model._caption_loss(body, torch.tensor(caption), torch.tensor(scene))["loss_caption"].item()

    apart, together = loss([3, 4, 5], [0, 1, 2]), loss([3, 4, 5], [0, 0, 2])
    assert apart < 0.5 * together  # pulled towards the other's caption as well
    assert loss([4, 3, 5], [0, 0, 2]) == pytest.approx(together)  # which of its captions a person gets does not matter
    assert loss([4, 3, 5], [0, 1, 2]) > 2 * apart  # but it does between scenes
    assert loss([3, 3, 5], [0, 1, 2]) == pytest.approx(loss([3, 3, 5], [0, 0, 2]))  # one caption of two scenes


def test_a_killed_tuning_goes_on_at_its_last_epoch(tmp_path: Path) -> None:
    class Killed(StillSource):
        seen: list[int] = []
        until = 1 << 30

        def crops(self, group: int, crop_size: tuple[int, int]) -> list:
            if group >= self.until:
                raise KeyboardInterrupt
            self.seen.append(group)
            return super().crops(group, crop_size)

    settings = TuneSettings(**vars(SMALL) | {"images": 48})
    source = Killed()
    source.until = 9
    with pytest.raises(KeyboardInterrupt):
        tune(settings, source, tmp_path)
    source.until = 1 << 30
    source.seen.clear()
    tune(settings, source, tmp_path)
    assert source.seen == [8, 9, 10, 11], "the third epoch's groups, and no other"
    state = torch.load(tmp_path / "epoch_3.pth", weights_only=True)  # a checkpoint holds nothing but plain values
    assert state["meta"]["epoch"] == 3 and state["meta"]["iter"] == 6
    assert list(Consecutive(4)) == [0, 1, 2, 3]


def test_workers_need_no_shared_memory(tmp_path: Path, monkeypatch) -> None:
    def full(*_):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", full)  # a worker is a fork of this process
    once = TuneSettings(**vars(SMALL) | {"images": 8, "images_per_epoch": 8, "workers": 1})
    tune(once, StillSource(), tmp_path)


def test_a_folder_does_not_go_on_with_another_tuning(tmp_path: Path) -> None:
    once = TuneSettings(**vars(SMALL) | {"images": 8, "images_per_epoch": 8})
    tune(once, StillSource(), tmp_path)
    with pytest.raises(PosebridgeError, match=r"another lr \(0.0015, now 0.1\); delete the folder"):
        tune(TuneSettings(**vars(once) | {"lr": 0.1}), StillSource(), tmp_path)
    with pytest.raises(PosebridgeError, match="another objects"):
        tune(once, StillSource(without=("ball",)), tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("tuning.json", b"{"), ("tuning.json", b"[1]"), ("tuning.json", b"\xff"), ("tuning.json", b"[" * 10**5),
     ("epoch_1.pth", b""), ("epoch_1.pth", b"PK\x03\x04 cut"), ("epoch_1.pth", b"noise")],
)  # fmt: skip
def test_a_damaged_folder_is_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "epoch_1.pth"))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PosebridgeError, match=f"{name}.* is damaged; delete .* to begin anew"):
        _claim(tmp_path, {"lr": 0.1})


def test_frozen_leaves_keypoints_bit_identical(tmp_path: Path, text: TextVectors) -> None:
    base = PoseBridgeHPE(SMALL.config)
    before = copy.deepcopy(base.state_dict())
    settings = TuneSettings(**vars(SMALL) | {"kind": "sem", "mode": "frozen", "images": 16})
    tuned = tune(settings, StillSource("sem"), tmp_path, Start("base", "", before), text)
    after = load_state(save_weights(tuned, tmp_path / "out.safetensors", settings, "captions", {}))
    assert all(torch.equal(before[key], after[key]) for key in before if key.startswith("pose."))
    assert any(not torch.equal(before[key], after[key]) for key in before if key.startswith("cue."))


def test_a_frozen_model_in_float16_stays_as_small(tmp_path: Path) -> None:
    settings = TuneSettings(**vars(SMALL) | {"kind": "sem", "mode": "frozen"})
    model = PoseBridgeHPE(SMALL.config)
    model.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in model.state_dict().items()})
    state = load_file(save_weights(model, tmp_path / "out.safetensors", settings, "captions", {}))
    assert not [key for key, value in state.items() if value.dtype == torch.float32]


def test_a_cue_head_of_an_earlier_form_is_left_out_of_a_start(tmp_path: Path, text: TextVectors) -> None:
    """Its pose model is a start all the same, which is how weights of before get a head of today."""
    before = PoseBridgeHPE(SMALL.config).state_dict()
    before["cue.refine.project.2.0.weight"] = torch.zeros(96, 192, 1, 1)
    settings = TuneSettings(**vars(SMALL) | {"kind": "sem", "mode": "frozen", "images": 16})
    with pytest.warns(UserWarning, match="the cue head of base is of another form"):
        tuned = tune(settings, StillSource("sem"), tmp_path, Start("base", "", before), text)
    after = tuned.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before if key.startswith("pose."))
    assert not torch.equal(before["cue.project.weight"], after["cue.project.weight"])
    broken = before | {"pose.more": torch.zeros(1)}
    with pytest.raises(PosebridgeError, match="does not fit"):
        tune(settings, StillSource("sem"), tmp_path / "b", Start("base", "", broken), text)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    config = "rtmpose-s_8xb256-420e_coco-256x192"
    start = find_start("skelgap-kp", config)
    with pytest.raises(PosebridgeError, match=r"^skelgap-kp.safetensors does not fit rtmpose-s.*--init.*--config\.$"):
        tune(TuneSettings(**vars(SMALL) | {"config": config}), StillSource(), tmp_path, start)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ("td-hm_mobilenetv2_8xb64-210e_coco-256x192", "is no SimCC config, which tuning needs; choose an RTMPose."),
        ("rtmo-s_8xb32-600e_coco-640x640", "is no top-down config of one codec with maps; choose a SimCC or"),
        ("td-hm_mspn50_8xb32-210e_coco-256x192", "answers in several stages, which is not provided for; choose"),
        ("edpose_res50_8xb2-50e_coco-800x1333", "cannot be read ("),
        ("rtmpose-q_8xb256-420e_coco-256x192", "near names: rtmpose-"),
    ],
)
def test_a_config_that_cannot_be_tuned_is_one_sentence(tmp_path: Path, config: str, complaint: str) -> None:
    with pytest.raises(PosebridgeError, match=re.escape(config)) as caught:
        tune(TuneSettings(**vars(SMALL) | {"config": config}), StillSource(), tmp_path)
    assert complaint in str(caught.value)


def test_strict_means_that_no_word_of_a_left_out_object_is_seen(tmp_path: Path, monkeypatch) -> None:
    """Not in a caption, not among the phrases that a hand could hold, not as a wrong answer."""
    source = StillSource("sem", without=("ball", "umbrella"))
    sentences = " ".join(source.phrases + source.captions)
    assert "ball" not in sentences and "umbrella" not in sentences and "a cup" in sentences
    assert len(source.phrases) == 11
    held = {source.phrases[crop.held] for group in range(12) for crop in source.crops(group, (192, 256))}
    assert len(held) > 6

    import pipeline.text.encoder
    import pipeline.tune.tune

    seen_by_the_model: list[str] = []

    def tuned(settings: TuneSettings, source: StillSource, work_dir: Path, start: Start, text: TextVectors, device):
        seen_by_the_model.extend(MadeUp.seen)
        assert text.phrases is not None and len(text.phrases) == 11
        return PoseBridgeHPE(settings.config, text_width=32)

    monkeypatch.setattr(pipeline.text.encoder, "SentenceEncoder", MadeUp)
    monkeypatch.setattr(pipeline.tune.tune, "tune", tuned)
    out = tmp_path / "strict.safetensors"
    arguments = ["--kind", "sem", "--init", "skelgap-kp", "--without", "ball", "--without", "umbrella"]
    answer = CliRunner().invoke(command, [*arguments, "--measure", "4", "--out", str(out)], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    assert seen_by_the_model and not any("ball" in text or "umbrella" in text for text in seen_by_the_model)
    assert any("ball" in text for text in MadeUp.seen), "measured on all objects, when training was over"
    with safe_open(out, "pt") as file:
        header = file.metadata()
    assert header["hpe_text"] == "captions-strict" and json.loads(header["without"]) == ["ball", "umbrella"]


def test_words_stay_seen_whatever_is_tuned_on_top() -> None:
    def start(hpe_text: str, *without: str) -> Start:
        return Start("weights", "", {}, hpe_text, without)

    assert exposure("kp", (), None) == ("none", ())
    assert exposure("kp", (), start("captions")) == ("captions", ())
    assert exposure("sem", (), start("none")) == ("captions", ())
    assert exposure("sem", ("cup", "ball"), start("none")) == ("captions-strict", ("cup", "ball"))
    assert exposure("sem", ("cup",), start("captions")) == ("captions", ())
    assert exposure("sem", ("cup", "ball"), start("captions-strict", "ball")) == ("captions-strict", ("ball",))
    assert exposure("sem", ("cup",), start("captions-strict", "ball")) == ("captions", ())


def test_captions_are_embedded_once(tmp_path: Path) -> None:
    source = StillSource("sem", without=("ball",))
    first = embed(source, MadeUp(), tmp_path)
    assert len(MadeUp.seen) == len(source.phrases) + len(source.captions)
    again = embed(source, MadeUp(), tmp_path)
    assert MadeUp.seen == [] and torch.equal(first.captions, again.captions) and first.sha256 == again.sha256
    embed(StillSource("sem"), MadeUp(), tmp_path)
    assert len(MadeUp.seen) > 0, "other sentences"
    (tmp_path / "text.safetensors").write_bytes(b"cut")
    assert torch.equal(embed(source, MadeUp(), tmp_path).captions, first.captions), "a damaged file is made anew"


def test_saved_weights_say_what_they_are(tmp_path: Path) -> None:
    model = PoseBridgeHPE(SMALL.config, text_width=8)
    sem = save_weights(model, tmp_path / "sem.safetensors", TuneSettings(kind="sem"), "captions", {"pck": 0.5})
    kp = save_weights(model, tmp_path / "kp.safetensors", TuneSettings(), "none", {"pck": 0.5})
    with safe_open(sem, "pt") as file:
        assert file.metadata()["hpe_text"] == "captions" and '"pck": 0.5' in file.metadata()["quality"]
    assert any(key.startswith("cue.") for key in load_state(sem))
    assert all(key.startswith("pose.") for key in load_state(kp))


@pytest.mark.parametrize(("kind", "mode"), [("kp", "finetune"), ("sem", "frozen")])
def test_the_shipped_weights_were_tuned_with_the_settings_of_their_kind(kind: str, mode: str) -> None:
    noted = json.loads(metadata(SHIPPED / f"skelgap-{kind}.safetensors")["settings"])
    undegraded = {"dark": 0.0, "blurred": 0.0, "occluded": 0.0}  # nobody could ask for anything else then
    assert undegraded | noted == json.loads(json.dumps(vars(TuneSettings.of(kind, mode))))


def test_captions_of_one_scene_share_what_a_cue_should_be_near_to_by_hand() -> None:
    apart, caption, scene = torch.eye(3), torch.arange(3), torch.tensor([0, 0, 1])
    loss = float(caption_loss(apart, apart, caption, scene, torch.tensor(2.0)))
    assert loss == pytest.approx(math.log(math.exp(2) + 2) - 2 * (0.5 + 0.5 + 1) / 3, abs=1e-5)
