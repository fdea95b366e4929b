"""Print every figure that can be had here, and why another cannot."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench import fleet, scrape, webhook
from tests.bench.rest import at_rest
from tests.labs import Unavailable
from tests.labs.upstream import DEFECTIVE, FIXED, programs, storagenode_zip


def main() -> int:
    """Run the benchmarks one after the other."""
    with tempfile.TemporaryDirectory(prefix="storagenode-keeper-bench-") as folder:
        for program in ("storagenode-exporter", "storagenode-remediate"):
            print(f"{program} serve, at rest: {at_rest(Path(folder), program):.1f} MiB resident", flush=True)
    scrape.main()
    webhook.main()
    try:
        fleet.main()  # takes a quarter of an hour, most of which it waits
    except Unavailable as reason:
        print(f"nothing about 10,000 nodes: {reason}")
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        print("no comparison with upstream's updater: it runs only in a network of its own, which needs root")
        return 0
    try:
        programs(DEFECTIVE), programs(FIXED), storagenode_zip(FIXED)
    except Unavailable as reason:
        print(f"no comparison with upstream's updater: {reason}")
        return 0
    return subprocess.run(["unshare", "--net", sys.executable, "-m", "tests.bench.update"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
