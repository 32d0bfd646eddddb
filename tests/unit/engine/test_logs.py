from hypothesis import given
from hypothesis import strategies as st

from corten.engine.logs import keep_short, last_lines


def test_there_is_no_log(tmp_path):
    assert last_lines(tmp_path / "log", 10) == []


@given(lines=st.lists(st.text("ab é€", max_size=60), max_size=80), most=st.integers(0, 100))
def test_the_last_lines_are_those_of_the_whole_text(tmp_path_factory, lines, most):
    log = tmp_path_factory.mktemp("logs") / "log"
    log.write_text("".join(f"{line}\n" for line in lines))
    assert last_lines(log, most) == (lines[-most:] if most else [])


def test_a_line_without_end_is_a_line(tmp_path):
    (tmp_path / "log").write_text("one\ntwo")
    assert last_lines(tmp_path / "log", 1) == ["two"]


def test_lines_longer_than_a_piece_are_whole(tmp_path):
    (tmp_path / "log").write_text("x\n" + "y" * 200_000 + "\n")
    assert last_lines(tmp_path / "log", 1) == ["y" * 200_000]


def test_an_endless_line_does_not_fill_memory(tmp_path):
    (tmp_path / "log").write_text("z" * 1_000_000)
    assert len(last_lines(tmp_path / "log", 5, limit_bytes=100_000)[0]) <= 200_000


def test_bytes_that_are_no_text_are_shown_as_such(tmp_path):
    (tmp_path / "log").write_bytes(b"\xff\xfe\n")
    assert last_lines(tmp_path / "log", 1) == ["\ufffd\ufffd"]


def test_a_short_log_is_left_alone(tmp_path):
    (tmp_path / "log").write_text("short\n")
    assert not keep_short(tmp_path / "log")
    assert (tmp_path / "log").read_text() == "short\n"


def test_a_long_log_is_cut_and_its_writer_goes_on(tmp_path):
    log = tmp_path / "log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 100)
        assert keep_short(log, longest_bytes=100, kept_bytes=8)
        writer.write(b"new\n")
    assert log.read_text() == "new\n"
    assert (tmp_path / "log.1").read_text() == "old\nold\n"
