"""Corten's zip-to-layer against an installer's work on the same wheel."""

import base64
import hashlib
import subprocess
import sys
import zipfile

from uv import find_uv_bin

from corten.builder import wheel
from corten.builder.interpreter import debian_python

SITE = "usr/local/lib/python3.11/dist-packages/"
# What an installer notes about itself, and scripts that name the interpreter they are for.
OWN = ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "uv_cache.json", ".lock")
MEMBERS = {
    "demo/__init__.py": b"x = 1\n",
    "demo/data/ü.txt": b"text",
    "demo.libs/libz.so": b"\x7fELF" + bytes(5000),
    "top_level_module.py": b"",
    "demo-1.0.data/purelib/pure.py": b"p\n",
    "demo-1.0.data/platlib/plat.py": b"q\n",
    "demo-1.0.data/data/share/demo/x": b"d",
    "demo-1.0.data/scripts/tool": b"#!python\nprint()\n",
    "demo-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
    "demo-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "demo-1.0.dist-info/entry_points.txt": b"[console_scripts]\ndemo = demo:main\n",
}


def _write(path):
    record = ""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in MEMBERS.items():
            archive.writestr(name, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(data)}\n"
        archive.writestr("demo-1.0.dist-info/RECORD", record + "demo-1.0.dist-info/RECORD,,\n")


def test_the_files_are_those_an_installer_writes(tmp_path):
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    _write(path)
    target = tmp_path / "installed"
    subprocess.run(
        [find_uv_bin(), "pip", "install", "--quiet", "--offline", "--no-deps", "--no-config", "--python", sys.executable,
         "--cache-dir", str(tmp_path / "cache"), "--target", str(target), str(path)],
        check=True, timeout=60,
    )  # fmt: skip
    theirs = {
        file.relative_to(target).as_posix(): file.read_bytes()
        for file in target.rglob("*")
        if file.is_file() and file.name not in OWN
    }

    ours = {
        entry.name.removeprefix(SITE).removeprefix("usr/local/"): entry.data
        for entry in wheel.entries(path, debian_python("3.11", "2.36"))
        if entry.name.rpartition("/")[2] not in OWN
    }

    assert set(ours) == set(theirs)
    scripts = {"bin/tool", "bin/demo"}
    assert {name: ours[name] for name in ours if name not in scripts} == {
        name: theirs[name] for name in theirs if name not in scripts
    }
