"""Sources made of text."""

from pathlib import Path

import pytest


@pytest.fixture
def sources(tmp_path):
    """Write files into a folder and give its path: `sources({"a.py": "..."})`."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write
