"""The actions of skelgap: every class is a motion done with an object, or with none.

Reads and writes nothing. `manifests/skelgap*/` holds the same lists as text files; a test keeps both equal.
"""

from __future__ import annotations

from dataclasses import dataclass

NO_OBJECT = "none"


@dataclass(frozen=True)
class ActionClass:
    """One action: its English name, the motion that its skeleton shows, and the object that its skeleton does not."""

    name: str
    motion: str
    object: str


@dataclass(frozen=True)
class SplitDefinition:
    """Who is unseen, and who plays the unseen ones in the selection phase (a subset of the seen classes)."""

    unseen: tuple[str, ...]
    validation: tuple[str, ...]


SKELGAP: tuple[ActionClass, ...] = (
    ActionClass("drink from a cup", "mouth", "cup"),
    ActionClass("drink from a bottle", "mouth", "bottle"),
    ActionClass("eat a banana", "mouth", "banana"),
    ActionClass("sing into a microphone", "mouth", "microphone"),
    ActionClass("brush teeth with a brush", "mouth", "brush"),
    ActionClass("talk on a phone", "ear", "phone"),
    ActionClass("brush hair with a brush", "ear", "brush"),
    ActionClass("offer a cup", "offer", "cup"),
    ActionClass("offer a bottle", "offer", "bottle"),
    ActionClass("offer a brush", "offer", "brush"),
    ActionClass("hold out an umbrella", "offer", "umbrella"),
    ActionClass("show a book", "offer", "book"),
    ActionClass("wave an umbrella", "wave", "umbrella"),
    ActionClass("wave a book", "wave", "book"),
    ActionClass("wave a flag", "wave", "flag"),
    ActionClass("lift a ball overhead", "lift", "ball"),
    ActionClass("raise a flag overhead", "lift", "flag"),
    ActionClass("pound with a hammer", "chop", "hammer"),
    ActionClass("smash with a racket", "chop", "racket"),
    ActionClass("shake a phone", "shake", "phone"),
    ActionClass("shake a brush dry", "shake", "brush"),
    ActionClass("throw a cup", "throw", "cup"),
    ActionClass("throw a bottle", "throw", "bottle"),
    ActionClass("throw a ball", "throw", "ball"),
    ActionClass("wave", "wave", NO_OBJECT),
    ActionClass("clap", "clap", NO_OBJECT),
    ActionClass("bow", "bow", NO_OBJECT),
    ActionClass("jump", "jump", NO_OBJECT),
    ActionClass("walk", "walk", NO_OBJECT),
    ActionClass("kick", "kick", NO_OBJECT),
    ActionClass("lift a cup overhead", "lift", "cup"),
    ActionClass("lift a bottle overhead", "lift", "bottle"),
    ActionClass("lift an umbrella overhead", "lift", "umbrella"),
    ActionClass("lift a book overhead", "lift", "book"),
    ActionClass("strike with a bottle", "chop", "bottle"),
    ActionClass("strike with an umbrella", "chop", "umbrella"),
    ActionClass("strike with a book", "chop", "book"),
    ActionClass("shake a cup", "shake", "cup"),
    ActionClass("shake a bottle", "shake", "bottle"),
    ActionClass("shake an umbrella", "shake", "umbrella"),
)

# The demo's part of it: eight motions, of which lifting and striking meet unseen objects.
MINI_NAMES = (
    "drink from a cup", "drink from a bottle", "eat a banana",
    "offer a cup", "offer a bottle", "hold out an umbrella", "show a book",
    "wave an umbrella", "wave a book", "wave a flag",
    "lift a ball overhead", "raise a flag overhead",
    "pound with a hammer", "smash with a racket",
    "throw a cup", "throw a bottle",
    "clap", "bow",
    "lift a bottle overhead", "lift an umbrella overhead", "lift a book overhead",
    "strike with a bottle", "strike with an umbrella", "strike with a book",
)  # fmt: skip

_BY_NAME = {action.name: action for action in SKELGAP}
SKELGAP_MINI: tuple[ActionClass, ...] = tuple(_BY_NAME[name] for name in MINI_NAMES)

DATASETS: dict[str, tuple[ActionClass, ...]] = {"skelgap": SKELGAP, "skelgap-mini": SKELGAP_MINI}

_VALIDATION = (
    "drink from a cup", "drink from a bottle", "brush teeth with a brush",
    "offer a cup", "offer a bottle", "offer a brush",
)  # fmt: skip
_MINI_VALIDATION = ("drink from a cup", "drink from a bottle", "offer a cup", "offer a bottle")

_BOTTLE_MOVED = (
    "drink from a bottle", "throw a bottle", "lift a bottle overhead", "strike with a bottle", "shake a bottle",
)  # fmt: skip
_CUP_MOVED = ("drink from a cup", "throw a cup", "lift a cup overhead", "shake a cup")


def _with(*objects: str) -> tuple[str, ...]:
    """Every class of skelgap that is done with one of the objects."""
    return tuple(action.name for action in SKELGAP if action.object in objects)


# data set -> protocol -> its split. `all_seen` has no unseen class: everything trains, for use on one's own videos;
# its validation classes sit out the selection phase only. The demo's set has none: classes that are unseen in every
# protocol have no train clips.
PROTOCOLS: dict[str, dict[str, SplitDefinition]] = {
    "skelgap": {
        "compositional_30_10": SplitDefinition(tuple(action.name for action in SKELGAP[30:]), _VALIDATION),
        "novel_object_30_10": SplitDefinition(
            _with("umbrella", "book", "racket"), _with("cup", "brush", "microphone")
        ),
        "motion_only": SplitDefinition(_BOTTLE_MOVED, _CUP_MOVED),
        "all_seen": SplitDefinition((), _VALIDATION),
    },
    "skelgap-mini": {"compositional_18_6": SplitDefinition(MINI_NAMES[18:], _MINI_VALIDATION)},
}
