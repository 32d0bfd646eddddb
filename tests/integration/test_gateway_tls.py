"""TLS at the gateway, with the real Envoy: a certificate of one's own, renewed and changed without a lost request."""

# ruff: noqa: ASYNC110, ASYNC221, ASYNC240
import asyncio
import http.client
import json
import os
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from certificates import write_certificate
from gateway_site import revision, table, until
from ports import free_port

from corten.core.front import Front
from corten.errors import EngineError, UsageError
from corten.http import run

pytestmark = pytest.mark.envoy


def front(site, pair, **options):
    return Front(port=options.pop("port", site.port), certificate=str(pair[0]), key=str(pair[1]), **options)


def trusting(pair):
    return ssl.create_default_context(cafile=str(pair[0]))


def ask(site, context, path="/iris/predict", *, port=None):
    connection = http.client.HTTPSConnection("localhost", port or site.port, timeout=10, context=context)
    try:
        connection.request("POST", path, b"{}")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def served_name(site):
    """Whose certificate a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    from cryptography import x509

    with socket.create_connection(("127.0.0.1", site.port), 10) as plain, context.wrap_socket(plain) as secure:
        found = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True))
    return found.subject.rfc4514_string()


@pytest.mark.curl
def test_requests_come_by_tls_with_http_2_for_who_offers_it_and_the_key_is_copied_nowhere(site):
    async def story():
        pair = write_certificate(site.folder)
        a = site.upstream("a")
        async with site.serving(table(revision(1, a)), front=front(site, pair)) as gateway:
            assert gateway.certificate.names == ("localhost", "127.0.0.1")
            status, document = await asyncio.to_thread(ask, site, trusting(pair))
            assert (status, document["name"]) == (200, "a")
            assert document["headers"]["x-forwarded-proto"] == "https"
            url = f"https://localhost:{site.port}/iris/predict"
            said = subprocess.run(
                ["curl", "-s", "--cacert", pair[0], "--http2", "-o", "/dev/null", "-w", "%{http_version}", "-d", "{}", url],
                capture_output=True, text=True, check=True, timeout=20,
            )  # fmt: skip
            assert said.stdout == "2"
            # The key is in no file but the user's own.
            secret = pair[1].read_text().splitlines()[1]
            kept = [
                path for path in site.home.root.rglob("*") if path.is_file() and secret in path.read_text("latin-1")
            ]
            assert kept == []

    run(story())


def test_a_renewed_certificate_is_shown_to_new_connections_and_old_ones_go_on(site):
    async def story():
        pair = write_certificate(site.folder, "old")
        a = site.upstream("a")
        async with site.serving(table(revision(1, a)), front=front(site, pair)) as gateway:
            kept = http.client.HTTPSConnection("localhost", site.port, timeout=10, context=trusting(pair))
            await asyncio.to_thread(kept.request, "POST", "/iris/predict?ms=4000", b"{}")
            new = write_certificate(site.folder, "new")
            # One after the other, as many tools do: until both are there they do not fit.
            new[0].replace(pair[0])
            await until(_warned, gateway)
            assert "is not the key of" in gateway.warning
            assert served_name(site) == "CN=old"
            new[1].replace(pair[1])

            async def renewed():
                return await asyncio.to_thread(served_name, site) == "CN=new"

            await until(renewed)
            assert gateway.warning == ""
            answer = await asyncio.to_thread(kept.getresponse)
            assert (answer.status, answer.headers["connection"]) == (200, None)
            answer.read()
            await asyncio.to_thread(kept.request, "POST", "/iris/predict", b"{}")
            assert (await asyncio.to_thread(kept.getresponse)).status == 200
            kept.close()

    run(story())


async def _warned(gateway):
    return bool(gateway.warning)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: write_certificate(folder, days=-0.5), "it has expired"),
        (lambda folder: write_certificate(folder, begins_days=1), "it is not valid yet"),
        (lambda folder: write_certificate(folder, hosts=()), "it is for no host"),
        (lambda folder: write_certificate(folder, password="x"), "it is encrypted"),
        (lambda folder: (write_certificate(folder)[0], write_certificate(folder, "b")[1]), "it is not the key of"),
        (lambda folder: (folder / "none.crt", folder / "none.key"), "it is no file"),
        (lambda folder: (write_certificate(folder)[1],) * 2, "it holds no PEM certificate"),
        (lambda folder: (write_certificate(folder)[0],) * 2, "it holds no PEM private key"),
    ],
)
def test_a_certificate_clients_would_refuse_changes_nothing(site, spoil, told):
    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a))) as gateway:
            with pytest.raises(UsageError) as refused:
                await gateway.listen(front(site, spoil(site.folder)))
            assert (refused.value.code, told in refused.value.what) == ("gateway.bad_certificate", True)
            assert (await site.asked())[0] == 200

    run(story())


def test_tls_comes_and_goes_while_requests_are_answered(site):
    async def story():
        pair = write_certificate(site.folder)
        a = site.upstream("a")
        async with site.serving(table(revision(1, a))) as gateway:
            pid = gateway.pid
            slow = asyncio.create_task(site.asked("/iris/predict?ms=2500"))
            while await gateway.in_flight(a.address) == 0:
                await asyncio.sleep(0.01)
            http_port = free_port()
            await gateway.listen(front(site, pair, http_port=http_port))
            assert (await asyncio.to_thread(ask, site, trusting(pair)))[0] == 200
            plain = http.client.HTTPConnection("localhost", http_port, timeout=10)
            await asyncio.to_thread(plain.request, "POST", "/iris/predict?x=1", b"{}")
            answer = await asyncio.to_thread(plain.getresponse)
            assert (answer.status, answer.headers["location"]) == (
                308,
                f"https://localhost:{site.port}/iris/predict?x=1",
            )
            plain.close()
            # What had begun without TLS is answered.
            assert (await slow)[0] == 200
            await gateway.listen(Front(port=site.port))
            assert (await site.asked())[0] == 200
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", http_port), 5).close()
            assert gateway.pid == pid

    run(story())


def test_another_port_is_taken_before_the_old_one_is_left_and_a_taken_one_changes_nothing(site):
    async def story():
        a = site.upstream("a")
        old = site.port
        async with site.serving(table(revision(1, a))) as gateway:
            slow = asyncio.create_task(site.asked("/iris/predict?ms=2000"))
            while await gateway.in_flight(a.address) == 0:
                await asyncio.sleep(0.01)
            with socket.create_server(("127.0.0.1", 0)) as other:
                with pytest.raises(EngineError) as refused:
                    await gateway.listen(Front(port=other.getsockname()[1]))
                assert refused.value.code == "gateway.port_taken"
            assert (await site.asked())[0] == 200
            site.port = free_port()
            await gateway.listen(Front(port=site.port))
            assert (await site.asked())[0] == 200
            assert (await slow)[0] == 200

            async def left():
                try:
                    socket.create_connection(("127.0.0.1", old), 5).close()
                except ConnectionRefusedError:
                    return True
                return False

            await until(left, timeout_s=30)
            await gateway.listen(Front(host="0.0.0.0", port=site.port))
            assert (await site.asked())[0] == 200

    run(story())


def test_a_daemon_that_comes_back_to_a_spoiled_certificate_leaves_the_one_in_force(site):
    async def story():
        pair = write_certificate(site.folder)
        a = site.upstream("a")
        first = site.gateway(front=front(site, pair))
        await first.start(table(revision(1, a)))
        pid = first.pid
        await first.detach()
        good = Path(pair[1]).read_bytes()
        Path(pair[1]).write_text("spoiled")
        trusted = trusting(pair)
        async with site.serving(table(revision(1, a)), front=front(site, pair)) as again:
            assert again.pid == pid
            assert "it holds no PEM private key" in again.warning
            assert (await asyncio.to_thread(ask, site, trusted))[0] == 200
            Path(pair[1]).write_bytes(good)

            async def calm():
                return not again.warning

            await until(calm)
            os.kill(pid, 9)

            async def back():
                try:
                    return (await asyncio.to_thread(ask, site, trusted))[0] == 200
                except OSError:
                    return False

            await until(back)

    run(story())
