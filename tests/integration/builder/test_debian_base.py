"""The real thing: Debian's own packages, the trees they become, and Python running in them."""

import io
import shutil
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import pytest

from corten.builder import base
from corten.builder.debian import RELEASES, fetch, resolve
from corten.builder.entry import EntryKind
from corten.core.platform import Platform

pytestmark = pytest.mark.network

IMPORTS = "import ssl, sqlite3, ctypes, uuid, lzma, bz2, hashlib, zlib, decimal, asyncio, multiprocessing, zoneinfo"


@pytest.fixture(scope="module")
def folder():
    path = Path(tempfile.mkdtemp(prefix="corten-base-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def entries_of(folder):
    """A function: release and architecture to the entries of the base; each built once."""
    built = {}

    def build(codename, architecture, packages=()):
        key = (codename, architecture, packages)
        if key not in built:
            release, platform = RELEASES[codename], Platform(architecture)
            debs = resolve(release, platform, packages=packages, cache=folder / "cache", now_s=time.time())
            paths = fetch(debs, folder / "cache")
            built[key] = list(base.entries(list(zip(debs, paths, strict=True)), release, platform))
        return built[key]

    return build


@pytest.fixture(scope="module")
def unpacked(folder, entries_of):
    """A function: release and architecture to a folder with the tree."""

    def unpack(codename, architecture):
        root = folder / f"{codename}-{architecture}"
        if not root.exists():
            write_tree(root, entries_of(codename, architecture))
        return root

    return unpack


def write_tree(root, entries):
    root.mkdir(mode=0o755)
    for entry in entries:
        path = root / entry.name
        match entry.kind:
            case EntryKind.DIRECTORY:
                path.mkdir()
                path.chmod(entry.mode)
            case EntryKind.SYMLINK:
                path.symlink_to(entry.target)
            case EntryKind.FILE:
                path.write_bytes(entry.data)
                path.chmod(entry.mode)


def run(root, code):
    """What Python says inside the tree: read-only, as the replica's user, without network."""
    sandbox = ["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", str(root), "/", "--proc", "/proc"]
    sandbox += ["--dev", "/dev", "--tmpfs", "/tmp", "--uid", "65532", "--gid", "65532", "--clearenv"]
    done = subprocess.run([*sandbox, "/usr/bin/python3", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


RELEASE_NAMES = sorted(RELEASES)


@pytest.mark.parametrize("codename", RELEASE_NAMES)
def test_a_machine_without_debians_keyring_gets_the_pinned_keys_from_the_mirror(folder, entries_of, codename):
    entries_of(codename, "amd64")  # so that the indexes are in the cache
    said = []
    resolve(
        RELEASES[codename],
        Platform("amd64"),
        cache=folder / "cache",
        now_s=time.time(),
        listen=said.append,
        keyring=folder / "nothing",
    )
    assert any("no Debian keyring" in event.message for event in said)
    assert (folder / "cache" / "debs" / "keyring" / f"{codename}.pgp").stat().st_size > 1000


@pytest.mark.bwrap
@pytest.mark.parametrize("codename", RELEASE_NAMES)
def test_python_of_the_base_imports_what_models_and_servers_need(unpacked, codename):
    said = run(unpacked(codename, "amd64"), f"{IMPORTS}; import sys; print(*sys.version_info[:2], sep='.')")
    assert said == RELEASES[codename].python


@pytest.mark.bwrap
@pytest.mark.parametrize("codename", RELEASE_NAMES)
def test_the_libraries_wheels_link_against_are_found_without_a_loader_cache(unpacked, codename):
    names = [
        "libstdc++.so.6",
        "libgomp.so.1",
        "libgcc_s.so.1",
        "libz.so.1",
        "libm.so.6",
        "libpthread.so.0",
        "libdl.so.2",
    ]
    run(unpacked(codename, "amd64"), f"import ctypes; [ctypes.CDLL(name) for name in {names}]")


@pytest.mark.bwrap
@pytest.mark.parametrize("codename", RELEASE_NAMES)
def test_tls_trusts_the_usual_authorities_by_default(unpacked, codename):
    count = run(unpacked(codename, "amd64"), "import ssl; print(len(ssl.create_default_context().get_ca_certs()))")
    assert int(count) > 100


@pytest.mark.bwrap
@pytest.mark.parametrize("codename", RELEASE_NAMES)
def test_time_zones_users_and_text_work_without_locales(unpacked, codename):
    code = (
        "import pwd, sys, zoneinfo; print(zoneinfo.ZoneInfo('Europe/Berlin'), pwd.getpwuid(65532).pw_name,"
        " sys.getfilesystemencoding(), open(1, 'w', closefd=False).encoding.lower())"
    )
    assert run(unpacked(codename, "amd64"), code) == "Europe/Berlin nonroot utf-8 utf-8"


@pytest.mark.bwrap
@pytest.mark.parametrize("codename", RELEASE_NAMES)
def test_the_locale_images_name_is_there(unpacked, codename):
    code = "import locale, os; os.environ['LANG'] = 'C.UTF-8'; print(locale.setlocale(locale.LC_ALL, ''))"
    assert run(unpacked(codename, "amd64"), code) == "C.UTF-8"


@pytest.mark.bwrap
@pytest.mark.parametrize("codename", RELEASE_NAMES)
def test_wheels_folder_is_on_the_path_of_python(unpacked, codename):
    version = RELEASES[codename].python
    assert f"/usr/local/lib/python{version}/dist-packages" in run(
        unpacked(codename, "amd64"), "import sys; print(sys.path)"
    )


@pytest.mark.bwrap
@pytest.mark.parametrize("codename", RELEASE_NAMES)
def test_a_library_that_was_asked_for_works_with_all_it_needs(folder, entries_of, codename):
    root = folder / f"{codename}-with-sound"
    write_tree(root, entries_of(codename, "amd64", ("libsndfile1",)))
    code = "import ctypes; sound = ctypes.CDLL('libsndfile.so.1'); sound.sf_version_string.restype = ctypes.c_char_p"
    assert run(root, f"{code}; print(sound.sf_version_string().decode())").startswith("libsndfile-1.")


@pytest.mark.parametrize("codename", RELEASE_NAMES)
@pytest.mark.parametrize(("architecture", "machine"), [("amd64", 0x3E), ("arm64", 0xB7)])
def test_every_program_and_library_is_for_the_platform_asked_for(entries_of, codename, architecture, machine):
    elf = [entry for entry in entries_of(codename, architecture) if entry.data[:4] == b"\x7fELF"]
    assert len(elf) > 60
    assert {int.from_bytes(entry.data[18:20], "little") for entry in elf} == {machine}


@pytest.mark.parametrize("codename", RELEASE_NAMES)
@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_there_is_no_shell_no_package_manager_and_nothing_setuid(entries_of, codename, architecture):
    entries = entries_of(codename, architecture)
    assert not [entry.name for entry in entries if entry.mode & 0o6000]
    programs = {entry.name.rpartition("/")[2] for entry in entries if entry.name.startswith(("usr/bin/", "usr/sbin/"))}
    assert programs == {"python3", f"python{RELEASES[codename].python}"}


@pytest.mark.parametrize("codename", RELEASE_NAMES)
def test_every_library_a_library_needs_is_in_the_tree(entries_of, codename):
    entries = entries_of(codename, "amd64")
    have = {entry.name.rpartition("/")[2] for entry in entries}
    # Of the standard library, what a server never uses may lack its library: line editing, terminals, old databases.
    optional = ("readline", "_curses", "_curses_panel", "_dbm", "nis")
    missing = {
        (entry.name, needed)
        for entry in entries
        if entry.data[:4] == b"\x7fELF" and not entry.name.rpartition("/")[2].startswith(optional)
        for needed in needed_libraries(entry.data)
        if needed not in have
    }
    assert missing == set()


@pytest.mark.parametrize("codename", RELEASE_NAMES)
def test_no_link_of_the_tree_leads_nowhere(unpacked, codename):
    root = unpacked(codename, "amd64")
    dangling = []
    for path in root.rglob("*"):
        if path.is_symlink():
            target = str(path.readlink())
            reached = root / target.lstrip("/") if target.startswith("/") else path.parent / target
            if not reached.exists() and not reached.is_symlink():
                dangling.append((str(path.relative_to(root)), target))
    assert dangling == []


@pytest.mark.parametrize("codename", RELEASE_NAMES)
def test_the_licence_of_every_package_is_in_the_tree(unpacked, codename):
    root = unpacked(codename, "amd64")
    packages = [path.name for path in (root / "var/lib/dpkg/status.d").iterdir()]
    assert len(packages) == len(RELEASES[codename].packages)
    assert [name for name in packages if not (root / f"usr/share/doc/{name}/copyright").is_file()] == []


@pytest.mark.parametrize("codename", RELEASE_NAMES)
def test_the_base_fits_its_budget(entries_of, codename):
    from backports import zstd

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for entry in entries_of(codename, "amd64"):
            info = tarfile.TarInfo(entry.name)
            info.size = len(entry.data)
            tar.addfile(info, io.BytesIO(entry.data))
    options = {zstd.CompressionParameter.compression_level: 3, zstd.CompressionParameter.nb_workers: 2}
    assert len(zstd.compress(buffer.getvalue(), options=options)) <= 20_000_000


def needed_libraries(elf):
    """DT_NEEDED of a 64-bit little-endian ELF file."""

    def number(at, size):
        return int.from_bytes(elf[at : at + size], "little")

    headers, count = number(32, 8), number(56, 2)
    segments = [headers + 56 * index for index in range(count)]
    loads = [(number(at + 16, 8), number(at + 8, 8), number(at + 32, 8)) for at in segments if number(at, 4) == 1]
    dynamic = next((number(at + 8, 8), number(at + 32, 8)) for at in segments if number(at, 4) == 2)
    tags = [(number(at, 8), number(at + 8, 8)) for at in range(dynamic[0], sum(dynamic), 16)]
    strings = next(value for tag, value in tags if tag == 5)
    table = next(strings - address + offset for address, offset, size in loads if address <= strings < address + size)
    for value in (value for tag, value in tags if tag == 1):
        yield elf[table + value : elf.index(b"\0", table + value)].decode()
