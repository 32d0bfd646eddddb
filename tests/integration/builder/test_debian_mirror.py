"""Resolving and fetching against a real HTTP server that misbehaves in every way a mirror or its attacker can."""

import dataclasses
import time

import msgspec
import pytest

from corten.builder import base
from corten.builder.debian import Deb, Release, Suite, fetch, resolve
from corten.builder.debian.fetcher import deb_path
from corten.builder.http_client import Patience
from corten.core.events import Phase
from corten.core.platform import Platform
from corten.errors import CortenError, NotFoundError, PolicyError, RemoteError, UsageError
from corten.testing.debian import Repository, Signer, serve, tar_member

AMD64 = Platform("amd64")
NOW_S = 1_790_000_000.0
DAY_S = 86400.0
IMPATIENT = Patience(idle_s=5, total_s=10, attempts=3, pause_s=0.001)


@pytest.fixture(scope="module")
def signer():
    return Signer()


@pytest.fixture(scope="module")
def stranger():
    return Signer("Stranger <x@example.org>")


class World:
    """A mirror with two suites and a machine with a keyring and an empty cache."""

    def __init__(self, signer, folder):
        self.signer = signer
        self.cache = folder / "cache"
        self.keyring = folder / "keyring.gpg"
        self.keyring.write_bytes(bytes(signer.certificate))
        self.release = Release(
            codename="bookworm",
            version_id="12",
            python="3.11",
            glibc="2.36",
            suites=(
                Suite("bookworm", "debian", moves=False),
                Suite("bookworm-security", "debian-security", moves=True),
            ),
            packages=("libone", "libtwo"),
            fingerprints=(signer.fingerprint,),
        )
        self.main = Repository("bookworm", "debian", NOW_S - 90 * DAY_S, suffix=".gz")
        self.security = Repository("bookworm-security", "debian-security", NOW_S, valid_until_s=NOW_S + 7 * DAY_S)
        self.one = self.main.add("libone", members=[tar_member("./usr/lib/one", b"1" * 5000)])
        self.main.add("libtwo", "2.0", members=[tar_member("./usr/lib/two", b"old")])
        self.two = self.security.add("libtwo", "2.0+deb12u1", members=[tar_member("./usr/lib/two", b"new" * 900)])
        self.main.add("tool", members=[tar_member("./usr/bin/tool", b"t")], Depends="libone, dpkg | mydpkg")
        self.main.add("dpkg")
        self.events = []

    def files(self):
        return self.main.files(self.signer) | self.security.files(self.signer)

    def resolve(self, server, **options):
        options = {
            "mirror": server.url,
            "cache": self.cache,
            "now_s": NOW_S,
            "listen": self.events.append,
            "keyring": self.keyring,
            "patience": IMPATIENT,
            **options,
        }
        return resolve(self.release, AMD64, **options)

    def fetch(self, debs):
        return fetch(debs, self.cache, self.events.append, patience=IMPATIENT)

    def warnings(self):
        return [event.message for event in self.events if event.phase is Phase.WARNING]


@pytest.fixture
def world(signer, tmp_path):
    return World(signer, tmp_path)


@pytest.fixture
def server(world):
    with serve(world.files()) as running:
        yield running


INRELEASE = "/debian/dists/bookworm/InRelease"
SECURITY = "/debian-security/dists/bookworm-security/InRelease"


LISTED_INDEX = "/debian/dists/bookworm/main/binary-amd64/Packages.gz"


def refused(world, server, code, path, **options):
    with pytest.raises(PolicyError) as caught:
        world.resolve(server, **options)
    assert caught.value.code == code
    assert caught.value.where == server.url + path
    assert caught.value.why
    assert not list(world.cache.glob("debs/resolved/*"))
    return caught.value


def index_path(server):
    return next(path for path in server.files if path.startswith("/debian/") and "/by-hash/" in path)


def test_a_base_is_resolved_fetched_and_made_a_tree(world, server):
    debs = world.resolve(server)
    assert [(deb.name, deb.version) for deb in debs] == [("libone", "1.0"), ("libtwo", "2.0+deb12u1")]
    paths = world.fetch(debs)
    assert [path.read_bytes() for path in paths] == [world.one, world.two]
    tree = {entry.name: entry for entry in base.entries(list(zip(debs, paths, strict=True)), world.release, AMD64)}
    assert tree["usr/lib/two"].data == b"new" * 900
    assert world.warnings() == []


