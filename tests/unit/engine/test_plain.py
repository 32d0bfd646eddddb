import pytest

from corten.core.digest import Digest
from corten.core.image import Image
from corten.core.platform import Platform
from corten.engine.plain import plain_process, resolve_in
from corten.errors import EngineError


def image(*entrypoint):
    return Image(Digest("0" * 64), Platform.of_machine(), (), {}, entrypoint, "/app", {})


def test_links_are_followed_within_the_root(tmp_path):
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/python3.11").touch()
    (tmp_path / "usr/bin/python3").symlink_to("python3.11")
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "python").symlink_to("/bin/python3")
    assert resolve_in(tmp_path, "/python") == tmp_path / "usr/bin/python3.11"


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../../../etc/passwd", "/../etc/passwd"])
def test_links_never_lead_out_of_the_root(tmp_path, target):
    (tmp_path / "out").symlink_to(target)
    assert resolve_in(tmp_path, "/out") == tmp_path / "etc/passwd"
    assert resolve_in(tmp_path, "/../../etc/passwd") == tmp_path / "etc/passwd"


def test_a_link_to_itself_ends(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert resolve_in(tmp_path, "/loop") == tmp_path / "loop"


@pytest.mark.parametrize(
    "content", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(60), b"\x7fELF\x02\x01" + bytes(58)]
)
def test_what_is_no_dynamic_program_is_refused(tmp_path, content):
    (tmp_path / "run").write_bytes(content)
    with pytest.raises(EngineError) as raised:
        plain_process(image("/run"), tmp_path, tmp_path, {})
    assert raised.value.code == "engine.plain_unsupported"


def test_a_missing_program_or_entrypoint_is_refused(tmp_path):
    for given in (image("/nothing"), image()):
        with pytest.raises(EngineError):
            plain_process(given, tmp_path, tmp_path, {})
