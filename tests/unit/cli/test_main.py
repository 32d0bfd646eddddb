"""Of the command line: what is printed where, and which exit code a failure has."""

import io
import json

import pytest

from corten.cli import main as cli
from corten.cli.output import Output, megabytes, table
from corten.core.events import Event, Phase
from corten.errors import UsageError


def run(capsys, *words):
    code = cli.main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_names_every_verb_and_starts_with_examples(capsys):
    code, out, err = run(capsys, "--help")
    assert code == 0
    assert not err
    assert all(f"  {verb}" in out for verb, _ in cli.VERBS)
    assert out.index("corten up model.joblib") < out.index("usage:")


def test_no_verb_is_a_usage_error_that_shows_the_help(capsys):
    code, out, _ = run(capsys)
    assert code == 2
    assert "usage:" in out


@pytest.mark.parametrize("verb", [verb for verb, _ in cli.VERBS])
def test_the_help_of_each_verb_begins_with_an_example(capsys, verb):
    code, out, err = run(capsys, verb, "--help")
    assert code == 0
    assert not err
    assert out.index(f"  corten {verb}") < out.index("everywhere:")
    assert "--json" in out


def test_a_misspelt_verb_is_answered_with_the_nearest_one(capsys):
    code, out, err = run(capsys, "buld")
    assert code == 2
    assert not out
    assert "hint: did you mean `corten build`?" in err


def test_a_verb_of_another_tool_leads_to_ours(capsys):
    code, _, err = run(capsys, "dwn")
    assert code == 2
    assert "`corten stop`" in err


def test_a_word_of_another_tool_may_be_two_of_ours(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CORTEN_HOME", str(tmp_path))
    code, _, err = run(capsys, "rmi", "iris")
    assert code == 3
    assert "`corten rmi` is `corten images remove` here" in err
    assert "no image called `iris`" in err


@pytest.mark.parametrize("words", [("images", "remove"), ("images", "list", "iris")])
def test_names_of_images_go_with_remove_only(capsys, words):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert "corten images --help" in err


def test_an_unknown_option_is_a_usage_error_with_a_hint(capsys):
    code, out, err = run(capsys, "build", "x", "--nope")
    assert code == 2
    assert not out
    assert "--nope" in err
    assert "see `corten build --help`" in err


def test_with_json_an_error_is_the_one_document_on_stdout(capsys):
    code, out, err = run(capsys, "build", "--json", "--nope", "x")
    assert code == 2
    assert not err
    assert json.loads(out)["error"]["code"] == "cli.usage"
    assert json.loads(out)["error"]["exit_code"] == 2


def test_a_bug_leaves_a_report_and_its_own_exit_code(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("corten.ops.doctor.doctor", lambda **_: 1 / 0)
    code, out, err = run(capsys, "doctor")
    assert code == 70
    assert not out
    assert "this is a bug in Corten: ZeroDivisionError" in err
    report = next(tmp_path.glob("corten-report-*"))
    assert "ZeroDivisionError" in report.read_text()


def test_ctrl_c_has_its_own_exit_code_and_says_what_is_left(capsys, monkeypatch):
    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr("corten.ops.doctor.doctor", interrupt)
    code, out, err = run(capsys, "doctor")
    assert code == 130
    assert not out
    assert "interrupted" in err


def test_an_error_says_the_hint_last():
    err = io.StringIO()
    Output(err=err).error(UsageError("a.b", "no `x`", where="file:3", why="one\ntwo", hint="do y"))
    lines = err.getvalue().splitlines()
    assert lines[0] == "error: no `x`"
    assert lines[-1] == "hint: do y"
    assert "  where: file:3" in lines
    assert "         two" in lines


def test_quiet_hides_progress_but_not_warnings():
    err = io.StringIO()
    output = Output(err=err, quiet=True)
    output.listen(Event("lock", Phase.STARTED, ""))
    output.listen(Event("lock", Phase.DONE, "12 packages"))
    output.listen(Event("lock", Phase.WARNING, "versions differ"))
    assert err.getvalue() == "  ! lock      versions differ\n"


def test_a_finished_step_shows_its_time():
    err = io.StringIO()
    Output(err=err).listen(Event("lock", Phase.DONE, "12 packages", {"seconds": 1.234}))
    assert err.getvalue() == "  ✓ lock      12 packages  1.23 s\n"


def test_with_json_progress_is_one_document_a_line_on_stderr():
    err = io.StringIO()
    Output(err=err, json=True).listen(Event("lock", Phase.DONE, "12 packages", {"count": 12}))
    assert json.loads(err.getvalue())["event"] == {
        "step": "lock",
        "phase": "done",
        "message": "12 packages",
        "count": 12,
    }


def test_tables_line_up_and_sizes_are_for_people():
    assert table([("a", "bb"), ("ccc", "d")]) == "a    bb\nccc  d"
    assert megabytes(16_600_000) == "16.6 MB"
    assert megabytes(4_100) == "4.1 kB"


def test_a_table_shows_no_control_characters_of_a_stranger():
    from corten.cli.output import table

    shown = table([("name", "licence"), ("\x1b[2Jévil", "a\nb\u202e")])

    assert shown == "name      licence\n?[2Jévil  a?b?"