def test_what_is_resolved_can_be_kept_in_a_lock(world, server):
    debs = world.resolve(server)
    assert msgspec.json.decode(msgspec.json.encode(debs), type=tuple[Deb, ...]) == debs


def test_a_wanted_package_comes_with_what_it_needs_but_without_system_tools(world, server):
    debs = world.resolve(server, packages=["tool"])
    assert [deb.name for deb in debs] == ["libone", "libtwo", "tool"]
    assert world.warnings() == ["left out dpkg, which tool depends on: shells and system tools do not go into images"]


def test_with_a_warm_cache_only_the_release_files_travel(world, server):
    cold = world.resolve(server, packages=["tool"])
    server.requests.clear()
    assert world.resolve(server, packages=["tool"]) == cold
    assert sorted(server.requests) == sorted([INRELEASE, SECURITY])
    assert len(world.warnings()) == 2, "what is left out is said each time"


def test_other_packages_of_the_same_suites_need_no_other_index(world, server):
    world.resolve(server)
    server.requests.clear()
    world.resolve(server, packages=["tool"])
    assert sorted(server.requests) == sorted([INRELEASE, SECURITY])


def test_an_update_of_the_mirror_is_seen(world, server):
    world.resolve(server)
    world.security.date_s += 3600
    world.security.add("libone", "1.0+deb12u1")
    server.files |= world.files()
    assert [deb.version for deb in world.resolve(server)] == ["1.0+deb12u1", "2.0+deb12u1"]


def test_a_changed_release_file_is_refused(world, server):
    server.files[INRELEASE] = server.files[INRELEASE].replace(b"Origin: Debian", b"Origin: Debiam")
    refused(world, server, "debian.bad_signature", INRELEASE)


def test_an_unsigned_release_file_is_refused(world, server):
    server.files[SECURITY] = world.security.release().encode()
    refused(world, server, "debian.unsigned", SECURITY)


def test_a_release_file_signed_by_a_stranger_is_refused_though_the_keyring_has_him(world, server, stranger):
    world.keyring.write_bytes(bytes(world.signer.certificate) + bytes(stranger.certificate))
    server.files[INRELEASE] = world.main.files(stranger)[INRELEASE]
    refused(world, server, "debian.bad_signature", INRELEASE)


def test_another_suites_release_file_is_refused(world, server):
    server.files[SECURITY] = server.files[INRELEASE]
    refused(world, server, "debian.wrong_suite", SECURITY)


def test_an_expired_release_file_is_refused(world, server):
    refused(world, server, "debian.expired", SECURITY, now_s=NOW_S + 8 * DAY_S)


def test_a_mirror_that_goes_back_in_time_is_refused_and_what_was_newer_is_remembered(world, server):
    yesterday = world.security.files(world.signer)[SECURITY]
    world.security.date_s += DAY_S
    server.files |= world.files()
    world.resolve(server, now_s=NOW_S + DAY_S)
    server.files[SECURITY] = yesterday
    for _ in range(2):
        with pytest.raises(PolicyError) as caught:
            world.resolve(server, now_s=NOW_S + DAY_S)
        assert caught.value.code == "debian.rollback"


def test_a_refused_release_file_is_not_remembered(world, server, stranger):
    world.security.date_s += 3 * DAY_S
    server.files[SECURITY] = world.security.files(stranger)[SECURITY]
    refused(world, server, "debian.bad_signature", SECURITY)
    world.security.date_s -= 3 * DAY_S
    server.files |= world.files()
    assert world.resolve(server)


def test_a_stale_security_suite_is_warned_of(world, server):
    world.security.date_s, world.security.valid_until_s = NOW_S - 20 * DAY_S, None
    server.files |= world.files()
    world.resolve(server)
    assert len(world.warnings()) == 1
    assert "bookworm-security" in world.warnings()[0]


def test_an_index_that_is_not_the_signed_one_is_refused(world, server):
    path = index_path(server)
    server.files[path] = server.files[path][:-1] + b"?"
    refused(world, server, "debian.index_mismatch", LISTED_INDEX)
    assert not (world.cache / "debs" / "indexes" / (path.rpartition("/")[2] + ".gz")).exists()


@pytest.mark.parametrize("content", [b"", b"<html>", bytes(100_000)], ids=["empty", "short", "long"])
def test_an_index_of_another_length_is_refused(world, server, content):
    path = index_path(server)
    server.files[path] = content
    refused(world, server, "debian.index_mismatch", LISTED_INDEX)


