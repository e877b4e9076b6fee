"""What a release is known by: its version and commit, how it is cited, what has changed, cards of data and weights."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from datetime import date
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pipeline.cache import provenance
from pipeline.hpe.published import PUBLISHED
from pipeline.hpe.weights import SHIPPED
from pipeline.ingest.registry import LAYOUTS
from stages.cli import COMMANDS, main

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TYPES = {"article", "book", "conference-paper", "dataset", "generic", "report", "software", "thesis"}  # some of CFF's


def git(folder: Path, *words: str) -> str:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """The commit is asked once a process: no other test shall have that of a made-up checkout."""
    yield
    provenance.git_commit.cache_clear()


def said() -> str:
    provenance.git_commit.cache_clear()
    done = CliRunner().invoke(main, ["--version"])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_version_tells_the_commit_of_a_checkout_of_a_wheel_and_of_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = f"posebridge, version {metadata.version('posebridge')}"
    assert re.fullmatch(rf"{re.escape(number)}(, commit [0-9a-f]{{12}}(, with changes)?)?\n", said())
    project = tmp_path / "other"
    place = project / "pipeline" / "cache" / "provenance.py"  # where our code lies: in a folder of another project
    place.parent.mkdir(parents=True)
    place.touch()
    monkeypatch.setattr(provenance, "__file__", str(place))
    monkeypatch.setattr(provenance, "_COMMIT", project / "pipeline" / "commit.txt")
    git(tmp_path, "init", "--quiet")
    assert said() == f"{number}\n", "the commit of a folder above is not ours"
    git(project, "init", "--quiet")
    git(project, "add", "--all")
    git(project, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message", "x")
    commit = git(project, "rev-parse", "HEAD")
    assert said() == f"{number}, commit {commit[:12]}\n"
    place.write_text("# an edit")
    assert said() == f"{number}, commit {commit[:12]}, with changes\n"
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    assert said() == f"{number}\n"
    (project / "pipeline" / "commit.txt").write_text(f"{commit}-dirty\n")
    assert said() == f"{number}, commit {commit[:12]}, with changes\n"


def test_a_wheel_takes_the_commit_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = pytest.importorskip("stages.notebook.wheel", reason="setuptools builds wheels")
    monkeypatch.setattr(wheel, "TOP", tmp_path)
    assert wheel.commit() == ""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "a.py").touch()
    git(tmp_path, "add", "--all")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message", "x")
    assert wheel.commit() == git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "a.py").write_text("b = 1")
    assert wheel.commit() == git(tmp_path, "rev-parse", "HEAD") + "-dirty"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands(shell: str) -> None:
    """By the lines of docs/install.md, with click's own completion."""
    assert f"_POSEBRIDGE_COMPLETE={shell}_source posebridge" in (ROOT / "docs" / "install.md").read_text()
    script = CliRunner().invoke(main, [], prog_name="posebridge", env={"_POSEBRIDGE_COMPLETE": f"{shell}_source"})
    assert script.exit_code == 0 and "complete" in script.stdout and "posebridge" in script.stdout
    words = {"COMP_WORDS": "posebridge cache p", "COMP_CWORD": "2" if shell != "fish" else "p"}
    asked = {"_POSEBRIDGE_COMPLETE": f"{shell}_complete"} | words
    assert "publish" in CliRunner().invoke(main, [], prog_name="posebridge", env=asked).stdout


def test_the_citation_is_as_its_schema_has_it() -> None:
    """Citation File Format 1.2.0: what must be there, and of which form; equal to what the package says of itself."""
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert found["cff-version"] == "1.2.0" and found["type"] == "software"
    assert str(found["version"]) == PROJECT["version"] and found["license"] == PROJECT["license"]
    unreleased = f"## {found['version']}, not yet released" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "date-released" not in found if unreleased else isinstance(found["date-released"], date)
    assert found["message"] and found["title"] == "posebridge"
    for work in (found, *found["references"]):
        names = [person.get("name") or person["family-names"] for person in work["authors"]]
        assert names and len(set(names)) == len(names), "authors of a work must differ"
    for work in found["references"]:
        assert work["title"] and work["type"] in TYPES
        assert set(work) <= {"type", "title", "authors", "year", "notes", "collection-title"}


def test_the_list_of_changes_has_this_version_and_knows_the_commands() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {PROJECT['version']}" in text
    days = re.findall(r"^### (\d{4}-\d\d-\d\d)$", text, re.M)
    assert days and days == sorted(days, reverse=True)
    assert [name for name in COMMANDS if name not in text] == []


def test_every_weights_and_every_data_set_of_ours_has_a_card() -> None:
    weights, data = (ROOT / "docs" / name for name in ("weights.md", "data.md"))
    rows = re.findall(r"^\| `([\w-]+)` \|", weights.read_text(), re.M)
    assert sorted(rows) == sorted(PUBLISHED), "each that `posebridge weights ls` shows"
    own = (ROOT / "pipeline" / "weights" / "README.md").read_text()
    assert all(path.stem in own and path.stem in weights.read_text() for path in SHIPPED.glob("*.safetensors"))
    assert {"skelgap", "gym"} <= set(re.findall(r"^## (\w+)$", data.read_text(), re.M))
    for name, protocols in (("skelgap", 4), ("skelgap-mini", 1)):
        files = (ROOT / "manifests" / name / "protocols").glob("*.txt")
        found = {path.stem for path in files if not path.stem.endswith(".val")}
        assert len(found) == protocols and all(f"`{protocol}`" in data.read_text() for protocol in found)
    known = (ROOT / "manifests" / "README.md").read_text()
    assert all(f"`{name}`" in known for name in LAYOUTS if (ROOT / "manifests" / name).is_dir())
