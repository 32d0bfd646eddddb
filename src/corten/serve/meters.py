"""The server's own metrics (docs/reference/metrics.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from corten.core.schema import Schema
from corten.observe.metrics import Across, CounterValue, GaugeValue, HistogramValue, Registry
from corten.observe.process import ProcessStats, process_start_s
from corten.serve.job import Observer

if TYPE_CHECKING:
    from corten.serve.board import Board
    from corten.serve.drift import Drift, DriftMeters

WATCHING = 1  # of several workers, the one that looks at features: its connections are a fair sample

# From a cheap model's 50 us to the longest anyone waits; about two buckets a doubling in between would cost more
# than they tell.
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_MODEL_SECONDS = (0.00005, 0.0001, 0.00025, *_SECONDS)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Meters:
    """All metrics of one server, ready to be counted."""

    def __init__(self, board: Board | None = None, slot: int = 0) -> None:
        registry = self.registry = Registry()
        self._drift: Drift | None = None
        self._drift_gauges: DriftMeters | None = None
        self._board = board
        self._slot = slot
        self._by_status: dict[int, CounterValue] = {}
        self._requests = registry.counter(
            "corten_requests_total",
            "Answers to requests for the model and to what was refused before it, by status.",
            ["code"],
        )
        self._ok = self._by_status[200] = self._requests.labels("200")
        self.seconds: HistogramValue = registry.histogram(
            "corten_request_seconds", "Time from a whole request to its answer.", _SECONDS
        ).labels()
        self.rows: HistogramValue = registry.histogram(
            "corten_batch_rows", "Rows (calls, for CALL models) in one call of the model.", _ROWS
        ).labels()
        self.model_seconds: HistogramValue = registry.histogram(
            "corten_model_seconds", "Time of one call of the model, encoding of its answers included.", _MODEL_SECONDS
        ).labels()
        self.first_piece_seconds: HistogramValue = registry.histogram(
            "corten_first_piece_seconds",
            "Time from a whole request to the first piece of its streamed answer.",
            _SECONDS,
        ).labels()
        self.pieces: CounterValue = registry.counter(
            "corten_stream_pieces_total", "Pieces of streamed answers."
        ).labels()
        self.queue: GaugeValue = registry.gauge("corten_queue_length", "Requests waiting for the model.").labels()
        self.jobs_running: GaugeValue = registry.gauge(
            "corten_jobs_running", "Asynchronous jobs without an answer."
        ).labels()
        self._jobs = registry.counter("corten_jobs_total", "Asynchronous jobs that are over, by status.", ["status"])
        self._webhooks = registry.counter("corten_webhooks_total", "Calls of webhooks, by outcome.", ["outcome"])
        self._in_hand: list[Callable[[], int]] = []
        registry.gauge("corten_in_flight", "Requests without an answer.").labels().read = lambda: self.in_flight
        self.load_seconds: GaugeValue = registry.gauge(
            "corten_model_load_seconds", "Time the model took to load.", across=Across.MOST
        ).labels()
        self.ready: GaugeValue = registry.gauge(
            "corten_ready", "1 when /readyz says yes.", across=Across.LEAST
        ).labels()
        registry.collect(ProcessStats(process_start_s(), others=board.pids if board is not None else tuple))

    @property
    def in_flight(self) -> int:
        """Requests without an answer, over HTTP and gRPC."""
        return sum(read() for read in self._in_hand)

    def count_in_flight(self, read: Callable[[], int]) -> None:
        """Tell what one more of the process's servers (HTTP, gRPC) has in hand."""
        self._in_hand.append(read)

    def watch(self, schema: Schema) -> Observer | None:
        """Tell the distributions of a model's features too; gives who is to be shown its calls, None if others look."""
        from corten.serve.drift import Drift, DriftMeters  # imports numpy

        self._drift_gauges = DriftMeters(self.registry)
        if self._board is not None and self._slot != WATCHING:
            return None
        self._drift = Drift({tensor.name: tensor.columns for tensor in schema.inputs})
        return self._drift.look

    def drift_report(self) -> bytes:
        """What is known of the features, as JSON; empty where nobody looks."""
        if self._drift is not None:
            return msgspec.json.encode(self._drift.report())
        return self._board.published(self._board.drift) if self._board is not None else b""

    def dump(self) -> bytes:
        """All that this process has counted, for the others."""
        self._update()
        return self.registry.dump()

    def _update(self) -> None:
        if self._drift is not None and self._drift_gauges is not None:
            self._drift_gauges.update(self._drift.report())

    def render(self) -> bytes:
        """The replica's metrics: of this process, and of all that share its board."""
        self._update()
        if self._board is None:
            return self.registry.render()
        others = [slot for slot in range(self._board.workers + 1) if slot != self._slot]
        return self.registry.render(self._board.published(slot) for slot in others)

    def answered(self, took_s: Sequence[float]) -> None:
        """Count predictions that succeeded: what `count` and `seconds.observe` do, for all of a call of the model."""
        self._ok.value += len(took_s)
        self.seconds.observe_all(took_s)

    def count_job(self, status: str) -> None:
        """Count one job that is over."""
        self._jobs.labels(status).value += 1.0

    def count_webhook(self, outcome: str) -> None:
        """Count one webhook, `taken` or `given up`."""
        self._webhooks.labels(outcome).value += 1.0

    def count(self, status: int) -> None:
        """Count one answer."""
        counter = self._by_status.get(status)
        if counter is None:
            counter = self._by_status[status] = self._requests.labels(str(status))
        counter.value += 1.0