def test_a_mirror_without_files_by_hash_will_do(world, server):
    folder, by_hash = index_path(server).split("/by-hash/SHA256/")
    server.files[f"{folder}/Packages.gz"] = server.files.pop(f"{folder}/by-hash/SHA256/{by_hash}")
    assert len(world.resolve(server)) == 2


def test_a_damaged_index_in_the_cache_is_fetched_again(world, server):
    cold = world.resolve(server)
    for path in [*world.cache.glob("debs/indexes/*"), *world.cache.glob("debs/resolved/*")]:
        path.write_bytes(path.read_bytes()[:-3] + b"???")
    assert world.resolve(server) == cold


def test_a_suite_without_the_platform_is_refused(world, server):
    with pytest.raises(PolicyError) as caught:
        resolve(
            world.release,
            Platform("arm64"),
            mirror=server.url,
            cache=world.cache,
            now_s=NOW_S,
            keyring=world.keyring,
            patience=IMPATIENT,
        )
    assert caught.value.code == "debian.no_index"


def test_an_unknown_package_is_named(world, server):
    with pytest.raises(NotFoundError, match="no Debian package `nope`"):
        world.resolve(server, packages=["nope"])


# Packages


def test_a_package_that_is_not_the_signed_one_is_refused_and_not_kept(world, server):
    debs = world.resolve(server)
    path = debs[0].url.removeprefix(server.url)
    flipped = bytearray(server.files[path])
    flipped[100] ^= 1
    server.files[path] = bytes(flipped)
    with pytest.raises(PolicyError) as caught:
        world.fetch(debs)
    assert caught.value.code == "debian.package_mismatch"
    assert caught.value.where == debs[0].url
    assert debs[0].digest.hex in caught.value.why
    assert [path for path in (world.cache / "debs").iterdir() if path.name.startswith((".", debs[0].digest.hex))] == []


def test_a_package_of_endless_size_is_stopped(world, server):
    debs = world.resolve(server)
    server.files[debs[0].url.removeprefix(server.url)] += bytes(4 << 20)
    with pytest.raises(PolicyError, match="libone"):
        world.fetch(debs)


def test_with_everything_in_the_cache_no_connection_is_opened(world, server):
    debs = world.resolve(server)
    paths = world.fetch(debs)
    connections = server.connections
    assert world.fetch(debs) == paths
    assert server.connections == connections


def test_a_damaged_package_in_the_cache_is_noticed_and_fetched_again(world, server):
    debs = world.resolve(server)
    first, _ = world.fetch(debs)
    damaged = bytearray(first.read_bytes())
    damaged[50] ^= 4
    first.write_bytes(bytes(damaged))
    world.fetch(debs)
    assert first.read_bytes() == world.one
    assert "libone" in world.warnings()[0]


def test_a_package_named_twice_is_fetched_once(world, server):
    debs = world.resolve(server)
    server.requests.clear()
    assert len(world.fetch([*debs, *debs])) == 4
    assert len(server.requests) == 2


def test_each_package_is_told_of_when_its_file_is_there_be_it_fetched_or_found(world, server):
    debs = world.resolve(server)
    world.fetch(debs[:1])
    told = []

    def arrived(deb):
        told.append((deb.name, deb_path(world.cache, deb).is_file()))

    fetch(debs, world.cache, arrived=arrived, patience=IMPATIENT)
    assert told == [("libone", True), ("libtwo", True)], "what was there before is told of first"


def test_a_package_that_is_read_while_others_come_gives_the_same_tree(world, server):
    debs = world.resolve(server)
    paths = world.fetch(debs)
    pairs = list(zip(debs, paths, strict=True))
    apart = list(base.entries(pairs, world.release, AMD64))
    with base.Unpacking() as unpacking:
        begun = unpacking.begin(paths[1])
        begun.result()
        paths[1].write_bytes(b"")  # nobody reads it a second time
        assert list(base.entries(pairs, world.release, AMD64, unpacking)) == apart


def test_many_packages_share_few_connections(world, server):
    for number in range(40):
        world.main.add(f"lib-{number:02}", members=[tar_member(f"./usr/lib/{number}", b"x" * number)])
    server.files |= world.files()
    world.release = dataclasses.replace(world.release, packages=tuple(f"lib-{number:02}" for number in range(40)))
    debs = world.resolve(server)
    server.connections = 0
    world.fetch(debs)
    assert 1 <= server.connections <= 4


