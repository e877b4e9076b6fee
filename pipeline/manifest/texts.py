"""texts.csv (`index,slot,text`): what people say of each class, a text a slot; imported variants lie beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.files.names import check_name
from pipeline.files.tables import open_table


def texts_path(folder: Path, variant: str = "") -> Path:
    """The texts of a dataset in manifests/<dataset>: ours, or an imported variant."""
    return folder / (f"texts.{check_name(variant, 'variant')}.csv" if variant else "texts.csv")


def read_texts(
    path: Path, class_names: Sequence[str], need_labels: bool = True
) -> tuple[tuple[str, ...], dict[tuple[int, str], str]]:
    """Slots in order of appearance, and text by (class index, slot).

    Every class needs the slot `label` (unless `need_labels` is off); other slots may be left out, but not left empty.
    Raises PosebridgeError naming class and slot.
    """
    texts: dict[tuple[int, str], str] = {}
    remedy = "write it as `index,slot,text`, at least the slot `label` for every class"
    for row in open_table(path, ("index", "slot", "text"), (), remedy):
        index = row.whole("index", 0, len(class_names) - 1, "an index of classes.csv")
        if index is None:
            raise row.wrong("index", "the cell is empty; write the index of a class")
        slot, text, name = row.needed("slot"), row.text("text"), class_names[index]
        if not text:
            raise row.wrong("text", f"class {name!r} has an empty text in the slot {slot!r}; write it or drop the row")
        if (index, slot) in texts:
            raise row.wrong("slot", f"class {name!r} has the slot {slot!r} twice; keep one")
        texts[index, slot] = text
    for index, name in enumerate(class_names):
        if need_labels and (index, "label") not in texts:
            raise PosebridgeError(f"{path}: class {name!r} has no text in the slot 'label'; add a row.")
    return tuple(dict.fromkeys(slot for _, slot in texts)), texts
