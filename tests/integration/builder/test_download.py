"""Downloads over real sockets: every way a server can let one down."""

import hashlib
import http.server
import threading
from contextlib import contextmanager

import pytest

from corten.builder.download import Downloader
from corten.builder.http_client import Patience
from corten.builder.remote import Access, Download
from corten.core.digest import Digest
from corten.errors import CortenError, PolicyError, RemoteError, UsageError

IMPATIENT = Patience(idle_s=5, total_s=20, pause_s=0.001)
DATA = hashlib.shake_128(b"wheel").digest(600_000)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.seen.append((self.path, self.headers.get("Authorization", "")))
        server.proxy_passwords.append(self.headers.get("Proxy-Authorization", ""))
        answer = server.answers.pop(0) if server.answers else "good"
        match answer:
            case "good":
                self._send(200, DATA)
            case "cut":
                self.send_response(200)
                self.send_header("Content-Length", str(len(DATA)))
                self.end_headers()
                self.wfile.write(DATA[:1000])
                self.close_connection = True
            case "endless":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(DATA[:1000])
                self.close_connection = True
            case "evil":
                self._send(200, b"evil" * 150_000)
            case "redirect":
                self.send_response(302)
                self.send_header("Location", getattr(server, "location", "/elsewhere"))
                self.send_header("Content-Length", "0")
                self.end_headers()
            case int(status):
                self._send(status, b"no")

    def _send(self, status, data):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def setup(self):
        self.server.connections += 1
        super().setup()

    def log_message(self, *args):
        pass


@contextmanager
def _served(*answers):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.answers, server.seen, server.connections, server.proxy_passwords = list(answers), [], 0, []
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}/demo-1-py3-none-any.whl"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def _get(url, path, *, size_bytes=600_000, **more):
    with Downloader(more.pop("access", Access()), patience=IMPATIENT, **more) as downloader:
        return downloader.submit(Download(url, Digest.of(DATA), size_bytes, path)).result(60)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wheels" / "demo-1-py3-none-any.whl"


def test_a_file_arrives_whole(path):
    with _served() as (_, url):
        assert _get(url, path) == path
    assert path.read_bytes() == DATA


def test_what_is_there_is_not_asked_for(path):
    with _served() as (server, url):
        _get(url, path)
        _get(url, path)
        _get(url, path, offline=True)
        assert len(server.seen) == 1


def test_a_damaged_file_is_fetched_again(path):
    with _served() as (_, url):
        _get(url, path)
        path.write_bytes(DATA[:-1] + b"?")
        _get(url, path)
    assert path.read_bytes() == DATA


def test_offline_opens_no_connection(path):
    with _served() as (server, url), pytest.raises(UsageError) as caught:
        _get(url, path, offline=True)
    assert caught.value.code == "build.offline"
    assert server.connections == 0


@pytest.mark.parametrize(
    "answers", [("cut",), ("endless", "cut"), (500,), (503, 429), ("redirect",), ("redirect", "cut")]
)
def test_a_bad_moment_passes(path, answers):
    with _served(*answers) as (_, url):
        _get(url, path)
    assert path.read_bytes() == DATA


def test_another_file_than_the_locked_one_is_never_kept(path):
    with _served("evil") as (_, url), pytest.raises(PolicyError) as caught:
        _get(url, path)
    assert caught.value.code == "build.hash_mismatch"
    assert not [left for left in path.parent.rglob("*") if left.is_file()]


@pytest.mark.parametrize("answers", [(404,), (403,), ("redirect",) * 9, ("cut",) * 9, (500,) * 9])
def test_giving_up_is_said_and_leaves_nothing(path, answers):
    with _served(*answers) as (_, url), pytest.raises(RemoteError) as caught:
        _get(url, path)
    assert caught.value.code == "build.download_failed"
    assert "demo-1-py3-none-any.whl" in caught.value.what
    assert not [left for left in path.parent.rglob("*") if left.is_file()]


def test_nobody_listening_is_a_remote_error(path):
    with _served() as (_, url):
        pass
    with pytest.raises(RemoteError):
        _get(url, path)


def test_an_index_without_sizes_is_no_problem(path):
    with _served() as (_, url):
        _get(url, path, size_bytes=0)
    assert path.read_bytes() == DATA


def test_many_files_share_a_few_connections(tmp_path):
    with _served() as (server, url), Downloader(Access(), patience=IMPATIENT) as downloader:
        pieces = [
            downloader.submit(Download(f"{url}?{number}", Digest(f"{number:064x}"), 0, tmp_path / str(number)))
            for number in range(12)
        ]
        for piece in pieces:
            with pytest.raises(CortenError):
                piece.result(60)
        assert len(server.seen) == 12
        assert server.connections <= 4


def test_credentials_of_the_index_are_sent_and_never_shown(path):
    with _served("evil") as (server, url):
        host = url.partition("://")[2].partition("/")[0]
        access = Access.from_env({"UV_DEFAULT_INDEX": f"http://me:s3cret@{host}/simple"})
        with pytest.raises(PolicyError) as caught:
            _get(url.replace("http://", "http://you:pa55@"), path, access=access)
        server.answers.append("evil")
        with pytest.raises(PolicyError):
            _get(url, path, access=access)
    assert server.seen[0][1].startswith("Basic ")
    assert server.seen[1][1] == "Basic bWU6czNjcmV0"
    assert "pa55" not in str(caught.value.as_dict())


def test_a_file_url_is_copied(path, tmp_path):
    (tmp_path / "own wheel.whl").write_bytes(DATA)
    _get((tmp_path / "own wheel.whl").as_uri(), path)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x.whl", "file:///nowhere/x.whl", "http:///x.whl"])
def test_urls_that_lead_nowhere_are_refused(path, url):
    with pytest.raises(RemoteError):
        _get(url, path)


def test_proxies_are_used_unless_the_host_is_exempt(path):
    with _served() as (server, url):
        proxy = url.rpartition("/")[0]
        _get("http://index.example/demo.whl", path, access=Access(proxies={"http": proxy}))
        assert server.seen == [("http://index.example/demo.whl", "")]
        path.unlink()
        _get(url, path, access=Access(proxies={"http": "http://127.0.0.1:9", "no": "127.0.0.1"}))
    assert path.read_bytes() == DATA


def test_a_proxys_password_goes_to_the_proxy_and_to_nobody_else(path):
    with _served() as (server, url):
        proxy = url.rpartition("/")[0].replace("http://", "http://me:s3cret@")
        _get("http://index.example/demo.whl", path, access=Access(proxies={"http": proxy}))
        path.unlink()
        _get(url, path, access=Access(proxies={"http": proxy, "no": "127.0.0.1"}))
    assert server.proxy_passwords == ["Basic bWU6czNjcmV0", ""]


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "https://me:s3cret@127.0.0.1:1"])
def test_a_proxy_of_another_kind_is_refused_without_its_password(path, proxy):
    with pytest.raises(RemoteError) as caught:
        _get("http://index.example/demo.whl", path, access=Access(proxies={"http": proxy}))
    assert (caught.value.code, "expected http://host:port" in caught.value.why) == ("build.download_failed", True)
    assert "s3cret" not in str(caught.value.as_dict())


def test_a_redirect_never_takes_credentials_along_to_another_host(path):
    with _served() as (there, url), _served("redirect") as (here, first):
        here.location = url
        host = first.partition("://")[2].partition("/")[0]
        access = Access.from_env({"UV_DEFAULT_INDEX": f"http://me:s3cret@{host}/simple"})
        _get(first, path, access=access)
    assert (here.seen[0][1], there.seen[0][1]) == ("Basic bWU6czNjcmV0", "")
