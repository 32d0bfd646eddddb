"""Images built on another image: made by Podman of Debian's packages, in a real registry, run by Corten and by Podman."""

import base64
import contextlib
import json
import shutil
import subprocess

import pytest
from foreign_base import (
    RPM_DATABASE,
    debian_tree,
    import_by_podman,
    in_lib64,
    in_usr_local,
    installed,
    push_by_podman,
    rpm_database,
)
from ports import free_port
from registries import DockerRegistry
from stories import ask, get, until

from corten.builder import artifact
from corten.builder.artifact import LOCK_TYPE, SBOM_TYPE, STATEMENT_TYPE
from corten.builder.entry import Entry
from corten.builder.proof import PREDICATE_ANNOTATION
from corten.store.layout import Layout

pytestmark = [
    pytest.mark.network, pytest.mark.examples, pytest.mark.podman, pytest.mark.registry,
]  # fmt: skip
SITE = "usr/local/lib/python3.11/site-packages"
# bcrypt of `secret`.
HTPASSWD = "ada:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry")
    made = DockerRegistry(folder).start()
    yield made
    made.kill()


@pytest.fixture(scope="module")
def images(warm_home, registry, tmp_path_factory):
    """References of two bases: Debian's own Python, and one below /usr/local with an older msgspec in it."""
    folder = tmp_path_factory.mktemp("images")
    tree = debian_tree(warm_home.home / "cache")
    local = in_usr_local(tree, "3.11")
    older = installed(SITE, "msgspec", "0.1", ["msgspec/__init__.py", "msgspec/gone_since.py"])
    older += [Entry(f"{SITE}/of_the_base.py", data=b"WORD = 'kept'\n")]
    local |= {entry.name: entry for entry in older}
    names = {"debian": f"{registry.name}/team/python:3.11-debian", "local": f"{registry.name}/team/python:3.11"}
    import_by_podman(tree, folder, names["debian"], "ENV PATH=/usr/bin:/bin", "ENV SAYS=hello")
    import_by_podman(local, folder, names["local"], "ENV PATH=/usr/local/bin:/usr/bin", "ENV LANG=C.UTF-8")
    for name in names.values():
        push_by_podman(name, "--tls-verify=false")
    yield names | {"tree": local, "debian_tree": tree}
    subprocess.run(["podman", "rmi", "-f", *names.values()], capture_output=True, timeout=60)


@pytest.fixture
def project(folder, digits_model):
    shutil.copyfile(digits_model["paths"][0], folder / "model.joblib")
    return folder


def set_base(project, reference):
    (project / "corten.toml").write_text(f'name = "based"\nsource = "model.joblib"\nbase = "{reference}"\n')


@pytest.mark.envoy
@pytest.mark.bwrap
@pytest.mark.parametrize("which", ["debian", "local"])
def test_a_model_built_on_it_answers_and_comes_out_the_same_again(corten, images, project, digits_model, which):
    set_base(project, images[which])
    built = corten.run("build", project, "--test", "--json").json
    lock = json.loads((project / "corten.lock").read_text())["locks"][0]
    assert lock["base"]["reference"] == images[which]
    assert (lock["debs"], lock["python"]) == ([], "3.11")
    assert corten.run("build", project, "--locked", "--offline", "--json").json["digest"] == built["digest"]
    assert corten.run("rebuild", "based", "--verify", "--offline").out.startswith("the same: ")

    seen = corten.run("inspect", "based", "--json").json
    assert seen["base"] == f"{images[which]}@{lock['base']['manifest']}"
    assert seen["entrypoint"][0] == ("/usr/bin/python3.11" if which == "debian" else "/usr/local/bin/python3.11")
    assert (seen["env"].get("SAYS"), seen["tested"]["result"]) == ("hello" if which == "debian" else None, "PASSED")
    packages = {(one["kind"], one["name"]): one["version"] for one in seen["packages"]}
    assert packages["deb", "libc6"].startswith("2.36")
    assert packages["wheel", "msgspec"] != "0.1"

    layout = Layout(corten.home / "store")
    digest = layout.resolve("based").digest
    statement = artifact.attached(
        layout, digest, STATEMENT_TYPE, {PREDICATE_ANNOTATION: "https://slsa.dev/provenance/v1"}
    )
    materials = json.loads(statement)["predicate"]["buildDefinition"]["resolvedDependencies"]
    (material,) = [one for one in materials if one.get("name") == "base"]
    assert material["digest"]["sha256"] == lock["base"]["digest"].removeprefix("sha256:")
    components = json.loads(artifact.attached(layout, digest, SBOM_TYPE))["components"]
    assert [one["purl"] for one in components if one["type"] == "container"] == [material["uri"]]

    url = corten.run("up", project, "--locked", "--port", free_port(), "--json").json["url"]
    rows = digits_model["rows"]
    assert ask(url, {"inputs": rows.tolist()}) == (200, {"outputs": digits_model["models"][0].predict(rows).tolist()})


