"""A page in headless Chromium, by the browser's own protocol over two pipes: what the tests of the report ask it."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
WHY_NOT = "there is no Chromium on this machine"
PATIENCE = 60  # seconds for an answer, far more than any takes


class Browser:
    """One tab. `complaints` are messages of its console and errors of scripts."""

    def __init__(self, asked: int, answers: int):
        self._asked, self._answers = os.fdopen(asked, "wb", 0), os.fdopen(answers, "rb", 0)
        self._rest, self._number, self._session = b"", 0, ""
        self.complaints: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._asked.write(json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return dict(answer["result"])

    def open(self, page: Path, width: int, height: int = 900, dark: bool = False, scale: float = 1) -> None:
        """Show a file at this width in pixels."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale,
                 mobile=width < 600)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=page.resolve().as_uri())
        loaded = "document.readyState == 'complete' ? done(1) : addEventListener('load', () => done(1))"
        self.run(f"new Promise(done => {loaded})")

    def run(self, script: str) -> Any:
        """What an expression of JavaScript gives, as JSON."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def picture(self, path: Path, top: int = 0, height: int = 0) -> None:
        """A PNG of the page, or of `height` pixels of it from `top`."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": top, "width": size["width"], "height": height or size["height"], "scale": 1}
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._answers], [], [], PATIENCE)[0]:
                raise RuntimeError("Chromium says nothing any more.")
            part = self._answers.read(1 << 16)
            if not part:
                raise RuntimeError("Chromium has ended.")
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.complaints.append(json.dumps(event["params"]))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Chromium with an empty profile, and its end."""
    assert CHROMIUM is not None
    asked, ask = os.pipe()
    answer, answers = os.pipe()

    def pipes() -> None:  # the protocol is spoken over 3 and 4
        one, two = os.dup(asked), os.dup(answers)
        os.dup2(one, 3)
        os.dup2(two, 4)

    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
               "--disable-background-networking", "--hide-scrollbars", f"--user-data-dir={profile}",
               "--remote-debugging-pipe"]  # fmt: skip
    null = subprocess.DEVNULL
    process = subprocess.Popen(command, preexec_fn=pipes, close_fds=False, start_new_session=True, stdin=null,
                               stdout=null, stderr=null)  # fmt: skip
    os.close(asked)
    os.close(answers)
    try:
        yield Browser(ask, answer)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with its children
            process.wait()
