"""What the terminal shows: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TextIO

from corten.core.events import Event, Phase
from corten.errors import CortenError

_STYLES = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}


@dataclass
class Output:
    """One command's way to speak. `json`: exactly one document on stdout; `quiet`: no progress."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    color: bool = False
    live: bool = False  # stderr is a terminal: a line may be rewritten
    out: TextIO = field(default_factory=lambda: sys.stdout)
    err: TextIO = field(default_factory=lambda: sys.stderr)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: dict[str, list[float]] = field(default_factory=dict)  # when each began; a step may run several times over
    _shown: str = ""

    @classmethod
    def for_words(cls, words: Sequence[str], *, env: Mapping[str, str]) -> Self:
        """Read the shared flags straight from the words, so that a usage error obeys them too."""
        terminal = sys.stderr.isatty()
        plain = bool(env.get("NO_COLOR")) or env.get("TERM") == "dumb"
        return cls(
            json="--json" in words,
            quiet="--quiet" in words or "-q" in words,
            verbose="--verbose" in words or "-v" in words,
            color=terminal and not plain,
            live=terminal and env.get("TERM") != "dumb" and not env.get("CI"),
        )

    # Results

    def result(self, text: str) -> None:
        """The command's result, for people and pipes; nothing with --json."""
        if not self.json:
            self.out.write(text + "\n")
            self.out.flush()

    def document(self, value: Mapping[str, Any]) -> None:
        """The command's result as its one JSON document; nothing without --json."""
        if self.json:
            self.out.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
            self.out.flush()

    # Progress

    def listen(self, event: Event) -> None:
        """Show an event of a running operation; called from any thread."""
        if self.quiet and event.phase is not Phase.WARNING:
            return
        with self._lock:
            if self.json:
                self._line(json.dumps({"event": _event(event)}, ensure_ascii=False, default=str))
                return
            match event.phase:
                case Phase.STARTED:
                    self._running.setdefault(event.step, []).append(time.monotonic())
                case Phase.PROGRESS:
                    if self.verbose and not self.live:
                        self._line(f"  . {event.step:9} {event.message}")
                case Phase.DONE:
                    begun_s = self._ended(event.step)
                    took = event.data.get("seconds", time.monotonic() - begun_s if begun_s is not None else None)
                    self._line(f"  {self.style('green', '✓')} {event.step:9} {event.message}{self._took(took)}")
                case Phase.NOTE:
                    if self.verbose:
                        self._line(f"  {self.style('dim', '·')} {event.step:9} {event.message}")
                case Phase.WARNING:
                    self._line(f"  {self.style('yellow', '!')} {event.step:9} {event.message}")
            self._status(event.message if event.phase is Phase.PROGRESS else "")

    def note(self, text: str) -> None:
        """A remark on stderr."""
        if not self.quiet and not self.json:
            with self._lock:
                self._line(text)

    def _ended(self, step: str) -> float | None:
        begun = self._running.get(step)
        if not begun:
            return None
        first = begun.pop(0)
        if not begun:
            del self._running[step]
        return first

    def _took(self, seconds: float | None) -> str:
        return "" if seconds is None else self.style("dim", f"  {seconds:.2f} s")

    def _line(self, text: str) -> None:
        if self._shown:
            self.err.write("\r\x1b[K")
            self._shown = ""
        self.err.write(text + "\n")
        self.err.flush()

    def _status(self, detail: str) -> None:
        """The one live line below the finished steps: what runs now."""
        if not self.live:
            return
        running = ", ".join(self._running)
        text = f"  … {running}{': ' + detail if detail and running else ''}"[:100] if running else ""
        if text != self._shown:
            self.err.write("\r\x1b[K" + self.style("dim", text))
            self.err.flush()
            self._shown = text

    # Errors

    def error(self, error: CortenError) -> None:
        """What went wrong, the most important last."""
        if self.json:
            self.document({"error": {**error.as_dict(), "exit_code": error.exit_code}})
            return
        with self._lock:
            self._line(f"{self.style('red', 'error:')} {self.style('bold', error.what)}")
            for label, text in (("where", error.where), ("why", error.why)):
                if text:
                    self._line("\n".join(_indented(label, text)))
            self._line(self.style("dim", f"  code:  {error.code}"))
            if error.hint:
                self._line(f"\n{self.style('green', 'hint:')} {error.hint}")
            if self.verbose:
                self._line("".join(traceback.format_exception(error)))

    def interrupted(self) -> None:
        """Ctrl-C: say what is left."""
        with self._lock:
            self._line(
                "interrupted; what was finished is kept, nothing is half-written. Running deployments go on running."
            )

    def bug(self, error: Exception) -> None:
        """Something nobody foresaw: say so, keep the details in a file, name it."""
        import tempfile

        report = "".join(traceback.format_exception(error))
        with tempfile.NamedTemporaryFile("w", prefix="corten-report-", suffix=".txt", delete=False) as file:
            file.write(f"corten {' '.join(sys.argv[1:])}\n\n{report}")
        if self.json:
            self.document(
                {
                    "error": {
                        "code": "bug",
                        "what": f"{type(error).__name__}: {error}",
                        "where": file.name,
                        "exit_code": 70,
                    }
                }
            )
            return
        with self._lock:
            self._line(f"{self.style('red', 'error:')} this is a bug in Corten: {type(error).__name__}: {error}")
            self._line(f"  where: report in {Path(file.name)}")
            if self.verbose:
                self._line(report)
            self._line(f"\n{self.style('green', 'hint:')} please send the report; it holds no request data")

    def style(self, name: str, text: str) -> str:
        """Text in a colour or weight, where colours are wanted."""
        return f"\x1b[{_STYLES[name]}m{text}\x1b[0m" if self.color and text else text


def _event(event: Event) -> dict[str, Any]:
    return {"step": event.step, "phase": event.phase.value, "message": event.message, **event.data}


def _indented(label: str, text: str) -> list[str]:
    first, *rest = text.splitlines() or [""]
    return [f"  {label + ':':6} {first}", *(f"         {line}" for line in rest)]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two spaces between them."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def printable(text: str) -> str:
    """Text without what moves the cursor or changes colours: labels, licences and names may be a stranger's."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def megabytes(size_bytes: int) -> str:
    """A size for people: `16.6 MB`, `4.1 kB`."""
    if size_bytes >= 100_000:
        return f"{size_bytes / 1e6:.1f} MB"
    return f"{size_bytes / 1e3:.1f} kB"