@pytest.mark.bwrap
@pytest.mark.rpm
def test_a_model_built_on_a_system_laid_out_like_fedora_answers(corten, images, project, registry, tmp_path):
    tree = in_lib64(images["debian_tree"], "3.11")
    tree[RPM_DATABASE] = Entry(RPM_DATABASE, data=rpm_database(tmp_path))
    name = f"{registry.name}/team/fedora:40"
    import_by_podman(tree, tmp_path, name, "ENV PATH=/usr/bin", "ENV PYTHONPLATLIBDIR=lib64")
    push_by_podman(name, "--tls-verify=false")
    try:
        set_base(project, name)
        corten.run("build", project, "--test")
        seen = corten.run("inspect", "based", "--json").json
        assert seen["tested"]["result"] == "PASSED"
        packages = {(one["kind"], one["name"]): one["version"] for one in seen["packages"]}
        assert packages["rpm", "probe"] == "3:1.5-2.fc40"
        corten.run("rebuild", "based", "--verify", "--offline")
    finally:
        subprocess.run(["podman", "rmi", "-f", name], capture_output=True, timeout=60)


SHOUT = "class Shout:\n    def predict(self, text: str) -> str:\n        return text.upper()\n"
LISTING = f"""
import getpass, json, os
print(json.dumps([getpass.getuser(), os.getuid(), os.listdir("/{SITE}"), os.listdir("/{SITE}/msgspec")]))
"""


def test_podman_runs_it_and_what_the_base_had_installed_is_replaced_whole(corten, images, folder, registry):
    (folder / "shout.py").write_text(SHOUT)
    corten.run("build", f"{folder}/shout.py:Shout", "--base", images["local"], "--compress", "gzip")
    name = f"{registry.name}/team/shout:1"
    pushed = corten.run("push", "shout", name, "--json").json
    assert pushed["blobs_mounted"] >= 1  # the base's layer, out of the repository it came from
    port = free_port()
    words = ["podman", "run", "-d", "--tls-verify=false", *PODMAN, "-p", f"127.0.0.1:{port}:8080", name]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    container = done.stdout.strip()
    try:
        until(lambda: _ready(port), "it is ready")
        assert ask(f"http://127.0.0.1:{port}/", {"text": "a"}) == (200, {"outputs": "A"})
        words = ["podman", "exec", container, "python3", "-c", LISTING]
        user, uid, site, package = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=60).stdout)
    finally:
        subprocess.run(["podman", "rm", "-f", "-t", "2", container], capture_output=True, timeout=60)
        subprocess.run(["podman", "rmi", "-f", name], capture_output=True, timeout=60)
    assert (user, uid) == ("nonroot", 65532)
    assert "of_the_base.py" in site
    assert [one for one in site if one.startswith("msgspec-")] != ["msgspec-0.1.dist-info"]
    assert len([one for one in site if one.startswith("msgspec-")]) == 1
    assert "gone_since.py" not in package


# Debian 12's needs its own runtime and limits here (crun refuses hybrid cgroups; limits cannot be raised).
PODMAN = ["--runtime", "runc", "--ulimit", "nofile=1024:4096", "--ulimit", "nproc=4096:4096", "--read-only"]


def _ready(port):
    with contextlib.suppress(OSError):
        return get(f"http://127.0.0.1:{port}/", "readyz")[0] == 200
    return False


def test_a_tag_that_moved_is_taken_by_upgrade_and_by_rebase(corten, images, project, registry, tmp_path):
    name = f"{registry.name}/team/moving:1"
    tree = images["tree"]
    import_by_podman(tree, tmp_path, name, "ENV PATH=/usr/local/bin:/usr/bin", "ENV NOTE=old")
    push_by_podman(name, "--tls-verify=false")
    set_base(project, name)
    before = corten.run("build", project, "--json").json
    newer = tree | {"etc/patched": Entry("etc/patched", data=b"yes")}
    status = tree["var/lib/dpkg/status"].data.replace(b"Package: zlib1g\n", b"Package: zlib1g\nX: y\n")
    newer["var/lib/dpkg/status"] = Entry("var/lib/dpkg/status", data=status + b"\nPackage: patch-of-today\n"
                                         b"Status: install ok installed\nArchitecture: amd64\nVersion: 1\n")  # fmt: skip
    subprocess.run(["podman", "rmi", "-f", name], capture_output=True, timeout=60)  # else it stays, without a name
    import_by_podman(newer, tmp_path, name, "ENV PATH=/usr/local/bin:/usr/bin", "ENV NOTE=new")
    push_by_podman(name, "--tls-verify=false")
    try:
        assert corten.run("build", project, "--json").json["digest"] == before["digest"]
        rebased = corten.run("rebase", "based", "--json").json
        (image,) = rebased["images"]
        assert [(one["name"], one["before"], one["after"]) for one in image["packages"]] == [
            ("patch-of-today", "", "1")
        ]
        assert corten.run("rebase", "based", "--json").json["changed"] is False
        assert corten.run("rebuild", "based", "--verify").out.startswith("the same: ")
        layout = Layout(corten.home / "store")
        locked = artifact.attached(layout, layout.resolve("based").digest, LOCK_TYPE)
        assert corten.run("build", project, "--upgrade", "--json").json["digest"] == rebased["digest"]
        assert artifact.attached(layout, layout.resolve("based").digest, LOCK_TYPE) == locked
        assert corten.run("rebuild", "based", "--verify").out.startswith("the same: ")
        told = corten.run("diff", before["digest"], "based", "--json").json
        changed = {(one["kind"], one["name"]): (one["before"], one["after"]) for one in told["settings"]}
        assert changed["env", "NOTE"] == ("old", "new")
        assert changed["image", "base"][0] != changed["image", "base"][1]
    finally:
        subprocess.run(["podman", "rmi", "-f", name], capture_output=True, timeout=60)


