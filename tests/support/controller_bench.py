"""A controller with an engine and a gateway in memory."""

import asyncio
import itertools

from corten.control.care import DRAIN_POLL_S
from corten.control.controller import Controller
from corten.control.news import News
from corten.control.probe import Answer
from corten.control.router import Router
from corten.control.tasks import Tasks
from corten.core.deployment import RolloutState, Settings
from corten.core.digest import Digest
from corten.core.process import is_stopped
from corten.engine.memory import Machine, Memory
from corten.testing.gateway import MemoryGateway, Wire

ONE, TWO = Digest.of(b"1"), Digest.of(b"2")


class Bench:
    """A controller on a machine and a gateway that outlive it; time runs ten times as fast where it is waited for."""

    def __init__(self, state, vault):
        self.state = state
        self.vault = vault
        self.machine = Machine()
        self.wire = Wire()
        self.refuse_ready = set()
        self.working = {}  # jobs by address
        self.now_s = 1000.0
        self.serial = itertools.count()
        self.stopped = is_stopped

    def controller(self):
        wake, news = asyncio.Event(), News()
        router = Router(lambda port: MemoryGateway(self.wire), 8080, wake.set)
        return Controller(
            state=self.state,
            engine=Memory(machine=self.machine),
            router=router,
            tasks=Tasks(wake.set),
            clock=self.clock,
            new_suffix=lambda: f"{next(self.serial):06d}",
            wake=wake,
            tell=news.tell,
            vault=self.vault,
            ask=self.ask,
            jobs=self.jobs,
            stopped=self.stopped,
        )

    def clock(self):
        return self.now_s

    async def jobs(self, address, *, timeout_s):
        del timeout_s
        return self.working.get(address, 0)

    async def ask(self, address, path, *, timeout_s):
        del path, timeout_s
        ready = not any(word in address for word in self.refuse_ready)
        return Answer(200, "ready") if ready else Answer(503, "loading")

    def deploy(self, image, **settings):
        return self.state.deploy("m", image, Settings(**settings), generation=None, now_s=self.now_s)

    def running(self):
        return sorted(each.id for each in self.machine.observed.values() if each.running)

    def during(self, story):
        """Tell a story while a controller runs, then let go as a dying daemon would."""

        async def main():
            controller = self.controller()
            await controller.adopt()
            loop = asyncio.get_running_loop()
            jobs = [loop.create_task(controller.run()), loop.create_task(controller.router.run())]
            controller.wake.set()
            try:
                async with asyncio.timeout(20):
                    await story(controller)
                assert not any(job.done() for job in jobs)
            finally:
                for job in jobs:
                    job.cancel()
                await asyncio.gather(*jobs, return_exceptions=True)
                await controller.tasks.wait_all()
                controller.close()

        asyncio.run(main())

    async def until(self, controller, holds):
        while not holds():
            controller.wake.set()
            await asyncio.sleep(0.005)

    async def until_rolled_out(self, controller, state=RolloutState.DONE):
        await self.until(controller, lambda: self.state.deployment("m").rollout.state is state)


async def a_while(controller):
    """Long enough for whatever it would do: twenty looks, and two of each poll."""
    for _ in range(20):
        controller.wake.set()
        await asyncio.sleep(2.5 * DRAIN_POLL_S / 20)
