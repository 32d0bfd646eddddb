"""The daemon as a process, the embedded engine, Envoy and a small real image: everything but the model server."""

import contextlib
import http.client
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ports import free_port
from tiny_service import Load, until

from corten import __version__
from corten.control.client import Client, connect
from corten.control.database import backup_of
from corten.errors import CortenError, EngineError, NotFoundError, PolicyError, UnhealthyError, UsageError
from corten.ops.change import rollback
from corten.ops.logs import logs
from corten.ops.status import status
from corten.ops.stop import stop
from corten.testing.tiny_image import TinyImage

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not TinyImage.possible(), reason="no Python below /usr to make an image of"),
]


def test_deploy_ask_log_scale_and_stop(place):
    done = place.deploy(ANSWER="hello")
    assert done.revision == "r1"
    assert done.url == f"http://127.0.0.1:{place.port}/tiny/"
    assert place.ask() == "hello"
    assert f"serving {place.one().replicas[0].id}" in [line.text for line in logs("tiny", home=place.home)]
    again = place.deploy(ANSWER="hello")
    assert not again.changed
    scaled = place.deploy(ANSWER="hello", replicas=3)
    assert (scaled.revision, place.one().ready) == ("r1", 3)
    assert place.deploy(ANSWER="hello").revision == "r1"
    until(lambda: len(place.one().replicas) == 1, "two are gone")
    assert stop("tiny", home=place.home) == ("tiny",)
    assert status(home=place.home).deployments == ()
    with pytest.raises(NotFoundError):
        place.ask()


def test_ten_redeploys_of_a_single_replica_lose_no_request(place):
    place.deploy(ANSWER="0")
    with Load(place) as load:
        for number in range(1, 11):
            place.deploy(ANSWER=number)
            assert place.ask() == str(number)
    assert load.report["failed"] == 0, load.report
    assert set(load.report["revisions"]) == {f"r{number}" for number in range(1, 12)}


def test_a_request_that_takes_long_is_finished_by_the_revision_it_went_to(place):
    place.deploy(ANSWER="old")
    answers = []
    slow = threading.Thread(target=lambda: answers.append(place.ask(work_s=2)))
    slow.start()
    time.sleep(0.3)
    place.deploy(ANSWER="new")
    assert place.ask() == "new"
    slow.join(timeout=20)
    assert answers == ["old"]


def test_a_killed_daemon_is_not_missed_and_its_successor_adopts(place):
    place.deploy(replicas=2, ANSWER="x")
    before, pids = place.daemon_pid(), place.pids()
    gateway = status(home=place.home).as_dict()["gateway"]["pid"]
    with Load(place) as load:
        os.kill(before, signal.SIGKILL)
        time.sleep(1)
        assert place.daemon_pid() != before
        assert place.pids() == pids
        place.deploy(replicas=2, ANSWER="y")
    assert load.report["failed"] == 0, load.report
    assert status(home=place.home).as_dict()["gateway"]["pid"] == gateway
    assert place.ask() == "y"


def test_a_stopped_daemon_is_told_at_once_with_what_to_do_and_requests_go_on(place):
    place.deploy(ANSWER="x")
    pid = place.daemon_pid()
    with Load(place) as load:
        os.kill(pid, signal.SIGSTOP)
        try:
            began_s = time.monotonic()
            with pytest.raises(EngineError) as told:
                status(home=place.home)
            assert time.monotonic() - began_s < 5
        finally:
            os.kill(pid, signal.SIGCONT)
    assert (told.value.code, load.report["failed"]) == ("control.daemon_hangs", 0), load.report
    assert f"kill -CONT {pid}" in told.value.hint
    assert place.daemon_pid() == pid


