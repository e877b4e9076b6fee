"""The report's page as people open it: on a phone, in the dark, without a network, with a hostile class name."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest
from browser import CHROMIUM, WHY_NOT, Browser, browser
from fabricated import write_run

from pipeline.report.contents import MOST, with_contents
from pipeline.report.inside import Inside
from pipeline.report.latex import latex
from pipeline.report.report import make_report

MANIFESTS = Path(__file__).parent.parent / "manifests"
pytestmark = pytest.mark.unit
PHONE, DESK = 390, 1200
CONTRAST = 4.5  # WCAG 2.1, level AA, of text of usual size


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a few fabricated runs."""
    folder = tmp_path_factory.mktemp("page")
    write_run(folder / "results", "posebridge", 0.97, 0.75, tuples=4)
    write_run(folder / "results", "skeleton", 0.2, 0.0, method="skeleton", tuples=4)
    write_run(folder / "results", "gate", 0.97, 0.7, flags={"gate": True}, tuples=4)
    return make_report(folder / "results", folder / "report", MANIFESTS).html


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip(WHY_NOT)
    with ExitStack() as stack:
        try:
            found = stack.enter_context(browser(tmp_path_factory.mktemp("profile")))
        except (RuntimeError, OSError) as error:  # Ubuntu has a program of that name that only tells to install it
            pytest.skip(f"{CHROMIUM} does not start here: {error}")
        yield found


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_nothing_is_wider_than_the_screen_and_nothing_complains(
    page: Path, chromium: Browser, width: int, dark: bool
) -> None:
    chromium.open(page, width, dark=dark)
    assert chromium.run("document.documentElement.scrollWidth") == width
    assert not chromium.complaints


# Every text that is shown, against the nearest ground behind it: the least contrast, and where.
LEAST = """(() => {
  const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = node => { for (; node; node = node.parentElement) {
    const found = rgb(getComputedStyle(node).backgroundColor);
    if (found.length && (found.length < 4 || found[3] > .99)) return found; } return [255, 255, 255]; };
  let least = [99, ""];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const parent = texts.currentNode.parentElement;
    if (!texts.currentNode.textContent.trim() || !parent.getClientRects().length) continue;
    const [one, two] = [light(rgb(getComputedStyle(parent).color)), light(ground(parent))];
    const contrast = (Math.max(one, two) + .05) / (Math.min(one, two) + .05);
    if (contrast < least[0]) least = [contrast, texts.currentNode.textContent];
  }
  return least; })()"""


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_is_legible(page: Path, chromium: Browser, dark: bool) -> None:
    chromium.open(page, DESK, dark=dark)
    least, where = chromium.run(LEAST)
    assert CONTRAST <= least < 99, where
    ground = chromium.run("getComputedStyle(document.body).backgroundColor")
    assert (ground != "rgb(255, 255, 255)") == dark
    turned = chromium.run("[...document.querySelectorAll('img.chart')].map(i => getComputedStyle(i).filter != 'none')")
    assert turned and set(turned) == {dark}, "dark lines on white would dazzle"


def test_a_click_sorts_a_table_and_another_the_other_way_round(page: Path, chromium: Browser) -> None:
    chromium.open(page, DESK)
    column = """(times => {
      const table = [...document.querySelectorAll("table")].find(t => t.textContent.includes("vs ceiling"));
      const place = [...table.tHead.rows[0].cells].findIndex(c => c.textContent == "vs ceiling");
      for (let i = 0; i < times; i++) table.tHead.rows[0].cells[place].click();
      return [...table.tBodies[0].rows].map(row => row.cells[place].textContent); })"""
    once, twice = ([float(cell.replace("−", "-")) for cell in chromium.run(f"{column}({n})")] for n in (1, 1))
    assert once == sorted(once, reverse=True) and twice == sorted(once) and len(once) >= 2 and once[-1] < 0 < once[0]
    assert not chromium.complaints


def test_the_page_needs_no_network_and_runs_one_script_that_it_names_by_hash(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"""(src|href|url|import|action)\s*[=(]\s*["']?(https?:)?//""", text) and "://" not in text
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (rule,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in rule
    assert "default-src 'none'" in rule and "fetch" not in script and "innerHTML" not in script


def test_the_page_says_when_and_from_what_it_was_made_and_lists_its_contents(page: Path) -> None:
    text = page.read_text()
    assert re.search(r"Made \d+ \w+ \d{4}, \d\d:\d\d UTC by posebridge [\w. ]+", text)
    assert "<td>skelgap</td><td>compositional_30_10</td>" in text
    links, names = re.findall(r'href="#(\w+)"', text), re.findall(r'<h[23] id="(\w+)"', text)
    assert links and set(links) == set(names) and len(names) == len(set(names))
    assert re.search(r'href="#\w+">skelgap, compositional_30_10</a>', text)


def test_dark_and_phone_are_in_the_style_itself(page: Path) -> None:
    """What the browser's tests ask, as far as it can be known without one."""
    text = page.read_text()
    assert 'content="width=device-width, initial-scale=1"' in text and "color-scheme:light dark" in text
    assert "prefers-color-scheme:dark" in text and "max-width:600px" in text
    outside = re.sub(r'<div class="scroll">.*?</div>', "", text, flags=re.DOTALL)
    assert "<table" in text and "<table" not in outside, "a table that is too wide is moved sideways by itself"
    assert set(re.findall(r'<img class="(\w+)"', text)) <= {"chart", "photo"}


def test_every_table_has_its_latex(page: Path) -> None:
    text = page.read_text()
    assert text.count("<table") == text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") > 3


def test_latex_escapes_what_means_something_to_it() -> None:
    table = pd.DataFrame({"a_b": ["50 % & $5", "x\\y {z} #1\n~^"], "top-1": ["1.0 ± 0.2", "−3"]})
    text = latex(table, table.columns[1:])
    assert r"\begin{tabular}{lr}" in text and r"a\_b & top-1" in text
    assert r"50 \% \& \$5 & 1.0 $\pm$ 0.2" in text and r"x\textbackslash y \{z\} \#1" in text and "$-$3" in text
    assert all(line.count("&") - line.count(r"\&") == 1 for line in text.splitlines() if line.endswith(r"\\"))
    assert "% 40 more rows" in latex(pd.DataFrame({"a": range(100)}))


def test_contents_are_bounded_and_take_no_heading_from_outside() -> None:
    body = "<h2>A <small>b</small></h2>" + "<h3>x &lt;h2&gt;no&lt;/h2&gt;</h3>" * MOST
    text, listed = with_contents(body)
    assert [(level, str(title)) for level, _, title in listed] == [("2", "A, b")] and text.count("id=") == MOST + 1


def test_pictures_are_taken_until_the_page_is_full(tmp_path: Path) -> None:
    for name, size in (("a.png", 300), ("b.jpg", 900), ("c.png", 300)):
        (tmp_path / name).write_bytes(b"x" * size)
    inside = Inside(1000)
    found = [inside(tmp_path / name) for name in ("a.png", "b.jpg", "c.png")]
    assert [each[:15] for each in found] == ["data:image/png;", "", "data:image/png;"] and inside.left == 200
    fair = Inside(1000)
    assert not fair.part(2) and fair(tmp_path / "a.png") and not fair(tmp_path / "c.png"), "half is for the next part"
    assert not fair.part(1) and fair(tmp_path / "c.png")
    assert Inside()(tmp_path / "b.jpg").startswith("data:image/jpeg;base64,")
