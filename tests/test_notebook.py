"""`import posebridge`: the short interface for notebooks, in tables and tensors. Its page, docs/notebook.md, is run by
tests/test_documents_run.py.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from documents import ROOT
from test_predict import ask, project, trained  # noqa: F401 (fixtures)

from pipeline.errors import PosebridgeError
from stages.cli import main

HERE = ROOT / "stages" / "notebook"
OURS = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, HERE)))}  # as if installed


@pytest.fixture(autouse=True)
def as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


@pytest.mark.unit
def test_the_interface_is_short_told_and_loaded_when_it_is_asked_for() -> None:
    code = "import sys, posebridge; print(sorted(posebridge.__all__), 'torch' in sys.modules, 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | OURS, capture_output=True, text=True)
    assert done.stdout == "['PosebridgeError', 'open_cache', 'predict', 'results', 'search'] False False\n", done.stderr
    import posebridge

    for name in posebridge.__all__:
        told = inspect.getdoc(getattr(posebridge, name))
        assert told and (name == "PosebridgeError" or {"Args:", "Returns:", "Raises:"} & set(told.split())), name
    assert set(posebridge.__all__) <= set(dir(posebridge))
    with pytest.raises(AttributeError, match="posebridge.*'train'"):
        posebridge.train  # noqa: B018


@pytest.mark.e2e
def test_a_cache_is_a_table_and_tensors(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    import posebridge

    monkeypatch.chdir(tmp_path)  # somewhere else
    with posebridge.open_cache("toy", project=project) as cache:
        assert cache.recipe == "fake" and len(cache) == 20 and "20 clips" in repr(cache)
        assert isinstance(cache.clips, pd.DataFrame) and set(cache.clips["class"]) == {
            "wave a hand", "bow", "kick a ball", "sit down"
        }  # fmt: skip
        batch = cache.read(cache.clip_ids[3:5], ["keypoints", "cues"])
        assert batch["keypoints"].shape[:3] == (2, 2, 8) and batch["keypoints"].dtype == torch.float32
        plain = cache.reader.read(cache.clip_ids[3:5], ["cues"])["cues"]
        assert np.array_equal(batch["cues"].numpy(), plain) and set(cache.read()) == set(cache.names)
        with pytest.raises(PosebridgeError, match="has no dataset 'color'"):
            cache.read(names=["color"])
    with pytest.raises(PosebridgeError, match="'nothing' is extracted by no recipe; run `posebridge extract`"):
        posebridge.open_cache("nothing", project=project)
    with pytest.raises(PosebridgeError, match=r"other/index\.json is missing"):
        posebridge.open_cache("toy", "other", project=project)


@pytest.mark.e2e
def test_predict_answers_as_the_command(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    import posebridge

    labels = ["greeting somebody", "kicking", "sitting"]
    told = ask("videos/1-0.mp4", "--run", "fast", "--labels", ", ".join(labels))
    shutil.copy(project / "videos/1-0.mp4", tmp_path / "here.mp4")
    monkeypatch.chdir(tmp_path)
    table = posebridge.predict("here.mp4", labels, run="fast", project=project)  # a video beside the notebook
    assert table["rank"].tolist() == [1, 2, 3] and set(table["label"]) == set(labels)
    (answer,) = told["predictions"]
    assert table["label"].tolist() == [each["label"] for each in answer["ranking"]]
    assert table["confidence"].tolist() == [each["confidence"] for each in answer["ranking"]]
    assert table.attrs["run"] == "fast" and "predictions" not in table.attrs and Path.cwd() == tmp_path
    described = {"one, two": "a person counts", "bowing": "a person bends forward"}
    for asked_for in (list(described), described):
        table = posebridge.predict("here.mp4", asked_for, run="fast", project=project)
        assert set(described) <= set(table["label"])
    Path("mine.csv").write_text("label\ngreeting somebody\nkicking\nsitting\n")  # beside the notebook, too
    beside = posebridge.predict("here.mp4", "mine.csv", run="fast", project=project)
    assert beside["label"].tolist() == [each["label"] for each in answer["ranking"]]
    with pytest.raises(PosebridgeError, match="'a: b' has a colon"):
        posebridge.predict("here.mp4", ["a: b", "c"], project=project)
    for wrong, sentence in (
        ({"run": "nobody"}, "There is no run named 'nobody'"),
        ({"bananas": 3}, "`posebridge predict` has no option 'bananas'"),
        ({"examples": project / "videos"}, "leave --labels"),
        ({"top": 0}, "0 is not in the range"),
    ):
        with pytest.raises(PosebridgeError, match=sentence):
            posebridge.predict("here.mp4", labels, project=project, **wrong)


@pytest.mark.e2e
def test_search_finds_as_the_command(project: Path) -> None:  # noqa: F811
    pytest.importorskip("faiss")
    import posebridge

    done = CliRunner().invoke(main, ["search", "a person bows", "--run", "fast", "--top", "4", "--json"])
    table = posebridge.search("a person bows", run="fast", top=4)
    assert table["clip_id"].tolist() and table["clip_id"].tolist() == [
        hit["clip_id"] for hit in json.loads(done.stdout)["hits"]
    ]  # fmt: skip
    assert table.attrs["clips"] == 20 and table["score"].is_monotonic_decreasing
    like = posebridge.search(like="videos/2-3.mp4", recipe="fake", names=["toy"], top=20)
    assert like.set_index("clip_id").score["2-3"] > 0.99
    with pytest.raises(PosebridgeError, match="Give a query"):
        posebridge.search()


@pytest.mark.unit
@pytest.mark.parametrize("name", ["pipeline", "stages"])
def test_another_package_of_our_name_is_told_in_one_sentence(tmp_path: Path, name: str) -> None:
    package = tmp_path / name / "__init__.py"
    package.parent.mkdir()
    package.write_text("raise SystemExit('theirs ran')\n")
    run = partial(subprocess.run, env=os.environ | OURS, cwd=tmp_path, capture_output=True, text=True)  # cwd goes first
    command = run([sys.executable, "-m", "posebridge", "--help"])
    assert command.returncode == 1 and command.stderr.count("\n") == 1 and str(tmp_path / name) in command.stderr
    assert f"needs its own package `{name}`" in command.stderr
    code = "import posebridge; posebridge.results"
    done = run([sys.executable, "-c", code])
    assert done.stderr.splitlines()[-1].startswith("ImportError: posebridge needs its own package")
    package.unlink()  # a mere folder in the way, which Python takes only where there is no package, is none
    done = run([sys.executable, "-m", "posebridge", "--help"])
    assert done.returncode == 0, done.stderr
