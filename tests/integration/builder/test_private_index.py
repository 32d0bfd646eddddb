"""A package index behind a password: its packages go into an image, the password goes nowhere."""

import base64
import gzip
import hashlib
import io
import os
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from corten.core.home import Home
from corten.errors import CortenError
from corten.ops.build import build

pytestmark = [pytest.mark.network]
CLIENTS = Path(os.environ.get("CORTEN_CLIENTS_PYTHON") or sys.executable).parent
USER, SECRET = "reader", "s3cr3t-of-the-index"
WHEEL = "inhouse-1.0-py3-none-any.whl"
MODEL = "import inhouse\nclass Model:\n    def predict(self, x: int) -> int:\n        return inhouse.twice(x)\n"


def wheel():
    files = {
        "inhouse.py": "def twice(x):\n    return 2 * x\n",
        "inhouse-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: inhouse\nVersion: 1.0\n",
        "inhouse-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{name},sha256={_record_hash(text)},{len(text)}" for name, text in files.items()]
    files["inhouse-1.0.dist-info/RECORD"] = "\n".join([*record, "inhouse-1.0.dist-info/RECORD,,", ""])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return stream.getvalue()


def _record_hash(text):
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def index():
    """A simple index (PEP 503) of one package, which answers 401 without the password."""
    data = wheel()
    expected = "Basic " + base64.b64encode(f"{USER}:{SECRET}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.headers.get("Authorization") != expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="index"')
                return self._end(b"")
            if self.path == "/simple/inhouse/":
                link = f'<a href="/files/{WHEEL}#sha256={hashlib.sha256(data).hexdigest()}">{WHEEL}</a>'
                return self._end(link.encode(), 200)
            if self.path == f"/files/{WHEEL}":
                return self._end(data, 200)
            return self._end(b"", 404)

        def _end(self, body, status=0):
            if status:
                self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the standard library calls it so

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "model.py").write_text(MODEL)
    (folder / "corten.toml").write_text('name = "private"\nsource = "model.py:Model"\n')
    return folder


def ways(index, folder, home):
    """The places a password may be in: settings of the environment by way."""
    (folder / "requirements.txt").write_text("inhouse\n")
    plain = f"http://{index}/simple"
    yield "in the URL", {"UV_INDEX": f"http://{USER}:{SECRET}@{index}/simple"}
    yield "by name", {"UV_INDEX": f"inner={plain}", "UV_INDEX_INNER_USERNAME": USER, "UV_INDEX_INNER_PASSWORD": SECRET}
    home.joinpath(".netrc").write_text(f"machine {index.partition(':')[0]} login {USER} password {SECRET}\n")
    yield "in netrc", {"UV_INDEX": plain, "HOME": str(home), "NETRC": str(home / ".netrc")}
    (folder / "requirements.txt").write_text(f"--extra-index-url http://{USER}:${{TOKEN}}@{index}/simple\ninhouse\n")
    yield "in requirements.txt", {"TOKEN": SECRET}


def environment(**more):
    return {**os.environ, **more}


def holding(folder, *secrets):
    """Files below a folder that hold one of the texts, compressed layers looked into."""
    from backports import zstd

    found = []
    for path in folder.rglob("*"):
        if not path.is_file() or path.is_symlink():
            continue
        data = path.read_bytes()
        if data.startswith(b"\x28\xb5\x2f\xfd"):
            data += zstd.decompress(data)
        elif data.startswith(b"\x1f\x8b"):
            data += gzip.decompress(data)
        found += [path for secret in secrets if secret.encode() in data]
    return found


