import io

from corten.cli.output import Output
from corten.cli.progress import Board, Gauge, amount, clock
from corten.core.events import Event, Phase


def shown(text):
    """What a terminal that got this text shows: it knows line feeds, going up a line, and clearing one."""
    lines, row = [""], 0
    for part in text.replace("\x1b[1A", "\x00").replace("\x1b[K", "\x01").replace("\n", "\n\x02").split("\x02"):
        for char in part:
            match char:
                case "\n":
                    row += 1
                    lines += [""] * (row + 1 - len(lines))
                case "\x00":
                    row -= 1
                case "\x01":
                    lines[row] = ""
                case "\r":
                    pass
                case _:
                    lines[row] += char
    return [line for line in lines if line]


def going(step, done, total):
    return Event(step, Phase.PROGRESS, f"{done} of {total}", {"bytes": done, "total_bytes": total})


def test_the_rate_is_that_of_the_last_seconds_and_tells_how_long_it_takes_still():
    gauge = Gauge()
    gauge.note(0, 100_000_000, 0.0)
    assert str(gauge) == "0.0 of 100.0 MB    0 %", "nobody knows yet"
    for second in range(1, 11):
        gauge.note(second * 1_000_000, 100_000_000, float(second))
    for second in range(11, 21):  # the line got ten times as fast
        gauge.note(10_000_000 + (second - 10) * 10_000_000 // 2, 100_000_000, float(second))
    assert str(gauge) == "60.0 of 100.0 MB   60 %  5.0 MB/s  0:08 left"


def test_without_a_known_size_it_says_how_much_and_how_fast():
    gauge = Gauge()
    gauge.note(0, 0, 0.0)
    gauge.note(3_000_000, 0, 2.0)
    assert str(gauge) == "3.0 MB  1.5 MB/s"


def test_amounts_and_times_have_the_unit_that_fits():
    assert amount(1_200_000_000, 12_900_000_000) == "1.2 of 12.9 GB"
    assert [clock(seconds) for seconds in (3.6, 750, 3723)] == ["0:04", "12:30", "1:02:03"]


def test_each_running_step_has_a_line_that_fits_the_terminal():
    board = Board()
    board.started("wheels", "numpy 2.4.6", 0.0)
    board.started("wheels", "scipy 1.17.1", 0.0)
    board.started("base", "Debian 12", 0.0)
    assert board.lines(80) == ["  … wheels    numpy 2.4.6, scipy 1.17.1", "  … base      Debian 12"]
    assert board.lines(20) == ["  … wheels    numpy…", "  … base      Debia…"]
    board.done("wheels", "numpy 2.4.6")
    assert board.lines(80)[0] == "  … wheels    scipy 1.17.1"


def test_on_a_terminal_finished_steps_stand_above_the_lines_that_change():
    err = io.StringIO()
    output = Output(err=err, live=True)
    output.listen(Event("download", Phase.STARTED, "wheels"))
    output.listen(Event("base", Phase.STARTED, "Debian 12"))
    output.listen(Event("base", Phase.DONE, "Debian 12", {"seconds": 1.0}))
    assert shown(err.getvalue()) == ["  ✓ base      Debian 12  1.00 s", "  … download  wheels"]
    output.listen(Event("download", Phase.DONE, "7 wheels", {"seconds": 2.0}))
    assert shown(err.getvalue()) == ["  ✓ base      Debian 12  1.00 s", "  ✓ download  7 wheels  2.00 s"]


def test_more_steps_than_a_terminal_has_lines_are_counted():
    """Lines that had left the screen were never taken away: of a fleet there were two hundred."""
    err = io.StringIO()
    output = Output(err=err, live=True)
    for number in range(60):
        output.listen(Event(f"m{number} rollout", Phase.STARTED, "0 of 1 ready"))
    lines = shown(err.getvalue())
    assert len(lines) <= 23  # a terminal that says no size has 24
    assert lines[-1] == "  … 38 more"


def test_without_a_terminal_nothing_moves_the_cursor():
    err = io.StringIO()
    output = Output(err=err)
    output.listen(Event("push", Phase.STARTED, "here"))
    for done in range(100):
        output.listen(going("push", done, 100))
    output.listen(Event("push", Phase.DONE, "there", {"seconds": 0.1}))
    assert err.getvalue() == "  ✓ push      there  0.10 s\n"


def test_without_a_terminal_a_long_step_says_how_far_it_is_now_and_then():
    board = Board()
    board.started("push", "here", 0.0)
    board.progress("push", "", (1_000_000, 4_000_000), 1.0)
    assert not board.due("push", 5.0, 4.9)
    assert board.due("push", 5.0, 5.0) == "  . push      1.0 of 4.0 MB   25 %"
    assert not board.due("push", 5.0, 9.9)
