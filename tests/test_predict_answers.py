"""Words for labels, timelines, and the table of a folder that grows."""

from __future__ import annotations

import csv
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from fakes import write_video
from PIL import Image
from test_predict import LABELS, RUN, ask, project, refused, trained  # noqa: F401 (fixtures)

import pipeline.predict.words as words_module
from pipeline.errors import PosebridgeError
from pipeline.learn.confidence import NONE
from pipeline.manifest.clips import Clip
from pipeline.params import load_params
from pipeline.predict.answers import Answered, Windows, answer_videos
from pipeline.predict.live import video_name
from pipeline.predict.overlay import Bar
from pipeline.predict.predict import Prediction, Ranked, RunScorer, load_run, predict
from pipeline.predict.table import COLUMNS, AnswerTable
from pipeline.predict.timeline import Stretch, cells, draw_timeline, merge, subtitles, write_timeline
from pipeline.predict.words import Asked, read_asked, words_of
from stages.cli import main

FIST, PUSH = "a fist is thrust at somebody", "both hands push somebody away"
WORDS = f"punching: {FIST}; pushing: {PUSH}"


def said(start: float, answer: str, share: float = 0.8, none: float | None = None) -> Prediction:
    label = "other" if answer == NONE else answer
    return Prediction("a.mp4", start, start + 2, (Ranked(label, share, 0.5),), "", 1, answer=answer, none=none)


def nobody(start: float) -> Prediction:
    return Prediction("a.mp4", start, start + 2, (), "no person found")


@pytest.mark.unit
def test_windows_with_one_answer_are_one_stretch_up_to_where_the_next_middle_is_nearer() -> None:
    none = said(2, NONE, 0.1, 0.9)
    windows = [said(0, "push", 0.6), said(1, "push", 0.8), none, nobody(3), nobody(4), said(6, "push")]
    found = merge(windows)
    assert [(s.start, s.end, s.answer or s.reason, s.windows) for s in found] == [
        (0, 2.5, "push", 2), (2.5, 3.5, NONE, 1), (3.5, 6, "no person found", 2), (6, 8, "push", 1)
    ]  # fmt: skip
    assert [s.confidence for s in found] == [pytest.approx(0.7), 0.9, None, 0.8]
    assert merge([]) == () and len(merge(windows[:1])) == 1


@pytest.mark.unit
def test_a_timeline_is_a_table_subtitles_and_a_picture(tmp_path: Path) -> None:
    odd = "a <b> --> $x$, \N{PERSON DOING CARTWHEEL}"
    found = merge([said(0, odd), said(2, "push"), nobody(3599)])
    with write_timeline(tmp_path / "t.csv", found).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["answer"] for row in rows] == [odd, "push", ""] and rows[2]["reason"] == "no person found"
    text = write_timeline(tmp_path / "t.SRT", found).read_text()
    assert text == "\n".join(subtitles(found)) and "\n00:00:02,000 --> 00:30:01,500\npush 80%" in text
    assert "<" not in text and text.count("-->") == 3
    blank = next(subtitles(merge([said(0, "two\n\nlines")])))
    assert blank.count("\n") == 3 and "two lines 80%" in blank, "an empty line would end a subtitle"
    with Image.open(write_timeline(tmp_path / "t.png", found)) as picture:
        assert len(set(picture.convert("RGB").getdata())) > 3
    with pytest.raises(PosebridgeError, match=r"t.mp3 is no name of a timeline; let it end in .csv, .srt or .png"):
        write_timeline(tmp_path / "t.mp3", found)


@pytest.mark.unit
def test_a_timeline_of_many_answers_stays_a_picture_and_a_bar_shows_where_it_is() -> None:
    many = [Stretch("a.mp4", i, i + 1, f"answer {i}", 0.5, 1) for i in range(3000)]
    assert max(draw_timeline(many).get_size_inches()) < 20
    picture = np.zeros((100, 200, 3), np.uint8)
    Bar([Stretch("a.mp4", 0, 5, "push", 0.5, 1), Stretch("a.mp4", 5, 10, NONE, 0.5, 1)]).draw(picture, 7.5)
    left, right, mark = picture[-1, 50], picture[-1, 110], picture[-1, 150]
    assert left.any() and right.any() and (left != right).any() and (mark == 255).all() and not picture[:90].any()
    bar, again = Bar(many), picture.copy()
    bar.draw(picture, 7.5)
    bar._parts.clear()  # a frame of a long video costs no look at all of its answers
    bar.draw(again, 7.5)
    assert (again == picture).all()


