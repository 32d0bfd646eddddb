"""Reading uv's answers, and which wheel of several is the right one."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.builder import pylock
from corten.builder.interpreter import Libc, LibcFamily, debian_python
from corten.core.digest import Digest
from corten.core.platform import Platform
from corten.errors import CortenError, UsageError

AMD64 = Platform("amd64")
HEX = "ab" * 32


def _entry(filename: str, **more: object) -> str:
    fields = {"url": f"https://example.org/packages/{filename}"} | more
    pairs = [f'{key} = "{text}"' for key, text in fields.items()]
    return "{ " + ", ".join([*pairs, f'hashes = {{ sha256 = "{HEX}" }}']) + " }"


def _parse(text: str, python: str = "3.11", platform: Platform = AMD64):
    return pylock.parse(text, python=debian_python(python, "2.36"), platform=platform, folder=Path("/cache"))


def _package(name: str, *filenames: str) -> str:
    wheels = ", ".join(_entry(filename) for filename in filenames)
    return f'[[packages]]\nname = "{name}"\nversion = "1.0"\nwheels = [{wheels}]\n'


def test_a_lock_is_read_and_sorted_by_name() -> None:
    text = (
        'lock-version = "1.0"\n'
        + _package("zeta", "zeta-1.0-py3-none-any.whl")
        + _package("alpha", "alpha-1.0-py3-none-any.whl")
    )

    alpha, zeta = _parse(text)

    assert (alpha.name, zeta.name) == ("alpha", "zeta")
    assert alpha.url == "https://example.org/packages/alpha-1.0-py3-none-any.whl"
    assert (alpha.digest.hex, alpha.filename, alpha.size_bytes) == (HEX, "alpha-1.0-py3-none-any.whl", 0)


# The order an installer takes them in on CPython 3.11 and glibc 2.36, best first.
ORDERED = [
    "c-1.0-cp311-cp311-manylinux_2_34_x86_64.whl",
    "c-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "c-1.0-cp311-cp311-manylinux1_x86_64.whl",
    "c-1.0-cp311-cp311-linux_x86_64.whl",
    "c-1.0-cp311-abi3-manylinux_2_28_x86_64.whl",
    "c-1.0-cp39-abi3-manylinux_2_34_x86_64.whl",
    "c-1.0-py3-none-manylinux_2_28_x86_64.whl",
    "c-1.0-py2.py3-none-any.whl",
]


@given(st.lists(st.sampled_from(ORDERED), min_size=1, unique=True))
def test_of_several_wheels_the_one_an_installer_takes_is_locked(filenames: list[str]) -> None:
    (locked,) = _parse(_package("c", *filenames))

    assert locked.filename == min(filenames, key=ORDERED.index)


@pytest.mark.parametrize(
    "filename",
    [
        "c-1.0-cp311-cp311-manylinux_2_39_x86_64.whl",  # a newer glibc than the base's
        "c-1.0-cp311-cp311-musllinux_1_2_x86_64.whl",
        "c-1.0-cp311-cp311-manylinux_2_28_aarch64.whl",
        "c-1.0-cp312-cp312-manylinux_2_28_x86_64.whl",
        "c-1.0-cp312-abi3-manylinux_2_28_x86_64.whl",
        "c-1.0-cp311-cp311t-manylinux_2_28_x86_64.whl",
        "c-1.0-cp27-cp27mu-manylinux1_x86_64.whl",
        "c-1.0-py2-none-any.whl",
        "c-1.0-pp310-pypy310_pp73-manylinux_2_28_x86_64.whl",
        "c-1.0-cp311-cp311-win_amd64.whl",
        "c-1.0.tar.gz",
    ],
)
def test_a_wheel_that_does_not_run_on_the_base_is_never_locked(filename: str) -> None:
    with pytest.raises(UsageError) as caught:
        _parse(_package("c", filename))

    assert caught.value.code == "build.no_wheel"
    assert filename in caught.value.why


def test_arm64_gets_its_own_wheels() -> None:
    text = _package("c", *ORDERED, "c-1.0-cp311-cp311-manylinux_2_28_aarch64.whl")

    (locked,) = _parse(text, platform=Platform("arm64"))

    assert locked.filename == "c-1.0-cp311-cp311-manylinux_2_28_aarch64.whl"


def test_a_wheel_given_by_path_becomes_a_file_url() -> None:
    text = (
        '[[packages]]\nname = "own"\nversion = "2.0"\n'
        f'archive = {{ path = "dist/own-2.0-py3-none-any.whl", size = 7, hashes = {{ sha256 = "{HEX}" }} }}\n'
    )

    (locked,) = _parse(text)

    assert (locked.url, locked.size_bytes) == ("file:///cache/dist/own-2.0-py3-none-any.whl", 7)


def test_a_wheel_without_sha256_is_refused() -> None:
    text = (
        '[[packages]]\nname = "c"\nversion = "1"\n'
        'wheels = [{ url = "https://x/c-1-py3-none-any.whl", hashes = { md5 = "0" } }]'
    )

    with pytest.raises(UsageError) as caught:
        _parse(text)
    assert caught.value.code == "build.no_hash"


@pytest.mark.parametrize("kind", ["sdist", "vcs", "directory"])
def test_sources_that_would_have_to_be_built_are_refused(kind: str) -> None:
    text = f'[[packages]]\nname = "c"\nversion = "1"\n{kind} = {{ url = "https://x/c-1.tar.gz", path = "." }}\n'

    with pytest.raises(UsageError) as caught:
        _parse(text)
    assert caught.value.code == "build.no_wheel"


@given(st.text(max_size=200))
def test_any_answer_is_read_or_refused(text: str) -> None:
    try:
        found, code = _parse(text), "build."
    except CortenError as error:
        found, code = (), error.code

    assert found == ()
    assert code.startswith("build.")


@pytest.mark.parametrize(
    "line",
    [
        "--index-url http://evil",
        "-r /etc/passwd",
        "",
        "  ",
        "a\n--index-url http://evil",
        ". ",
        "./x",
        "a\0",
        "git+https://git.example/a.git",
        "a[b] @ git+ssh://git.example/a",
        "a @ HG+https://x",
    ],
)
def test_options_are_no_requirements(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        pylock.check_requirement(line)
    assert caught.value.code == "build.bad_requirement"


@pytest.mark.parametrize("line", ["numpy", "scikit-learn==1.7.2", "a[b]>=1; python_version<'4'", "x @ file:///w.whl"])
def test_requirements_are_taken_as_they_are(line: str) -> None:
    assert pylock.check_requirement(f" {line} ") == line


def test_uvs_reason_is_told_without_its_decoration() -> None:
    stderr = (
        "error: No solution found when resolving dependencies\n"
        "  cause: Because only scipy<=1.18.1 is available and you require scipy>=99, we can conclude that your "
        "requirements are unsatisfiable.\n\nhint: try something\n"
    )

    assert pylock.condensed(stderr) == (
        "Because only scipy<=1.18.1 is available and you require scipy>=99, we can conclude that your "
        "requirements are unsatisfiable."
    )


@pytest.mark.parametrize(("family", "told"), [(LibcFamily.GLIBC, False), (LibcFamily.MUSL, True)])
def test_where_wheels_for_musl_are_missing_a_base_with_glibc_is_proposed(family: LibcFamily, told: bool) -> None:
    libc = Libc(family, "2.36" if family is LibcFamily.GLIBC else "1.2")
    only_glibc = {"name": "onnxruntime", "version": "1.32.0", "wheels": [
        {"name": "onnxruntime-1.32.0-cp39-cp39-manylinux_2_28_x86_64.whl", "url": "https://files.example/o.whl"},
    ]}  # fmt: skip
    with pytest.raises(UsageError) as locked:
        pylock._locked(only_glibc, replace(debian_python("3.11", "2.36"), libc=libc), Platform("amd64"), Path("/"))
    resolved = pylock._explained("error: No solution found when resolving dependencies\n", ["onnxruntime"], libc)

    assert (locked.value.code, resolved.code) == ("build.no_wheel", "build.lock_failed")
    assert [("base with glibc" in error.hint) for error in (locked.value, resolved)] == [told, told]


def test_a_wheel_that_is_cut_short_is_named_and_not_the_requirements() -> None:
    told = (
        "error: Failed to download `net==1.0`\n"
        "  Caused by: Failed to extract archive: net-1.0-py3-none-any.whl\n"
        "  Caused by: Invalid zip file structure\n"
        "  Caused by: unexpected end of file\n"
    )
    error = pylock._explained(told, ["net"], debian_python("3.11", "2.36").libc)

    assert error.code == "wheel.broken"
    assert error.what == "`net-1.0-py3-none-any.whl` is no valid wheel"
    assert error.why.endswith("unexpected end of file")
    assert "`-r 'net!=1.0'`" in error.hint


def test_the_line_uv_cannot_read_is_named() -> None:
    lines = ["httptools>=0.6", "bad req!", "numpy"]
    said = "error: Couldn't parse requirement in `-` at position %d\n  cause: Expected one of `@`, `(`, found `r`\n"
    libc = debian_python("3.11", "2.36").libc
    for position, named in ((15, "bad req!"), (22, "bad req!"), (0, "httptools>=0.6"), (24, "numpy")):
        error = pylock._explained(said % position, lines, libc)
        assert (error.code, error.what) == ("build.bad_requirement", f"not a requirement: `{named}`")
        assert "found `r`" in error.why


def test_an_index_that_answers_with_an_error_is_not_said_to_be_silent() -> None:
    libc = debian_python("3.11", "2.36").libc
    silent = pylock._explained("error: Request failed after 3 retries; dns error", ["net"], libc)
    broken = pylock._explained(
        "error: Failed to fetch: u; HTTP status server error (503 Busy) for url (u)", ["net"], libc
    )

    assert (silent.code, broken.code) == ("build.index_unreachable", "build.index_unreachable")
    assert silent.what == "the package index cannot be reached"
    assert broken.what == "the package index answers 503 Busy"


def test_no_password_gets_into_a_reason() -> None:
    told = pylock.condensed("  cause: Failed to fetch: https://user:secret@pypi.example/simple/numpy/")

    assert "secret" not in told
    assert "pypi.example" in told


def test_only_variables_about_the_origin_of_packages_reach_uv() -> None:
    env = {"UV_DEFAULT_INDEX": "http://i", "UV_PYTHON": "3.9", "UV_CONSTRAINT": "/c", "VIRTUAL_ENV": "/v", "HOME": "/h"}

    assert pylock.source_variables(env) == {"UV_DEFAULT_INDEX": "http://i"}
    assert pylock._clean(env) == {"UV_DEFAULT_INDEX": "http://i", "HOME": "/h", "UV_SYSTEM_CERTS": "true"}
    assert pylock._clean({"UV_SYSTEM_CERTS": "false"}) == {"UV_SYSTEM_CERTS": "false"}


def test_pytorch_is_taken_for_cpus_unless_somebody_says_otherwise() -> None:
    assert pylock.torch_options({}) == ("--torch-backend", "cpu")
    # uv reads the first itself; an own index decides what it has.
    assert pylock.torch_options({"UV_TORCH_BACKEND": "cu130"}) == ()
    assert pylock.torch_options({"UV_DEFAULT_INDEX": "https://index.example/simple"}) == ()


def test_cuda_is_refused_with_pytorch_and_with_nothing_else() -> None:
    def wheel(name: str) -> pylock.Locked:
        return pylock.Locked(name, "1", "", Digest.parse(f"sha256:{'0' * 64}"), 1, f"{name}-1-py3-none-any.whl")

    pylock.check_torch([wheel("torch"), wheel("numpy")])
    pylock.check_torch([wheel("xgboost"), wheel("nvidia-nccl-cu12")])
    with pytest.raises(UsageError, match="torch") as refused:
        pylock.check_torch([wheel("torch"), wheel("nvidia-cublas")])
    assert refused.value.code == "build.cuda_torch"


def test_a_musl_base_gets_musl_wheels_it_is_new_enough_for() -> None:
    musl = replace(debian_python("3.11", "2.36"), libc=Libc(LibcFamily.MUSL, "1.2"))

    def fit(tag: str) -> tuple[int, ...] | None:
        return pylock.rank(f"c-1.0-cp311-cp311-{tag}.whl", python=musl, machine="x86_64")

    assert fit("musllinux_1_2_x86_64") > fit("musllinux_1_1_x86_64") > fit("linux_x86_64")
    assert [fit(tag) for tag in ("manylinux_2_17_x86_64", "manylinux1_x86_64", "musllinux_1_3_x86_64")] == [None] * 3


@pytest.mark.parametrize(
    ("libc", "name"),
    [
        (Libc(LibcFamily.GLIBC, "2.36"), "x86_64-manylinux_2_36"),
        (Libc(LibcFamily.GLIBC, "2.29"), "x86_64-manylinux_2_28"),
        (Libc(LibcFamily.GLIBC, "2.43"), "x86_64-manylinux_2_40"),
        (Libc(LibcFamily.GLIBC, "2.12"), "x86_64-manylinux_2_17"),
        (Libc(LibcFamily.MUSL, "1.2"), "x86_64-unknown-linux-musl"),
    ],
)
def test_uv_is_asked_for_the_newest_platform_it_knows_that_is_no_newer_than_the_base(libc, name) -> None:
    assert pylock._platform_of_uv(libc, AMD64) == name


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "store.disk_full"), (errno.EDQUOT, "store.disk_full"), (errno.EROFS, "store.write_failed")],
)
def test_a_disk_that_uv_cannot_write_to_is_not_blamed_on_the_requirements(tmp_path, number, code):
    # As uv 0.13 says it.
    said = f"error: Failed to write to the client cache\n  cause: failed to write to file `/x/.tmp`: It failed (os error {number})\n"
    with pytest.raises(CortenError) as caught:
        pylock.check_disk(said, tmp_path / "uv")
    assert (caught.value.code, caught.value.where) == (code, str(tmp_path / "uv"))


def test_what_a_socket_is_refused_is_no_disk(tmp_path):
    pylock.check_disk(
        "error: Failed to fetch: `http://127.0.0.1:9/`\n  cause: Connection refused (os error 111)", tmp_path
    )
