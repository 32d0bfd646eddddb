"""A real browser, driven over WebDriver (https://www.w3.org/TR/webdriver2/) with nothing but the standard library."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from ports import free_port

_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """A headless Chromium with a profile of its own. `dark`: the scheme it prefers."""

    def __init__(self, *, width=1280, height=900, dark=False):
        self._profile = tempfile.TemporaryDirectory(prefix="browser-")
        port = free_port()
        self._base = f"http://127.0.0.1:{port}"
        self._driver = subprocess.Popen(
            [shutil.which("chromedriver"), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        scheme = [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
        arguments = [*_ARGUMENTS, f"--user-data-dir={self._profile.name}", f"--window-size={width},{height}", *scheme]
        chrome = {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": shutil.which("chromium"), "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        end_s = time.monotonic() + 30
        while True:
            try:
                self._call("GET", "/status")
                break
            except urllib.error.URLError:
                if time.monotonic() > end_s or self._driver.poll() is not None:
                    raise
                time.sleep(0.05)
        session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": chrome}})
        self._base += f"/session/{session['sessionId']}"

    def __enter__(self):
        return self

    def __exit__(self, *what):
        try:
            self._call("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(10)
            self._profile.cleanup()

    def open(self, url):
        self._call("POST", "/url", {"url": url})

    def run(self, script):
        """What a function body returns in the page."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def until(self, script, timeout_s=10):
        """Wait until a function body returns something true, and give it."""
        end_s = time.monotonic() + timeout_s
        while not (found := self.run(script)):
            assert time.monotonic() < end_s, f"never true: {script}; {self.messages()}"
            time.sleep(0.05)
        return found

    def type(self, selector, text, *, clear=True):
        """Keys as a person presses them; `\\ue009` is Ctrl, `\\ue007` Enter."""
        element = self._call("POST", "/element", {"using": "css selector", "value": selector})[_ELEMENT]
        if clear:
            self._call("POST", f"/element/{element}/clear", {})
        self._call("POST", f"/element/{element}/value", {"text": text})

    def click(self, selector):
        element = self._call("POST", "/element", {"using": "css selector", "value": selector})[_ELEMENT]
        self._call("POST", f"/element/{element}/click", {})

    def messages(self):
        """What the browser complained of."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def screenshot(self):
        return base64.b64decode(self._call("GET", "/screenshot"))

    def _call(self, method, path, value=None):
        body = None if value is None else json.dumps(value).encode()
        request = urllib.request.Request(self._base + path, body, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(error.read().decode()) from error