@pytest.mark.unit
def test_words_are_typed_or_in_a_table_or_in_one_for_labels(tmp_path: Path) -> None:
    typed = read_asked(f" punching : {FIST};pushing")
    assert typed == Asked(("punching", "pushing"), {(0, "one_line"): FIST})
    assert read_asked('bow, "push, hard" ,wave').labels == ("bow", "push, hard", "wave")
    table = tmp_path / "labels.csv"
    table.write_text(f"label;slot;text\npunching;one_line;{FIST}\npunching;hands;one fist flies\npushing, hard;;\n")
    wanted = {(0, "one_line"): FIST, (0, "hands"): "one fist flies"}
    assert read_asked(None, table=table) == read_asked(None, table) == Asked(("punching", "pushing, hard"), wanted)
    table.write_text(f"label,slot,text\npushing,one_line,{PUSH}\n")
    assert read_asked("punching, pushing", table) == Asked(("punching", "pushing"), {(1, "one_line"): PUSH})
    table.write_text("label\nbow\nwave\n")
    assert read_asked(None, table=table) == Asked(("bow", "wave"))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("labels", "rows", "wrong"),
    [
        ("punching, pushing", f"kicking,one_line,{FIST}", r"line 2, column label: 'kicking' is not asked for; --lab"),
        ("punching, pushing", "punching,hands,x\npunching,hands,y", r"line 3, column slot: .*'hands' twice"),
        ("punching, pushing", "punching,fists,x", "column slot: 'fists' is no slot; there are label, one_line"),
        ("punching, pushing", "punching,hands,", "line 2, column text: the cell is empty"),
        (WORDS, f"punching,one_line,{FIST}", "There are words in --labels and in .*; put all of them into the table"),
        (None, "Punching,,\npunching,,", "The label 'Punching' is there twice"),
        (None, "punching,,", "There is one label, 'punching', to choose from"),
        (None, "", "There are no labels to choose from"),
        ("bow, None of these", "", "'none of these' is an answer by itself, not a label; leave it out"),
    ],
)  # fmt: skip
def test_words_that_fit_no_label_are_refused_with_their_line(
    tmp_path: Path, labels: str | None, rows: str, wrong: str
) -> None:
    table = tmp_path / "words.csv"
    table.write_text(f"label,slot,text\n{rows}\n")
    with pytest.raises(PosebridgeError, match=wrong):
        read_asked(labels, table)


@pytest.mark.unit
def test_labels_that_say_nothing_are_refused_and_others_fill_what_nobody_has_described() -> None:
    words = {"hands": "one fist flies", "one_line": FIST}
    filled = [words_of("punching", words, slot) for slot in ("label", "one_line", "hands", "legs")]
    assert filled == ["punching", FIST, "one fist flies", FIST]
    assert words_of("punching", {"hands": "x"}, "legs") == words_of("punching", {}, "legs") == "punching"
    emoji = "\N{PERSON DOING CARTWHEEL}"
    assert words_of(emoji, words, "label") == FIST
    with pytest.raises(PosebridgeError, match="No text encoder understands the label"):
        words_of(emoji, {}, "label")
    with pytest.raises(PosebridgeError, match="has 300 characters, more than 200"):
        words_of("x" * 300, {}, "label")
    with pytest.raises(PosebridgeError, match="The words 'x' have no label"):
        read_asked("punching: y; : x")
    with pytest.raises(PosebridgeError, match="ask about 1000 at the most"):
        read_asked(", ".join(map(str, range(1001))))
    (finding,) = Asked(("punching", "pushing"), {(0, "one_line"): "x"}).findings
    assert finding == "'punching', one_line: 1 words, not 5 to 25."
    assert not read_asked(WORDS).findings and not read_asked("punching, pushing").findings


@pytest.mark.e2e
def test_words_of_ones_own_are_what_the_run_is_asked_with(project: Path, tmp_path: Path) -> None:  # noqa: F811
    question = ("videos/1-0.mp4", "--run", "fast")
    bare, described = (ask(*question, "--labels", text) for text in ("punching, pushing", WORDS))
    assert bare["texts"] == "labels" and described["texts"] == "words" and not described["warnings"][1:]
    assert bare["labels"] == described["labels"] and bare["predictions"] != described["predictions"]
    table = tmp_path / "labels.csv"
    table.write_text(f"label,slot,text\npunching,one_line,{FIST}\npushing,one_line,{PUSH}\n")
    texts = ("--texts", str(table))
    for words in (("--labels", str(table)), texts, ("--labels", "punching, pushing", *texts)):
        assert ask(*question, *words)["predictions"] == described["predictions"]
    half = ask(*question, "--labels", f"punching: {FIST}; pushing; bow")
    assert half["texts"] == "labels" and any("'pushing' has no words, others have" in each for each in half["warnings"])
    known = ask(*question, "--labels", f"punching: {FIST}; bow")
    assert known["texts"] == "words", "a class of the run has its own descriptions"


