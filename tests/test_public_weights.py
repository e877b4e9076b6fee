"""Public weights by name: fetched once from a web server, checked ever after, and nothing odd is let in."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from pipeline.doctor import check_weights
from pipeline.errors import PosebridgeError
from pipeline.files import fetch as fetching
from pipeline.files.durable import temporary
from pipeline.files.fetch import fetch
from pipeline.hpe import published as table
from pipeline.hpe.published import PUBLISHED, Published
from pipeline.hpe.weights import find_detector, find_weights
from pipeline.params import load_params
from pipeline.recipe import Recipe
from stages.cli import main

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parent.parent
CONTENT = bytes(range(256)) * 1200  # more than one piece
SHA256 = hashlib.sha256(CONTENT).hexdigest()
Answers = dict[str, Callable[[BaseHTTPRequestHandler], None]]


def sends(content: bytes, length: int | None = None, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer, with a Content-Length that may be a lie; none at all for -1."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if length != -1:
            request.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        with suppress(ConnectionError):  # who is sent too much hangs up
            request.wfile.write(content)

    return answer


def leads(to: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", to)
        request.end_headers()

    return answer


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Answers, list[str]]]:
    """A web server: its address, what it answers by path, and which paths it was asked for."""
    answers: Answers = {}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path in answers:
                answers[self.path](self)
            else:
                self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", answers, asked
        server.shutdown()
        thread.join()


@pytest.fixture
def toy(web: tuple[str, Answers, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """Weights that the server has, in the table of an otherwise empty project; of them the first 8 digits are known."""
    monkeypatch.chdir(tmp_path)
    address, answers, _ = web
    answers["/toy.onnx"] = sends(CONTENT)
    toy = Published("toy.onnx", "a toy", f"{address}/toy.onnx", SHA256[:8], 1)
    monkeypatch.setattr(table, "PUBLISHED", {"toy": toy})
    return toy


def run(*arguments: str) -> Any:
    done = CliRunner().invoke(main, ["weights", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["weights"]


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["weights", *arguments])
    assert done.exit_code == 1 and not done.stdout, done.output
    *above, sentence = done.stderr.splitlines()
    assert sentence.startswith("Error: ") and all(line.startswith("toy: ") for line in above), done.stderr
    return sentence


def left(folder: Path = Path("cache/weights")) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def archive(content: bytes = CONTENT, names: tuple[str, ...] = ("2023/toy/end2end.onnx",)) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, content)
    return packed.getvalue()


# Fetched once


def test_weights_are_fetched_once_with_a_receipt(toy: Published, web: tuple[str, Answers, list[str]]) -> None:
    assert [row["state"] for row in run("ls")] == ["absent"]
    (row,) = run("get", "toy")
    assert row["fetched"] and toy.path.read_bytes() == CONTENT and left() == ["toy.onnx", "toy.onnx.receipt.json"]
    receipt = json.loads(Path("cache/weights/toy.onnx.receipt.json").read_text())
    assert receipt == {"source": toy.url, "licence": "Apache-2.0", "bytes": len(CONTENT), "sha256": SHA256}
    (again,) = run("get", "toy")
    assert not again["fetched"] and again["sha256"] == SHA256 and web[2] == ["/toy.onnx"]
    assert [row["state"] for row in run("ls")] == ["there"]
    told = CliRunner().invoke(main, ["weights", "ls"]).stdout
    assert "toy: there, 1 MB, Apache-2.0" in told and toy.url in told


def test_a_mirror_is_asked_by_the_files_own_name(toy: Published, web: tuple[str, Answers, list[str]]) -> None:
    web[1]["/lab/weights/toy.onnx"] = web[1].pop("/toy.onnx")
    (row,) = run("get", "toy", "--mirror", f"{web[0]}/lab/weights/")
    assert row["source"] == f"{web[0]}/lab/weights/toy.onnx" and toy.path.read_bytes() == CONTENT


def test_of_a_zip_the_one_member_is_taken(
    toy: Published, web: tuple[str, Answers, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = replace(toy, url=f"{web[0]}/toy.zip", member="end2end.onnx")
    monkeypatch.setattr(table, "PUBLISHED", {"toy": packed})
    web[1]["/toy.zip"] = sends(archive(names=("2023/", "2023/toy/end2end.onnx", "2023/toy/pipeline.json")))
    (row,) = run("get", "toy")
    assert row["sha256"] == SHA256 and left() == ["toy.onnx", "toy.onnx.receipt.json"]


def test_a_recipes_own_address_is_fetched_in_the_same_way(toy: Published, web: tuple[str, Answers, list[str]]) -> None:
    recipe = Recipe(backend="onnx", boxes="detector", detector=toy.url, detector_sha256=SHA256)
    assert find_detector(recipe).path == toy.path and toy.path.read_bytes() == CONTENT
    for wrong in (sends(b"other"), sends(CONTENT[:9], len(CONTENT)), sends(b"", fetching.MOST_BYTES + 1)):
        toy.path.unlink(missing_ok=True)
        web[1]["/toy.onnx"] = wrong
        with pytest.raises(PosebridgeError, match="Could not fetch"):
            find_detector(recipe)
        assert left() == []


def test_the_way_of_the_bytes_is_shown(toy: Published) -> None:
    ways: list[tuple[int, int | None]] = []
    fetch(toy.url, toy.path, told=lambda done, total: ways.append((done, total)))
    assert len(ways) > 1 and ways[-1] == (len(CONTENT), len(CONTENT))
    toy.path.unlink()
    assert "toy: 307k of 307k bytes" in CliRunner().invoke(main, ["weights", "get", "toy"]).stderr


def test_what_a_killed_fetch_left_is_taken_away_by_the_next(toy: Published) -> None:
    recipe = Recipe(backend="onnx", boxes="detector", detector=toy.url, detector_sha256=SHA256)
    for bring in (lambda: run("get", "toy"), lambda: find_detector(recipe)):
        toy.path.unlink(missing_ok=True)
        toy.path.parent.mkdir(parents=True, exist_ok=True)
        draft = temporary(toy.path)
        dead = draft.with_name(draft.name.replace(f"-{os.getpid()}-", "-4194400-"))  # above all of Linux
        dead.write_bytes(CONTENT)
        os.utime(dead, (0, 0))
        bring()
        assert left() == ["toy.onnx", "toy.onnx.receipt.json"]


# Checked ever after


def test_a_file_that_changed_is_found_by_whoever_uses_it(toy: Published) -> None:
    run("get", "toy")
    toy.path.write_bytes(CONTENT[1:])
    assert [row["state"] for row in run("ls")] == ["changed"]
    assert "has changed since it was fetched" in refused("get", "toy")
    recipe = Recipe(backend="onnx", weights=str(toy.path), boxes="detector", detector=str(toy.path))
    for find in (find_weights, find_detector):
        with pytest.raises(PosebridgeError, match="has changed since it was fetched"):
            find(recipe)


def test_a_server_that_gives_something_else_later_is_found(toy: Published, web: tuple[str, Answers, list[str]]) -> None:
    """Eight digits are known beforehand; after the first fetch all are."""
    run("get", "toy")
    receipt = Path("cache/weights/toy.onnx.receipt.json")
    values = json.loads(receipt.read_text())
    receipt.write_text(json.dumps(values | {"sha256": SHA256[:8] + "0" * 56}))
    toy.path.unlink()
    assert f"what came has sha256 {SHA256[:12]}..., expected {SHA256[:8]}0000..." in refused("get", "toy")
    assert left() == ["toy.onnx.receipt.json"]


def test_content_other_than_published_is_not_kept(toy: Published, web: tuple[str, Answers, list[str]]) -> None:
    web[1]["/toy.onnx"] = sends(b"<html>welcome to our hotel</html>")
    assert "what came has sha256" in refused("get", "toy") and left() == []


def test_a_persons_own_file_stays(toy: Published, web: tuple[str, Answers, list[str]]) -> None:
    toy.path.parent.mkdir(parents=True)
    toy.path.write_bytes(b"mine")
    assert [row["state"] for row in run("ls")] == ["not fetched by us"]
    assert "is not the published file" in refused("get", "toy")
    assert toy.path.read_bytes() == b"mine" and web[2] == []
    toy.path.write_bytes(CONTENT)  # brought by hand where the network is closed
    (row,) = run("get", "toy")
    assert not row["fetched"] and row["sha256"] == SHA256 and "toy.onnx.receipt.json" in left() and web[2] == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sha256": 3}', "[" * 60_000, '{"sha256": "0"}', "\0"])
def test_a_damaged_receipt_is_one_sentence(toy: Published, text: str) -> None:
    run("get", "toy")
    Path("cache/weights/toy.onnx.receipt.json").write_text(text)
    assert "toy.onnx.receipt.json is damaged; delete it" in refused("get", "toy")


# What goes wrong on the way


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda request: request.send_error(500), "HTTP Error 500"),
        (sends(CONTENT[:300_000], len(CONTENT)), "the connection was cut after 300000 of 307200 bytes"),
        (sends(CONTENT, 10**12), "it declares 1000000000000 bytes, more than the 4000000"),
        (sends(CONTENT * 20, -1), "it sends more than the 4000000 bytes"),
        (sends(b"100000\r\nonly this", -1, **{"Transfer-Encoding": "chunked"}), "IncompleteRead"),
        (leads("file:///etc/hostname"), "file:///etc/hostname"),
        (leads("ftp://127.0.0.1/toy.onnx"), "it leads to 'ftp://127.0.0.1/toy.onnx'"),
        (leads("/toy.onnx"), "redirect"),
        (leads("http://[::1"), "Invalid"),
    ],
)
def test_a_server_that_fails_or_lies(
    toy: Published, web: tuple[str, Answers, list[str]], answer: Callable[[BaseHTTPRequestHandler], None], reason: str
) -> None:
    web[1]["/toy.onnx"] = answer
    sentence = refused("get", "toy")
    assert reason in sentence and toy.url in sentence and "put it at cache/weights/toy.onnx." in sentence, sentence
    assert left() == []


def test_no_server_and_no_file_are_one_sentence_with_address_and_place(
    toy: Published, web: tuple[str, Answers, list[str]]
) -> None:
    web[1].clear()
    assert "HTTP Error 404" in refused("get", "toy")
    for mirror in ("http://127.0.0.1:1", "http://no such host", "file:///etc", "/etc", "ftp://127.0.0.1:1"):
        sentence = refused("get", "toy", "--mirror", mirror)
        assert f"{mirror}/toy.onnx" in sentence and "bring the file and put it at cache/weights/toy.onnx" in sentence
    assert "There is no public weights named 'nobody'" in refused("get", "toy", "nobody") and left() == []
    assert CliRunner().invoke(main, ["weights", "get"]).exit_code == 2


def test_a_sealed_connection_leads_to_no_open_one() -> None:
    request = fetching.urllib.request.Request("https://a.example/w")
    with pytest.raises(fetching._NotFetched, match="it leads to 'http://a.example/w'"):
        fetching._Redirects().redirect_request(request, None, 302, "", {}, "http://a.example/w")


def test_a_server_that_only_trickles_is_left(toy: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "LEAST_SPEED", 10**15)
    monkeypatch.setattr(fetching, "SLOW_AFTER", -1.0)
    assert "bytes came in" in refused("get", "toy") and left() == []


def test_a_disk_that_takes_nothing_is_called_so(toy: Published) -> None:
    Path("cache").write_text("a file where a folder should be")
    assert "cannot be written" in refused("get", "toy")


def lying(content: bytes, what: int) -> bytes:
    """The archive of `content` whose list says that its one member has `what` bytes."""
    packed = bytearray(archive(content))
    at = packed.rfind(b"PK\x01\x02")
    packed[at + 24 : at + 28] = what.to_bytes(4, "little")
    return bytes(packed)


MANY = archive(b"", tuple(f"{'x' * 200}/{i}" for i in range(400)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (archive(names=("../../end2end.onnx",)), "a file of the odd name '../../end2end.onnx'"),
        (archive(names=("/etc/end2end.onnx",)), "a file of the odd name '/etc/end2end.onnx'"),
        (archive(names=("a\\end2end.onnx",)), "odd name"),
        (archive(names=("a/end2end.onnx", "../evil")), "odd name '../evil'"),
        (archive(names=("a/end2end.onnx", "b/end2end.onnx")), "holds 2 files end2end.onnx, not one"),
        (archive(names=("a/other.onnx",)), "holds 0 files end2end.onnx"),
        (archive(bytes(5_000_000)), "says that end2end.onnx has 5000000 bytes, too many"),
        (lying(CONTENT, 1000), "no sound zip archive"),
        (lying(CONTENT, len(CONTENT) + 9), "says that end2end.onnx has 307209 bytes, but it has 307200"),
        (archive()[:-30], "no sound zip archive: it has no plain end"),
        (b"PK", "no sound zip archive"),
        (b"", "no sound zip archive"),
        (MANY, "it holds too many files"),
    ],
)
def test_an_odd_archive(
    toy: Published, web: tuple[str, Answers, list[str]], monkeypatch: pytest.MonkeyPatch, content: bytes, reason: str
) -> None:
    packed = replace(toy, url=f"{web[0]}/toy.zip", member="end2end.onnx")
    monkeypatch.setattr(table, "PUBLISHED", {"toy": packed})
    web[1]["/toy.zip"] = sends(content)
    sentence = refused("get", "toy")
    assert reason in sentence and "bring the file end2end.onnx out of this archive and put it at" in sentence, sentence
    assert left() == []


# The table, and who points to it


def test_the_table_is_sound_and_names_what_auto_takes() -> None:
    for name, each in PUBLISHED.items():
        assert each.url.startswith("https://") and each.licence and 8 <= len(each.sha256) <= 64, name
        assert each.member == ("end2end.onnx" if each.url.endswith(".zip") else ""), name
        assert sum(other.path == each.path for other in PUBLISHED.values()) == 1, name
    found = importlib.util.find_spec("mmpose")  # does not import it, which takes seconds
    if found is None or found.origin is None:
        pytest.skip("mmpose is not installed")
    metafile = Path(found.origin).parent / ".mim/configs/body_2d_keypoint/rtmpose/coco/rtmpose_coco.yml"
    models = yaml.safe_load(metafile.read_text())["Models"]
    zoo = {Path(model["Config"]).stem: model["Weights"] for model in models}
    for size in "tsm":
        url = zoo[f"rtmpose-{size}_8xb256-420e_coco-256x192"]
        taken = PUBLISHED[f"rtmpose-{size}-coco"]
        assert (taken.url, taken.file) == (url, url.rpartition("/")[2])


def test_a_missing_file_is_told_with_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_params(ROOT / "params.yaml").recipes["tinypose"]
    monkeypatch.chdir(tmp_path)
    weights, detector = check_weights("tinypose", recipe, needed=True)
    assert detector.remedy.startswith("fetch it with `posebridge weights get rtmdet-nano`")
    assert "`posebridge weights ls` lists public ones" in weights.remedy