def test_a_rebase_to_another_python_or_of_a_bare_digest_is_refused(corten, images, project, registry):
    name = f"{registry.name}/team/changing:1"
    subprocess.run(["podman", "tag", images["local"], name], check=True, timeout=60)
    push_by_podman(name, "--tls-verify=false")
    set_base(project, name)
    built = corten.run("build", project, "--json").json
    subprocess.run(["podman", "tag", images["debian"], name], check=True, timeout=60)
    push_by_podman(name, "--tls-verify=false")
    error = corten.run("rebase", "based", "--json", code=2).json["error"]
    assert error["code"] == "rebase.other_python"
    assert "/usr/local/bin/python3.11" in error["why"]
    pinned = json.loads((project / "corten.lock").read_text())["locks"][0]["base"]
    set_base(project, f"{registry.name}/team/changing@{pinned['digest']}")
    (project / "corten.lock").unlink()
    assert corten.run("build", project, "--json").json["digest"] != built["digest"]  # it names its base otherwise
    error = corten.run("rebase", "based", "--json", code=2).json["error"]
    assert error["code"] == "rebase.pinned"
    subprocess.run(["podman", "rmi", "-f", name], capture_output=True, timeout=60)


def test_a_base_behind_tls_and_a_password_is_pulled_like_any_image(corten, images, project, certificates, tmp_path):
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "htpasswd").write_text(HTPASSWD)
    locked = DockerRegistry(
        tmp_path / "locked", tls=certificates[1:], htpasswd=tmp_path / "locked" / "htpasswd"
    ).start()
    name = f"{locked.name}/team/python:3.11"
    try:
        subprocess.run(["podman", "tag", images["local"], name], check=True, timeout=60)
        push_by_podman(name, "--tls-verify=false", "--creds", "ada:secret")
        set_base(project, name)
        assert corten.run("build", project, "--json", code=7).json["error"]["code"] == "registry.untrusted"
        refused = corten.run("build", project, "--ca", certificates[0], "--json", code=4).json["error"]
        assert refused["code"] == "registry.denied"
        (tmp_path / "docker").mkdir()
        login = {"auths": {locked.name: {"auth": base64.b64encode(b"ada:secret").decode()}}}
        (tmp_path / "docker" / "config.json").write_text(json.dumps(login))
        env = {"DOCKER_CONFIG": str(tmp_path / "docker")}
        built = corten.run("build", project, "--ca", certificates[0], "--json", env=env).json
        provenance = corten.run("inspect", "based", "--json").json["provenance"]["parameters"]
        assert provenance["base"] == name
        for path in (corten.home / "store" / "blobs" / "sha256").iterdir():
            if path.stat().st_size < 1 << 20:
                assert b"secret" not in path.read_bytes()
        assert built["digest"]
    finally:
        locked.kill()
        subprocess.run(["podman", "rmi", "-f", name], capture_output=True, timeout=60)


def test_a_base_without_python_leaves_nothing_behind(corten, project, registry, tmp_path):
    name = f"{registry.name}/team/bare:1"
    import_by_podman({"etc/os-release": Entry("etc/os-release", data=b'PRETTY_NAME="Bare 1"\n')}, tmp_path, name)
    push_by_podman(name, "--tls-verify=false")
    set_base(project, name)
    error = corten.run("build", project, "--name", "bare", "--json", code=2).json["error"]
    assert error["code"] == "base.no_python"
    assert "Bare 1" in error["why"]
    assert not (project / "corten.lock").exists()
    assert "bare" not in [name for name, _ in Layout(corten.home / "store").images()]
    subprocess.run(["podman", "rmi", "-f", name], capture_output=True, timeout=60)
