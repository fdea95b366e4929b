"""Have a real Ansible: ansible-core from PyPI, in a virtual environment of its own in the cache folder."""

import hashlib
import sys
from functools import cache as once
from pathlib import Path

from tests.labs import cache, cached, command, install, say

_PACKAGE = "ansible-core>=2.19,<2.20"


@once
def programs() -> Path:
    """Return the folder of ansible-playbook and its python3; what it connects with, ssh, is on PATH then."""
    install({"ssh": "openssh-client"})
    name = f"ansible/{hashlib.sha256(f'{sys.version} {_PACKAGE}'.encode()).hexdigest()[:8]}"

    def build(folder: Path) -> None:
        say("fetching ansible-core (once)")
        command([sys.executable, "-m", "venv", folder])
        command([folder / "bin/pip", "install", "-q", _PACKAGE])
        for script in (folder / "bin").iterdir():
            if script.is_file() and not script.is_symlink():
                # It gets its name when it is whole.
                script.write_bytes(script.read_bytes().replace(bytes(folder), bytes(cache() / name)))

    return cached(name, build) / "bin"
