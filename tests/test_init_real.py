"""From labelled folders of real videos to the report: two commands, and no file written by hand."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from test_dvc import copied

REAL = Path(__file__).parent.parent.parent / "shared" / "real"
ACTIONS = ("hand shaking", "hugging", "kicking", "pointing", "punching", "pushing")  # N_SEQUENCE_CLASS.avi

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not REAL.is_dir(), reason="../shared/real, with real weights and videos, is absent"),
]


def test_two_commands_from_folders_to_the_report(tmp_path: Path) -> None:
    project = copied(tmp_path / "posebridge")
    for path in (REAL / "videos/ut-interaction-set1").iterdir():
        _, sequence, action = map(int, path.stem.split("_"))
        if sequence > 4:  # four clips of an action are enough for the way through; all 60 take minutes
            continue
        folder = tmp_path / "my videos" / ACTIONS[action]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    here = str(Path(sys.executable).parent)
    environment = os.environ | {
        "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(project),
        "DVC_SITE_CACHE_DIR": str(tmp_path / "site"),
    }

    def typed(command: str) -> str:
        done = subprocess.run(command, shell=True, cwd=project, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    weights, detector = REAL / "weights/pp-tinypose_256x192.onnx", REAL / "weights/rtmdet-nano.onnx"
    told = typed(
        f"posebridge init {shlex.quote(str(tmp_path / 'my videos'))} --weights {weights} --detector {detector}"
    )
    last = told.splitlines()[-1].strip()
    typed(last)
    assert (project / "cache/tables/my_videos/index.html").is_file()
    table = pd.read_csv(project / "cache/tables/my_videos/leaderboard.csv")
    assert set(table["run"]) == {"my_videos", "my_videos_skeleton"} and set(table["dataset"]) == {"my_videos"}
    assert "up to date" in typed(last), "a second time there is nothing to do"
    answer = typed(f"posebridge predict {shlex.quote(str(REAL / 'videos/mmpose_demo.mp4'))} --labels 'waving, kicking'")
    assert "waving" in answer
