import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.registry.serving import Kind, Route, parse_range, parse_route, place


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v2/iris/manifests/latest", Route("iris", Kind.MANIFEST, "latest")),
        ("/v2/team/iris/blobs/sha256:00", Route("team/iris", Kind.BLOB, "sha256:00")),
        ("/v2/team/iris/blobs/sha256%3A00", Route("team/iris", Kind.BLOB, "sha256:00")),
        ("/v2/manifests/manifests/manifests/1", Route("manifests/manifests", Kind.MANIFEST, "1")),
        ("/v2/iris/tags/list", Route("iris", Kind.TAGS, "list")),
        ("/v2/iris/tags/1", None),
        ("/v2/../manifests/1", None),
        ("/v2/%2e%2e/manifests/1", None),
        ("/v2/iris/manifests/", None),
        ("/v2/_catalog", None),
        ("/", None),
    ],
)
def test_a_path_is_read(path, route):
    assert parse_route(path) == route


@given(st.text(max_size=80))
def test_any_path_is_read_without_an_error(path):
    found = parse_route("/v2/" + path)
    assert found is None or ".." not in found.repository.split("/")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("bytes=0-", (0, 100)), ("bytes=10-19", (10, 10)), ("bytes=90-500", (90, 10)), ("bytes=-5", (95, 5)),
        ("bytes=-500", (0, 100)), ("", None), ("bytes=0-1,5-6", None), ("lines=1-2", None),
    ],
)  # fmt: skip
def test_one_range_is_sent_and_anything_else_ignored(text, part):
    assert parse_range(text, 100) == part


@pytest.mark.parametrize("text", ["bytes=100-", "bytes=500-600", "bytes=9-3", "bytes=-0"])
def test_a_range_outside_of_the_blob_is_refused(text):
    with pytest.raises(ValueError, match=text):
        parse_range(text, 100)


@given(st.integers(0, 200), st.one_of(st.none(), st.integers(0, 200)), st.integers(1, 150))
def test_a_range_never_leaves_the_blob(first, last, size_bytes):
    try:
        start, count = parse_range(f"bytes={first}-{'' if last is None else last}", size_bytes)
    except ValueError:
        assert first >= size_bytes or (last is not None and last < first)
        return
    assert 0 <= start < start + count <= size_bytes


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("iris", ("iris", "latest")),
        ("ghcr.io/team/iris:1", ("team/iris", "1")),
        ("localhost:5000/iris", ("iris", "latest")),
        ("", None),
        ("Iris Model", None),
    ],
)
def test_a_name_in_the_store_is_a_repository_and_a_tag(name, where):
    assert place(name) == where
