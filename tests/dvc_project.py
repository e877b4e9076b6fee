"""A copy of the project to run DVC in, with a stub in the place of every command. No test in here."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Stands in for every command: writes what the stage declares, and notes that it was called.
STUB = """#!{python}
import os, pathlib, sys
words = sys.argv[1:]
value = {{name[2:]: words[i + 1] for i, name in enumerate(words) if name.startswith("--")}}
dataset, protocol, run = value.get("dataset"), value.get("protocol"), value.get("run")
outs = {{
    "synth": [f"cache/videos/{{dataset}}/a.mp4", f"cache/videos/{{dataset}}/twins.csv"],
    "ingest": [f"manifests/{{dataset}}/clips.csv"],
    "extract": [f"cache/{{dataset}}/{{value.get('recipe')}}/{{name}}.json" for name in ("index", "duplicates")],
    "text": [f"cache/text/minilm/{{dataset}}.h5"],
    "encode": [f"cache/encoders/{{dataset}}/{{protocol}}/{{value.get('skeletons')}}/seed-0/final.safetensors"],
    "train": [f"cache/models/{{dataset}}/{{protocol}}/{{run}}/seed-0/final.safetensors"],
    "evaluate": [f"cache/results/{{dataset}}/{{protocol}}/{{run}}/seed-0/metrics.json"],
    "report": [f"{{value['out']}}/index.html"] if "out" in value else
              ["cache/results/leaderboard.csv", "cache/report/index.html", "cache/report/metrics/a.json"],
}}
params = pathlib.Path(value.get("params", "params.yaml"))
lines = params.read_text().splitlines() if words[0] in ("train", "evaluate", "report") else []
rate = [line for line in lines if " lr: " in line]
metrics = '{{"zsl_top1": %s}}' % (rate[-1].split()[1] if rate else 0)
for out in map(pathlib.Path, outs[words[0]]):
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(metrics if "metrics" in out.parts else " ".join(words + rate))
with open(os.environ["CALLS"], "a") as calls:
    calls.write(" ".join(words) + "\\n")
"""


def copied(copy: Path) -> Path:
    """What DVC reads, copied to a new folder."""
    copy.mkdir()
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, copy / name)
    for name in ("pipeline", "stages", "manifests", "params"):
        own = ("__pycache__", "clips.csv", "dvc.yaml", "dvc.lock")  # dvc.yaml: of a person's own videos, or a link
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns(*own))
    (copy / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", copy / ".dvc" / "config")
    return copy


def shorten(texts: Path) -> None:
    """Descriptions that are quickly embedded: of each class one line, and a word for the rest."""
    text = texts.read_text(encoding="utf-8")
    texts.write_text(re.sub(r"^(\d+,(?!one_line)\w+),.*$", r"\1,none", text, flags=re.M), encoding="utf-8")


def with_tables(project: Path) -> Path:
    """The project itself, with the link by which DVC finds the tables."""
    (project / "params" / "dvc.yaml").symlink_to("tables.yaml")
    return project


def dvc(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run DVC in `project` with the stub first on the path."""
    bin_folder = project.parent / "bin"
    if not bin_folder.is_dir():
        bin_folder.mkdir()
        stub = bin_folder / "posebridge"
        stub.write_text(STUB.format(python=sys.executable))
        stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    environment = os.environ | {
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "CALLS": str(project.parent / "calls"),
        "DVC_SITE_CACHE_DIR": str(project.parent / "site"),
    }
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def calls(project: Path) -> list[str]:
    """The commands that ran since the last call of this function."""
    path = project.parent / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines
