"""How many replicas: a number, or as many as the requests take between two."""

from __future__ import annotations

import re

from corten.errors import UsageError

MOST_REPLICAS = 64
_RANGE = re.compile(r"(?P<least>[0-9]{1,2})(\.\.(?P<most>[0-9]{1,2}))?")


def parse_replicas(text: str) -> tuple[int, int]:
    """`3`: always three; `1..4`: from one to four, by the requests; `0..4`: none while nobody asks. Gives both ends.

    Raises UsageError `scale.malformed`.
    """
    match = _RANGE.fullmatch(text.strip())
    least, most = (int(match["least"]), int(match["most"] or match["least"])) if match else (0, 0)
    if match is None or least > most or not 1 <= most <= MOST_REPLICAS:
        raise UsageError(
            "scale.malformed",
            f"not a number of replicas: `{text[:40]}`",
            why=f"expected 1 to {MOST_REPLICAS}, or a range up to one of them like 1..4 or 0..4",
            hint='replicas = 2, or replicas = "1..4"',
        )
    return least, most
