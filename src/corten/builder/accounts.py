"""The user replicas run as, in the files that name users (passwd(5), group(5))."""

from __future__ import annotations

from collections.abc import Iterator

from corten.builder.entry import Entry

UID = 65532
# The base is the builder's own, or says nothing of users.
PASSWD = f"""\
root:x:0:0:root:/root:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
nonroot:x:{UID}:{UID}:nonroot:/home/nonroot:/usr/sbin/nologin
"""
GROUP = f"""\
root:x:0:
nogroup:x:65534:
nonroot:x:{UID}:
"""


def with_account(passwd: str, group: str) -> Iterator[Entry]:
    """`etc/passwd` and `etc/group` with a line for the user; those that have one are left as they are.

    Without a name for its uid `getpass.getuser()` raises, which PyTorch and others call.
    """
    files = (
        ("etc/group", group, GROUP, f"nonroot:x:{UID}:"),
        ("etc/passwd", passwd, PASSWD, f"nonroot:x:{UID}:{UID}::/nonexistent:/usr/sbin/nologin"),
    )
    for name, text, default, line in files:
        if not text:
            yield Entry(name, data=default.encode())
        elif not any(known.split(":")[2:3] == [str(UID)] for known in text.splitlines()):
            yield Entry(name, data=f"{text.rstrip(chr(10))}\n{line}\n".encode())
