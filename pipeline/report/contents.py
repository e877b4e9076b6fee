"""The list of contents: every heading of a finished page gets a name, and is listed."""

from __future__ import annotations

import re

from markupsafe import Markup

MOST = 60  # of headings; of more, the smaller ones are not listed
HEADING = re.compile(r"<h([23])>(.*?)</h\1>", re.DOTALL)  # text from outside is escaped and can hold none


def with_contents(body: str) -> tuple[Markup, list[tuple[str, str, Markup]]]:
    """The same page with a name in each heading, and (level, name, title) of those that are listed."""
    found: list[tuple[str, str, Markup]] = []

    def named(heading: re.Match[str]) -> str:
        level, words = heading.groups()
        name = f"s{len(found) + 1}"
        title = re.sub(r"\s*<small>(.*?)</small>", r", \1", words, flags=re.DOTALL)
        found.append((level, name, Markup(title)))
        return f'<h{level} id="{name}">{words}</h{level}>'

    text = Markup(HEADING.sub(named, body))
    return text, found if len(found) <= MOST else [each for each in found if each[0] == "2"]
