"""What the files beside a source declare: pip's files, pyproject.toml, uv.lock."""

import pytest

from corten.adapters.py_requirements import PackageIndex, declared_requirements
from corten.errors import UsageError

LOCK = """
version = 1
[[package]]
name = "own"
version = "0.1.0"
source = { virtual = "." }
[[package]]
name = "numpy"
version = "2.2.6"
source = { registry = "https://index.example/simple" }
resolution-markers = ["python_full_version < '3.11'"]
[[package]]
name = "numpy"
version = "2.4.6"
source = { registry = "https://index.example/simple" }
resolution-markers = ["python_full_version >= '3.12'", "python_full_version == '3.11.*'"]
[[package]]
name = "torch"
version = "2.13.0+cpu"
source = { registry = "https://index.example/simple" }
[[package]]
name = "mine"
version = "1.0"
source = { git = "https://git.example/mine" }
"""


@pytest.fixture
def write(tmp_path):
    def run(**files):
        for name, text in files.items():
            (tmp_path / name.replace("__", ".")).write_text(text)
        return tmp_path

    return run


def test_hashes_belong_to_their_lines(write):
    found = declared_requirements(
        write(
            requirements__txt="numpy==2.4.6 --hash=sha256:AA --hash=sha256:bb\nidna<4 --hash sha256:cc --hash=sha512:dd\n"
            "rich\n-c pins.txt\n",
            pins__txt="six==1.17.0 \\\n  --hash=sha256:ee\n",
        )
    )

    assert found.hashes == {
        "numpy==2.4.6": frozenset({"aa", "bb"}),
        "idna<4": frozenset({"cc"}),
        "six==1.17.0": frozenset({"ee"}),
    }
    assert found.lines == ("numpy==2.4.6", "idna<4", "rich")


def test_hashes_that_cannot_be_compared_are_refused(write):
    with pytest.raises(UsageError, match="no sha256"):
        declared_requirements(write(requirements__txt="numpy --hash=sha512:aa\n"))


def test_a_pip_file_is_read_with_its_files_constraints_hashes_markers_extras_and_indexes(write):
    found = declared_requirements(
        write(
            requirements__txt="--index-url=https://${WHO}:${TOKEN}@index.example/simple\n"
            "--extra-index-url https://more.example/simple  # ours\n-f ./wheels\n--require-hashes\n"
            "-r more.txt\n-c pins.txt\nhttpx[http2]>=0.27 ; python_version >= '3.9' \\\n    --hash=sha256:00\n",
            more__txt="numpy\n-c deeper.txt\n",
            pins__txt="numpy==2.4.6\n",
            deeper__txt="idna<4\n",
        ),
        {"WHO": "me", "TOKEN": "secret"},
    )
    assert found.lines == ("numpy", "httpx[http2]>=0.27 ; python_version >= '3.9'")
    assert found.constraints == ("idna<4", "numpy==2.4.6")
    assert found.indexes == (
        PackageIndex("index", "https://me:secret@index.example/simple"),
        PackageIndex("extra", "https://more.example/simple"),
        PackageIndex("links", "./wheels"),
    )


def test_a_variable_an_index_needs_and_nobody_set_is_named(write):
    with pytest.raises(UsageError) as refused:
        declared_requirements(write(requirements__txt="-i https://${TOKEN}@x/\n"), {})
    assert "TOKEN" in refused.value.what


def test_the_pins_of_a_uv_lock_hold_for_what_a_project_needs(write):
    found = declared_requirements(
        write(pyproject__toml='[project]\nname = "own"\ndependencies = ["numpy>=2"]\n', uv__lock=LOCK), {}
    )
    assert found.lines == ("numpy>=2",)
    assert found.constraints == (
        "numpy==2.2.6 ; (python_full_version < '3.11')",
        "numpy==2.4.6 ; (python_full_version >= '3.12') or (python_full_version == '3.11.*')",
        "torch==2.13.0",
    )
    assert found.origin == "pyproject.toml, pinned by uv.lock"


def test_indexes_of_a_project_keep_their_names(write):
    table = (
        '[project]\nname = "own"\ndependencies = []\n[[tool.uv.index]]\nname = "in-house"\nurl = "https://x/simple"\n'
    )
    assert declared_requirements(write(pyproject__toml=table), {}).indexes == (
        PackageIndex("extra", "https://x/simple", "in-house"),
    )


COG = 'build:\n  python_version: "3.11"\n  python_packages:\n    - "numpy==2.2.0"\n    - pillow  # pictures\npredict: "a.py:B"\n'


def test_the_packages_of_a_cog_yaml_are_declared(tmp_path):
    (tmp_path / "cog.yaml").write_text(COG)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "a"\ndependencies = ["scipy"]\n')
    declared = declared_requirements(tmp_path)
    assert (declared.lines, declared.origin) == (("numpy==2.2.0", "pillow"), "cog.yaml")


def test_the_requirements_file_a_cog_yaml_names_is_read(tmp_path):
    (tmp_path / "cog.yaml").write_text("build:\n  python_requirements: needs.txt\n")
    (tmp_path / "needs.txt").write_text("numpy==2.2.0\n")
    declared = declared_requirements(tmp_path)
    assert (declared.lines, declared.origin) == (("numpy==2.2.0",), "needs.txt of cog.yaml")


def test_a_cog_yaml_without_packages_leaves_the_word_to_others(tmp_path):
    (tmp_path / "cog.yaml").write_text("build:\n  gpu: true\npredict: a.py:B\n")
    assert declared_requirements(tmp_path) is None


@pytest.mark.parametrize(
    "text", ["build: &anchor\n", "build:\n  python_requirements: gone.txt\n", "build:\n  python_packages: numpy\n"]
)
def test_a_cog_yaml_that_cannot_be_meant_is_refused(tmp_path, text):
    (tmp_path / "cog.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        declared_requirements(tmp_path)
    assert (caught.value.code, caught.value.where) == ("adapter.requirements", str(tmp_path / "cog.yaml"))
