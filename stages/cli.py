"""`posebridge`: one command per stage, each loaded only when it is called."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import click

from stages.shell import Group, enter

# Threads that wait for each other by spinning long starve each other as soon as two jobs share a machine: a training
# that takes one minute alone took ten. A short spin costs nothing alone. Must be set before torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

# name -> module under stages/; each module has a click command named `command`.
COMMANDS = {
    "init": "init",
    "protocol": "protocol",
    "synth": "synth",
    "ingest": "ingest",
    "extract": "extract",
    "text": "text",
    "encode": "encode",
    "train": "train",
    "evaluate": "evaluate",
    "report": "report",
    "gap": "gap",
    "predict": "predict",
    "search": "search",
    "doctor": "doctor",
    "tune-hpe": "tune_hpe",
    "export-onnx": "export_onnx",
    "weights": "weights",
    "shipped": "shipped",
    "cache": "cache",
    "bench": "bench",
}


WORDS = """\b
Words:
  data set   a folder under manifests/: classes, clips, descriptions of classes, protocols
  clip       a video, or a part of one, with its class
  recipe     a pose model and how frames are chosen, under `recipes` in params.yaml
  cue        a vector of the pose model's own features, taken at a part of the body
  store      the skeletons and cues of one recipe, in files (shards) that are never changed
  protocol   which classes are seen, that is trained on, and which are unseen
  variant    test clips with one thing changed, such as occlusion-2
  run        a method and its settings, under `runs` in params.yaml
  seed       the start of the random numbers: several seeds are repetitions of a training
  ZSL, GZSL  accuracy where only unseen classes may be answered, and where all may
"""
HINT = "Words such as recipe, protocol and run are explained by `posebridge --help`."


class LazyGroup(Group):
    """A click group that imports a command's module when the command is first needed, so `--help` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"stages.{COMMANDS[name]}").command
        for each in (command, *(command.commands.values() if isinstance(command, click.Group) else ())):
            each.epilog = HINT
        return command


def tell_version(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    """End the command with the version, where it is asked for."""
    if asked and not context.resilient_parsing:
        from pipeline.cache.provenance import told_version  # here, since git is asked

        click.echo(f"posebridge, version {told_version()}")
        context.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=WORDS)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=tell_version,
              help="Show the version, with the commit where it is known, and end.")  # fmt: skip
@click.option("--project", type=click.Path(path_type=Path), metavar="DIR", help="The project's folder, of any command: "
              "where params.yaml, manifests/ and cache/ are. Paths that you type are meant from where you are.  "
              "[default: this folder]")  # fmt: skip
@click.pass_context
def main(context: click.Context, project: Path | None) -> None:
    """From raw videos to zero-shot action recognition.

    \b
    The corridor: synth | ingest -> extract -> text, encode -> train -> evaluate -> report
    `dvc repro` runs it; every stage is also a command of its own.
    """
    if project is not None:
        enter(context, project)
