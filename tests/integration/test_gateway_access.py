"""Tokens and rates at the gateway, with the real Envoy. Replicas never see a token, clients never get past one."""

import asyncio
import http.client
import json
import time

import pytest
from gateway_site import revision, table, until

from corten.control.signing import new_key, sign
from corten.core.access import Access, Auth, Issuer, Trust
from corten.core.route import DeploymentRoute, RouteTable
from corten.http import run

pytestmark = pytest.mark.envoy

TOKEN = Access(auth=Auth.TOKEN)
KEY = new_key()
OTHER = new_key()


def token(key=KEY, **claims):
    now_s = int(time.time())
    given = {"iss": "corten", "sub": "alice", "jti": "one", "aud": ["iris"], "iat": now_s, "exp": now_s + 600, **claims}
    return sign(key.pem, key.kid, {name: value for name, value in given.items() if value is not None})


def bearer(text):
    return {"authorization": f"Bearer {text}"}


def guarded(*shares, trust=None, **options):
    trust = trust or Trust(keys=(KEY.jwk,))
    return RouteTable((DeploymentRoute("iris", shares, access=options.pop("access", TOKEN), **options),), trust)


def test_a_deployment_that_asks_for_a_token_answers_nobody_without_a_valid_one(site):
    async def story():
        a = site.upstream("a")
        async with site.serving(guarded(revision(1, a))):
            for headers in (
                {},
                bearer("nonsense"),
                bearer(token(OTHER)),
                bearer(token(exp=int(time.time()) - 120)),
                bearer(token(exp=None)),
                bearer(token(iss="somebody")),
                bearer(token()[:-4] + "AAAA"),
                {"x-api-key": "nonsense"},
            ):
                status, answer, document = await site.asked(headers=headers)
                assert (status, document["error"]["code"]) == (401, "gateway.unauthenticated"), headers
                assert answer["www-authenticate"].startswith("Bearer")
            for elsewhere in (["other"], ["other", "iris-2"], []):
                status, _, document = await site.asked(headers=bearer(token(aud=elsewhere)))
                assert (status, document["error"]["code"]) == (403, "gateway.forbidden"), elsewhere
            for headers in (
                bearer(token()),
                {"x-api-key": token()},
                bearer(token(aud=["*"])),
            ):
                status, _, document = await site.asked(headers=headers)
                assert status == 200, headers
                assert not {"authorization", "x-api-key"} & set(document["headers"])
            assert (await site.asked(f"/iris/predict?access_token={token()}"))[0] == 401
            assert (await site.asked("/predict", host="iris.localhost"))[0] == 401
            assert (await site.asked("/predict", host="iris.localhost", headers=bearer(token())))[0] == 200
            # Whoever balances in front of us asks how it is; nothing else is open.
            for path, status in (("readyz", 200), ("livez", 200), ("metrics", 401), ("readyz/x", 401), ("", 401)):
                assert await asyncio.to_thread(get, site, f"/iris/{path}") == status, path

    run(story())


def get(site, path):
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def test_revoking_and_rotating_reach_requests_without_a_restart_or_a_new_connection(site):
    async def story():
        a = site.upstream("a")
        async with site.serving(guarded(revision(1, a))) as gateway:
            kept = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)

            def ask(text):
                kept.request("POST", "/iris/predict", b"{}", bearer(text))
                answer = kept.getresponse()
                return answer.status, answer.headers["connection"], json.loads(answer.read())

            one, two = token(), token(jti="two")
            assert (await asyncio.to_thread(ask, one))[:2] == (200, None)
            await gateway.apply(guarded(revision(1, a), trust=Trust((KEY.jwk,), revoked=("one", "zero"))))
            status, _, document = await asyncio.to_thread(ask, one)
            assert (status, document["error"]["code"]) == (401, "gateway.unauthenticated")
            assert (await asyncio.to_thread(ask, two))[0] == 200
            # Rotated: both keys count, then only the new one.
            await gateway.apply(guarded(revision(1, a), trust=Trust((KEY.jwk, OTHER.jwk))))
            assert (await asyncio.to_thread(ask, two))[:2] == (200, None)
            assert (await asyncio.to_thread(ask, token(OTHER)))[:2] == (200, None)
            await gateway.apply(guarded(revision(1, a), trust=Trust((OTHER.jwk,))))
            assert (await asyncio.to_thread(ask, two))[0] == 401
            assert (await asyncio.to_thread(ask, token(OTHER)))[0] == 200
            # Nobody's token counts when there is no key.
            await gateway.apply(guarded(revision(1, a), trust=Trust()))
            assert (await asyncio.to_thread(ask, token(OTHER)))[0] == 401
            await gateway.apply(table(revision(1, a)))
            assert (await asyncio.to_thread(ask, "nothing"))[:2] == (200, None)
            kept.close()

    run(story())


