"""One user stays on one side of a canary, with the real Envoy."""

import pytest
from gateway_site import revision, table

from corten.http import run

pytestmark = pytest.mark.envoy


def test_a_growing_share_keeps_whom_it_has_and_who_has_no_name_goes_by_chance(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")

        async def side(user):
            return (await site.asked(headers={"x-user": user}))[2]["name"]

        users = [f"user-{number}" for number in range(60)]
        before: set = set()
        shares = [(5_000, 95_000), (25_000, 75_000), (50_000, 50_000)]
        first = table(revision(1, a, weight=95_000), revision(2, b, weight=5_000), sticky="x-user")
        async with site.serving(first) as gateway:
            for new, old in shares:
                await gateway.apply(table(revision(1, a, weight=old), revision(2, b, weight=new), sticky="x-user"))
                there = {user for user in users if await side(user) == "b"}
                assert before <= there, (new, before - there)
                # Asked again, everybody is where they were.
                assert {user for user in users if await side(user) == "b"} == there
                before = there
            assert 10 < len(before) < 50
            unnamed = {(await site.asked())[2]["name"] for _ in range(40)}
            assert unnamed == {"a", "b"}

    run(story())