@pytest.mark.e2e
def test_answers_go_on_with_words_that_another_machine_has_encoded(
    project: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    model = load_run("toy", "all_seen", "fast", load_params(Path("params.yaml")))
    asked, encode = read_asked(WORDS), words_module.encode_each
    here = RunScorer(model, asked)
    monkeypatch.setattr(words_module, "encode_each", lambda *a: {k: v * 1.0000002 for k, v in encode(*a).items()})
    there = RunScorer(model, asked)
    assert not (here.text == there.text).all() and here.key == there.key
    assert RunScorer(model, read_asked(f"{WORDS} again")).key != here.key


@pytest.mark.e2e
def test_a_folder_becomes_a_table_that_goes_on_where_it_was_killed(project: Path, tmp_path: Path) -> None:  # noqa: F811
    for name in ("a", "b", "c"):
        write_video(tmp_path / f"v/{name}.mp4", frames=6)
    (tmp_path / "v/bad, \"one\".mp4").write_text("no video")
    table = tmp_path / "answers.csv"
    words = ["predict", str(tmp_path / "v"), *RUN, "--table", str(table), "--json"]

    def run(*more: str) -> tuple[dict, list[dict[str, str]], str]:
        done = CliRunner().invoke(main, [*words, *more])
        assert done.exit_code == 0, done.output
        with table.open(newline="") as file:
            return json.loads(done.stdout), list(csv.DictReader(file)), done.stderr

    first, rows, _ = run()
    by_name = {Path(row["video"]).name: row for row in rows}
    assert set(by_name) == {"a.mp4", "b.mp4", "c.mp4", 'bad, "one".mp4'} and first["failures"] == 1
    assert "cannot be read as a video" in by_name['bad, "one".mp4']["reason"] and "predictions" not in first
    assert all(by_name[f"{name}.mp4"]["answer"] in LABELS for name in "abc")
    whole = table.read_bytes()
    lines = whole.splitlines(keepends=True)
    table.write_bytes(b"".join(lines[:3]) + lines[3][:9])  # killed in the middle of a row, b or bad
    second, again, told = run()
    assert "1 video already; it goes on" in told and second["answered_before"] == 1
    assert sorted(map(str, again)) == sorted(map(str, rows))
    assert run()[0]["answered_before"] == 4, "nothing is left to do"
    third, windowed, told = run("--window", "0.2", "--stride", "0.1")
    (kept,) = tmp_path.glob("answers-*.csv")
    assert "it begins anew" in told and str(kept) in told and kept.read_bytes() == whole
    assert third["answered_before"] == 0 and len(windowed) >= len(rows)


@pytest.mark.unit
def test_a_folder_of_images_that_cannot_be_read_bears_one_name(tmp_path: Path) -> None:
    """By another one it would not be found in the table, and be answered again and again."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images/0001.jpg").write_text("no image")
    live = SimpleNamespace(rows=lambda clips: ((clip, None) for clip in clips))
    (answered,) = answer_videos([tmp_path / "images"], Windows(), live, None)  # type: ignore[arg-type]
    assert answered.failed and answered.video == video_name(tmp_path / "images") == f"{tmp_path}/images/"


@pytest.mark.unit
def test_a_table_of_somebody_else_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    for content in ("name,phone\nAnn,1\n", "no line at all", "\n"):
        path.write_text(content)
        with pytest.raises(PosebridgeError, match="mine.csv"):
            AnswerTable(path, "key")
        assert path.read_text() == content
    theirs = f"{','.join(COLUMNS)},mine\na.mp4,0,1,push,.5,1,,,key,cut short".replace("asked,", "asked;")
    path.write_text(theirs)
    with pytest.raises(PosebridgeError, match=r"mine\.csv is no table of answers"):
        AnswerTable(path, "key")
    assert path.read_text() == theirs
    path.write_text("")
    with closing(AnswerTable(path, "key")) as table:
        table.add(Answered("a\nb.mp4", (replace(said(0, "push"), video="a\nb.mp4"),)))
        with pytest.raises(PosebridgeError, match=r"Another process writes .*mine\.csv"):
            AnswerTable(path, "key")
    with closing(AnswerTable(path, "key")) as table:
        assert table.done == {"a\nb.mp4"}
    path.write_bytes(path.read_bytes().replace(b"\r", b"").replace(b"\n", b"\r\n"))  # saved by a spreadsheet
    with closing(AnswerTable(path, "key")) as table:
        assert not table.kept and len(table.done) == 1
    with closing(AnswerTable(path, "other")) as table:
        assert table.kept and "a\nb.mp4" in table.kept.read_text()
    assert path.read_text() == ",".join(COLUMNS) + "\n", "another question begins it anew"


@pytest.mark.unit
def test_a_video_of_which_rows_were_cut_off_is_looked_at_again_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    videos = [
        Answered(name, tuple(replace(each, video=name) for each in (said(0, "push"), said(2, "hug"), said(4, "push"))))
        for name in ("a.mp4", "b.mp4")
    ]
    with closing(AnswerTable(path, "key")) as table:
        for each in videos:
            table.add(each)
    whole = path.read_bytes()
    for cut in range(1, len(whole), 5):
        path.write_bytes(whole[:-cut])
        with closing(AnswerTable(path, "key")) as table:
            for each in videos:
                if each.video not in table.done and not whole[:-cut].endswith(b"\n"):
                    table.add(each)
        assert path.read_bytes() == whole or whole[:-cut].endswith(b"\n"), cut


@pytest.mark.unit
def test_a_clip_whose_scores_are_no_numbers_has_a_reason_and_the_others_an_answer() -> None:
    def scores(samples: object) -> np.ndarray:
        if samples == ["b"]:
            raise PosebridgeError("The scores of 'b' are not finite; train again.")
        return np.array([[0.1, 0.9]])

    rows = [(Clip(name, f"{name}.mp4", 0.0, 2.0), {"clip_id": name, "person_valid": np.ones((1, 2), bool)})
            for name in "abc"]  # fmt: skip
    live = SimpleNamespace(rows=lambda _: rows, reader=lambda found: SimpleNamespace(clip_ids=[found[0]["clip_id"]]))
    scorer = SimpleNamespace(labels=("x", "y"), cues=False, temperature=0.1, confidence=None, scores=scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.predict.predict.load_samples", lambda ids, *_: ids)
        found = [prediction for prediction, _ in predict([], live, scorer)]  # type: ignore[arg-type]
    assert [each.answer for each in found] == ["y", "", "y"] and [each.failed for each in found] == [0, 1, 0]
    assert found[1].reason == "The scores of 'b' are not finite; train again" and found[1].persons == 1
    row = cells(merge(found[1:2])[0])
    assert row[3:] == ("", None, 1, found[1].reason)


@pytest.mark.e2e
def test_a_long_video_has_its_timeline_in_files_and_in_the_overlay(project: Path, tmp_path: Path) -> None:  # noqa: F811
    video = write_video(tmp_path / "long.mp4", frames=24, fps=12, size=(160, 120))
    words = (str(video), *RUN, "--window", "1", "--stride", "0.5")
    names = [str(tmp_path / f"t.{form}") for form in ("csv", "srt", "png")]
    files = [word for name in names for word in ("--timeline", name)]
    found = ask(*words, *files, "--overlay", str(tmp_path / "o.mp4"))
    assert found["timelines"] == names and all(Path(name).stat().st_size for name in names)
    capture = cv2.VideoCapture(str(tmp_path / "o.mp4"))
    frame = capture.read()[1]
    assert frame is not None and frame[-2, 80:].reshape(-1, 3).std(0).max() < 30, "one answer, one colour"
    assert abs(frame[-2, 120].astype(int) - frame[-20, 120]).max() > 20
    for bad in (("--timeline", str(video)), ("--timeline", "t.gif")):
        assert CliRunner().invoke(main, ["predict", *words, *bad]).exit_code in (1, 2)
    assert "is no name of a timeline" in refused(*words, "--timeline", "t.gif")
    for bad in (("--table", "t.txt"), ("--table", "t.csv", "--timeline", "t.csv")):
        assert CliRunner().invoke(main, ["predict", *words, *bad]).exit_code == 2


@pytest.mark.unit
def test_many_texts_are_encoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Encoder:
        calls: list[int] = []

        def encode(self, texts: list[str]) -> np.ndarray:
            self.calls.append(len(texts))
            return np.array([[float(text)] for text in texts], np.float32)

    monkeypatch.setattr(words_module, "AT_ONCE", 2)
    found = words_module.encode_each(Encoder(), ["1", "2", "1", "3"])  # type: ignore[arg-type]
    assert {text: float(vector) for text, vector in found.items()} == {"1": 1, "2": 2, "3": 3}
    assert Encoder.calls == [2, 1]
