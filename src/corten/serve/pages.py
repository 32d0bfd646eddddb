"""Pages for browsers: a playground at `/`, a reference at `/docs`, both drawn from `/openapi.json` by our own script.

Nothing is fetched from elsewhere and nothing inline is run: what a model answers cannot become code in them.
"""

from __future__ import annotations

from pathlib import Path

from corten.serve.dialect import Desk, Dialect, Route

_FOLDER = Path(__file__).with_name("static")
_HEADERS = (
    (
        "Content-Security-Policy",
        (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    # Another version of Corten behind the same address has other pages.
    ("Cache-Control", "no-cache"),
    ("Vary", "Accept"),
)
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


def dialect(desk: Desk) -> Dialect:
    """The dialect of this module."""
    return Pages(desk)


class Pages(Dialect):
    """The pages and what they are made with."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.routes = {
            "/": {"GET": _file("playground.html")},
            "/docs": {"GET": _file("reference.html")},
            "/assets/corten.js": {"GET": _file("corten.js")},
            "/assets/corten.css": {"GET": _file("corten.css")},
        }


def _file(name: str) -> Route:
    path = _FOLDER / name
    body, kind = path.read_bytes(), f"{_TYPES[path.suffix]}; charset=utf-8"
    return lambda request: request.respond(200, body, kind, _HEADERS)
