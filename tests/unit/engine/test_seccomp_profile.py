"""podman's seccomp profile made stricter."""

import json

import pytest

from corten.engine.seccomp_profile import stricter

GIVEN = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [{"architecture": "SCMP_ARCH_X86_64"}],
    "syscalls": [
        {"names": ["read", "clone", "clone3", "unshare", "keyctl", "mount"], "action": "SCMP_ACT_ALLOW", "args": []},
        {"names": ["bpf", "setns"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 16, "op": "SCMP_CMP_NE"}]},
    ],
}


def rules(name):
    made = json.loads(stricter(json.dumps(GIVEN).encode()))
    return [rule for rule in made["syscalls"] if name in rule["names"]]


def test_what_is_not_touched_stays():
    made = json.loads(stricter(json.dumps(GIVEN).encode()))
    assert {key: made[key] for key in ("defaultAction", "defaultErrnoRet", "archMap")} == {
        key: GIVEN[key] for key in ("defaultAction", "defaultErrnoRet", "archMap")
    }
    assert rules("read") == [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": []}]


@pytest.mark.parametrize("name", ["unshare", "keyctl", "mount", "bpf", "setns", "io_uring_setup"])
def test_what_the_sandbox_refuses_is_refused_and_allowed_by_no_rule(name):
    assert [(rule["action"], rule["errnoRet"]) for rule in rules(name)] == [("SCMP_ACT_ERRNO", 1)]


def test_threads_can_be_made_and_namespaces_cannot():
    (rule,) = rules("clone")
    assert rule["args"] == [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
    assert [(rule["action"], rule["errnoRet"]) for rule in rules("clone3")] == [("SCMP_ACT_ERRNO", 38)]


def test_sockets_are_of_four_families():
    assert sorted(rule["args"][0]["value"] for rule in rules("socket")) == [1, 2, 10, 16]
    assert {rule["args"][0]["op"] for rule in rules("socket")} == {"SCMP_CMP_EQ"}


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"syscalls": 1}'])
def test_what_is_no_profile_is_an_error(data):
    with pytest.raises(ValueError):
        stricter(data)
