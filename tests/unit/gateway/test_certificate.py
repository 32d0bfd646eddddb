"""A certificate and its key, before anybody is shown them."""

import os

import pytest
from certificates import write_certificate

from corten.errors import UsageError
from corten.gateway.certificate import CertificateFiles, read_certificate

DAY_S = 86_400


def test_a_certificate_is_for_its_names_and_until_its_end(tmp_path):
    chain, key = write_certificate(tmp_path, hosts=("models.example", "10.0.0.7"), days=3)
    found = read_certificate(chain, key, now_s=chain.stat().st_mtime)
    assert found.names == ("models.example", "10.0.0.7")
    assert found.expires_s - chain.stat().st_mtime == pytest.approx(3 * DAY_S, abs=5)
    assert found.key not in repr(found)


def test_files_are_read_again_only_when_they_were_touched_and_a_bad_pair_leaves_the_one_before(tmp_path):
    paths = write_certificate(tmp_path)
    now_s = paths[0].stat().st_mtime
    files = CertificateFiles(*paths)
    first = files.read(now_s=now_s)
    assert files.changed(now_s=now_s) is None
    other = write_certificate(tmp_path, "other")
    other[0].replace(paths[0])
    assert files.changed(now_s=now_s) is None
    assert "is not the key of" in files.warning(now_s=now_s)
    assert files.found == first
    # Looked at once, not at every look.
    assert files.changed(now_s=now_s) is None
    other[1].replace(paths[1])
    assert files.changed(now_s=now_s) == files.found != first
    assert files.warning(now_s=now_s) == ""


def test_a_certificate_that_ends_soon_is_warned_of(tmp_path):
    paths = write_certificate(tmp_path, days=15)
    now_s = paths[0].stat().st_mtime
    files = CertificateFiles(*paths)
    files.read(now_s=now_s)
    assert files.warning(now_s=now_s) == ""
    assert files.warning(now_s=now_s + 2 * DAY_S) == "its certificate ends in 13 days"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"x" * (2 << 20), b"-----BEGIN CERTIFICATE-----\nAA\n"])
def test_what_is_no_certificate_is_refused(tmp_path, content):
    chain, key = write_certificate(tmp_path)
    chain.write_bytes(content)
    with pytest.raises(UsageError) as refused:
        read_certificate(chain, key, now_s=0.0)
    assert refused.value.code == "gateway.bad_certificate"


def test_a_pipe_is_no_file_and_nobody_waits_for_it(tmp_path):
    chain, key = write_certificate(tmp_path)
    chain.unlink()
    os.mkfifo(chain)
    with pytest.raises(UsageError, match="it is no file"):
        read_certificate(chain, key, now_s=0.0)
