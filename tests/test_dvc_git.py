"""DVC in a git clone: experiments are compared, a second clone needs nothing made again, and git sees no data."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc_project import ROOT, calls, copied, dvc


def git(project: Path, *words: str) -> str:
    """Run git in `project`; returns what it said."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    return subprocess.run(["git", *words], cwd=project, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The project under git, as somebody has cloned it; nothing is made yet."""
    project, installed = copied(tmp_path / "posebridge"), ("pyproject.toml", "constraints.txt", "requirements-mm.txt")
    for name in (".gitignore", ".dvc/.gitignore", "Makefile", *installed):
        shutil.copy(ROOT / name, project / name)
    return project


def commit(project: Path) -> None:
    for words in (["init", "--quiet"], ["config", "user.name", "a"], ["config", "user.email", "a@example.org"],
                  ["add", "--all"], ["commit", "--quiet", "--message", "A state"]):  # fmt: skip
        git(project, *words)


@pytest.mark.unit
def test_make_tells_dvc_whether_there_is_git(clone: Path) -> None:
    """In a clone its set-up turns on what needs git (`params diff`, `exp run`); a plain copy stays one without."""
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "dvc").write_text(f'#!/bin/sh\nexec {sys.executable} -m dvc "$@"\n')
    (clone / ".venv" / "bin" / "dvc").chmod(0o755)
    (clone / ".venv" / "installed").touch()
    subprocess.run(["make", "--silent", "setup"], cwd=clone, check=True, capture_output=True)
    assert not (clone / ".dvc" / "config.local").exists()
    commit(clone)
    subprocess.run(["make", "--silent", "setup"], cwd=clone, check=True, capture_output=True)
    params = clone / "params.yaml"
    params.write_text(params.read_text().replace("lr: 0.002", "lr: 0.004"))
    found = dvc(clone, "params", "diff").stdout
    assert re.search(r"train\.lr +0\.002 +0\.004", found), found
    assert git(clone, "status", "--short").split() == ["M", "params.yaml"], "what DVC writes beside it is none of git's"
    shutil.rmtree(clone / ".git")  # a plain copy of such a clone
    subprocess.run(["make", "--silent", "setup"], cwd=clone, check=True, capture_output=True)
    assert "train" in dvc(clone, "status", "train").stdout


@pytest.mark.e2e
def test_experiments_are_compared_and_a_second_clone_needs_nothing_made_again(clone: Path) -> None:
    """The lab's way of docs/dvc.md, with stubs for the commands; test_lab.py goes it with the commands themselves."""
    dvc(clone, "repro", "--quiet")  # before there is git, as in a plain copy
    calls(clone)
    commit(clone)
    dvc(clone, "config", "--quiet", "--local", "core.no_scm", "false")
    dvc(clone, "exp", "run", "--quiet", "--set-param", "train.lr=0.05")
    again = {line.split()[0] for line in calls(clone)}
    assert again == {"train", "evaluate", "report"}, "git and what DVC writes for it make nothing run again"
    assert re.search(r"zsl_top1 +0\.002 +0\.05 ", dvc(clone, "metrics", "diff").stdout)
    shown = dvc(clone, "exp", "show", "--only-changed", "--md").stdout
    assert re.search(r"\[.+\] .*\| 0\.05 ", shown), shown  # of the experiment, from DVC's cache
    assert git(clone, "status", "--short").split() == ["M", "dvc.lock", "M", "params.yaml"]

    second = clone.parent / "second"
    dvc(clone, "remote", "add", "--quiet", "--default", "lab", "../remote")
    dvc(clone, "push", "--quiet")
    commit(clone)
    git(clone, "clone", "--quiet", str(clone), str(second))
    dvc(second, "pull", "--quiet", "--allow-missing")
    assert "0.05" in dvc(second, "metrics", "show").stdout and (second / "cache" / "report" / "index.html").is_file()
    dvc(second, "repro", "--quiet", "--allow-missing")
    assert calls(second) == []
    dvc(second, "repro", "--quiet")
    assert [line.split()[0] for line in calls(second)] == ["synth", "ingest"], "videos stay where they were made"
    assert git(second, "status", "--short") == ""
