"""The batcher on a loop of its own, with a runner that does as it is told and a worker that runs when asked."""

from __future__ import annotations

import asyncio

import pytest

from corten.serve.batch import Batcher, Bounds, Hooks, Job, QueueFullError
from corten.serve.job import Inputs, Outcome


class Runner:
    def __init__(self, *, joinable=True, pinned=False, call_s=0.0001):
        self.joinable, self.pinned, self.call_s = joinable, pinned, call_s
        self.batches = []

    def run(self, batch):
        self.batches.append([inputs.values for inputs in batch])
        return Outcome([b"%d" % inputs.values for inputs in batch], self.call_s)


class Worker:
    """Keeps tasks until they are let through."""

    def __init__(self):
        self.tasks = []

    def submit(self, task, done):
        self.tasks.append((task, done))

    def step(self):
        task, done = self.tasks.pop(0)
        done(task())


class Bench:
    def __init__(self, runner, **bounds):
        self.runner, self.worker = runner, Worker()
        self.answers, self.rows, self.gone = {}, [], set()
        hooks = Hooks(
            answer=lambda jobs, results: self.answers.update(zip((job.context for job in jobs), results, strict=True)),
            called=lambda rows, _: self.rows.append(rows),
            wanted=lambda job: job.context not in self.gone,
        )
        limits = Bounds(**{"max_rows": 8, "queue": 100, "queue_bytes": 10_000, **bounds})
        self.batcher = Batcher(runner, self.worker, limits, hooks, call_s=runner.call_s)

    def submit(self, *numbers, rows=1, key=None, deadline_s=1e9, size_bytes=1):
        for number in numbers:
            self.batcher.submit(Job(Inputs(number, rows, key), number, deadline_s, size_bytes))


def story(coroutine):
    asyncio.run(coroutine)


async def turn():
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_what_arrives_in_one_turn_of_the_loop_goes_in_one_call():
    async def inside():
        bench = Bench(Runner())
        bench.submit(1, 2, 3)
        assert bench.runner.batches == []
        await turn()
        assert bench.runner.batches == [[1, 2, 3]]
        assert bench.answers == {1: b"1", 2: b"2", 3: b"3"}
        assert bench.worker.tasks == []

    story(inside())


def test_what_arrives_while_a_slow_model_runs_goes_in_the_next_call():
    async def inside():
        bench = Bench(Runner(call_s=0.05))
        bench.submit(1)
        await turn()
        bench.submit(2, 3)
        await turn()
        assert len(bench.worker.tasks) == 1, "one call at a time"
        assert bench.batcher.waiting == 2
        bench.worker.step()
        await turn()
        bench.worker.step()
        assert bench.runner.batches == [[1], [2, 3]]
        assert bench.answers == {1: b"1", 2: b"2", 3: b"3"}

    story(inside())


def test_no_call_has_more_rows_than_allowed_unless_one_request_has():
    async def inside():
        bench = Bench(Runner(), max_rows=8)
        bench.submit(1, 2, 3, rows=3)
        bench.submit(4, rows=20)
        bench.submit(5)
        for _ in range(6):
            await turn()
        assert bench.runner.batches == [[1, 2], [3], [4], [5]]
        assert bench.rows == [6, 3, 20, 1]

    story(inside())


def test_requests_of_different_shapes_are_not_joined_and_keep_their_order():
    async def inside():
        bench = Bench(Runner())
        bench.submit(1, 2, key="a")
        bench.submit(3, key="b")
        bench.submit(4, key="a")
        for _ in range(6):
            await turn()
        assert bench.runner.batches == [[1, 2], [3], [4]]

    story(inside())


@pytest.mark.parametrize(("joinable", "max_rows"), [(False, 8), (True, 1)])
def test_without_batching_each_request_is_a_call(joinable, max_rows):
    async def inside():
        bench = Bench(Runner(joinable=joinable), max_rows=max_rows)
        bench.submit(1, 2, 3)
        for _ in range(6):
            await turn()
        assert bench.runner.batches == [[1], [2], [3]]

    story(inside())


def test_a_full_queue_says_when_to_come_back():
    async def inside():
        bench = Bench(Runner(call_s=2.0), queue=10, max_rows=1)
        bench.submit(0)
        await turn()
        bench.submit(*range(1, 11))
        with pytest.raises(QueueFullError) as caught:
            bench.submit(99)
        assert caught.value.retry_after_s == 20, "ten requests of two seconds are before it"
        bench.worker.step()
        await turn()
        bench.submit(100)

    story(inside())


