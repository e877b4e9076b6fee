"""How good weights are: OKS-AP against its definition, retrieval, and the probe on evidence that is known."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pipeline.bench.cues import FEWEST, PROBE_STREAM, linear_probe, load_maps, probe_cues, ridge
from pipeline.errors import PosebridgeError
from pipeline.hpe.model import PoseBridgeHPE
from pipeline.recipe import Recipe
from pipeline.synth.stills import HELD_OUT_STREAM
from pipeline.tune.quality import Change, KeypointQuality, Seen, measure, oks_ap, retrieve, stills_of
from pipeline.tune.settings import TuneSettings
from pipeline.tune.start import find_start, load_start
from pipeline.tune.stills import StillSource

pytestmark = pytest.mark.unit
NOSE_SIGMA = 0.026  # COCO's


def people(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True keypoints [N, 17, 2], all labelled, and areas of 100 x 100 pixels."""
    truth = np.random.default_rng(0).uniform(50, 150, (count, 17, 2))
    return truth, np.ones((count, 17), bool), np.full(count, 1e4)


def test_ap_counts_the_thresholds_that_a_known_oks_passes() -> None:
    truth, labelled, areas = people(4)
    labelled[:, 1:] = False  # the nose alone is labelled; all other joints may be anywhere
    found = truth + 40.0
    # OKS = exp(-d^2 / (2 area (2 sigma)^2)) = 0.77 passes .50 to .75: six thresholds of ten.
    distance = np.sqrt(-2 * np.log(0.77) * 1e4) * 2 * NOSE_SIGMA
    found[:, 0] = truth[:, 0] + [distance, 0]
    assert oks_ap(found, truth, labelled, areas, np.ones(4)) == pytest.approx(0.6)
    assert oks_ap(truth, truth, labelled, areas, np.ones(4)) == pytest.approx(1.0)


def test_ap_ranks_by_score() -> None:
    truth, labelled, areas = people(10)
    found = truth.copy()
    found[5:] += 60.0  # five of ten are wrong at every threshold
    sure, unsure = np.linspace(1, 0.1, 10), np.linspace(0.1, 1, 10)
    # Right ones first: precision 1 up to recall .5, then 0; COCO averages over 101 recalls.
    assert oks_ap(found, truth, labelled, areas, sure) == pytest.approx(51 / 101)
    assert oks_ap(found, truth, labelled, areas, unsure) < 0.3


def test_a_pose_model_is_measured_on_changed_crops() -> None:
    config = TuneSettings().config
    model = PoseBridgeHPE(config)
    load_start(model, find_start("skelgap-kp", config))

    def pck(change: Change | None) -> float:
        return measure(model, 6, change=change)["pck"]

    clean = pck(None)
    assert clean > 0.9 and pck(lambda crop, rng: crop) == clean
    assert pck(lambda crop, rng: np.zeros_like(crop)) < 0.5, "nobody is seen in the dark"
    drawn: list[float] = []
    for _ in range(2):
        pck(lambda crop, rng: drawn.append(float(rng.random())) or crop)
    assert len(drawn) == 12 and drawn[:6] == drawn[6:] and len(set(drawn)) == 6, "each its own, alike in every run"


def test_pck_is_of_the_boxs_larger_side_and_of_joints_in_the_crop() -> None:
    stills = list(stills_of(HELD_OUT_STREAM, 2))
    truth = np.full((2, 17, 2), 50.0)
    side = np.array([still.box[2:].max() for still in stills])
    keypoints = truth.copy()
    keypoints[0] += np.array([0.099 * 2 * side[0], 0])  # crop pixels: the crops are scaled by two
    keypoints[1] += np.array([0.101 * 2 * side[1], 0])
    labelled = np.ones((2, 17), bool)
    labelled[1, 9:] = False
    quality = KeypointQuality()
    seen = Seen(stills, truth, labelled, np.array([2.0, 2.0]), torch.from_numpy(keypoints), torch.ones(2, 17), [])
    quality.add(seen)
    result = quality.result()
    assert result["pck"] == pytest.approx(17 / 26) and result["pck_wrists"] == 1.0 and result["stills"] == 2


def test_a_gallery_holds_every_caption_once() -> None:
    texts = dict(zip("abc", torch.eye(3), strict=True))
    said = ["a", "b", "a", "b", "c"]
    cues = torch.stack([texts[each] for each in said])
    assert retrieve(cues, said, texts, size=2).tolist() == [True] * 4  # c's gallery does not fill
    cues[0] = texts["b"]
    assert retrieve(cues, said, texts, size=2).tolist() == [False, True, True, True]
    assert len(retrieve(cues, said, texts, size=4)) == 0


def test_the_probe_finds_evidence_in_either_row_and_none_where_there_is_none() -> None:
    generator = torch.Generator().manual_seed(0)
    held = torch.randint(13, (1200,), generator=generator)
    rows = torch.randn(1200, 2, 40, generator=generator)
    hand = torch.randint(2, (1200,), generator=generator)  # nobody tells the probe
    rows[torch.arange(1200), hand, :13] += 6 * F.one_hot(held, 13).float()
    answers = linear_probe(rows[:900], held[:900], rows[900:])
    assert (answers == held[900:]).float().mean() > 0.9
    other = linear_probe(rows[:900], held[torch.randperm(900, generator=generator)], rows[900:])
    assert (other == held[900:]).float().mean() < 0.2


def test_ridge_finds_a_linear_map_and_gives_the_mean_where_there_is_none() -> None:
    generator = torch.Generator().manual_seed(0)
    known, asked = torch.randn(300, 20, generator=generator), torch.randn(50, 20, generator=generator)
    through = torch.randn(20, 8, generator=generator)
    assert torch.allclose(ridge(known, known @ through + 3, asked), asked @ through + 3, atol=0.05)
    noise = torch.randn(300, 8, generator=generator)
    assert ridge(known, noise, asked).std() < 0.3


def test_the_probes_stills_are_nobody_elses() -> None:
    tuned = {StillSource(kind, seed).stream for kind in ("kp", "sem") for seed in range(1000)}
    assert not tuned & {PROBE_STREAM, HELD_OUT_STREAM} and PROBE_STREAM != HELD_OUT_STREAM
    first, again = (next(islice(stills_of(PROBE_STREAM, 5), 3, None)) for _ in range(2))
    assert np.array_equal(first.image, again.image)


@pytest.mark.parametrize("tuned_at", [8, 16, 32])
def test_refinement_is_probed_at_the_stride_that_it_was_tuned_at(tuned_at: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in PoseBridgeHPE(Recipe.config, (), tuned_at).state_dict().items()}, path)
    assert list(load_maps(Recipe(), path)[1]) == [tuned_at]


def test_too_few_stills_are_refused() -> None:
    with pytest.raises(PosebridgeError, match=f"at least {FEWEST} stills"):
        probe_cues(Recipe(), train=300, test=FEWEST - 1)
