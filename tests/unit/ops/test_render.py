"""Of `corten render`: which image is meant, and what is written where."""

import json

import pytest

from corten.cli import main as cli
from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.image import MANIFEST, Descriptor
from corten.errors import CortenError, NotFoundError, UsageError
from corten.ops.render import render, write
from corten.store.layout import Layout

ELSEWHERE = f"ghcr.io/team/fraud@{Digest.of(b'image')}"


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def stored(home, *names):
    layout = Layout(home.store)
    made = layout.put(b"{}", MANIFEST)
    for name in names:
        layout.tag(name, Descriptor(MANIFEST, made.digest, made.size_bytes))
    return made.digest


def test_an_image_of_a_registry_needs_nothing_of_ours(home):
    done = render(ELSEWHERE, home=home)
    assert done.workload.name == "fraud"
    assert str(done.workload.image) == ELSEWHERE
    assert done.text.count("---\n") == len(done.files)


def test_an_image_of_ours_is_named_as_it_was_pushed(home):
    digest = stored(home, "fraud", "ghcr.io/team/models/fraud:7")
    assert str(render("fraud", name="scam", home=home).workload.image) == f"ghcr.io/team/models/fraud@{digest}"


def test_what_no_cluster_could_pull_is_refused(home):
    stored(home, "fraud")
    with pytest.raises(UsageError) as caught:
        render("fraud", home=home)
    assert caught.value.code == "render.not_pushed"
    assert caught.value.hint.startswith("corten push fraud")


def test_an_unknown_system_is_answered_with_those_that_are_known(home):
    with pytest.raises(NotFoundError) as caught:
        render(ELSEWHERE, "nomad", home=home)
    assert caught.value.code == "plugin.unknown"
    assert "kubernetes" in caught.value.why


def test_files_are_written_again_and_others_left_alone(home, tmp_path):
    done, folder = render(ELSEWHERE, home=home), tmp_path / "out"
    paths = write(done, folder)
    (folder / "mine.yaml").write_text("mine")
    paths[0].write_text("changed")
    assert write(done, folder) == paths
    assert [path.read_text() for path in paths] == list(done.files.values())
    assert sorted(folder.iterdir()) == sorted([*paths, folder / "mine.yaml"])


def test_a_folder_that_cannot_be_made_is_told(home, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CortenError) as caught:
        write(render(ELSEWHERE, home=home), tmp_path / "file" / "out")
    assert caught.value.code == "render.write_failed"


def test_the_command_prints_documents_or_paths(home, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CORTEN_HOME", str(home.root))
    assert cli.main(["render", ELSEWHERE, "--replicas", "2..4", "--kubernetes-version", "1.29"]) == 0
    assert capsys.readouterr().out.startswith("---\napiVersion: v1\nkind: ServiceAccount\n")
    assert cli.main(["render", ELSEWHERE, "--out", str(tmp_path / "m")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(tmp_path / "m" / "serviceaccount-fraud.yaml")
    assert cli.main(["render", ELSEWHERE, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["to"] == "kubernetes"


@pytest.mark.parametrize(
    "words",
    [
        ["--kubernetes-version", "1.28"],
        ["--secret", "A=b"],
        ["--secret", "A=./b"],
        ["--secret", "A=/b/c"],
        ["--gpus", "-1"],
        ["--with", "magic"],
    ],
    ids=" ".join,
)
def test_options_that_mean_nothing_are_refused(words, capsys):
    assert cli.main(["render", ELSEWHERE, *words]) == 2
    assert "error:" in capsys.readouterr().err
