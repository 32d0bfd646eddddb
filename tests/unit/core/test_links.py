"""Where a path leads in a tree that has links."""

import pytest

from corten.core.links import follow

LINKS = {"bin": "usr/bin", "usr/bin/python": "python3", "opt": "/usr", "up": "../../etc", "loop": "loop"}


def target(parts):
    return LINKS.get("/".join(parts), "")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/bin/python", "usr/bin/python3"),
        ("opt/bin/python", "usr/bin/python3"),
        ("bin/../lib", "usr/lib"),
        ("up/passwd", "etc/passwd"),
        ("../../etc", "etc"),
        ("nothing/here", "nothing/here"),
        ("loop", "loop"),
        ("/", ""),
    ],
)
def test_links_are_followed_and_never_out_of_the_root(path, place):
    assert "/".join(follow(path, target)) == place
