"""Bad input of every kind: a clear error, the right exit code, nothing half-written, and the next run succeeds."""

import http.server
import json
import os
import pickle
import shutil
import socket
import subprocess
import threading
import urllib.request

import pytest
from ports import free_port
from stories import CORTEN, ask

pytestmark = [pytest.mark.examples]


def refused(corten, *words, code, exit_code, **options):
    """Run, expect that error code and exit code; gives the error, which must say what, why and how to mend it."""
    error = corten.run(*words, "--json", code=exit_code, **options).json["error"]
    assert error["code"] == code, error
    assert error["what"]
    assert error.get("hint"), error
    return error


def no_images(corten):
    index = corten.home / "store" / "index.json"
    return not index.exists() or not json.loads(index.read_text())["manifests"]


@pytest.fixture
def nowhere():
    """Mirror and index on a port nobody listens on."""
    address = f"http://127.0.0.1:{free_port()}"
    return {"CORTEN_DEBIAN_MIRROR": address, "UV_DEFAULT_INDEX": f"{address}/simple"}


def test_a_missing_model_names_its_neighbour(cold, folder, digits_model):
    shutil.copy(digits_model["paths"][0], folder / "digits.joblib")
    error = refused(cold, "build", folder / "digit.joblib", code="source.missing", exit_code=3)
    assert "digits.joblib" in error["hint"]


