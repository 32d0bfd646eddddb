"""What the terminal shows: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TextIO

from corten.cli.progress import Board
from corten.core.events import Event, Phase
from corten.errors import CortenError

# Live lines change this often at most; where lines cannot change, one is written this often.
_REDRAW_S = 0.08
_REPEAT_S = 5.0
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
    _board: Board = field(default_factory=Board)
    _shown: list[str] = field(default_factory=list)
    _drawn_s: float = 0.0

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
            now_s = time.monotonic()
            match event.phase:
                case Phase.STARTED:
                    self._board.started(event.step, event.message, now_s)
                case Phase.PROGRESS:
                    self._progress(event, now_s)
                    return
                case Phase.DONE:
                    began_s = self._board.done(event.step, event.message)
                    took_s = event.data.get("seconds", now_s - began_s if began_s is not None else None)
                    self._line(f"  {self.style('green', '✓')} {event.step:9} {event.message}{self._took(took_s)}")
                case Phase.NOTE:
                    if self.verbose:
                        self._line(f"  {self.style('dim', '·')} {event.step:9} {event.message}")
                case Phase.WARNING:
                    self._line(f"  {self.style('yellow', '!')} {event.step:9} {event.message}")
            self._draw(now_s)

    def _progress(self, event: Event, now_s: float) -> None:
        figures = (event.data["bytes"], event.data["total_bytes"]) if "total_bytes" in event.data else None
        self._board.progress(event.step, event.message, figures, now_s)
        if self.live:
            if now_s - self._drawn_s >= _REDRAW_S:
                self._draw(now_s)
        elif text := self._board.due(event.step, 0.0 if self.verbose else _REPEAT_S, now_s):
            self._line(text)

    def note(self, text: str) -> None:
        """A remark on stderr."""
        if not self.quiet and not self.json:
            with self._lock:
                self._line(text)

    def _took(self, seconds: float | None) -> str:
        return "" if seconds is None else self.style("dim", f"  {seconds:.2f} s")

    def _line(self, text: str) -> None:
        self.err.write(self._erased() + text + "\n")
        self.err.flush()

    def _draw(self, now_s: float) -> None:
        """The live lines below the finished steps: what runs now, one a step."""
        if not self.live:
            return
        self._drawn_s = now_s
        columns, rows = self._size()
        lines = self._board.lines(columns - 3)  # room for the ^C that the terminal may add
        if len(lines) >= rows:  # what has left the screen could not be taken away again
            lines = [*lines[: rows - 2], f"  … {len(lines) - rows + 2} more"]
        if lines != self._shown:
            erased = self._erased()
            self.err.write(erased + "\n".join(self.style("dim", line) for line in lines))
            self.err.flush()
            self._shown = lines

    def _erased(self) -> str:
        """What takes the live lines away: from the last one up to the first, which the cursor is then at."""
        count, self._shown = len(self._shown), []
        return "\r\x1b[K" + "\x1b[1A\x1b[K" * (count - 1) if count else ""

    def _size(self) -> tuple[int, int]:
        # Asked each time: a window may be made smaller, and a line that wraps could not be taken away again.
        try:
            size = os.get_terminal_size(self.err.fileno())
        except (OSError, ValueError):
            return 80, 24
        return size.columns or 80, size.lines or 24

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
