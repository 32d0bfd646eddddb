"""What tries, from inside a replica, to get out of it or at what is not its own."""

# Runs inside: each attempt says what came of it. Numbers are x86_64's and aarch64's.
PROBE = r"""
import ctypes, errno, json, os, platform, resource, signal, socket, sys, time

libc = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"

def call(x86, arm, *args):
    ctypes.set_errno(0)
    result = libc.syscall(arm if ARM else x86, *args)
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]

def attempt(action):
    try:
        action()
        return "done"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))

def write(path):
    return attempt(lambda: open(path, "w").write("x"))

def connect(family, address):
    def action():
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.settimeout(2)
            s.connect(address)
    return attempt(action)

def fill(path, size):
    def action():
        with open(path, "wb", buffering=0) as f:
            for _ in range(size >> 20):
                f.write(bytes(1 << 20))
    outcome = attempt(action)
    os.unlink(path)
    return outcome

status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
CLONE_NEWUSER, CLONE_NEWNS, SIGCHLD = 0x10000000, 0x00020000, 17
report = {
    "uid": os.getuid(), "gid": os.getgid(), "groups": [g for g in os.getgroups() if g not in (65532, 65534)],
    "caps": {name: status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
    "no_new_privs": status["NoNewPrivs"].strip(), "seccomp": status["Seccomp"].strip(),
    "pid": os.getpid(), "processes": sorted(int(p) for p in os.listdir("/proc") if p.isdigit()),
    "env": dict(os.environ),
    "hostname": socket.gethostname(),
    "write": {p: write(p + "/x") for p in ("", "/usr", "/etc", "/app", "/models", "/var", "/dev", "/sys", "/run", "/proc")},
    "overwrite": {p: write(p) for p in ("/app/probe.py", "/models/weights.bin", "/etc/resolv.conf", "/usr/bin/python3")},
    "proc_write": {p: write("/proc/" + p) for p in ("sys/kernel/core_pattern", "sys/kernel/hostname", "sysrq-trigger", "sys/vm/drop_caches", "sys/user/max_user_namespaces")},
    "tmp": write("/tmp/x"), "shm": write("/dev/shm/x"), "own_run": write("/run/corten/x"),
    "run": sorted(os.listdir("/run")), "sys": sorted(os.listdir("/sys")),
    "host_paths": [p for p in json.loads(os.environ["PROBE_PATHS"]) if os.path.lexists(p)],
    "abstract": connect(socket.AF_UNIX, b"\0" + os.environ["PROBE_ABSTRACT"].encode()),
    "loopback": connect(socket.AF_INET, ("127.0.0.1", int(os.environ["PROBE_PORT"]))),
    "metadata": connect(socket.AF_INET, ("169.254.169.254", 80)),
    "outside": connect(socket.AF_INET, ("192.0.2.1", 80)),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "vsock": connect(40, (2, 22)) if hasattr(socket, "AF_VSOCK") else "EAFNOSUPPORT",
    "alg": attempt(lambda: socket.socket(38, socket.SOCK_SEQPACKET)),
    "packet": attempt(lambda: socket.socket(17, socket.SOCK_RAW)),
    "mount": call(165, 40, b"none", b"/tmp", b"tmpfs", 0, None),
    "umount": call(166, 39, b"/proc", 0),
    "unshare_user": call(272, 97, CLONE_NEWUSER),
    "unshare_mount": call(272, 97, CLONE_NEWNS),
    "clone_user": call(56, 220, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0),
    "clone3": call(435, 435, 0, 0),
    "setns": call(308, 268, 0, 0),
    "ptrace": call(101, 117, 16, 1, 0, 0),
    "bpf": call(321, 280, 0, 0, 0),
    "io_uring": call(425, 425, 8, 0),
    "keyctl": call(250, 219, 0, -3, 0),
    "open_by_handle": call(304, 265, -100, 0, 0),
    "kexec": call(246, 104, 0, 0, 0, 0),
    "chroot": call(161, 51, b"/tmp"),
    "personality": call(135, 92, 0xFFFFFFFF),
    "process_vm_readv": call(310, 270, 1, 0, 0, 0, 0, 0),
    "x32": "ENOSYS" if ARM else call(0x40000000 + 39, 0),
    "tiocsti": call(16, 29, 0, 0x5412, b"x"),
    "mknod": attempt(lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0))),
    "devices": sorted(os.listdir("/dev")),
    "setuid": attempt(lambda: os.setuid(0)),
    "tmp_full": fill("/tmp/full", 64 << 20), "shm_full": fill("/dev/shm/full", 64 << 20),
    "limits": {n: resource.getrlimit(getattr(resource, "RLIMIT_" + n))[1] for n in ("NOFILE", "CORE", "NPROC")},
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
    "tty": attempt(lambda: open("/dev/tty")),
    "threads": [],
}
import threading
t = threading.Thread(target=lambda: report["threads"].append("ran"))
t.start(); t.join()
import subprocess
report["child"] = subprocess.run([sys.executable, "-c", "print('child')"], capture_output=True, text=True).stdout
print(json.dumps(report), flush=True)
open("/run/corten/done", "w").close()
time.sleep(60)
"""
