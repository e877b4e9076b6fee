"""`predict` over real people with real weights: examples, overlay, nobody, and how long it takes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import av
import pytest
from click.testing import CliRunner
from fakes import write_video

from stages.cli import main

REAL = Path(__file__).parent.parent.parent / "shared" / "real"
UT = REAL / "videos/ut-interaction-set1"
EXAMPLES = {"shaking hands": ("8_2_0", "17_3_0"), "kicking": ("1_1_2", "50_9_2"), "pushing": ("36_7_5",)}

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not REAL.is_dir(), reason="../shared/real, with real weights and videos, is absent"),
]
PARAMS = f"""
recipes:
  tinypose:
    backend: onnx
    weights: {REAL}/weights/pp-tinypose_256x192.onnx
    score_kind: heatmap
    boxes: detector
    detector: {REAL}/weights/rtmdet-nano.onnx
    persons: 2
    frames: 16
    cue_frames: 8
    cues: levels
    taps: [feat_hr]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with examples of three interactions, and the real recipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    for action, names in EXAMPLES.items():
        (tmp_path / "mine" / action).mkdir(parents=True)
        for name in names:
            for source in UT.glob(f"{name}.avi"):
                shutil.copy(source, tmp_path / "mine" / action)
    return tmp_path


def ask(*words: str) -> dict:
    done = CliRunner().invoke(main, ["predict", *words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_examples_name_an_interaction_and_the_overlay_shows_two_people(project: Path) -> None:
    (clip,) = UT.glob("*_10_2.avi")  # kicking, of a sequence that no example is of
    found = ask(str(clip), "--examples", "mine", "--overlay", "seen.mp4")
    (answer,) = found["predictions"]
    assert answer["persons"] == 2 and len(answer["ranking"]) == 3 and not found["warnings"]
    with av.open("seen.mp4") as container, av.open(str(clip)) as original:
        drawn, plain = (list(c.decode(video=0)) for c in (container, original))
    assert abs(len(drawn) - len(plain)) <= 2, "a packed AVI holds back its last frames"
    change = abs(drawn[len(drawn) // 2].to_ndarray(format="rgb24").astype(int)
                 - plain[len(drawn) // 2].to_ndarray(format="rgb24")[: drawn[0].height, : drawn[0].width])  # fmt: skip
    assert (change.max(-1) > 60).mean() > 0.01, "skeletons and boxes are to be seen"


def test_where_nobody_is_nobody_is_found(project: Path) -> None:
    grey = write_video(project / "grey.mp4", frames=10, size=(320, 240))
    (answer,) = ask(str(grey), "--examples", "mine")["predictions"]
    assert answer["ranking"] == [] and answer["reason"] == "no person found"


def test_predict_imports_no_pose_framework(project: Path) -> None:
    """In a process of its own: the modules loaded are those of this call."""
    (clip,) = UT.glob("*_10_5.avi")
    code = (
        "import sys\nfrom stages.cli import main\n"
        f"main(['predict', {str(clip)!r}, '--examples', 'mine', '--json'], standalone_mode=False)\n"
        "print([n for n in ('mmpose', 'mmengine', 'sentence_transformers') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer, modules = done.stdout.strip().splitlines()
    assert modules == "[]" and json.loads(answer)["load_seconds"] > 0
