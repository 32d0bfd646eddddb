"""Choosing packages: what is newest, what comes along, what stays out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.builder.debian.packages import DENIED, Choice, Index, Relation, choose, parse_relations
from corten.builder.debian.release import RELEASES, Deb, release_for_python
from corten.core.digest import Digest
from corten.errors import NotFoundError, PolicyError, UsageError


def stanza(name, version="1.0", **fields):
    lines = {
        "Package": name,
        "Version": version,
        "Architecture": "amd64",
        **fields,
        "Filename": f"pool/main/{name}_{version}.deb",
        "Size": "10",
        "SHA256": "a" * 64,
    }
    return "".join(f"{key.replace('_', '-')}: {text}\n" for key, text in lines.items())


def index(*stanzas):
    return Index(["\n".join(stanzas).encode()], "https://mirror/debian")


def chosen(indexes, base=(), wanted=()) -> dict[str, str]:
    return {deb.name: deb.version for deb in choose(indexes, base, wanted).debs}


def test_the_newest_version_of_all_suites_wins():
    suites = [
        index(stanza("app", "1.0-1")),
        index(stanza("app", "1.0-1+deb12u10")),
        index(stanza("app", "1.0-1+deb12u9")),
    ]
    assert chosen(suites, ["app"]) == {"app": "1.0-1+deb12u10"}


def test_a_name_that_begins_like_another_is_another():
    stanzas = [stanza(name) for name in ("app-dev", "app", "apple", "app2")]
    for shown in (stanzas, stanzas[::-1]):
        assert [one.deb.name for one in index(*shown).named("app")] == ["app"]
    both = index(stanza("app", "1.0"), stanza("app", "2.0"), stanza("app-dev")).named("app")
    assert [one.deb.version for one in both] == ["1.0", "2.0"]


def test_a_base_package_brings_nothing_along():
    assert chosen([index(stanza("app", Depends="libb"), stanza("libb"))], ["app"]) == {"app": "1.0"}


def test_a_wanted_package_brings_what_it_needs_and_what_that_needs():
    packages = index(
        stanza("app", Depends="libb (>= 1)"), stanza("libb", Pre_Depends="libc:any"), stanza("libc"), stanza("libd")
    )
    assert set(chosen([packages], [], ["app"])) == {"app", "libb", "libc"}


def test_a_circle_of_dependencies_ends():
    assert set(chosen([index(stanza("app", Depends="libb"), stanza("libb", Depends="app"))], [], ["app"])) == {
        "app",
        "libb",
    }


def test_of_alternatives_the_one_that_is_there_wins():
    packages = index(stanza("app", Depends="libb | libc"), stanza("libb"), stanza("libc"))
    assert set(chosen([packages], ["libc"], ["app"])) == {"app", "libc"}


def test_of_alternatives_none_of_which_is_there_the_first_that_exists_wins():
    packages = index(stanza("app", Depends="gone | libb | libc"), stanza("libb"), stanza("libc"))
    assert set(chosen([packages], [], ["app"])) == {"app", "libb"}


def test_a_virtual_package_is_met_by_one_that_provides_it():
    packages = index(stanza("app", Depends="virtual"), stanza("real", Provides="x, virtual (= 2)"))
    assert set(chosen([packages], [], ["app"])) == {"app", "real"}


def test_a_virtual_package_is_met_by_what_is_already_chosen():
    packages = index(
        stanza("app", Depends="virtual"), stanza("aa", Provides="virtual"), stanza("libz", Provides="virtual")
    )
    assert set(chosen([packages], ["libz"], ["app"])) == {"app", "libz"}


@pytest.mark.parametrize(("provides", "met"), [("v", False), ("v (= 1)", False), ("v (= 3)", True)])
def test_a_dependency_with_a_version_needs_a_provided_version(provides, met):
    packages = index(stanza("app", Depends="v (>= 2)"), stanza("libb", Provides=provides))
    if met:
        assert set(chosen([packages], [], ["app"])) == {"app", "libb"}
    else:
        with pytest.raises(PolicyError, match=r"needs what no package gives"):
            choose([packages], [], ["app"])


def test_a_dependency_that_only_an_old_version_meets_is_refused():
    suites = [index(stanza("app", Depends="libb (<< 2)"), stanza("libb", "1.0")), index(stanza("libb", "2.0"))]
    with pytest.raises(PolicyError) as caught:
        choose(suites, [], ["app"])
    assert caught.value.code == "debian.unsatisfied"
    assert "libb (<< 2)" in caught.value.why


def test_system_tools_are_left_out_and_reported_with_who_asked():
    packages = index(
        stanza("app", Depends="dpkg (>= 1), libb"),
        stanza("dpkg"),
        stanza("libb", Depends="mytool"),
        stanza("mytool", Essential="yes"),
    )
    choice = choose([packages], [], ["app"])
    assert [deb.name for deb in choice.debs] == ["app", "libb"]
    assert choice.left_out == (("dpkg", "app"), ("mytool", "libb"))


def test_a_system_tool_is_not_replaced_by_another_that_provides_it():
    packages = index(
        stanza("app", Depends="debconf | debconf-2.0"), stanza("debconf"), stanza("cdebconf", Provides="debconf-2.0")
    )
    choice = choose([packages], [], ["app"])
    assert [deb.name for deb in choice.debs] == ["app"]
    assert choice.left_out == (("debconf", "app"),)


def test_a_system_tool_asked_for_by_name_is_refused():
    with pytest.raises(PolicyError) as caught:
        choose([index(stanza("bash"))], [], ["bash"])
    assert caught.value.code == "debian.package_denied"


def test_an_unknown_package_is_named():
    with pytest.raises(NotFoundError, match="no Debian package `nope`"):
        choose([index(stanza("app"))], [], ["nope"])


@pytest.mark.parametrize("name", ["", "a", "A b", "../x", "libc6=2.36", "-x", "libc6\n"])
def test_what_cannot_be_a_package_name_is_refused(name):
    with pytest.raises(UsageError):
        choose([index(stanza("a"))], [], [name])


def test_the_address_of_a_package_is_below_the_mirror_and_quoted():
    (deb,) = choose([index(stanza("libstdc++6", "1:1.0~x"))], ["libstdc++6"]).debs
    assert deb.url == "https://mirror/debian/pool/main/libstdc++6_1:1.0~x.deb"


@pytest.mark.parametrize("filename", ["/etc/passwd", "../../x.deb", "pool/../../x"])
def test_a_file_name_outside_the_mirror_is_refused(filename):
    text = stanza("abc").replace("pool/main/abc_1.0.deb", filename)
    with pytest.raises(PolicyError):
        choose([index(text)], ["abc"])


@pytest.mark.parametrize("line", ["Size: 10\n", f"SHA256: {'a' * 64}\n", "Filename: pool/main/abc_1.0.deb\n"])
def test_a_paragraph_without_what_is_needed_is_refused(line):
    with pytest.raises(PolicyError) as caught:
        choose([index(stanza("abc").replace(line, ""))], ["abc"])
    assert caught.value.code == "deb.control"


def test_relations_are_read_as_policy_writes_them():
    groups = parse_relations("libc6 (>= 2.36), a:any | b(<<1:2~) ,\n c", where="here")
    assert groups == (
        (Relation("libc6", ">=", "2.36"),),
        (Relation("a"), Relation("b", "<<", "1:2~")),
        (Relation("c"),),
    )
    assert parse_relations("", where="here") == ()


@pytest.mark.parametrize("text", ["a (>= )", "a (~ 1)", "a b", "a (>= 1", "|", "UPPER"])
def test_a_malformed_relation_is_refused(text):
    with pytest.raises(PolicyError):
        parse_relations(text, where="here")


@pytest.mark.parametrize(
    ("op", "allowed"),
    [("<<", ["1"]), ("<=", ["1", "2"]), ("=", ["2"]), (">=", ["2", "3"]), (">>", ["3"]), ("", ["1", "2", "3"])],
)
def test_a_relation_allows_the_versions_it_says(op, allowed):
    assert [version for version in "123" if Relation("a", op, "2").allows(version)] == allowed


@given(st.integers(1, 40))
def test_an_index_is_the_same_in_whatever_pieces_it_comes(size):
    text = "\n".join([stanza("app", Depends="libb"), stanza("libb"), stanza("other")]).encode()
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert set(chosen([Index(pieces, "https://mirror/debian")], [], ["app"])) == {"app", "libb"}


names = st.sampled_from(["aa", "bb", "cc", "dd", "ee", "dpkg", "perl"])


@given(st.dictionaries(names, st.lists(names, max_size=3)), st.sets(names, max_size=3), st.randoms())
def test_a_choice_is_closed_has_no_system_tool_and_does_not_depend_on_the_order(graph, wanted, shuffle):
    every = set(graph) | {name for needs in graph.values() for name in needs} | wanted
    stanzas = [stanza(name, Depends=", ".join(graph.get(name, []))) for name in sorted(every)]
    wanted -= DENIED
    choice = choose([index(*stanzas)], [], sorted(wanted))
    have = {deb.name for deb in choice.debs}
    assert have.isdisjoint(DENIED)
    assert wanted <= have
    for name in have:
        assert set(graph.get(name, [])) <= have | DENIED
    shuffle.shuffle(stanzas)
    again: Choice = choose([index(*stanzas)], [], sorted(wanted))
    assert again.debs == choice.debs


@pytest.mark.parametrize(("name", "hex_digits"), [("../../etc/x", "a" * 64), ("libone", "../x"), ("libone", "A" * 64)])
def test_a_package_from_an_edited_lock_cannot_name_a_file_elsewhere(name, hex_digits):
    with pytest.raises(UsageError):
        Deb(name, "1", "amd64", "https://mirror/x.deb", Digest(hex_digits), 1)


@pytest.mark.parametrize(
    ("python", "codename"),
    [
        ("3.11", "bookworm"),
        ("", "bookworm"),
        ("3.8", "bookworm"),
        ("3.12", "trixie"),
        ("3.13", "trixie"),
        ("3.13.1", "trixie"),
        ("3.15", "trixie"),
        ("2.7", "bookworm"),
        ("x", "bookworm"),
    ],
)
def test_a_python_gets_the_release_with_the_nearest_one(python, codename):
    assert release_for_python(python).codename == codename


@pytest.mark.parametrize("release", RELEASES.values(), ids=str)
def test_a_release_pins_full_fingerprints_and_names_each_package_once(release):
    assert all(len(one) == 40 and one == one.lower() and int(one, 16) for one in release.fingerprints)
    assert len(set(release.packages)) == len(release.packages)
    assert f"python{release.python}-minimal" in release.packages
    assert DENIED.isdisjoint(release.packages)
    assert any(suite.archive == "debian-security" for suite in release.suites)


def test_an_unknown_package_leads_to_those_of_a_like_name():
    there = index(*(stanza(name) for name in ("libgl1", "libgl1-mesa-dri", "libglib2.0-0", "zlib1g")))
    with pytest.raises(NotFoundError) as unknown:
        chosen([there], [], ["libgl-1"])
    assert "`libgl1`" in unknown.value.hint
