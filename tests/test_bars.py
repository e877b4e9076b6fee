"""Progress on stderr: lines with the time left in a log file, a bar on a terminal, nothing before an error."""

from __future__ import annotations

import gc
import io
import sys

import pytest

from pipeline.errors import PosebridgeError
from pipeline.learn.loop import Progress
from stages import bars
from stages.shell import plain_errors

pytestmark = pytest.mark.unit


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_file_has_whole_lines_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(bars.time, "monotonic", lambda: float(next(clock)))
    with bars.counter("clip", "extract refined") as show:
        for done in range(1, 11):
            show(done, 40)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) < 10 and lines[-1].startswith("extract refined: 10 of 40 clips, ")
    assert all(line.endswith(" left") and "\r" not in line for line in lines)


def test_nothing_is_shown_before_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        with pytest.raises(ValueError), bars.counter("clip", "extract"):
            raise ValueError
        with pytest.raises(ValueError), bars.epochs("train", 3):
            raise ValueError
        assert stream.getvalue() == ""


def test_a_bar_that_an_error_holds_on_to_ends_before_the_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    @plain_errors
    def look() -> None:
        shown = bars.progress(range(5), 5, "crop", "look")
        next(shown), next(shown)
        raise PosebridgeError("g.onnx is odd; take another.")

    with pytest.raises(SystemExit) as kept:
        look()
    line, sentence = capsys.readouterr().err.splitlines()
    assert line.startswith("look: 1 of 5 crops, ") and sentence == "Error: g.onnx is odd; take another."
    del kept  # and with it `shown`
    gc.collect()
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    assert list(bars.progress(range(5), 5, "still", "measure")) == list(range(5))
    assert "measure: 100%" in stream.getvalue() and "5/5" in stream.getvalue()
    assert all("/5 [" in line for line in stream.getvalue().split("\r") if line.strip()), "the total is there at once"


def test_epochs_count_towards_a_total_that_early_stops_lessen(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(bars.Bar, "show", lambda self, done, total, note="": told.append((done, total)))

    def run(on_epoch, seed: int, phase: str, begin: int, end: int, planned: int) -> None:
        for epoch in range(begin, end + 1):
            on_epoch(f"seed {seed}, {phase}", Progress(epoch=epoch, losses=[1.0], planned=planned))

    with bars.epochs("train", 2) as on_epoch:
        run(on_epoch, 0, "select", 1, 6, 10)  # stops after 6 of 10
        assert told[-1] == (6, 40)
        run(on_epoch, 0, "final", 1, 4, 4)  # 4 were chosen
        assert told[-1] == (10, 6 + 4 + 2 * 4)
        run(on_epoch, 1, "select", 8, 10, 10)  # 7 were done before a kill
        assert told[-1] == (13, 6 + 4 + 3 + 3)
        run(on_epoch, 1, "final", 1, 9, 9)
    assert told[-1] == (22, 22) and all(done <= total for done, total in told)


def test_who_is_solved_has_no_loss_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int, str]] = []
    monkeypatch.setattr(bars.Bar, "show", lambda self, *seen: told.append(seen))
    with bars.epochs("train", 1) as on_epoch:
        on_epoch("seed 0, select", Progress(epoch=1, planned=1))
        on_epoch("seed 0, final", Progress(epoch=1, planned=1))
    assert told == [(1, 2, "seed 0, select, epoch 1"), (2, 2, "seed 0, final, epoch 1")]
