"""The .deb reader: versions as policy orders them, and nothing odd gets through."""

import contextlib
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.builder import deb
from corten.builder.entry import Entry, EntryKind
from corten.errors import PolicyError
from corten.testing.debian import compress, make_ar, make_deb, make_tar, tar_member

CONTROL = "Package: demo\nVersion: 1.0\nArchitecture: amd64\n"

# From policy 5.6.12, dpkg's own tests (lib/dpkg/t/t-version.c) and versions seen in bookworm.
OLDER_TO_NEWER = [
    ("1.0~beta1~svn1245", "1.0~beta1"),
    ("1.0~beta1", "1.0"),
    ("1.0", "1.0+b1"),
    ("1.0-1", "1.0-1+b1"),
    ("1.0-1~deb12u1", "1.0-1"),
    ("1.0-1", "1:0.1-1"),
    ("1.9", "1.10"),
    ("1.0a", "1.0b"),
    ("1.0a", "1.0+"),
    ("1.2.3", "1.2.3.1"),
    ("1.2.3~rc1", "1.2.3"),
    ("1.2-3", "1.2.1-1"),
    ("0.9.99", "0.10"),
    ("2.36-9+deb12u9", "2.36-9+deb12u10"),
    ("3.0.16-1~deb12u1", "3.0.17-1~deb12u2"),
    ("0:1", "0:1-0.1"),
    ("1~~", "1~~a"),
    ("1~~a", "1~"),
    ("1~", "1"),
    ("1", "1a"),
    ("1.-1", "1.a"),
]


@pytest.mark.parametrize(("older", "newer"), OLDER_TO_NEWER)
def test_versions_are_ordered_as_policy_says(older, newer):
    assert deb.version_key(older) < deb.version_key(newer)


@pytest.mark.parametrize(
    ("one", "other"), [("1.0", "0:1.0"), ("1.0", "1.0-0"), ("1.00", "1.0"), ("1.", "1.0"), ("a0", "a"), ("1-0", "1-00")]
)
def test_different_spellings_of_a_version_are_equal(one, other):
    assert deb.version_key(one) == deb.version_key(other)


@pytest.mark.parametrize("text", ["", "1 0", "a:1", ":1", "1_0", "1-", "-1", "é1", "1\n"])
def test_what_is_no_version_is_refused(text):
    with pytest.raises(PolicyError) as caught:
        deb.version_key(text)
    assert caught.value.code == "deb.version"


upstream = st.text("0123456789abz.+~", min_size=1, max_size=8)
versions = st.one_of(
    upstream,
    st.tuples(upstream, st.text("0129az.+~", min_size=1, max_size=5)).map("-".join),
    st.tuples(st.integers(0, 3), upstream).map(lambda pair: f"{pair[0]}:{pair[1]}"),
)


@given(versions)
def test_a_tilde_sorts_before_the_end_and_a_plus_after_it(version):
    assert deb.version_key(version + "~") < deb.version_key(version) < deb.version_key(version + "+x")


@given(versions, versions)
def test_the_order_is_that_of_dpkgs_algorithm(left, right):
    one, other = deb.version_key(left), deb.version_key(right)
    assert (one > other) - (one < other) == reference_order(left, right)


def reference_order(left, right):
    """verrevcmp of lib/dpkg/version.c, letter by letter: the oracle."""

    def split(text):
        epoch, _, rest = text.rpartition(":")
        up, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
        return int(epoch or 0), up, revision

    def order(text, at):
        if at >= len(text) or text[at].isdigit():
            return 0
        if text[at].isalpha():
            return ord(text[at])
        return -1 if text[at] == "~" else ord(text[at]) + 256

    def compare(a, b):
        i = j = 0
        while i < len(a) or j < len(b):
            first = 0
            while (i < len(a) and not a[i].isdigit()) or (j < len(b) and not b[j].isdigit()):
                if order(a, i) != order(b, j):
                    return -1 if order(a, i) < order(b, j) else 1
                i, j = i + 1, j + 1
            while i < len(a) and a[i] == "0":
                i += 1
            while j < len(b) and b[j] == "0":
                j += 1
            while i < len(a) and a[i].isdigit() and j < len(b) and b[j].isdigit():
                first = first or (ord(a[i]) - ord(b[j]))
                i, j = i + 1, j + 1
            if i < len(a) and a[i].isdigit():
                return 1
            if j < len(b) and b[j].isdigit():
                return -1
            if first:
                return -1 if first < 0 else 1
        return 0

    (e1, u1, r1), (e2, u2, r2) = split(left), split(right)
    return (e1 > e2) - (e1 < e2) or compare(u1, u2) or compare(r1, r2)


