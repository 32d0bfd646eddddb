"""Metrics in Prometheus' text format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/).

For one thread (the event loop's): counting is one attribute addition, no locks. A metric with labels hands out children
(`counter.labels("200")`), to be kept by whoever counts often.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Generic, Protocol, TypeVar

import msgspec

from corten.errors import UsageError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_VALUE_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


# A family's series by label values: what each knows.
Numbers = dict[tuple[str, ...], list[float]]


class CounterValue:
    """One series that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add."""
        self.value += amount

    def numbers(self) -> list[float]:
        """See Series."""
        return [self.value]


class GaugeValue:
    """One series that goes up and down; `read`, when given, is asked for its value at each scrape."""

    __slots__ = ("read", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self.read: Callable[[], float] | None = None

    def set(self, value: float) -> None:
        """Set."""
        self.value = value

    def numbers(self) -> list[float]:
        """See Series."""
        return [self.read() if self.read else self.value]


class HistogramValue:
    """One histogram: how many observations fell below each bound (inclusive), their sum and number."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def observe_all(self, values: Sequence[float]) -> None:
        """Count many; most of them are often equal, as what came together goes together."""
        last, place, counts = -1.0, 0, self.counts
        for value in values:
            if value != last:
                last, place = value, bisect_left(self._bounds, value)
            counts[place] += 1
        self.sum += sum(values)

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self.counts)

    def numbers(self) -> list[float]:
        """See Series: the counts of the buckets, each its own, and the sum."""
        return [*self.counts, self.sum]


class Series(Protocol):
    """What a family holds for each combination of label values."""

    def numbers(self) -> list[float]:
        """All it knows, in an order that is the same for all of its family."""
        ...


Value = TypeVar("Value", bound=Series)


class Across(Enum):
    """What one number is of several processes' numbers."""

    SUM = "sum"
    LEAST = "least"
    MOST = "most"

    def of(self, one: float, other: float) -> float:
        """Two of them together."""
        match self:
            case Across.SUM:
                return one + other
            case Across.LEAST:
                return min(one, other)
            case Across.MOST:
                return max(one, other)


class Family(Generic[Value]):
    """A metric and its series, one for each combination of label values."""

    def __init__(
        self,
        kind: str,
        name: str,
        text: str,
        label_names: Sequence[str],
        make: Callable[[], Value],
        *,
        bounds: Sequence[float] = (),
        across: Across = Across.SUM,
    ) -> None:
        self.kind = kind
        self.name = name
        self.text = text
        self.label_names = tuple(label_names)
        self.across = across
        self._bounds = bounds
        self._make = make
        self._series: dict[tuple[str, ...], Value] = {}

    def labels(self, *values: str) -> Value:
        """The series with these label values, in the order of the label names; made when first asked for."""
        series = self._series.get(values)
        if series is None:
            if len(values) != len(self.label_names):
                raise ValueError(f"{self.name} has the labels {self.label_names}, got {values}")
            series = self._series[values] = self._make()
        return series

    def numbers(self) -> Numbers:
        """What its series know."""
        return {values: series.numbers() for values, series in self._series.items()}

    def lines(self, others: Iterable[Numbers] = ()) -> Iterator[str]:
        """The metric as exposed, together with what other processes know of it."""
        yield f"# HELP {self.name} {self.text.translate(_HELP_ESCAPES)}\n"
        yield f"# TYPE {self.name} {self.kind}\n"
        for values, numbers in joined([self.numbers(), *others], self.across).items():
            pairs = zip(self.label_names, values, strict=True)
            labels = ",".join(f'{name}="{value.translate(_VALUE_ESCAPES)}"' for name, value in pairs)
            if self.kind == "histogram":
                yield from self._histogram(labels, numbers)
            else:
                yield f"{self.name}{_braced(labels)} {_number(numbers[0])}\n"

    def _histogram(self, labels: str, numbers: Sequence[float]) -> Iterator[str]:
        """Its lines; buckets are cumulative."""
        total = 0.0
        *counts, summed = numbers
        for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
            total += count
            with_bound = f'{labels},le="{_number(bound)}"' if labels else f'le="{_number(bound)}"'
            yield f"{self.name}_bucket{{{with_bound}}} {_number(total)}\n"
        yield f"{self.name}_sum{_braced(labels)} {_number(summed)}\n"
        yield f"{self.name}_count{_braced(labels)} {_number(total)}\n"


