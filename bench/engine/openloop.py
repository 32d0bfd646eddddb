"""The load generator in C (bench/serve/openloop.c), for rates at which one in Python would be the slower half."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path

from place import Place

SOURCE = Path(__file__).parents[1] / "serve" / "openloop.c"
CONNECTIONS = 64


def build(folder: Path) -> Path:
    program = folder / "openloop"
    subprocess.run(["cc", "-O2", "-Wall", "-o", str(program), str(SOURCE), "-lm"], check=True)
    return program


def load(program: Path, place: Place, rate_per_s: float, seconds: float) -> dict:
    """Open loop at this rate; the generator's own count. What failed is on its stderr."""
    body = b'{"n": 1}'
    head = f"POST /{place.name}/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    requests = program.with_name("requests")
    requests.write_bytes(struct.pack("<I", len(request)) + request)
    words = [str(program), str(place.port), f"{rate_per_s:.0f}", f"{seconds:.0f}", str(CONNECTIONS), str(requests)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, timeout=seconds + 60)
    return json.loads(done.stdout)