def test_a_paragraph_keeps_its_continuation_lines():
    fields = deb.parse_paragraph("Package: a\nDescription: short\n long\n .\n more\n", where="here")
    assert fields == {"package": "a", "description": "short\nlong\n.\nmore"}


@pytest.mark.parametrize("text", ["no field", " begins: with space", "A: 1\nA: 2", "a b: 1", ""])
def test_a_malformed_paragraph_is_refused(text):
    with pytest.raises(PolicyError) as caught:
        deb.parse_paragraph(text, where="here")
    assert caught.value.code == "deb.control"


def read(data, **options):
    return deb.read_stream(io.BytesIO(data), where="demo.deb", **options)


def refused(members):
    with pytest.raises(PolicyError) as caught:
        read(make_deb(CONTROL, members))
    assert caught.value.code == "deb.member_refused"
    assert caught.value.where == "demo.deb"
    return caught.value


@pytest.mark.parametrize("suffix", [".xz", ".gz", ".zst", ""])
def test_files_folders_and_links_come_out_whatever_the_compression(suffix):
    members = [
        tar_member("./", kind=tarfile.DIRTYPE, mode=0o755),
        tar_member("./usr/", kind=tarfile.DIRTYPE, mode=0o755),
        tar_member("./usr/demo", b"content", mode=0o755),
        tar_member("./usr/link", kind=tarfile.SYMTYPE, link="demo"),
    ]
    package = read(make_deb(CONTROL, members, suffix=suffix))
    assert package.control == CONTROL.encode()
    assert package.entries == (
        Entry("usr", EntryKind.DIRECTORY, 0o755),
        Entry("usr/demo", EntryKind.FILE, 0o755, b"content"),
        Entry("usr/link", EntryKind.SYMLINK, 0o777, target="demo"),
    )


def test_a_file_on_disk_is_read_as_well(tmp_path: Path):
    (tmp_path / "a.deb").write_bytes(make_deb(CONTROL, [tar_member("./a", b"1")]))
    assert deb.read(tmp_path / "a.deb").entries == (Entry("a", data=b"1"),)


def test_top_level_folders_are_merged_into_usr():
    package = read(make_deb(CONTROL, [tar_member("./lib/x/libz.so", b"elf"), tar_member("./bin/tool", b"elf")]))
    assert [entry.name for entry in package.entries] == ["usr/lib/x/libz.so", "usr/bin/tool"]


def test_the_links_of_the_usr_merge_itself_are_left_to_the_base():
    members = [
        tar_member("./bin", kind=tarfile.SYMTYPE, link="usr/bin"),
        tar_member("./lib64", kind=tarfile.SYMTYPE, link="usr/lib64"),
    ]
    assert read(make_deb(CONTROL, members)).entries == ()


def test_a_relative_link_out_of_a_merged_folder_becomes_absolute():
    member = tar_member("./lib/x/liba.so", kind=tarfile.SYMTYPE, link="../../opt/a/liba.so")
    assert read(make_deb(CONTROL, [member])).entries[0].target == "/opt/a/liba.so"


def test_a_relative_link_inside_a_merged_folder_stays_as_it_is():
    member = tar_member("./lib/x/liba.so", kind=tarfile.SYMTYPE, link="../y/liba.so")
    assert read(make_deb(CONTROL, [member])).entries[0].target == "../y/liba.so"


def test_a_hard_link_becomes_a_file_of_its_own():
    members = [tar_member("./bin/a", b"elf", mode=0o755), tar_member("./bin/b", kind=tarfile.LNKTYPE, link="./bin/a")]
    assert read(make_deb(CONTROL, members)).entries[1] == Entry("usr/bin/b", EntryKind.FILE, 0o755, b"elf")


def test_setuid_and_setgid_bits_are_taken_off():
    members = [tar_member("./su", b"elf", mode=0o6755), tar_member("./mail/", kind=tarfile.DIRTYPE, mode=0o2775)]
    assert [entry.mode for entry in read(make_deb(CONTROL, members)).entries] == [0o755, 0o775]


def test_long_names_and_long_link_targets_are_read():
    name, target = "d/" + "n" * 200, "t" * 180
    members = [tar_member(f"./{name}", b"1"), tar_member("./l", kind=tarfile.SYMTYPE, link=target)]
    file, link = read(make_deb(CONTROL, members)).entries
    assert (file.name, link.target) == (name, target)