def joined(parts: Iterable[Numbers], across: Across) -> Numbers:
    """The series of several processes as one's."""
    whole: Numbers = {}
    for part in parts:
        for values, numbers in part.items():
            known = whole.get(values)
            whole[values] = numbers if known is None else list(map(across.of, known, numbers))
    return whole


AnyFamily = Family[CounterValue] | Family[GaugeValue] | Family[HistogramValue]


class Registry:
    """The metrics of one process, exposed in the order they were made.

    Names are checked: UsageError `metrics.name` for one that is malformed or taken.
    """

    def __init__(self) -> None:
        self._families: dict[str, AnyFamily] = {}
        self._collectors: list[Callable[[], Iterable[str]]] = []

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Family[CounterValue]:
        """A counter; its name must end in `_total`."""
        if not name.endswith("_total"):
            raise UsageError("metrics.name", f"a counter's name must end in `_total`: `{name}`")
        return self._add(Family("counter", name, text, labels, CounterValue))

    def gauge(
        self, name: str, text: str, labels: Sequence[str] = (), *, across: Across = Across.SUM
    ) -> Family[GaugeValue]:
        """A gauge; `across` says what it is of several processes."""
        return self._add(Family("gauge", name, text, labels, GaugeValue, across=across))

    def histogram(
        self, name: str, text: str, bounds: Sequence[float], labels: Sequence[str] = ()
    ) -> Family[HistogramValue]:
        """A histogram with these upper bounds, ascending; +Inf is added."""
        if list(bounds) != sorted(set(bounds)) or "le" in labels:
            raise UsageError("metrics.name", f"the bounds of `{name}` must ascend, and `le` is its own label")
        return self._add(Family("histogram", name, text, labels, lambda: HistogramValue(bounds), bounds=bounds))

    def collect(self, collector: Callable[[], Iterable[str]]) -> None:
        """Ask this for lines at each scrape, after the metrics of the registry."""
        self._collectors.append(collector)

    def render(self, others: Iterable[bytes] = ()) -> bytes:
        """Everything, as a scrape's answer, together with the dumps of other processes."""
        dumps = [_read_dump(other) for other in others]
        lines = [
            line
            for family in self._families.values()
            for line in family.lines(dump[family.name] for dump in dumps if family.name in dump)
        ]
        lines += [line for collector in self._collectors for line in collector()]
        return "".join(lines).encode()

    def dump(self) -> bytes:
        """All that was counted, for another process."""
        return _write_dump({name: family.numbers() for name, family in self._families.items()})

    def fold(self, dumps: Iterable[bytes]) -> bytes:
        """What of several dumps outlasts their processes, as one: what only grows."""
        read = [_read_dump(dump) for dump in dumps]
        lasting = [family for family in self._families.values() if family.kind != "gauge"]
        return _write_dump(
            {family.name: joined([dump.get(family.name, {}) for dump in read], family.across) for family in lasting}
        )

    def _add(self, family: _F) -> _F:
        taken = family.name in self._families
        if taken or not _is_name(family.name) or not all(map(_is_label, family.label_names)):
            why = "it is taken" if taken else "see the exposition format"
            raise UsageError("metrics.name", f"not a name for a metric or its labels: `{family.name}`", why=why)
        self._families[family.name] = family
        return family


_F = TypeVar("_F", bound=AnyFamily)


# Names as the exposition format defines them, told without `re`, whose patterns would be compiled at each start.
def _is_name(text: str) -> bool:
    return text.isascii() and text.replace(":", "_").isidentifier()


def _is_label(text: str) -> bool:
    return text.isascii() and text.isidentifier() and not text.startswith("__")


def _write_dump(families: Mapping[str, Numbers]) -> bytes:
    return _encode({name: list(series.items()) for name, series in families.items()})


def _read_dump(data: bytes) -> Mapping[str, Numbers]:
    return {name: dict(series) for name, series in _decoder.decode(data).items()} if data else {}


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(dict[str, list[tuple[tuple[str, ...], list[float]]]])


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _number(value: float) -> str:
    if value != value:  # noqa: PLR0124 - the definition of NaN
        return "NaN"
    if value in {float("inf"), float("-inf")}:
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1 << 53 else repr(float(value))
