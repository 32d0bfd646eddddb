"""What people give: files, classes, folders with settings; and what is said when it is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.builder.source import read_project
from corten.errors import CortenError, NotFoundError, UsageError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.joblib").write_bytes(b"m")
    (tmp_path / "annotator.py").write_text("class Annotator: ...\n")
    (tmp_path / "labels.txt").write_text("a\n")
    return tmp_path


def test_a_model_file_is_named_after_itself(folder) -> None:
    project = read_project(folder / "model.joblib", requirements=["numpy"], method="predict_proba")

    assert (project.name, project.folder, project.lock_file) == ("model", None, None)
    assert project.source.path == folder / "model.joblib"
    assert (project.source.requirements, project.source.method) == (("numpy",), "predict_proba")


def test_a_class_is_named_after_itself(folder) -> None:
    project = read_project(f"{folder}/annotator.py:Annotator")

    assert (project.name, project.source.entry) == ("annotator", "Annotator")
    assert project.source.path == folder / "annotator.py"


def test_a_folder_brings_its_settings(folder) -> None:
    (folder / "corten.toml").write_text(
        'name = "notes"\nsource = "annotator.py:Annotator"\nrequirements = ["numpy"]\nfiles = ["labels.txt"]\n'
        'python = "3.13"\npackages = ["libgl1"]\nmethod = "m"\nreplicas = 3\negress = true\ndrain_s = 5\n'
        'workers = "auto"\nstreams = 8\nmax_body_bytes = 100\nrequest_timeout_s = 2.5\n[env]\nA = "b"\n[labels]\n"x.y" = "z"\n'
    )

    project = read_project(folder, requirements=["scipy"])

    assert project.name == "notes"
    assert project.lock_file == folder / "corten.lock"
    assert project.source.path == folder / "annotator.py"
    assert project.source.entry == "Annotator"
    assert project.source.requirements == ("numpy", "scipy")
    assert project.source.extra_files == (folder / "labels.txt",)
    assert (project.python, project.packages, project.labels) == ("3.13", ("libgl1",), {"x.y": "z"})
    assert (project.settings.replicas, project.settings.egress, project.settings.env) == (3, True, {"A": "b"})
    assert (project.settings.drain_s, project.limits.max_body_bytes) == (5.0, 100)
    assert project.limits.predict_timeout_s == 2.5
    assert (project.workers, project.streams) == (0, 8)


def test_settings_may_stand_in_pyproject(folder) -> None:
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\n[tool.corten]\nname = "notes"\n')

    assert read_project(folder).name == "notes"


def test_the_command_line_wins(folder) -> None:
    (folder / "corten.toml").write_text('name = "notes"\nmethod = "predict"\n')

    project = read_project(folder, name="other", method="transform")

    assert (project.name, project.source.method) == ("other", "transform")


def test_a_folder_without_settings_is_named_after_itself(folder) -> None:
    project = read_project(folder)

    assert project.source.path == folder
    assert project.name.startswith("test-a-folder")


def test_a_missing_file_is_told_with_its_nearest_neighbour(folder) -> None:
    with pytest.raises(NotFoundError) as caught:
        read_project(folder / "modle.joblib")

    assert caught.value.code == "source.missing"
    assert "model.joblib" in caught.value.hint


@pytest.mark.parametrize("given", [".", "../notes", "inner/.."])
def test_a_folder_has_its_name_however_it_is_given(tmp_path, monkeypatch, given) -> None:
    (tmp_path / "notes" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notes")

    assert read_project(given).name == "notes"


@pytest.mark.parametrize("name", ["x" * 5000, "no/such/folder/m.joblib", "model.joblib/m"])
def test_a_path_that_cannot_be_is_missing_too(folder, name) -> None:
    with pytest.raises(NotFoundError):
        read_project(folder / name)


def test_an_unknown_key_is_told_with_the_nearest_one(folder) -> None:
    (folder / "corten.toml").write_text('requirments = ["x"]\n')

    with pytest.raises(UsageError) as caught:
        read_project(folder)

    assert caught.value.code == "source.bad_config"
    assert "did you mean `requirements`" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "replicas = 'two'",
        "replicas = -1",
        "replicas = '4..1'",
        "canary = 'all'",
        "concurrency = -1",
        "requirements = 'numpy'",
        "env = 3",
        "drain_s = -0.5",
        "workers = 0",
        "streams = 0",
        "streams = 257",
        "workers = 65",
        "workers = 'many'",
        "name = 3",
        "name = 'Not A Name'",
        "source = '../../etc/passwd'",
        "source = '/etc/passwd'",
        "files = ['../x']",
        "source = 'annotator.py:not a class'",
        "a = [",
    ],
)
def test_wrong_settings_are_refused_with_the_file_they_are_in(folder, text) -> None:
    (folder / "corten.toml").write_text(text)

    with pytest.raises(UsageError) as caught:
        read_project(folder)
    assert caught.value.code in {"source.bad_config", "name.malformed", "source.no_class"}


def test_settings_cannot_reach_out_of_their_folder_by_a_link(folder) -> None:
    (folder / "leak").symlink_to("/etc/passwd")
    (folder / "corten.toml").write_text("files = ['leak']")

    with pytest.raises(UsageError, match="outside"):
        read_project(folder)


@given(st.text(max_size=60))
def test_any_settings_are_read_or_refused(tmp_path_factory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "anything"
    folder.mkdir(exist_ok=True)
    (folder / "corten.toml").write_text(text, encoding="utf-8", errors="surrogatepass")

    try:
        code = f"name.{read_project(folder).name}"
    except CortenError as error:
        code = error.code

    assert code.startswith(("source.", "name."))


def test_a_base_is_read_at_the_edge_and_the_command_line_wins(folder) -> None:
    (folder / "corten.toml").write_text('base = "ghcr.io/team/python:3.12"\n')
    assert str(read_project(folder).base) == "ghcr.io/team/python:3.12"
    digest = f"sha256:{'a' * 64}"
    assert str(read_project(folder, base=f"localhost:5000/py@{digest}").base) == f"localhost:5000/py@{digest}"


def test_a_base_without_its_registry_is_answered_with_docker_hub(folder) -> None:
    (folder / "corten.toml").write_text('base = "python:3.12-slim"\n')
    with pytest.raises(UsageError) as caught:
        read_project(folder)
    assert (caught.value.code, "docker.io/python:3.12-slim" in caught.value.hint) == ("source.bad_config", True)
    with pytest.raises(UsageError) as caught:
        read_project(folder, base="python")
    assert (caught.value.code, "docker.io/python" in caught.value.hint) == ("reference.malformed", True)


def test_a_base_that_is_no_reference_anywhere_is_not_looked_for_at_docker_hub(folder) -> None:
    (folder / "corten.toml").write_text('base = "localhost:5000/x;y:1"\n')
    with pytest.raises(UsageError) as caught:
        read_project(folder)
    assert (caught.value.code, "docker.io" in caught.value.hint) == ("source.bad_config", False)


def test_debian_packages_cannot_go_into_another_base(folder) -> None:
    (folder / "corten.toml").write_text('base = "ghcr.io/team/python:3.12"\npackages = ["libgl1"]\n')
    with pytest.raises(UsageError) as caught:
        read_project(folder)
    assert caught.value.code == "base.packages"
    assert "libgl1" in caught.value.why