# A bad network


@pytest.mark.parametrize("fault", [503, 429, "reset", "cut"])
def test_a_passing_failure_is_tried_again(world, server, fault):
    debs = world.resolve(server)
    server.faults += [fault, fault]
    assert [path.read_bytes() for path in world.fetch(debs)] == [world.one, world.two]
    assert [path.name for path in (world.cache / "debs").iterdir() if path.name.startswith(".")] == []


def test_a_lasting_failure_is_reported_with_the_address(world, server):
    debs = world.resolve(server)
    server.faults += [500] * 12
    with pytest.raises(RemoteError) as caught:
        world.fetch(debs[:1])
    assert (caught.value.code, caught.value.where) == ("debian.unreachable", debs[0].url)
    assert "CORTEN_DEBIAN_MIRROR" in caught.value.hint


def test_a_package_that_left_the_mirror_is_reported_as_gone(world, server):
    debs = world.resolve(server)
    del server.files[debs[0].url.removeprefix(server.url)]
    with pytest.raises(RemoteError) as caught:
        world.fetch(debs)
    assert caught.value.code == "debian.gone"


def test_a_refusal_is_not_tried_again(world, server):
    debs = world.resolve(server)
    server.requests.clear()
    server.faults += [403]
    with pytest.raises(RemoteError) as caught:
        world.fetch(debs[:1])
    assert caught.value.code == "debian.refused"
    assert len(server.requests) == 1


def test_redirects_are_followed_but_not_for_ever(world, server):
    debs = world.resolve(server)
    path = debs[0].url.removeprefix(server.url)
    server.files["/elsewhere.deb"] = server.files[path]
    server.redirects[path] = "/elsewhere.deb"
    world.fetch(debs[:1])
    server.redirects["/elsewhere.deb"] = path
    world.fetch(debs[:1])
    (world.cache / "debs" / debs[0].digest.hex).unlink()
    with pytest.raises(RemoteError) as caught:
        world.fetch(debs[:1])
    assert caught.value.code == "debian.refused"


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "//user:word@127.0.0.1/x"])
def test_a_redirect_to_what_is_no_mirror_is_refused(world, server, target):
    debs = world.resolve(server)
    server.redirects[debs[0].url.removeprefix(server.url)] = target
    with pytest.raises(UsageError) as caught:
        world.fetch(debs[:1])
    assert caught.value.code == "debian.mirror"
    assert "word" not in str(caught.value.as_dict())


@pytest.mark.parametrize("mirror", ["ftp://x", "deb.debian.org", "https://user:word@host", "file:///srv"])
def test_an_address_that_is_no_mirrors_is_refused_without_its_password(world, server, mirror):
    with pytest.raises(UsageError) as caught:
        world.resolve(server, mirror=mirror)
    assert "word" not in str(caught.value.as_dict())


def test_without_network_and_without_cache_the_mirror_is_unreachable(world):
    with serve({}) as gone:
        pass
    with pytest.raises(RemoteError) as caught:
        world.resolve(gone)
    assert caught.value.code == "debian.unreachable"


def test_without_network_the_cache_serves_as_long_as_it_is_valid(world, server):
    with serve(world.files()) as leaving:
        cold = world.resolve(leaving)
        world.fetch(cold)
    assert world.resolve(leaving) == cold
    assert len(world.warnings()) == 2
    assert [path.read_bytes() for path in world.fetch(cold)] == [world.one, world.two]
    with pytest.raises(PolicyError) as caught:
        world.resolve(leaving, now_s=NOW_S + 8 * DAY_S)
    assert caught.value.code == "debian.expired"


def test_a_proxy_is_asked_when_there_is_one(world, server):
    proxies = {"http": server.url}
    debs = world.resolve(server, mirror="http://mirror.invalid", proxies=proxies)
    assert debs[0].url.startswith("http://mirror.invalid/debian/pool/")
    assert all(request.startswith("http://mirror.invalid/") for request in server.requests)
    paths = fetch(debs, world.cache, proxies=proxies, patience=IMPATIENT)
    assert paths[0].read_bytes() == world.one


def test_a_proxy_is_not_asked_for_hosts_that_are_excepted(world, server):
    assert world.resolve(server, proxies={"http": "http://127.0.0.1:9", "no": "127.0.0.1"})


