"""texts.csv (`index,slot,text`): what people say of each class, a text a slot; imported variants lie beside it. And
the words that people bring for labels, `label,slot,text`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import PosebridgeError, short
from pipeline.files.names import check_name, composed
from pipeline.files.tables import open_table
from pipeline.manifest.check_texts import SLOTS


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


def read_words(
    path: Path, labels: Sequence[str], what: str = "no class; the labels are those of the videos"
) -> dict[tuple[int, str], str]:
    """A person's words for some of the labels, `label,slot,text`: text by (index of the label, slot). A row that has
    a label only says nothing of it.

    Raises PosebridgeError, with line and column, for an unknown label, which is `what`, for an unknown slot, and for
    two texts of one.
    """
    index = {one_line(name): position for position, name in enumerate(labels)}
    texts: dict[tuple[int, str], str] = {}
    for row in open_table(path, ("label", "slot", "text")):
        label = one_line(row.needed("label"))
        if label not in index:
            raise row.wrong("label", f"{short(label)} is {what}")
        if not row.text("slot") and not row.text("text"):
            continue
        slot = row.needed("slot")
        if slot not in SLOTS:
            raise row.wrong("slot", f"{short(slot)} is no slot; there are {', '.join(SLOTS)}")
        if (index[label], slot) in texts:
            raise row.wrong("slot", f"the label {short(label)} has the slot {slot!r} twice; keep one")
        texts[index[label], slot] = row.needed("text")
    return texts


def one_line(text: str) -> str:
    """A label in composed letters, its blanks and line ends one blank each."""
    return " ".join(composed(text).split())
