from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import UsageError
from corten.observe.metrics import HistogramValue, Registry
from corten.observe.process import ProcessStats, process_start_s

SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)+)\})? (\S+)')


def samples(text):
    """A strict reader of the exposition format: every line is a comment or a sample."""
    found = {}
    for line in text.splitlines():
        if line.startswith(("# HELP ", "# TYPE ")):
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        found[match[1], match[2] or ""] = float(match[3])
    return found


def test_a_counter_is_exposed_with_help_type_and_labels():
    registry = Registry()
    requests = registry.counter("x_requests_total", "How many.", ["code"])
    requests.labels("200").inc()
    requests.labels("200").inc(2)
    assert registry.render().decode() == (
        '# HELP x_requests_total How many.\n# TYPE x_requests_total counter\nx_requests_total{code="200"} 3\n'
    )


def test_a_gauge_can_be_asked_at_each_scrape():
    registry = Registry()
    gauge = registry.gauge("x", "X.").labels()
    gauge.set(1.5)
    assert samples(registry.render().decode()) == {("x", ""): 1.5}
    gauge.read = lambda: 7
    assert samples(registry.render().decode()) == {("x", ""): 7}


def test_histogram_buckets_are_cumulative_and_their_bounds_inclusive():
    registry = Registry()
    histogram = registry.histogram("x", "X.", [1, 2.5]).labels()
    for value in (0.5, 1, 2, 99):
        histogram.observe(value)
    assert samples(registry.render().decode()) == {
        ("x_bucket", 'le="1"'): 2,
        ("x_bucket", 'le="2.5"'): 3,
        ("x_bucket", 'le="+Inf"'): 4,
        ("x_sum", ""): 102.5,
        ("x_count", ""): 4,
    }


@given(st.text(), st.text())
def test_any_label_value_and_help_text_stay_in_their_line(value, text):
    registry = Registry()
    registry.gauge("x", text, ["name"]).labels(value).set(1)
    rendered = registry.render().decode("utf-8", "surrogatepass")
    lines = rendered.split("\n")
    assert len(lines) == 4
    (escaped,) = re.fullmatch(r'x\{name="(.*)"\} 1', lines[2], re.DOTALL).groups()
    unescaped = re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], escaped)
    assert unescaped == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
        (float("nan"), "NaN"),
        (3, "3"),
        (0.25, "0.25"),
        (1e300, "1e+300"),
    ],
)
def test_numbers_are_written_as_prometheus_reads_them(value, text):
    registry = Registry()
    registry.gauge("x", "X.").labels().set(value)
    assert registry.render().decode().splitlines()[-1] == f"x {text}"


def test_names_that_are_malformed_or_taken_are_refused():
    registry = Registry()
    registry.gauge("x", "X.")
    for make in (
        lambda: registry.gauge("x", "again"),
        lambda: registry.gauge("1x", "X."),
        lambda: registry.gauge("y", "X.", ["a-b"]),
        lambda: registry.counter("y", "X."),
        lambda: registry.histogram("y", "X.", [2, 1]),
        lambda: registry.histogram("y", "X.", [1], ["le"]),
    ):
        with pytest.raises(UsageError):
            make()


def test_label_values_must_be_as_many_as_the_names():
    family = Registry().gauge("x", "X.", ["a", "b"])
    with pytest.raises(ValueError, match="has the labels"):
        family.labels("1")


def test_process_statistics_are_plausible():
    registry = Registry()
    registry.collect(ProcessStats(process_start_s()))
    found = samples(registry.render().decode())
    assert 1 << 20 < found["process_resident_memory_bytes", ""] < found["process_virtual_memory_bytes", ""]
    assert found["process_cpu_seconds_total", ""] > 0
    assert 3 <= found["process_open_fds", ""] <= found["process_max_fds", ""]


def test_process_statistics_leave_out_what_cannot_be_read(tmp_path):
    lines = "".join(ProcessStats(5.0, tmp_path)())
    assert set(samples(lines)) == {("process_cpu_seconds_total", ""), ("process_start_time_seconds", "")}


@given(st.lists(st.floats(0, 20) | st.sampled_from([0.001, 0.1, 5.0])))
def test_many_observations_in_one_go_are_what_they_are_one_by_one(values):
    together, apart = HistogramValue((0.001, 0.1, 5.0)), HistogramValue((0.001, 0.1, 5.0))
    together.observe_all(values)
    for value in values:
        apart.observe(value)
    assert together.counts == apart.counts
    assert together.sum == pytest.approx(apart.sum)