def test_its_packages_are_locked_and_fetched_and_its_password_is_nowhere(index, project, tmp_path):
    told = []
    encoded = base64.b64encode(f"{USER}:{SECRET}".encode()).decode()
    for number, (way, env) in enumerate(ways(index, project, tmp_path)):
        place = tmp_path / f"home{number}"
        (project / "corten.lock").unlink(missing_ok=True)
        built = build(project, home=Home(place), env=environment(**env), listen=told.append)
        assert "inhouse" in (project / "corten.lock").read_text(), way
        assert SECRET not in str(built.as_dict()), way
        # The index's own cache of uv is not the image's; ours, the store and the lock are.
        assert not holding(place / "store", SECRET, encoded), way
        assert not holding(place / "cache", SECRET, encoded), way
        assert SECRET not in (project / "corten.lock").read_text(), way
    assert not [event for event in told if SECRET in str(event)]
    # What is in the image: requirements.txt is none of its code.
    assert {path.name for path in project.iterdir()} == {"model.py", "corten.toml", "requirements.txt", "corten.lock"}


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def keyring(tmp_path, monkeypatch):
    """A keyring of this test's own, in a file, and the real program in front of it; keeps a password."""
    monkeypatch.setenv("PATH", f"{CLIENTS}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyrings.alt.file.PlaintextKeyring")

    def keep(service):
        subprocess.run([CLIENTS / "keyring", "set", service, USER], input=SECRET, text=True, check=True)

    return keep


@pytest.mark.clients
@pytest.mark.parametrize("way", ["user in the URL, kept by host", "user by name, kept by address"])
def test_a_keyring_serves_the_lock_and_the_download(way, keyring, index, project, home):
    address = f"http://{index}/simple"
    keyring(index if "host" in way else address)
    (project / "requirements.txt").write_text("inhouse\n")
    named = {"UV_INDEX": f"inner={address}", "UV_INDEX_INNER_USERNAME": USER}
    env = named if "by name" in way else {"UV_INDEX": f"http://{USER}@{index}/simple"}
    told = []
    env = environment(UV_KEYRING_PROVIDER="subprocess", **env)
    built = build(project, home=home, env=env, listen=told.append)
    encoded = base64.b64encode(f"{USER}:{SECRET}".encode()).decode()
    assert any(wheel.name == "inhouse" for wheel in built.plan.lock.wheels)
    assert SECRET not in f"{built.as_dict()} {told} {(project / 'corten.lock').read_text()}"
    assert not holding(home.root, SECRET, encoded)


@pytest.mark.clients
def test_a_keyring_without_the_password_is_an_error_that_says_so(keyring, index, project, home):
    keyring("another.example")
    (project / "requirements.txt").write_text("inhouse\n")
    env = environment(UV_KEYRING_PROVIDER="subprocess", UV_INDEX=f"http://{USER}@{index}/simple")
    with pytest.raises(CortenError) as refused:
        build(project, home=home, env=env)
    assert (refused.value.code, refused.value.where) == ("build.index_refused", f"http://{index}/simple")


@pytest.mark.parametrize("dry", [True, False])
def test_a_refused_password_is_not_told_on(dry, index, project, tmp_path):
    (project / "requirements.txt").write_text("inhouse\n")
    wrong = "wr0ng-but-still-secret"
    told = []
    env = environment(UV_INDEX=f"http://{USER}:{wrong}@{index}/simple")
    with pytest.raises(CortenError) as refused:
        build(project, home=Home(tmp_path / "home"), env=env, listen=told.append, dry_run=dry)
    assert wrong not in f"{refused.value.as_dict()} {refused.value} {told}"
    assert (refused.value.code, refused.value.where) == ("build.index_refused", f"http://{index}/simple")
    assert not holding(tmp_path / "home", wrong)


def test_the_password_in_a_requirement_of_its_own_is_not_told_on(index, project, tmp_path):
    line = f"inhouse @ http://{USER}:{SECRET}@{index}/files/{WHEEL}"
    told = []
    built = build(project, home=Home(tmp_path / "home"), env=environment(), requirements=[line], listen=told.append)
    assert any(wheel.name == "inhouse" for wheel in built.plan.lock.wheels)
    assert SECRET not in f"{built.as_dict()} {told} {(project / 'corten.lock').read_text()}"
    assert not holding(tmp_path / "home" / "store", SECRET)