def test_tokens_of_another_issuer_count_for_its_audience(site):
    async def story():
        a = site.upstream("a")
        jwks = json.dumps({"keys": [json.loads(OTHER.jwk)]})
        foreign = Issuer("https://issuer.example", "models", jwks)
        theirs = {"iss": "https://issuer.example", "jti": None}
        for keys in ((), (KEY.jwk,)):
            async with site.serving(guarded(revision(1, a), trust=Trust(keys, issuers=(foreign,)))):
                good = bearer(token(OTHER, aud="models", **theirs))
                assert (await site.asked(headers=good))[0] == 200
                assert (await site.asked(headers=bearer(token(OTHER, aud="elsewhere", **theirs))))[0] in (401, 403)
                # Signed by the wrong one of the two.
                assert (await site.asked(headers=bearer(token(KEY, aud="models", **theirs))))[0] == 401
                assert (await site.asked(headers=bearer(token(OTHER))))[0] == 401
                assert (await site.asked(headers=bearer(token())))[0] == (200 if keys else 401)

    run(story())


def test_who_asked_stands_in_the_access_log_and_no_token_does(site):
    async def story():
        a = site.upstream("a")
        shown = token(sub="alice@example")
        async with site.serving(guarded(revision(1, a))):
            assert (await site.asked(headers=bearer(shown)))[0] == 200
            assert (await site.asked())[0] == 401

            async def logged():
                return site.access_log.exists() and len(site.access_log.read_text().splitlines()) == 2

            await until(logged)
            first, second = map(json.loads, site.access_log.read_text().splitlines())
            assert (first["token"], first["token_id"]) == ("alice@example", "one")
            assert (second["token"], second["code"]) == (None, 401)
            assert shown not in site.access_log.read_text()

    run(story())


def test_a_rate_is_for_all_ways_to_a_deployment_and_for_no_other(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        slow = Access(rate_per_s=1, burst=6)
        both = RouteTable(
            (DeploymentRoute("iris", (revision(1, a),), access=slow), DeploymentRoute("other", (revision(1, b),)))
        )
        async with site.serving(both) as gateway:
            ways = [("/iris/predict", None), ("/predict", "iris.localhost")] * 8
            answers = [await site.asked(path, host=host) for path, host in ways]
            taken = [answer for answer in answers if answer[0] == 200]
            refused = [answer for answer in answers if answer[0] == 429]
            assert len(taken) + len(refused) == 16
            # Six at once, and one a second while a busy machine asked them.
            assert 6 <= len(taken) <= 12
            _, headers, document = refused[0]
            assert (document["error"]["code"], headers["retry-after"]) == ("gateway.rate_limited", "1")
            assert headers["x-ratelimit-limit"].startswith("6")
            assert (await site.asked("/other/predict"))[0] == 200
            assert (await gateway.traffic())["iris", "r1"].answered == len(taken)
            # Lifted in the next moment.
            await gateway.apply(table(revision(1, a)))
            assert {(await site.asked())[0] for _ in range(20)} == {200}

    run(story())


def test_a_revision_that_does_not_run_cannot_be_pinned(site):
    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a), access=Access(pinnable=True))):
            assert (await site.asked(headers={"x-corten-revision": "r1"}))[0] == 200
            assert (await site.asked(headers={"x-corten-revision": "r7"}))[0] == 404

    run(story())
