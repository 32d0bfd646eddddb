import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.core.digest import Digest
from corten.core.reference import Reference, is_repository
from corten.errors import UsageError

DIGEST = Digest.of(b"x")
part = st.from_regex(r"[a-z0-9]{1,6}([._-][a-z0-9]{1,6}){0,2}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("localhost:5000/iris", Reference("localhost:5000", "iris", "latest")),
        ("localhost/iris:1", Reference("localhost", "iris", "1")),
        ("ghcr.io/team/iris:v1.2_3-x", Reference("ghcr.io", "team/iris", "v1.2_3-x")),
        (f"ghcr.io/team/iris@{DIGEST}", Reference("ghcr.io", "team/iris", "", DIGEST)),
        (f"ghcr.io/team/iris:1@{DIGEST}", Reference("ghcr.io", "team/iris", "1", DIGEST)),
        ("[::1]:5000/a__b/c--d", Reference("[::1]:5000", "a__b/c--d", "latest")),
    ],
)
def test_a_reference_is_read_in_its_parts(text, wanted):
    assert Reference.parse(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "", "iris", "team/iris", "iris:1", "ghcr.io", "ghcr.io/", "ghcr.io/Iris", "ghcr.io/a//b", "ghcr.io/../b",
        "ghcr.io/a/", "ghcr.io/a:", "ghcr.io/a:.x", "ghcr.io/a:" + "x" * 129, "ghcr.io/" + "a" * 255, "ghcr.io/a@sha256:1",
        "ghcr.io/a@", "-x.io/a", "user@ghcr.io/a", "https://ghcr.io/a", "ghcr.io/a b", "ghcr.io/a\n", "ghcr.io:99999/a",
        "ghcr.io/a%2fb", "localhost:5000/a?x=1", "localhost:5000/a#x", "localhost:/a",
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(UsageError) as refused:
        Reference.parse(text)
    assert refused.value.code in {"reference.malformed", "digest.malformed"}


def test_a_reference_without_a_registry_is_told_where_to_put_one():
    with pytest.raises(UsageError) as refused:
        Reference.parse("team/iris:1")
    assert "localhost:5000/team/iris:1" in refused.value.hint


@given(
    st.lists(part, min_size=1, max_size=3),
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True),
    st.booleans(),
)
def test_what_is_written_is_what_is_read(parts, tag, pinned):
    written = Reference("r.example:5000", "/".join(parts), tag, DIGEST if pinned else None)
    assert Reference.parse(str(written)) == written
    assert Reference.parse(written.name).digest is None
    assert is_repository(written.repository)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_with_our_error(text):
    try:
        Reference.parse(text)
    except UsageError:
        return
    assert "/" in text