def test_a_full_queue_says_so_even_when_no_call_has_ended_yet():
    async def inside():
        runner = Runner(call_s=None)
        bench = Bench(runner, queue=1)
        assert not bench.batcher.inline
        bench.submit(0)
        await turn()
        bench.submit(1)
        with pytest.raises(QueueFullError) as caught:
            bench.submit(2)
        assert caught.value.retry_after_s == 1

    story(inside())


def test_a_queue_is_also_full_by_bytes_but_takes_one_request_of_any_size():
    async def inside():
        bench = Bench(Runner(call_s=1.0), queue_bytes=100)
        bench.submit(1, size_bytes=1000)
        await turn()
        bench.submit(2, size_bytes=60)
        with pytest.raises(QueueFullError):
            bench.submit(3, size_bytes=60)
        bench.worker.step()
        await turn()
        bench.submit(3, size_bytes=60)

    story(inside())


def test_late_requests_are_handed_back_whether_waiting_or_running():
    async def inside():
        bench = Bench(Runner(call_s=1.0))
        bench.submit(1, deadline_s=10.0)
        await turn()
        bench.submit(2, deadline_s=10.0)
        bench.submit(3, deadline_s=20.0)
        assert [job.context for job in bench.batcher.expire(10.5)] == [2, 1]
        assert bench.batcher.expire(10.6) == []
        bench.worker.step()
        await turn()
        bench.worker.step()
        assert bench.answers == {3: b"3"}, "what was given up is not answered again"
        assert bench.runner.batches == [[1], [3]]

    story(inside())


def test_nobody_computes_for_a_client_that_left():
    async def inside():
        bench = Bench(Runner(call_s=1.0))
        bench.submit(1)
        await turn()
        bench.submit(2, 3)
        bench.gone = {2}
        bench.worker.step()
        await turn()
        bench.worker.step()
        assert bench.runner.batches == [[1], [3]]

    story(inside())


def test_a_model_that_becomes_slow_leaves_the_loop_and_comes_back_when_fast_again():
    async def inside():
        bench = Bench(Runner())
        assert bench.batcher.inline
        bench.runner.call_s = 0.004
        for number in range(8):
            assert bench.batcher.inline, "some slow calls may be the machine's doing"
            bench.submit(number)
            await turn()
        assert not bench.batcher.inline
        bench.runner.call_s = 0.0001
        for number in range(40):
            bench.submit(number)
            await turn()
            if bench.batcher.inline:
                break
            bench.worker.step()
        assert bench.batcher.inline

    story(inside())


def test_a_fast_model_on_a_busy_machine_stays_on_the_loop():
    async def inside():
        bench = Bench(Runner())
        for number in range(100):
            bench.runner.call_s = 0.0001 if number % 5 == 4 else 0.02
            bench.submit(number)
            await turn()
            assert bench.batcher.inline

    story(inside())


def test_one_very_slow_call_is_enough_to_leave_the_loop():
    async def inside():
        bench = Bench(Runner())
        bench.runner.call_s = 0.3
        bench.submit(1)
        await turn()
        assert not bench.batcher.inline

    story(inside())


def test_a_model_bound_to_its_thread_is_never_called_on_the_loop():
    async def inside():
        bench = Bench(Runner(pinned=True))
        for number in range(50):
            bench.submit(number)
            await turn()
            bench.worker.step()
        assert not bench.batcher.inline

    story(inside())


def test_how_long_a_call_has_been_running_is_known():
    async def inside():
        bench = Bench(Runner(call_s=1.0))
        now_s = asyncio.get_running_loop().time()
        assert bench.batcher.running_s(now_s) == 0
        bench.submit(1)
        await turn()
        assert bench.batcher.running_s(now_s + 100) == pytest.approx(100, abs=1)
        bench.worker.step()
        assert bench.batcher.running_s(now_s + 100) == 0

    story(inside())


def test_requests_to_a_slow_model_that_gains_nothing_by_company_go_one_by_one():
    class Padding(Runner):
        def run(self, batch):
            outcome = super().run(batch)
            return Outcome(outcome.results, 0.01 * len(batch) * (1.3 if len(batch) > 1 else 1.0))

    async def inside():
        bench = Bench(Padding(pinned=True, call_s=0.01), queue=10_000)
        number = 0
        for _ in range(80):
            while bench.batcher.waiting < 5:
                bench.submit(number := number + 1)
            await turn()
            bench.worker.step()
        assert len(bench.runner.batches[0]) > 1
        assert sum(len(batch) > 1 for batch in bench.runner.batches[-32:]) <= 2, "but for trials"
        answered = sum(map(len, bench.runner.batches))
        assert bench.answers == {n: b"%d" % n for n in range(1, answered + 1)}

    story(inside())