def test_a_corrupt_model_says_where_it_breaks(cold, folder, digits_model):
    whole = digits_model["paths"][0].read_bytes()
    (folder / "cut.joblib").write_bytes(whole[: len(whole) // 2])
    error = refused(cold, "build", folder / "cut.joblib", code="adapter.corrupt_model", exit_code=2)
    assert "cut.joblib" in json.dumps(error)
    assert no_images(cold)


def test_a_file_no_adapter_knows_says_what_was_looked_for(cold, folder):
    (folder / "model.bin").write_bytes(bytes(range(256)) * 10)
    error = refused(cold, "build", folder / "model.bin", code="build.unknown_model", exit_code=2)
    assert "onnx" in json.dumps(error).lower()


def test_a_pickle_that_would_run_a_command_is_never_executed(cold, folder):
    marker = folder / "executed"

    class Gadget:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    (folder / "model.pkl").write_bytes(pickle.dumps(Gadget()))
    cold.run("build", folder / "model.pkl", code=None)
    assert not marker.exists()


@pytest.mark.network
def test_an_unresolvable_requirement_says_why(corten, digits_model):
    error = refused(
        corten, "build", digits_model["paths"][0], "-r", "numpy==0.0.1", code="build.lock_failed", exit_code=2
    )
    assert "numpy" in error["why"]


@pytest.mark.network
def test_a_wheel_that_is_not_the_locked_one_is_refused(corten, folder, digits_model):
    shutil.copy(digits_model["paths"][0], folder / "digits.joblib")
    (folder / "corten.toml").write_text('name = "locked"\nsource = "digits.joblib"\n')
    corten.run("build", folder)
    lock = (folder / "corten.lock").read_text()
    joblib = next(line for line in lock.splitlines() if ("joblib-" in line and "sha256" in line) or "joblib-" in line)
    position = lock.index(joblib)
    digest = next(word for word in lock[position:].replace('"', " ").replace(":", " ").split() if _is_digest(word))
    (folder / "corten.lock").write_text(lock.replace(digest, digest[::-1]))
    before = (corten.home / "store" / "index.json").read_bytes()
    refused(corten, "build", folder, code="build.hash_mismatch", exit_code=7)
    assert (corten.home / "store" / "index.json").read_bytes() == before
    (folder / "corten.lock").write_text(lock)
    corten.run("build", folder, "--locked")


def _is_digest(word):
    return len(word) == 64 and all(letter in "0123456789abcdef" for letter in word)


def test_no_network_says_which_service_and_how_to_go_without(cold, digits_model, nowhere):
    error = cold.run("build", digits_model["paths"][0], "--json", code=4, env=nowhere).json["error"]
    assert error["code"] in ("debian.unreachable", "build.index_unreachable")
    assert error["hint"]
    assert no_images(cold)


@pytest.mark.network
@pytest.mark.parametrize("fault", ["tampered", "unsigned"])
def test_a_debian_index_that_is_not_signed_by_debian_is_refused(cold, digits_model, fault):
    with _mirror(fault) as mirror:
        error = cold.run(
            "build", digits_model["paths"][0], "--json", code=7, env={"CORTEN_DEBIAN_MIRROR": mirror}
        ).json["error"]
    assert error["code"] == ("debian.bad_signature" if fault == "tampered" else "debian.unsigned")
    assert "InRelease" in json.dumps(error)
    assert no_images(cold)


class _mirror:
    """Debian's mirror with its InRelease changed on the way, on loopback."""

    def __init__(self, fault):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                with urllib.request.urlopen("https://deb.debian.org" + self.path, timeout=60) as answer:
                    data = answer.read()
                if self.path.endswith("/InRelease"):
                    data = (
                        data.replace(b"Origin: Debian", b"Origin: Nobody") if fault == "tampered" else _cleartext(data)
                    )
                self.send_response(200)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def _cleartext(signed):
    body = signed.split(b"\n\n", 1)[1]
    return body.split(b"-----BEGIN PGP SIGNATURE-----", 1)[0]


@pytest.mark.network
@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is made by mounting one")
def test_a_full_disk_leaves_a_store_that_the_next_build_can_use(cold, digits_model):
    size = ["mount", "-t", "tmpfs", "-o", "size=60m,mode=0755", "tmpfs", str(cold.home)]
    if subprocess.run(size, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        error = cold.run("build", digits_model["paths"][0], "--json", code=1).json["error"]
        assert "disk_full" in error["code"]
        assert error["hint"]
        assert no_images(cold)
        subprocess.run(["mount", "-o", "remount,size=2g", str(cold.home)], check=True)
        assert cold.run("build", digits_model["paths"][0]).out.startswith("digits@sha256:")
    finally:
        subprocess.run(["umount", "-l", str(cold.home)], check=True)


@pytest.mark.envoy
@pytest.mark.network
def test_a_taken_port_is_named_and_nothing_is_left_running(cold, digits_model):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = refused(cold, "up", digits_model["paths"][0], "--port", port, code="gateway.port_taken", exit_code=5)
        assert str(port) in json.dumps(error)
        assert "--port" in error["hint"]


@pytest.mark.envoy
@pytest.mark.network
def test_a_model_that_exits_while_loading_is_reported_with_its_last_words(corten, port, folder):
    (folder / "gone.py").write_text(
        "import sys\n\n"
        "class Gone:\n"
        "    def __init__(self) -> None:\n"
        "        sys.exit('the licence server said no')\n\n"
        "    def predict(self, text: str) -> str:\n"
        "        return text\n"
    )
    error = corten.run("up", f"{folder / 'gone.py'}:Gone", "--port", port, "--json", code=6).json["error"]
    assert "the licence server said no" in json.dumps(error)


@pytest.mark.envoy
@pytest.mark.network
def test_requests_the_model_cannot_take_are_answered_with_the_field_that_is_wrong(corten, port, digits_model):
    url = corten.up(digits_model["paths"][0], "--port", port)["url"]
    row = digits_model["rows"][0].tolist()
    cases = [
        (b'{"inputs": [[1, 2', 400, ""),
        (b"\xff\xfe", 400, ""),
        (b"", 400, ""),
        ({"inputs": [row[:-1]]}, 422, "inputs[0]"),
        ({"inputs": [row, [*row[:5], "seven", *row[6:]]]}, 422, "inputs[1][5]"),
        ({"inputs": "nothing"}, 422, "inputs"),
        ({"wrong": [row]}, 422, "wrong"),
        (b'{"inputs": [[' + b"NaN" + b"]]}", 400, ""),
        (b"[" * 100_000, 422, ""),
    ]
    for body, status, path in cases:
        seen, answer = ask(url, body)
        assert seen == status, (body[:60] if isinstance(body, bytes) else body, seen, answer)
        assert answer["error"]["code"]
        assert path in json.dumps(answer["error"]), (path, answer)
    status, answer = ask(url, {"inputs": [row]})
    assert status == 200
    assert answer["outputs"] == digits_model["models"][0].predict([row]).tolist()


@pytest.mark.envoy
@pytest.mark.network
def test_a_body_over_the_limit_is_refused_and_the_service_goes_on(corten, port, digits_model):
    url = corten.up(digits_model["paths"][0], "--port", port)["url"]
    try:
        status, answer = ask(url, b'{"inputs": "' + b"x" * (40 << 20) + b'"}')
    except (BrokenPipeError, ConnectionResetError, urllib.error.URLError):
        # The gateway may hang up on a sender that does not stop.
        status, answer = 413, {"error": {"code": "hung up"}}
    assert status == 413
    assert answer["error"]["code"]
    assert ask(url, {"inputs": digits_model["rows"].tolist()})[0] == 200


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("predict", "nobody", "-i", "[[1]]"), 3),
        (("logs", "nobody"), 3),
        (("stop", "nobody"), 3),
        (("rollback", "nobody"), 3),
        (("deploy", "nobody"), 3),
        (("status", "nobody"), 3),
    ],
)
def test_a_name_nobody_has_is_not_found(corten, words, code):
    error = corten.run(*words, "--json", code=code).json["error"]
    assert "nobody" in error["what"]


