"""A project's uv.lock decides the releases its image gets; pins of a `-c` file do the same for a requirements.txt."""

import os
import subprocess

import pytest
from uv import find_uv_bin

from corten.builder import pylock
from corten.builder.interpreter import debian_python
from corten.core.home import Home
from corten.core.platform import Platform
from corten.errors import CortenError, PolicyError, UsageError
from corten.ops.build import build

pytestmark = [pytest.mark.network]
PROJECT = '[project]\nname = "own"\nversion = "0.1"\nrequires-python = ">=3.11"\ndependencies = ["httpx2{}"]\n'


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "own"
    place.mkdir()
    (place / "model.py").write_text("import httpx2\nclass Model:\n    def predict(self, x: int) -> int: ...\n")
    return place


def locked(folder, tmp_path):
    built = build(folder, home=Home(tmp_path / "home"), dry_run=True)
    return {wheel.name: wheel.version for wheel in built.plan.lock.wheels}, built


def test_releases_are_those_of_the_projects_lock_and_not_the_newest(folder, tmp_path):
    (folder / "pyproject.toml").write_text(PROJECT.replace("{}", '", "idna==3.7'))
    environment = {"UV_SYSTEM_CERTS": "true", **os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    subprocess.run([find_uv_bin(), "lock", "--quiet"], cwd=folder, env=environment, check=True, timeout=120)
    # What the project asks for itself is looser than what it was locked with.
    (folder / "pyproject.toml").write_text(PROJECT.replace("{}", ""))
    releases, built = locked(folder, tmp_path)
    assert releases["idna"] == "3.7"
    assert any("pinned by uv.lock" in note for note in built.plan.notes)
    (folder / "uv.lock").unlink()
    assert locked(folder, tmp_path)[0]["idna"] != "3.7"


def test_a_file_that_no_hash_of_the_requirements_allows_is_refused(folder, tmp_path):
    (folder / "requirements.txt").write_text("idna==3.7\n")
    _, built = locked(folder, tmp_path)
    digest = next(wheel.digest.hex for wheel in built.plan.lock.wheels if wheel.name == "idna")

    (folder / "requirements.txt").write_text(f"idna==3.7 --hash=sha256:{'0' * 64} --hash=sha256:{digest}\n")
    assert locked(folder, tmp_path)[0]["idna"] == "3.7"

    (folder / "requirements.txt").write_text(f"idna==3.7 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(PolicyError) as caught:
        locked(folder, tmp_path)
    assert (caught.value.code, digest in caught.value.why) == ("build.hash_undeclared", True)


def test_a_constraint_holds_for_what_is_needed_and_brings_nothing_along(folder, tmp_path):
    (folder / "requirements.txt").write_text("httpx2\n-c pins.txt\n")
    (folder / "pins.txt").write_text("idna==3.7\nrich==13.0.0\n")
    releases, _ = locked(folder, tmp_path)
    assert releases["idna"] == "3.7"
    assert "rich" not in releases


def test_cuda_is_locked_where_it_is_asked_for_and_refused_where_it_is_not(folder, tmp_path):
    (folder / "requirements.txt").write_text("torch==2.9.1\n")
    settings = folder / "corten.toml"
    settings.write_text('source = "model.py:Model"\n')
    index = {**os.environ, "UV_DEFAULT_INDEX": "https://pypi.org/simple"}
    with pytest.raises(UsageError) as caught:
        build(folder, home=Home(tmp_path / "home"), env=index, dry_run=True)
    assert (caught.value.code, "gpu = true" in caught.value.hint) == ("build.cuda_torch", True)

    settings.write_text('source = "model.py:Model"\ngpu = true\n')
    built = build(folder, home=Home(tmp_path / "home"), env=index, dry_run=True)
    assert {"torch", "nvidia-cuda-runtime-cu12"} <= {wheel.name for wheel in built.plan.lock.wheels}
    assert (built.plan.cuda, built.plan.download_bytes > 3e9) == (True, True)
    assert not list((tmp_path / "home").rglob("torch*.whl"))  # gigabytes: locked, not fetched


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is made by mounting one")
def test_a_disk_that_is_full_while_uv_locks_is_told_as_that(tmp_path):
    size = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(size, capture_output=True, timeout=10).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(CortenError) as caught:
            pylock.resolve(
                ["idna", "numpy"],
                python=debian_python("3.11", "2.36"),
                platform=Platform("amd64"),
                cache=tmp_path,
                env=os.environ,
            )
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True, timeout=10)
    assert (caught.value.code, caught.value.where) == ("store.disk_full", str(tmp_path / "uv"))
