"""`posebridge tune-hpe --recipe`: a cue head on the frozen pose model of a recipe.

Reads the recipe's weights and what is tuned on: clips of a data set in the boxes of an extraction, captioned images, or
COCO. Writes the head, and in <out>.work/ the maps that it is tuned on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PosebridgeError
from pipeline.params import choose, load_params
from pipeline.recipe import POSE
from pipeline.tune.settings import HeadSettings
from stages.bars import epochs, progress
from stages.shell import devices_of, say

if TYPE_CHECKING:
    from pipeline.tune.coco import CocoPeople

MOST_ASKED = 2000  # held-out crops that choose the epoch


def tune_recipe(
    recipe_name: str, dataset: str | None, protocol: str | None, coco: Path | None, captions: Path | None, out: Path,
    chosen: dict[str, Any], encoder: str, device: str, params_path: Path, cache_root: Path | None, command_line: str,
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """Tune and write a head; returns the command's result and its sentence. `chosen` are settings that were given."""
    from pipeline.text.bank import banked  # before mmpose
    from pipeline.text.encoder import SentenceEncoder, split_variant

    if sum(map(bool, (coco, captions, dataset or protocol))) > 1:
        raise PosebridgeError(
            "A cue head is tuned on one of --dataset with --protocol, --captions and --coco; leave the others out."
        )
    params = load_params(params_path)
    recipe = replace(choose(params.recipes, recipe_name, "recipe"), cues="levels")
    if recipe.cues_from != POSE:
        raise PosebridgeError(
            f"A cue head is tuned on maps of the pose model, but the recipe {recipe_name!r} reads those of "
            f"{recipe.cues_from}, a reference; name a recipe without `cues_from`."
        )
    settings = replace(
        HeadSettings(pooled_stride=recipe.pooled_stride, sigma=recipe.sigma),
        **{key: value for key, value in chosen.items() if value is not None},
    )
    (place,) = devices_of(device)
    name, variant = split_variant(encoder)
    sentences: Any = SentenceEncoder(name, place)

    from pipeline.hpe.factory import build_estimator
    from pipeline.hpe.head_file import HeadFile, save_head
    from pipeline.hpe.weights import resolve_weights
    from pipeline.learn.loop import code_digest
    from pipeline.tune.captioned import captioned_sources, require_apart, require_readable
    from pipeline.tune.head import HeadModel, tune_head
    from pipeline.tune.maps import cache_maps
    from pipeline.tune.text import AT_ONCE, embed

    recipe = resolve_weights(recipe)
    if recipe.hpe_classes:
        raise PosebridgeError(
            f"The pose weights of the recipe {recipe_name!r} were tuned with texts of classes ({recipe.hpe_classes}) "
            "already; name the recipe of the weights before that."
        )
    estimator: Any = build_estimator(recipe, place)
    classes = ""
    if coco is not None:
        from pipeline.tune.coco_crops import CocoSource

        source: Any = CocoSource(people_of(coco, "train", True), settings.seed)
        held_out: Any = CocoSource(people_of(coco, "val", True), settings.seed)
        kind = "captions"
    elif captions is not None:
        (source, held_out), kind = captioned_sources(captions, recipe, settings.seed, place), "captions"
    elif dataset and protocol:
        from pipeline.learn.dataset import open_dataset
        from pipeline.tune.clips import protocol_sources

        root = Path(choose(params.datasets, dataset, "data set").root)
        opened = open_dataset(dataset, store_root=cache_root)
        with contextlib.suppress(PosebridgeError):  # no bank, or of other texts: then all are embedded
            sentences = banked(sentences, opened.bank(encoder), opened.folder)
        source, held_out, classes = protocol_sources(opened, protocol, recipe_name, root, variant, settings.seed)
        kind = "seen-classes"
    else:
        raise PosebridgeError(
            "A cue head needs something to be tuned on: give --dataset and --protocol, --captions or --coco."
        )
    require_readable(source.captions, name)
    work_dir, maps, text = out.with_suffix(".work"), [], []
    counts = settings.images, min(len(held_out), MOST_ASKED)
    for part, what, count in zip((source, held_out), ("maps", "held-out"), counts, strict=True):
        text.append(
            embed(part, sentences, work_dir / what,
                  lambda steps: progress(steps, len(steps), f"times {AT_ONCE} caption", "text"))
        )  # fmt: skip
        require_apart(text[0].captions, name)
        facts = {"recipe": recipe.fingerprint, "code": code_digest(), "text": text[-1].sha256, "seed": settings.seed}
        facts |= part.facts
        shown = lambda groups: progress(groups, len(groups), "crop", "look")  # noqa: E731
        maps.append(cache_maps(estimator, part, count, work_dir / what, facts, shown))
    of = ", ".join(f"{value} {name}" for name, value in source.facts.items() if value.isdecimal())
    say(f"Tuning on {len(maps[0])} crops{of and f' of {of}'}; {len(maps[1])} others choose the epoch.")
    model = HeadModel(list(estimator.taps.values()), settings, text[0].captions.shape[1])
    depends = json.dumps([asdict(settings), source.facts, held_out.facts, [t.sha256 for t in text], recipe.fingerprint])
    with epochs("tune-hpe", 1) as on_epoch:
        done, quality = tune_head(
            model, maps[0], text[0], (maps[1], text[1]), work_dir, hashlib.sha256(depends.encode()).hexdigest(),
            lambda progress: on_epoch(f"seed {settings.seed}, final", progress), place,
        )  # fmt: skip
    said = kind if recipe.hpe_text == "none" else "captions"
    taps = {tap: stride for tap, (_, stride) in estimator.taps.items()}
    header = {
        "command": command_line, "recipe": recipe_name, "text": f"{encoder} sha256:{sentences.sha256}",
        "settings": json.dumps(asdict(settings)), "quality": json.dumps(quality),
    } | source.facts  # fmt: skip
    save_head(HeadFile(model.cue.eval(), taps, recipe.weights_sha256, said, classes), out, header)
    result = {"weights": str(out), "hpe_text": said, "hpe_classes": classes, "epoch": done.best_epoch, **quality}
    sentence = (
        f"Wrote {out}: the captions of {quality['scenes']:.0f} scenes that were held out are found at once "
        f"{quality['caption_r1']:.3f}, among five {quality['caption_r5']:.3f}; `posebridge export-onnx --recipe "
        f"{recipe_name} --head {out}` puts it into the graph. The maps in {work_dir} may be deleted."
    )
    return result, sentence


def people_of(coco: Path, part: str, captions: bool, without: tuple[str, ...] = ()) -> CocoPeople:
    """The people of a part of COCO, checked; says who is left out."""
    from pipeline.tune.coco import FEWEST_JOINTS, read_people

    fewest = FEWEST_JOINTS if part == "train" else 1  # COCO's AP is over all who have a labelled joint
    people = read_people(
        coco, part, captions, without, fewest, lambda files: progress(files, len(files), "image", f"check {part}")
    )
    left_out = "".join(f", {count} left out {reason}" for reason, count in people.left_out.items())
    say(f"{part}2017: {len(people)} people in {len(people.files)} images{left_out}.")
    return people
