"""`posebridge tune-hpe`: tune a pose model whose inner evidence survives as cues."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pipeline.errors import PosebridgeError
from pipeline.tune.settings import TuneSettings
from stages.bars import progress
from stages.shell import (
    FiniteRange,
    Place,
    answer,
    device_option,
    devices_of,
    given,
    json_option,
    params_option,
    plain_errors,
    root_option,
    say,
)
from stages.tune_hpe_head import people_of, tune_recipe

if TYPE_CHECKING:
    from pipeline.hpe.model import PoseBridgeHPE
    from pipeline.text.encoder import SentenceEncoder
    from pipeline.tune.coco import CocoPeople


@click.command()
@click.option("--kind", type=click.Choice(["kp", "sem"]), default="kp", show_default=True,
              help="kp: keypoints only; sem: with semantics, refined maps whose cues fit captions.")  # fmt: skip
@click.option("--mode", type=click.Choice(["finetune", "frozen"]), default="finetune", show_default=True,
              help="frozen: only refinement and projection learn; keypoints stay bit-identical.")  # fmt: skip
@click.option("--recipe", "recipe_name", default=None, metavar="NAME",
              help="Tune a cue head on the frozen pose model of this recipe in params.yaml, ONNX or mmpose, in minutes "
              "on a CPU.")  # fmt: skip
@click.option("--dataset", default=None, help="With --recipe: on clips of this data set, by the recipe's extraction.")
@click.option("--protocol", default=None,
              help="With --dataset: clips and texts of the classes that its selection phase trains on.")  # fmt: skip
@click.option("--captions", type=Place(dir_okay=False), default=None, metavar="CSV",
              help="With --recipe: on images of your own, by a table `image,caption`, a row a caption.")  # fmt: skip
@click.option("--coco", type=Place(), metavar="DIR", default=None,
              help="Tune on COCO 2017 in its own layout instead of on rendered stills: annotations/, train2017/, "
              "val2017/.")  # fmt: skip
@click.option("--config", default=None, help="mmpose config, an RTMPose.  [default: rtmpose-t; with --coco rtmpose-s]")
@click.option("--init", default=None, metavar="WEIGHTS",
              help="Weights to start from, for sem also the teacher: a file, shipped ones by name, or `auto` for "
              "mmpose's own of the config.")  # fmt: skip
@click.option("--out", type=Place(), required=True, help="The .safetensors file to write.")
@click.option("--images", type=click.IntRange(1), default=None,
              help="How many crops to train on.  [default: 96000; sem 57600, frozen 89600, with --coco 1200000, "
              "with --recipe 6000]")  # fmt: skip
@click.option("--epochs", type=click.IntRange(1), default=None,
              help="With --recipe: how often over these crops, at the most.  [default: 20]")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(1), default=None,
              help="Crops (one person in one picture) a step.  [default: 32; with --coco 128, with --recipe "
              "64]")  # fmt: skip
@click.option("--lr", type=FiniteRange(0, min_open=True), default=None,
              help="Peak learning rate.  [default: 0.0015; sem 0.0006, frozen 0.003, with --coco 0.0005, "
              "with --recipe 0.001]")  # fmt: skip
@click.option("--workers", type=click.IntRange(0), default=None,
              help="Processes that prepare crops.  [default: 1; with --coco 8]")  # fmt: skip
@click.option("--dark", type=FiniteRange(0, 1), default=None,
              help="Share of crops, 0 to 1, that are darkened and noisy, as by a camera in bad light.  [default: "
              "0]")  # fmt: skip
@click.option("--blurred", type=FiniteRange(0, 1), default=None,
              help="Share of crops that are blurred, by a soft lens or a moving one.  [default: 0]")  # fmt: skip
@click.option("--occluded", type=FiniteRange(0, 1), default=None,
              help="Share of crops with things in front of the person.  [default: 0]")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Another number makes other random choices.")
@click.option("--without", multiple=True, metavar="WORD",
              help="An object to leave out of stills or images, and of captions (sem-strict); repeatable.")  # fmt: skip
@click.option("--text", "encoder", default="minilm", show_default=True,
              help="Sentence encoder of the captions: `minilm`, a sentence-transformers name such as clip-ViT-B-32, "
              "or its folder.")  # fmt: skip
@click.option("--measure", "held_out", type=click.IntRange(1), default=None,
              help="Held-out stills, or people of val2017, to measure on.  [default: 1000 stills; everybody]")
@device_option
@root_option
@params_option
@json_option
@plain_errors
def command(
    kind: str, mode: str, recipe_name: str | None, dataset: str | None, protocol: str | None, captions: Path | None,
    coco: Path | None,
    config: str | None, init: str | None, out: Path, images: int | None, epochs: int | None, batch_size: int | None,
    lr: float | None, workers: int | None, dark: float | None, blurred: float | None, occluded: float | None,
    seed: int, without: tuple[str, ...], encoder: str, held_out: int | None,
    device: str, cache_root: Path | None, params_path: Path, as_json: bool,
) -> None:  # fmt: skip
    """Tune an RTMPose on rendered stills or on COCO (`kp` first, then `sem` with `kp` as the teacher), or a cue head on
    a frozen pose model.

    Killed and started again with the same --out it goes on at its last epoch, a head where it was a minute ago.

    \b
    Example:
      posebridge tune-hpe --kind kp --out cache/tune/kp.safetensors
      posebridge tune-hpe --kind sem --init cache/tune/kp.safetensors --out cache/tune/sem.safetensors
    \b
    With real people, from public weights (person keypoints and captions of COCO 2017):
      posebridge tune-hpe --coco /data/coco --kind sem --init auto --out cache/tune/coco-sem.safetensors
    \b
    A head on public weights, whose keypoints stay as they are, with what a protocol lets be seen:
      posebridge tune-hpe --recipe tinypose --dataset gym --protocol shoot_1 --out cache/weights/gym-shoot_1.safetensors
        --params params/gym.yaml
    """
    if recipe_name is not None:
        not_of_heads = ("kind", "mode", "config", "init", "workers", "without", "held_out")
        if option := given((*not_of_heads, "dark", "blurred", "occluded")):
            raise PosebridgeError(f"{option} is not of a cue head; leave it out with --recipe.")
        result, sentence = tune_recipe(
            recipe_name, dataset, protocol, coco, captions, out,
            {"images": images, "batch_size": batch_size, "lr": lr, "epochs": epochs, "seed": seed},
            encoder, device, params_path, cache_root, _command_line(),
        )  # fmt: skip
        answer(result, sentence, as_json)
        return
    if dataset or protocol or captions or epochs:
        raise PosebridgeError(
            "--dataset, --protocol, --captions and --epochs are of a cue head; name its pose model by --recipe."
        )
    if kind == "sem" and init is None:
        raise PosebridgeError("--kind sem starts from a keypoint model: give it with --init.")
    if mode == "frozen" and kind == "kp":
        raise PosebridgeError("--mode frozen leaves a keypoint model as it is; it goes with --kind sem.")
    chosen = {
        "config": config, "images": images, "batch_size": batch_size, "lr": lr, "workers": workers,
        "dark": dark, "blurred": blurred, "occluded": occluded,
    }  # fmt: skip
    settings = replace(
        TuneSettings.of(kind, mode, coco is not None),
        seed=seed,
        **{key: value for key, value in chosen.items() if value is not None},  # type: ignore[arg-type]
    )
    settings = replace(settings, images_per_epoch=min(settings.images_per_epoch, settings.images))

    (place,) = devices_of(device)
    sentences = None
    if kind == "sem":
        from pipeline.text.encoder import SentenceEncoder  # before mmpose

        sentences = SentenceEncoder(encoder, place)
    from pipeline.tune.start import exposure, find_start

    start = find_start(init, settings.config) if init else None
    hpe_text, unseen_words = exposure(kind, without, start)
    val: CocoPeople | None = None
    if coco is not None:
        from pipeline.tune.coco_crops import CocoSource

        source: Any = CocoSource(people_of(coco, "train", kind == "sem", without), seed)
        val = people_of(coco, "val", kind == "sem")
    else:
        from pipeline.tune.stills import StillSource

        source = StillSource(kind, seed, without)

    from pipeline.files.device import has_bfloat16, memory_for, told_training
    from pipeline.tune.text import AT_ONCE, embed
    from pipeline.tune.tune import save_weights, tune

    work_dir, text = out.with_suffix(".work"), None
    if sentences is not None:
        say(f"Embedding {len(source.captions)} captions.")
        text = embed(
            source, sentences, work_dir, lambda steps: progress(steps, len(steps), f"times {AT_ONCE} caption", "text")
        )
    tuned = tune(settings, source, work_dir, start, text, place)
    with memory_for("Measuring"):
        tuned.to(place)
        if val is not None:
            people = val if held_out is None else val.first(held_out)
            quality = _quality_on_coco(tuned, people, sentences, settings.sigma)
        else:
            quality = _quality_on_stills(tuned, held_out or 1000, sentences, settings.sigma)
    facts = source.facts | told_training(place, has_bfloat16(place), tf32=False) | {
        "command": _command_line(),
        "init": f"{start.name} sha256:{start.sha256}" if start else "",
        "text": f"{encoder} sha256:{sentences.sha256}" if sentences else "",
        "without": json.dumps(unseen_words),
    }
    save_weights(tuned.cpu(), out, settings, hpe_text, quality, facts)
    answer(
        {"weights": str(out), "hpe_text": hpe_text, **quality},
        f"Wrote {out}: PCK@0.1 {quality['pck']:.3f}, OKS-AP {quality['oks_ap']:.3f}; {json.dumps(quality)}",
        as_json,
    )


def _quality_on_coco(
    tuned: PoseBridgeHPE, val: CocoPeople, sentences: SentenceEncoder | None, sigma: float
) -> dict[str, float]:
    import torch

    from pipeline.tune.coco_quality import measure_coco
    from pipeline.tune.degrade import CHANGES
    from pipeline.tune.text import TextVectors

    text = None
    if sentences is not None:
        text = TextVectors(torch.from_numpy(sentences.encode([captions[0] for captions in val.captions])))
    say(f"Measuring on {len(val)} people of val2017, as they are, {', '.join(CHANGES)}.")
    shown = lambda rows: progress(rows, len(rows), "person", "measure")  # noqa: E731
    quality = measure_coco(tuned, val, text, sigma, progress=shown)
    for name, change in CHANGES.items():
        quality[f"pck_{name}"] = measure_coco(tuned, val, sigma=sigma, progress=shown, change=change)["pck"]
    return quality


def _quality_on_stills(
    tuned: PoseBridgeHPE, count: int, sentences: SentenceEncoder | None, sigma: float
) -> dict[str, float]:
    """Asks for all objects, the ones that were left out of the training too: it is over."""
    import torch

    from pipeline.synth.objects import OBJECTS
    from pipeline.synth.stills import every_caption, phrase
    from pipeline.tune.degrade import CHANGES
    from pipeline.tune.quality import measure

    phrases, captions = None, None
    if sentences is not None:
        phrases = torch.from_numpy(sentences.encode([phrase(name) for name in ("none", *OBJECTS)]))
        said = every_caption(tuple(OBJECTS))
        captions = dict(zip(said, torch.from_numpy(sentences.encode(said)), strict=True))
    say(f"Measuring on {count} held-out stills, as they are, {', '.join(CHANGES)}.")
    shown = lambda stills: progress(stills, count, "still", "measure")  # noqa: E731
    quality = measure(tuned, count, phrases, captions, progress=shown, sigma=sigma)
    for name, change in CHANGES.items():
        quality[f"pck_{name}"] = measure(tuned, count, progress=shown, sigma=sigma, change=change)["pck"]
    return quality


def _command_line() -> str:
    """The command as it was given, for the weights' header."""
    context = click.get_current_context()
    words = ["posebridge tune-hpe"]
    for option in context.command.params:
        if option.name and context.get_parameter_source(option.name) == ParameterSource.COMMANDLINE:
            value = context.params[option.name]
            if isinstance(value, bool):
                words.append(option.opts[0])
            else:
                words += [f"{option.opts[0]} {each}" for each in (value if isinstance(value, tuple) else (value,))]
    return " ".join(words)