@pytest.mark.parametrize("name", ["../evil", "./usr/../../evil", "/etc/evil", "usr/..", "a\nb", "a\x1bb"])
def test_a_name_that_is_not_below_the_root_is_refused_naming_it(name):
    assert name in refused([tar_member(name, b"x")]).what


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_refused(kind):
    assert "./dev/x" in refused([tar_member("./dev/x", kind=kind)]).what


@pytest.mark.parametrize("link", ["../evil", "/../evil", "a/../../evil", "./nothing"])
def test_a_hard_link_to_what_is_not_there_is_refused(link):
    refused([tar_member("./a", kind=tarfile.LNKTYPE, link=link)])


def test_a_hard_link_to_a_symlink_is_refused():
    refused(
        [
            tar_member("./a", kind=tarfile.SYMTYPE, link="/etc/passwd"),
            tar_member("./b", kind=tarfile.LNKTYPE, link="./a"),
        ]
    )


@pytest.mark.parametrize("link", ["../x", "../../etc/passwd", "usr/../../x"])
def test_a_symlink_out_of_the_root_is_refused(link):
    refused([tar_member("./a", kind=tarfile.SYMTYPE, link=link)])


def test_a_file_given_twice_is_refused():
    refused([tar_member("./a", b"1"), tar_member("a", b"2")])


def malformed(data, **options):
    with pytest.raises(PolicyError) as caught:
        read(data, **options)
    assert caught.value.code == "deb.malformed"
    return caught.value.why


def test_what_is_no_package_is_refused():
    assert "!<arch>" in malformed(b"PK\x03\x04 a zip")
    assert "debian-binary" in malformed(make_ar([("control.tar", b"")]))
    assert "version 2" in malformed(make_ar([("debian-binary", b"3.0\n")]))
    assert "control.tar" in malformed(make_ar([("debian-binary", b"2.0\n"), ("data.tar", b"")]))
    assert "control file" in malformed(
        make_ar([("debian-binary", b"2.0\n"), ("control.tar", make_tar([])), ("data.tar", make_tar([]))])
    )


def test_members_with_an_underscore_are_ignored():
    controls = make_tar([tar_member("./control", CONTROL.encode())])
    members = [("debian-binary", b"2.0\n"), ("_new", b"x"), ("control.tar", controls), ("data.tar", make_tar([]))]
    assert read(make_ar(members)).control == CONTROL.encode()


def test_an_unknown_compression_is_named():
    members = [("debian-binary", b"2.0\n"), ("control.tar.lz4", b"x"), ("data.tar.lz4", b"x")]
    with pytest.raises(PolicyError, match=r"\.lz4"):
        read(make_ar(members))


def test_what_unpacks_to_more_than_the_limit_is_refused():
    bomb = make_deb(CONTROL, [tar_member("./zeros", bytes(1 << 20))])
    assert "more than 65536" in malformed(bomb, max_bytes=1 << 16)


def test_a_damaged_tar_header_is_not_taken_for_the_end():
    tar = bytearray(make_tar([tar_member("./a", b"1"), tar_member("./b", b"2")]))
    tar[1024 + 10] ^= 0xFF
    controls = make_tar([tar_member("./control", CONTROL.encode())])
    members = [("debian-binary", b"2.0\n"), ("control.tar", controls), ("data.tar", bytes(tar))]
    assert "damaged" in malformed(make_ar(members))


@pytest.mark.parametrize("suffix", [".xz", ".gz", ".zst"])
def test_a_stream_cut_short_is_refused(suffix):
    tar = compress(make_tar([tar_member("./a", bytes(range(256)) * 99)]), suffix)
    controls = make_tar([tar_member("./control", CONTROL.encode())])
    members = [("debian-binary", b"2.0\n"), ("control.tar", controls), (f"data.tar{suffix}", tar[: len(tar) // 2])]
    assert malformed(make_ar(members))


WHOLE = make_deb(CONTROL, [tar_member("./usr/a", b"1" * 600), tar_member("./usr/b", b"2")], suffix="")


@given(st.integers(0, len(WHOLE) - 1))
def test_a_package_cut_anywhere_is_refused_or_lacks_only_padding(end):
    try:
        package = read(WHOLE[:end])
    except PolicyError:
        return
    assert package == read(WHOLE)


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_flipped_byte_never_ends_in_a_foreign_exception(at, flip):
    damaged = bytearray(WHOLE)
    damaged[at] ^= flip
    with contextlib.suppress(PolicyError):
        read(bytes(damaged))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_end_in_a_foreign_exception(data):
    with pytest.raises(PolicyError):
        read(b"!<arch>\n" + data)
