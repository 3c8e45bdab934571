"""A headless Chromium on a pipe: opens a page, presses keys, takes pictures, and tells what the console said.

The DevTools protocol over two file descriptors needs no further package; a message is JSON that ends in a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BINARY = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-extensions",
    "--remote-debugging-pipe",
)
# Chromium reads commands from descriptor 3 and answers on 4, whatever numbers the pipes have here.
START = "import os, sys; a, b, *c = sys.argv[1:]; os.dup2(int(a), 3); os.dup2(int(b), 4); os.execv(c[0], c)"
KEYS = {
    "ArrowRight": 39,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowDown": 40,
    "Enter": 13,
    "Escape": 27,
    "Tab": 9,
    "End": 35,
}
READY = "document.documentElement?.dataset.ready === 'yes'"  # what a study's page sets when all figures are drawn
# What a download would save, as text: the page's own functions, which live in a module, are watched at the Blob.
WATCH = """
window.saved = []; const made = URL.createObjectURL;
URL.createObjectURL = (blob) => { window.saved.push(blob); return made.call(URL, blob); };
HTMLAnchorElement.prototype.click = () => {};
"""
LIMIT_S = 240.0  # for one answer, on a machine that does other work


class Chromium:
    """One tab. `errors` collects uncaught exceptions and everything logged as an error."""

    def __init__(self, profile: Path, width: int = 1280, height: int = 900) -> None:
        assert BINARY, "there is no Chromium on this machine"
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        flags = [*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(to_browser), str(from_browser), BINARY, *flags],
            pass_fds=(to_browser, from_browser),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._number, self.errors = b"", 0, list[str]()
        self._session: str | None = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self._session = None
        self.ask("Browser.close")
        self._process.wait(60)
        os.close(self._out)
        os.close(self._in)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command and waits for its answer; events on the way are looked at for errors."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            piece = os.read(self._in, 1 << 20)
            assert piece, "Chromium ended"
            self._buffer += piece
        text, _, self._buffer = self._buffer.partition(b"\0")
        event: dict[str, Any] = json.loads(text)
        self._note(event.get("method", ""), event.get("params", {}))
        return event

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.errors.append(str([argument.get("value") for argument in params["args"]]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])

    def open(self, page: Path, ready: str = "document.readyState === 'complete'", scheme: str = "light") -> None:
        """Loads a file and waits until the expression `ready` holds."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.ask("Emulation.setEmulatedMedia", features=features)
        self.ask("Page.navigate", url=page.resolve().as_uri())
        self.wait(f"location.href !== 'about:blank' && ({ready})")

    def wait(self, expression: str) -> None:
        """Returns once the expression is true; it is asked again and again, also while the document is still empty."""
        end_s = time.monotonic() + LIMIT_S
        while not self.value(f"Boolean({expression})"):
            assert time.monotonic() < end_s, f"never came true: {expression}; console: {self.errors}"
            time.sleep(0.05)

    def value(self, expression: str) -> Any:
        """The JavaScript expression's value as JSON; a promise is waited for."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, *keys: str) -> None:
        """Presses keys one after another on what has the focus."""
        for key in keys:
            code = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
            text = {"text": "\r"} if key == "Enter" else {}
            self.ask("Input.dispatchKeyEvent", type="keyDown", **code, **text)
            self.ask("Input.dispatchKeyEvent", type="keyUp", **code)

    def first_paint_ms(self) -> float:
        """Milliseconds from the start of the navigation to the first contentful paint."""
        entry = "performance.getEntriesByName('first-contentful-paint')[0]"
        self.wait(entry)
        return float(self.value(f"{entry}.startTime"))

    def picture(self, path: Path, selector: str | None = None) -> Path:
        """Saves a PNG of the window, or of one element wherever it stands."""
        clip = {}
        if selector:
            box = f"document.querySelector({selector!r}).getBoundingClientRect()"
            x, y, width, height = self.value(f"(b => [b.x + scrollX, b.y + scrollY, b.width, b.height])({box})")
            clip = {"clip": {"x": x, "y": y, "width": width, "height": height, "scale": 1}}
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=bool(selector), **clip)["data"]
        path.write_bytes(base64.b64decode(data))
        return path