@pytest.mark.parametrize("name", ["../x", "a b", "UPPER", "-x", "x" * 60, "a;rm", "a\nb"])
def test_a_name_that_could_be_a_path_or_a_flag_is_refused_at_the_edge(corten, digits_model, name):
    error = refused(corten, "build", digits_model["paths"][0], f"--name={name}", code="name.malformed", exit_code=2)
    assert "a-z" in error["why"]


def test_an_unknown_key_in_the_project_file_is_answered_with_the_nearest_one(cold, folder, digits_model):
    shutil.copy(digits_model["paths"][0], folder / "digits.joblib")
    (folder / "corten.toml").write_text('name = "x"\nsource = "digits.joblib"\nreplica = 2\n')
    error = cold.run("build", folder, "--json", code=2).json["error"]
    assert "replicas" in error["hint"]


@pytest.mark.network
def test_builds_that_run_at_once_in_one_store_all_succeed(corten, folder):
    """Six builds of four models, two of them twice: what they share they make at the same time."""
    sources = []
    for number in range(4):
        path = folder / f"m{number}.py"
        path.write_text(f"class Model:\n    def predict(self, text: str) -> str:\n        return text + '{number}'\n")
        sources.append(f"{path}:Model")
    shutil.rmtree(corten.home / "cache" / "layers", ignore_errors=True)
    environment = {**os.environ, "CORTEN_HOME": str(corten.home)}
    words = [(source, f"at-once-{number}") for number, source in enumerate(sources)]
    running = [
        subprocess.Popen(
            [str(CORTEN), "build", source, "--name", name, "--json"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for source, name in [*words, *words[:2]]
    ]  # fmt: skip
    done = [(process.communicate(timeout=200), process.returncode) for process in running]
    assert [code for _, code in done] == [0] * 6, [told[0][-500:] for told, _ in done]
    digests = {}
    for told, _ in done:
        built = json.loads(told[0])
        assert digests.setdefault(built["name"], built["digest"]) == built["digest"]
    corten.run("keygen", folder / "key")
    for name, digest in digests.items():
        corten.run("sign", name, "--key", folder / "key.key")
        assert corten.run("verify", name, "--key", folder / "key.pub").out.strip() == digest  # every blob is whole