def test_a_mirror_that_drips_is_given_up(world, server):
    debs = world.resolve(server)
    server.faults += ["drip"] * 2
    began_s = time.monotonic()
    with pytest.raises(RemoteError, match="does not answer"):
        fetch(debs[:1], world.cache, patience=Patience(idle_s=1.0, total_s=0.3, attempts=2, pause_s=0.001))
    assert time.monotonic() - began_s < 4


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "https://user:word@proxy:3128"])
def test_a_proxy_of_another_kind_is_refused_without_its_password(world, server, proxy):
    with pytest.raises(UsageError) as caught:
        world.resolve(server, proxies={"all": proxy})
    assert caught.value.code == "debian.proxy"
    assert "word" not in str(caught.value.as_dict())


def test_a_tunnel_through_a_proxy_is_asked_for_where_the_mirror_has_tls(world, server):
    with pytest.raises(RemoteError, match="does not answer"):
        world.resolve(server, mirror="https://mirror.invalid", proxies={"https": server.url})
    assert set(server.requests) == {"CONNECT mirror.invalid:443"}


@pytest.mark.parametrize("refused_one", [0, 1])
def test_a_failure_does_not_wait_for_the_other_transfers(world, server, refused_one):
    debs = world.resolve(server)
    server.always[debs[refused_one].url.removeprefix(server.url)] = 403
    server.always[debs[1 - refused_one].url.removeprefix(server.url)] = "drip"
    began_s = time.monotonic()
    with pytest.raises(RemoteError) as caught:
        fetch(debs, world.cache, patience=Patience())
    assert caught.value.code == "debian.refused"
    assert time.monotonic() - began_s < 3
    assert [path.name for path in (world.cache / "debs").iterdir() if path.name.startswith(".")] == []


def test_a_missing_suite_does_not_wait_for_a_slow_one(world, server):
    server.always[INRELEASE] = "drip"
    del server.files[SECURITY]
    began_s = time.monotonic()
    with pytest.raises(RemoteError) as caught:
        world.resolve(server, patience=Patience())
    assert caught.value.code == "debian.gone"
    assert time.monotonic() - began_s < 3


def test_a_cache_that_cannot_be_written_is_not_blamed_on_the_mirror(world, server):
    debs = world.resolve(server)
    for deb in debs:
        (world.cache / "debs" / deb.digest.hex).mkdir()
        (world.cache / "debs" / deb.digest.hex / "x").touch()
    server.requests.clear()
    with pytest.raises(CortenError) as caught:
        world.fetch(debs)
    assert caught.value.code == "store.write_failed"
    assert caught.value.where.startswith(str(world.cache / "debs"))


# Keys


def add_keyring_package(world, certificate):
    folder = "./usr/share/keyrings"
    world.main.add(
        "debian-archive-keyring",
        members=[tar_member(f"{folder}/debian-archive-keyring.gpg", bytes(certificate))],
        Architecture="all",
    )


def test_without_a_keyring_the_pinned_certificates_come_from_the_mirror_and_are_kept(world, server):
    add_keyring_package(world, world.signer.certificate)
    server.files |= world.files()
    world.keyring.unlink()
    assert len(world.resolve(server)) == 2
    kept = world.cache / "debs" / "keyring" / "bookworm.pgp"
    assert kept.read_bytes() == bytes(world.signer.certificate)
    server.requests.clear()
    world.resolve(server)
    assert sorted(server.requests) == sorted([INRELEASE, SECURITY])


def test_a_mirror_cannot_bring_keys_of_its_own(world, server, stranger):
    add_keyring_package(world, stranger.certificate)
    server.files |= world.main.files(stranger) | world.security.files(stranger)
    world.keyring.unlink()
    with pytest.raises(PolicyError) as caught:
        world.resolve(server)
    assert caught.value.code == "debian.no_keys"
    assert not (world.cache / "debs" / "keyring").exists()


def test_a_mirror_with_the_right_keys_but_another_signature_is_refused(world, server, stranger):
    add_keyring_package(world, world.signer.certificate)
    server.files |= world.main.files(stranger) | world.security.files(stranger)
    world.keyring.unlink()
    with pytest.raises(PolicyError) as caught:
        world.resolve(server)
    assert caught.value.code == "debian.bad_signature"


def test_a_machines_keyring_without_the_pinned_keys_is_not_enough(world, server, stranger):
    world.keyring.write_bytes(bytes(stranger.certificate))
    with pytest.raises(PolicyError) as caught:
        world.resolve(server)
    assert caught.value.code == "debian.no_keys"
