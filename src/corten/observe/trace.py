"""W3C trace context (https://www.w3.org/TR/trace-context/): enough of it to find a request's log lines again."""

from __future__ import annotations

import re

# Compiled, and kept, by `re` when it is first needed.
_TRACEPARENT = r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"


def trace_fields(traceparent: str) -> dict[str, str]:
    """`trace_id` and `span_id` (the caller's) of a traceparent header; empty when it is not valid."""
    found = re.fullmatch(_TRACEPARENT, traceparent)
    if not found:
        return {}
    version, trace_id, span_id, _, rest = found.groups()
    # 3.2.2: version ff is forbidden, version 00 has nothing behind the flags, and all-zero ids are invalid.
    if version == "ff" or (version == "00" and rest) or not trace_id.strip("0") or not span_id.strip("0"):
        return {}
    return {"trace_id": trace_id, "span_id": span_id}