OLDER = """
import sys
import corten
corten.__version__ = "0.0.9"
from corten.control.daemon import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_daemon_of_an_older_version_hands_over_to_ours_and_nobody_notices(place):
    place.deploy(ANSWER="x")
    pids = place.pids()
    Client(place.home).shut_down(until_s=time.monotonic() + 10)
    older = [sys.executable, "-c", OLDER, "--home", str(place.home.root), "--detach", "yes"]
    subprocess.run(older, stdout=subprocess.PIPE, timeout=30, check=True)
    assert Client(place.home).get("/v1/version") == {"version": "0.0.9"}
    with Load(place) as load:
        assert status(home=place.home).as_dict()["daemon"]["version"] == __version__
        assert place.pids() == pids
    assert load.report["failed"] == 0, load.report
    same = place.daemon_pid()
    assert place.daemon_pid() == same


def test_a_daemon_killed_at_random_points_of_rollouts_ends_on_the_last_one_without_orphans(place):
    place.deploy(ANSWER="0")
    chance = random.Random(7)
    with Load(place) as load:
        for number in range(1, 9):
            victim = place.daemon_pid()
            killer = threading.Timer(chance.uniform(0.0, 0.6), os.kill, (victim, signal.SIGKILL))
            killer.start()
            place.deploy(ANSWER=number)
            killer.join()
    assert load.report["failed"] == 0, load.report
    assert place.ask() == "8"
    until(lambda: len(place.awake()) == 1 and place.one().ready == 1, "one replica")
    sandboxes = {each.id for each in place.one().replicas}
    listed = {entry.name for entry in place.home.replicas.iterdir() if not entry.name.startswith(".")}
    assert sandboxes <= listed
    assert len(listed) <= 5


def test_after_a_power_cut_everything_comes_back(place):
    place.deploy(replicas=2, ANSWER="x")
    while found := place.processes():
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    assert place.one().state in ("degraded", "serving")
    until(lambda: place.one().ready == 2, "both replicas")
    assert place.ask() == "x"
    assert place.one().revision == "r1"


def test_a_terminated_daemon_lets_go_of_everything(place):
    place.deploy(ANSWER="x")
    pids, daemon = place.pids(), place.daemon_pid()
    os.kill(daemon, signal.SIGTERM)
    until(lambda: daemon not in place.processes(), "the daemon ended")
    connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=10)
    connection.request("POST", "/tiny/predict", b"{}")
    assert connection.getresponse().status == 200
    connection.close()
    assert place.pids() == pids


def test_a_broken_revision_never_takes_traffic_and_says_why(place):
    place.deploy(ANSWER="good")
    pids = place.pids()
    with Load(place) as load, pytest.raises(UnhealthyError) as caught:
        place.deploy(BROKEN=1)
    assert caught.value.code == "deploy.unhealthy"
    assert "no weights here" in caught.value.why
    assert "exit code 3" in caught.value.why
    assert load.report["failed"] == 0, load.report
    assert set(load.report["revisions"]) == {"r1"}
    assert place.pids() == pids


def test_one_that_never_gets_ready_is_given_up_after_its_time(place):
    place.deploy(ANSWER="good")
    began_s = time.monotonic()
    with pytest.raises(UnhealthyError) as caught:
        place.deploy(NEVER_READY=1, timeouts={"ready_timeout_s": 2.0})
    assert 2 <= time.monotonic() - began_s < 8
    assert "within 2 s" in caught.value.why
    assert place.ask() == "good"


def test_a_first_revision_that_is_broken_leaves_nothing(place):
    with pytest.raises(UnhealthyError) as caught:
        place.deploy(BROKEN=1)
    assert "nothing serves" in caught.value.what
    assert place.one().state == "failed"
    assert place.deploy(ANSWER="now").revision == "r2"


def test_rollback_and_back_again_under_load(place):
    place.deploy(ANSWER="first")
    place.deploy(ANSWER="second")
    with Load(place) as load:
        assert rollback("tiny", home=place.home).revision == "r1"
        assert place.ask() == "first"
        assert rollback("tiny", home=place.home).revision == "r2"
    assert load.report["failed"] == 0, load.report
    assert rollback("tiny", 1, home=place.home).revision == "r1"
    with pytest.raises(NotFoundError):
        rollback("tiny", 9, home=place.home)


def test_a_killed_replica_of_two_is_not_missed_and_replaced(place):
    place.deploy(replicas=2, ANSWER="x")
    pids = place.pids()
    with Load(place) as load:
        os.kill(pids[0], signal.SIGKILL)
        until(lambda: place.one().ready == 2 and pids[0] not in place.pids(), "a replacement")
        time.sleep(0.5)
    assert load.report["failed"] == 0, load.report


def test_a_crash_loop_is_called_one_and_backs_off(place):
    with contextlib.suppress(UnhealthyError):
        place.deploy(DIES_AFTER_S=1.0)
    seen = until(
        lambda: (one := place.one()).state == "crash-looping" and one, "it is called crash-looping", deadline_s=40
    )
    assert "exit code 4" in seen.reason


def test_of_two_deploys_at_once_the_loser_is_told(place):
    place.deploy(ANSWER="0")
    client = connect(place.home)
    generation = client.get("/v1/deployments/tiny")["generation"]
    outcomes = []

    def change(answer):
        body = {"image": str(place.image), "settings": {"env": {"ANSWER": answer}}, "generation": generation}
        try:
            outcomes.append(client.put("/v1/deployments/tiny", body)["revision"])
        except CortenError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=change, args=(answer,)) for answer in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["2", "control.conflict", "control.conflict"]


def test_deploys_of_different_names_at_once_all_come_true(place):
    results = {}

    def one(name):
        results[name] = place.deploy(name, ANSWER=name).url

    threads = [threading.Thread(target=one, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert {name: place.ask(name) for name in results} == {"a": "a", "b": "b", "c": "c"}


def test_a_taken_port_refuses_the_first_deploy_and_nothing_is_left(place):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place.port = taken.getsockname()[1]
        with pytest.raises(EngineError) as caught:
            place.deploy()
    assert caught.value.code == "gateway.port_taken"
    assert str(place.port) in str(caught.value)
    assert status(home=place.home).deployments == ()


def test_the_port_can_be_changed_and_is_kept(place):
    place.deploy(ANSWER="x")
    place.port = free_port()
    place.deploy(ANSWER="x")
    assert place.one().url == f"http://127.0.0.1:{place.port}/tiny/"
    assert place.ask() == "x"
    os.kill(place.daemon_pid(), signal.SIGKILL)
    assert place.one().url == f"http://127.0.0.1:{place.port}/tiny/"


def test_a_damaged_state_refuses_with_the_repair_and_replicas_go_on(place):
    place.deploy(ANSWER="x")
    os.kill(place.daemon_pid(), signal.SIGKILL)
    pids = place.pids()  # the successor keeps a copy of the file
    daemon = place.daemon_pid()
    os.kill(daemon, signal.SIGKILL)
    until(lambda: daemon not in place.processes(), "the daemon is gone")
    file = place.home.state / "corten.db"
    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    file.write_bytes(os.urandom(8192))
    with pytest.raises(CortenError) as caught:
        status(home=place.home)
    assert caught.value.code == "state.corrupt"
    assert str(backup_of(file)) in caught.value.hint
    subprocess.run(["sh", "-c", caught.value.hint], check=True)
    assert place.pids() == pids
    assert place.ask() == "x"


def test_only_one_daemon_runs_for_a_home_however_many_start_it(place):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(connect(place.home).get("/v1/status")["pid"])) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(found) == 6
    assert len(set(found)) == 1


def test_nothing_deployed_needs_no_daemon(place):
    assert status(home=place.home).deployments == ()
    assert place.processes() == []
    assert stop(home=place.home) == ()
    with pytest.raises(NotFoundError):
        status("tiny", home=place.home)


def test_bad_requests_to_the_daemon_are_errors_and_not_its_end(place):
    client = connect(place.home)
    pid = client.get("/v1/status")["pid"]
    for call, family in (
        (lambda: client.get("/v1/nothing"), NotFoundError),
        (lambda: client.get("/v1/deployments/..%2fx"), UsageError),
        (lambda: client.get("/v1/deployments/nobody"), NotFoundError),
        (lambda: client.get("/v1/deployments/nobody/events", after="x"), UsageError),
        (lambda: client.put("/v1/deployments/x", {"image": "latest"}), UsageError),
        (lambda: client.put("/v1/gateway", {"port": 0}), UsageError),
        (lambda: client.post("/v1/shutdown", {"replicas": "perhaps"}), UsageError),
        (lambda: client.delete("/v1/deployments/nobody"), NotFoundError),
    ):
        with pytest.raises(family):
            call()
    assert client.get("/v1/status")["pid"] == pid


def test_the_socket_is_for_its_owner_only(place):
    connect(place.home)
    assert place.home.daemon_socket.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user to try with")
def test_a_socket_folder_that_somebody_else_made_first_is_not_used(place):
    place.home.run.mkdir()
    os.chown(place.home.run, 65532, 65532)
    with pytest.raises(PolicyError) as caught:
        place.deploy()
    assert caught.value.code == "control.foreign_folder"
    os.chown(place.home.run, 0, 0)


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user to try with")
def test_another_user_cannot_use_the_daemon_even_if_the_socket_were_open(place):
    connect(place.home)
    place.home.daemon_socket.chmod(0o666)
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(b'GET /v1/status HTTP/1.1\\r\\nHost: d\\r\\nConnection: close\\r\\n\\r\\n');"
        "print(s.recv(4096).decode())"
    )
    words = ["/usr/bin/python3", "-c", script, str(place.home.daemon_socket)]
    seen = subprocess.run(
        words, user=65532, group=65532, extra_groups=[], cwd="/", capture_output=True, text=True, check=True
    )
    assert "403" in seen.stdout.splitlines()[0]
    assert "control.not_the_owner" in seen.stdout
    assert Client(place.home).get("/v1/status")["deployments"] == []


def test_an_idle_daemon_costs_next_to_nothing(place):
    place.deploy(replicas=2, ANSWER="x")
    time.sleep(1)
    stat = Path(f"/proc/{place.daemon_pid()}/stat")

    def ticks():
        fields = stat.read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(6)
    idle_s = (ticks() - before) / os.sysconf("SC_CLK_TCK")
    # About 1 % of a core where starting a Python with asyncio takes 60 ms of it, and as much more as the machine is slower.
    assert idle_s <= _start_of_a_python_s()


def _start_of_a_python_s():
    """Processor seconds of a Python that imports asyncio and ends, the mean of five."""

    def taken_s():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = taken_s()
    for _ in range(5):
        subprocess.run([sys.executable, "-I", "-S", "-c", "import asyncio"], check=True)
    return (taken_s() - before) / 5
