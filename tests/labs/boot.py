"""Run a command in a mount namespace and a cgroup of its own, over a private copy of a root file system.

boot.py FOLDER ROOTFS CGROUP COMMAND...: the copy is an overlay at FOLDER/root and its changes are in memory.
The mounts end with the command, and the command with us and our parent, however that ends: nothing is left to clean up.
A command that ends with 133, as systemd-nspawn does when its container reboots, is run again.
"""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

CLONE_NEWNS = 0x20000
PR_SET_PDEATHSIG = 1
REBOOT = 133


def mount(*args: str) -> None:
    """Mount something, or end with the status and the words of mount(8)."""
    failed = subprocess.run(["mount", *args], check=False).returncode
    if failed:
        sys.exit(failed)


def end_with_parent() -> int:
    """Have the kernel end us when our parent ends."""
    ended: int = libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    return ended


folder, rootfs, cgroup, *command = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(CLONE_NEWNS) != 0 or end_with_parent() != 0:
    sys.exit(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
Path(cgroup, "cgroup.procs").write_text(str(os.getpid()))
mount("--make-rprivate", "/")
mount("-t", "tmpfs", "-o", "mode=755", "changes", folder)
for name in ("upper", "work", "root"):
    Path(folder, name).mkdir()
mount(
    "-t",
    "overlay",
    "-o",
    f"lowerdir={rootfs},upperdir={folder}/upper,workdir={folder}/work",
    "changes",
    f"{folder}/root",
)
while (status := subprocess.run(command, preexec_fn=end_with_parent, check=False).returncode) == REBOOT:
    pass
sys.exit(status)
