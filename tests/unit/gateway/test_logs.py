"""What is read in Envoy's log, and when it is set aside."""

from corten.gateway import logs


def test_a_log_is_read_from_its_end_and_not_before_a_mark(tmp_path):
    log = tmp_path / "log"
    assert logs.tail(log) == ""
    log.write_bytes(b"old\nnew \xff\n")
    assert logs.tail(log) == "old\nnew \ufffd\n"
    assert logs.tail(log, since_bytes=4) == "new \ufffd\n"
    assert logs.tail(log, at_most_bytes=2) == "\ufffd\n"


def test_a_log_is_set_aside_when_it_has_grown(tmp_path, monkeypatch):
    log = tmp_path / "envoy.log"
    assert not logs.rotate(log)
    log.write_text("many words")
    assert not logs.rotate(log)
    monkeypatch.setattr(logs, "LARGEST_BYTES", 10)
    assert logs.rotate(log)
    assert (log.exists(), (tmp_path / "envoy.log.1").read_text()) == (False, "many words")


def test_the_last_words_are_those_of_the_last_line_without_its_time(tmp_path):
    log = tmp_path / "envoy.log"
    log.write_text("[2026-01-01 10:00:00.1][1][info] [main.cc:9] early\n[2026-01-01 10:00:00.2][1][critical] no file\n")
    assert logs.last_words(log, since_bytes=0) == "no file"


def test_a_reason_is_taken_from_a_whole_line_only(tmp_path):
    log = tmp_path / "envoy.log"
    log.write_text("gRPC config rejected: too old\nconfig rejected: no such cluster\nconfig rejected: half a li")
    assert logs.rejection(log, since_bytes=0) == "no such cluster"
    assert logs.rejection(log, since_bytes=30) == "no such cluster"
    assert logs.rejection(log, since_bytes=70) == ""
