"""`posebridge tune-hpe`: tune a pose model whose inner evidence survives as cues."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click

from pipeline.errors import PosebridgeError
from stages.shell import answer, json_option, plain_errors, progress, say


@click.command()
@click.option(
    "--kind",
    type=click.Choice(["kp", "sem"]),
    default="kp",
    show_default=True,
    help="Keypoints only, or with semantics.",
)
@click.option("--mode", type=click.Choice(["finetune", "frozen"]), default="finetune", show_default=True,
              help="frozen: only refinement and projection learn; keypoints stay bit-identical.")  # fmt: skip
@click.option(
    "--init", type=click.Path(path_type=Path), default=None, help="Weights to start from; for sem also the teacher."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .safetensors file to write.")
@click.option("--images", type=int, default=None, help="How many stills to train on.")
@click.option("--lr", type=float, default=None, help="Peak learning rate.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--without", multiple=True, help="An object to leave out of stills and captions (sem-strict); repeatable."
)
@click.option("--text", "encoder", default="minilm", show_default=True, help="Sentence encoder of the captions.")
@click.option("--measure", "held_out", type=int, default=1000, show_default=True, help="Held-out stills to measure on.")
@json_option
@plain_errors
def command(
    kind: str, mode: str, init: Path | None, out: Path, images: int | None, lr: float | None, seed: int,
    without: tuple[str, ...], encoder: str, held_out: int, as_json: bool,
) -> None:  # fmt: skip
    """Tune RTMPose-t on rendered stills: `kp` first, then `sem` with `kp` as the teacher.

    Killed and started again with the same --out it goes on at its last epoch.

    \b
    Example:
      posebridge tune-hpe --kind kp --out cache/tune/kp.safetensors
      posebridge tune-hpe --kind sem --init cache/tune/kp.safetensors --out cache/tune/sem.safetensors
    """
    from pipeline.synth.objects import OBJECTS
    from pipeline.synth.stills import every_caption, phrase

    if unknown := set(without) - set(OBJECTS):
        raise PosebridgeError(
            f"--without {sorted(unknown)[0]}: there is no such object; there are {', '.join(OBJECTS)}."
        )
    if kind == "sem" and init is None:
        raise PosebridgeError("--kind sem starts from a keypoint model: give it with --init.")
    objects = tuple(name for name in OBJECTS if name not in without)
    vectors, captions = None, None
    if kind == "sem":
        import torch

        from pipeline.text.encoder import SentenceEncoder

        sentences = every_caption(objects)
        captions = {text: row for row, text in enumerate(sentences)}
        say(f"Embedding {len(sentences)} captions.")
        model = SentenceEncoder(encoder)
        vectors = {
            "phrases": torch.from_numpy(model.encode([phrase(name) for name in ("none", *OBJECTS)])),
            "captions": torch.from_numpy(model.encode(sentences)),
        }
    from pipeline.hpe.quality import measure
    from pipeline.hpe.tuning import TuneSettings, save_weights, tune
    from pipeline.hpe.weights import load_state

    settings = replace(TuneSettings.of(kind), mode=mode, seed=seed)
    settings = replace(settings, images=images or settings.images, lr=lr or settings.lr)
    tuned = tune(
        settings,
        out.with_suffix(".work"),
        init=load_state(init) if init else None,
        vectors=vectors,
        captions=captions,
        objects=objects,
    )
    exposure = "none" if kind == "kp" else "captions-strict" if without else "captions"
    say(f"Measuring on {held_out} held-out stills.")
    quality = measure(
        tuned,
        held_out,
        vectors["phrases"] if vectors else None,
        progress=lambda s: progress(s, held_out, "still", "measure"),
    )
    save_weights(tuned, out, settings, exposure, quality)
    answer(
        {"weights": str(out), "hpe_text": exposure, **quality},
        f"Wrote {out}: PCK@0.1 {quality['pck']:.3f} (wrists {quality['pck_wrists']:.3f}); {json.dumps(quality)}",
        as_json,
    )
