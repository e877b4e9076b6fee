"""YAML as people write it, read as data: bounded, without surprises of YAML 1.1 in numbers, nothing taken twice.

A file has at most MOST_BYTES and MOST_NODES, what its aliases repeat counted as often as it is repeated. `2e-3` is a
number, `1_000` is a thousand, `010` is ten and `1:30` is a text. A key that stands twice in one mapping is an error.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import PosebridgeError
from pipeline.files.tables import position, read_text

MOST_BYTES = 256 << 10
MOST_NODES = 20_000
DEEPEST = 20
_NUMBERS = {
    "int": (r"[-+]?[0-9]+|[-+]?[0-9]{1,3}(_[0-9]{3})+|0x[0-9a-fA-F]+|0o[0-7]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?)|[-+]?\.[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
}


class _Loader(yaml.SafeLoader):
    """PyYAML's loader of plain data, with bounds and with the numbers of YAML 1.2."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0
        self._sizes: dict[int, int] = {}  # of what anchors name, in nodes

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        begun = self._nodes
        if getattr(event, "tag", None) is not None:
            raise _error(f"the tag {event.tag!r} has no meaning here; take it out", event.start_mark)
        if isinstance(event, yaml.ScalarEvent) and any("\ud800" <= c <= "\udfff" for c in event.value):
            raise _error("there is half a character", event.start_mark)
        if isinstance(event, yaml.CollectionStartEvent) and self._depth >= DEEPEST:
            raise _error(f"there are more than {DEEPEST} levels", event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        alias = isinstance(event, yaml.AliasEvent)
        if alias and id(node) not in self._sizes:
            raise _error(f"{event.anchor!r} contains itself", event.start_mark)
        self._nodes += self._sizes[id(node)] if alias else 1
        if self._nodes > MOST_NODES:
            raise _error(f"there are more than {MOST_NODES} values, repeated ones counted", event.start_mark)
        self._sizes.setdefault(id(node), self._nodes - begun)
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        found: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error("a key should be a plain word", key.start_mark)
            if (key.tag, key.value) in found:
                line = found[key.tag, key.value] + 1
                raise _error(f"the key {key.value!r} stands on line {line} already; keep one", key.start_mark)
            found[key.tag, key.value] = key.start_mark.line
        return node


def _error(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in (*_NUMBERS, "timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """PyYAML's, which also quotes what only `_Loader` takes for a number."""


for _kind, (_pattern, _first) in _NUMBERS.items():
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$"), list(_first))


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = node.value
    if len(text) > 30:
        raise _error("a whole number has more than 30 digits", node.start_mark)
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(re.sub(r"\.(?=inf|nan)", "", node.value.lower()))


_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def read_yaml(path: Path, missing: str) -> Any:
    """The data of a YAML file, None where it is empty.

    Raises PosebridgeError, with line and column, for a file that is missing (`missing` ends the sentence), too large,
    no YAML, or no plain data.
    """
    text, _ = read_text(path, missing, MOST_BYTES)
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> Any:
    """As `read_yaml`, of the text that a file has or would have."""
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        problem = error.problem or error.context
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise PosebridgeError(f"{path}{place}: this is not valid YAML: {_line(problem)}.") from None
    except yaml.reader.ReaderError as error:
        raise PosebridgeError(
            f"{path}, {position(text, error.position)}: this is not valid YAML: the character "
            f"#x{ord(text[error.position]):04x} is forbidden; take it out."
        ) from None
    except yaml.YAMLError as error:
        raise PosebridgeError(f"{path} is not valid YAML: {_line(error)}.") from None
    finally:
        if loader is not None:
            loader.dispose()


def yaml_text(data: Any) -> str:
    """Plain data as `read_yaml` reads it again."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False)


def yaml_lines(data: Any) -> list[str]:
    """The same for people: letters as they are, and a line each, however long."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6).rstrip("\n").split("\n")


def yaml_inline(data: Any) -> str:
    """The same in one line: `{a: 1}`."""
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6, default_flow_style=True)
    return text.rstrip("\n")


def _line(problem: object) -> str:
    return " ".join(str(problem).split())[:300]
