"""A new entry in a section of a YAML file that people write: every other byte of it, comments too, stays as it is.

By text and not by a library that reads and writes whole files (ruamel.yaml): that one keeps comments, but puts other
lines into its own form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import PosebridgeError
from pipeline.files.yaml_file import parse_yaml, yaml_inline, yaml_lines


def with_entry(text: str, where: Path, section: str, name: str, entry: dict[str, Any]) -> str:
    """The text of a YAML file with `name: entry` in its `section`, which is made at the end where there is none.

    `where` names the file in a sentence. Raises PosebridgeError where the file is not valid, where the entry is there
    already, and where the file is of a form to which nothing can be added by a program.
    """
    wanted: dict[str, Any] = parse_yaml(text, where) or {}
    by_hand = f"add it by hand, under {section}: `{yaml_inline({name: entry})[1:-1]}`"
    if not isinstance(wanted, dict) or not isinstance(wanted.get(section) or {}, dict):
        raise PosebridgeError(f"{where}: {section} should be a mapping.")
    if name in (wanted.get(section) or {}):
        raise PosebridgeError(f"{where} has {name!r} under {section} already; choose another name.")
    wanted[section] = {**(wanted.get(section) or {}), name: entry}
    made = _added(text, section, {name: entry})
    try:
        right = parse_yaml(made, where) == wanted
    except PosebridgeError:
        right = False
    if not right:
        raise PosebridgeError(f"{where} is written in a way that no program can add the entry {name!r} to; {by_hand}.")
    return made


def _added(text: str, section: str, entry: dict[str, Any]) -> str:
    root = yaml.compose(text, yaml.SafeLoader)
    line_end = "\r\n" if "\r\n" in text else "\n"
    nodes = {key.value: (key, value) for key, value in root.value} if isinstance(root, yaml.MappingNode) else {}
    if section not in nodes:
        gap = "" if not text or text.endswith("\n") else line_end
        return f"{text}{gap}{line_end if text else ''}{section}:{line_end}{_block(entry, 2, line_end)}"
    key, value = nodes[section]
    if isinstance(value, yaml.MappingNode) and value.flow_style:  # {a: {...}}: before its closing brace
        place = value.end_mark.index - 1
        return f"{text[:place]}{', ' if value.value else ''}{yaml_inline(entry)[1:-1]}{text[place:]}"
    if isinstance(value, yaml.MappingNode):  # after the last line of its last entry, and that line's comment
        indent, last = value.value[0][0].start_mark.column, _last(value).end_mark
    else:  # `datasets:` with nothing below it
        indent, last = key.start_mark.column + 2, key.end_mark
    after = last.index if last.column == 0 else text.find("\n", last.index) + 1
    if not after:
        return f"{text}{line_end}{_block(entry, indent, line_end)}"
    return f"{text[:after]}{_block(entry, indent, line_end)}{text[after:]}"


def _last(node: yaml.Node) -> yaml.Node:
    """The node that ends last: a block's own end is where the next thing begins, behind blank lines and comments."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    return node


def _block(entry: dict[str, Any], indent: int, line_end: str) -> str:
    return "".join(f"{' ' * indent}{line}{line_end}" for line in yaml_lines(entry))

