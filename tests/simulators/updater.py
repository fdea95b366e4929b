"""The simulated storagenode-updater: the file operations of upstream's, in its order, of any release since 1.90.

It logs what upstream's logs, but for the keys of a configuration that it does not know. Itself it does not replace:
what is newer of it has not been rolled out to it.
Standard library only, and all in this file, so that it can be copied into a container and be run there as a program.
"""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

OFFLINE = (1, 106)
"""The first release that leaves the new binary in place where the node does not run."""
CLEANS_UP = (1, 111)
STORES = (1, 115)
TRIES = (1, 128)
"""The first release that tries a new version, and writes down what failed."""
SNAKE = (1, 146)
"""The first release that logs `server_address`, and not `Server Address`."""
CHUNK_BYTES = 1 << 14
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}

OWN = "storagenode-updater"

asked_to_end = threading.Event()
snake_case = True


class UpdateError(Exception):
    """What ends a cycle, and not the program."""


class Updater:
    """One updater; `pause` seconds pass between any two of its operations, so that it can be met everywhere.

    To try a new version takes `trial` seconds.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.binary = Path(options.binary_location)
        self.service = options.service_name
        self.store = Path(options.binary_store_dir)
        self.server = options.server or configured(options.config_dir, "version.server-address")
        self.version = options.release
        self.release = numbers(options.release)[:2]
        self.pause = options.pause
        self.trial = options.pause if options.trial is None else options.trial

    def cycle(self) -> None:
        """Do what upstream does every fifteen minutes."""
        say("INFO", "Downloading versions.", server_address=self.server)
        try:
            with urllib.request.urlopen(self.server, timeout=10) as answer:
                processes = json.load(answer)["processes"]
        except (OSError, ValueError) as error:
            say("ERROR", "Error retrieving version info.", error=str(error))
            return
        try:
            self.update(processes["storagenode"])
        except (UpdateError, OSError, ValueError, zipfile.BadZipFile) as error:
            say("ERROR", "Error updating service.", service=self.service, error=str(error), errorVerbose=str(error))
        say("INFO", "Current binary version", service=OWN, version=f"v{self.version}")
        is_newest = wanted(self.version, processes[OWN]) is None
        rolled_out = "New version is being rolled out but hasn't made it to this node yet"
        say("INFO", "Version is up to date" if is_newest else rolled_out, service=OWN)

    def update(self, allowed: dict[str, dict[str, str]]) -> None:
        current = self.version_of(self.binary)
        say("INFO", "Current binary version", service=self.service, version=f"v{current}")
        target = wanted(current, allowed)
        if target is None:
            say("INFO", "Version is up to date", service=self.service)
            return
        version = target["version"]
        verdict = self.store / f"last-failed-update.{self.service}.json"
        if self.release >= TRIES and verdict.exists():
            failed = json.loads(verdict.read_text())["Version"]
            if numbers(failed) == numbers(version):
                return  # without a word, as upstream's
        staged = self.binary.with_name(f"{self.binary.name}.{version}")
        self.download(target["url"], staged)
        self.check(staged, version, verdict)
        if self.release >= STORES and self.store != Path():
            shutil.copyfile(self.binary, self.store / self.binary.name)
        self.swap(staged, self.binary.with_name(f"{self.binary.name}.old.v{current}"))

    def download(self, template: str, staged: Path) -> None:
        url = template.replace("{os}", "linux", 1).replace("{arch}", MACHINES.get(platform.machine(), "arm"), 1)
        with tempfile.NamedTemporaryFile(prefix="storagenode_linux.", suffix=".zip") as archive:
            say("INFO", "Download started.", **{"from": url, "to": archive.name})
            with urllib.request.urlopen(url, timeout=60) as answer:
                while chunk := answer.read(CHUNK_BYTES):
                    if asked_to_end.is_set():
                        raise UpdateError("context canceled")
                    archive.write(chunk)
            archive.flush()
            self.wait()
            with zipfile.ZipFile(archive.name) as opened:
                (entry,) = opened.namelist()
                with opened.open(entry) as source, open(staged, "xb", opener=executable) as new:
                    self.wait()
                    shutil.copyfileobj(source, new)
        say("INFO", "Download finished.", **{"from": url, "to": archive.name})

    def check(self, staged: Path, version: str, verdict: Path) -> None:
        try:
            said = self.version_of(staged)
            if numbers(said) != numbers(version):
                raise UpdateError(f"invalid version downloaded: wants {version} got {said}")
            failure = self.run(str(staged), "--help", seconds=self.trial)[0] if self.release >= TRIES else ""
            if failure:
                content = {"Version": version.removeprefix("v"), "Date": now(), "Failure": f"{failure}\n"}
                verdict.write_text(json.dumps(content, indent=4))
                raise UpdateError(f"unable to run binary: {failure}")
        except UpdateError:
            staged.unlink()
            raise

    def swap(self, staged: Path, backup: Path) -> None:
        say("INFO", "Restarting service.", service=self.service)
        self.wait()
        self.binary.rename(backup)
        self.wait()
        staged.rename(self.binary)
        self.wait()
        failure, shown = self.run("systemctl", "show", "--property=MainPID", self.service)
        pid = 0 if failure else int(shown.partition("=")[2])
        if failure or (pid == 0 and self.release < OFFLINE):
            backup.rename(self.binary)
            raise UpdateError(f"error stopping {self.service} service: {failure or 'os: process not initialized'}")
        if pid:
            os.kill(pid, signal.SIGINT)
        say("INFO", "Service restarted successfully.", service=self.service)
        if self.release >= CLEANS_UP:
            say("INFO", "Cleaning up old binary.", service=self.service, path=str(backup))
            self.wait()
            backup.unlink(missing_ok=True)

    def version_of(self, program: Path) -> str:
        failure, said = self.run(str(program), "version")
        found = re.search(r"^Version: v?(\S+)", said, re.MULTILINE)
        if failure or found is None:
            raise UpdateError(failure or f"unable to determine binary version of {program}")
        return found[1]

    def run(self, *argv: str, seconds: float = 0) -> tuple[str, str]:
        """Run a program to its end; return why it failed, and what it said.

        A sleep before it, which a signal ends as well, stands for the time it takes.
        """
        for each in (("sleep", str(seconds or self.pause)), argv):
            try:
                done = subprocess.run(each, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            except FileNotFoundError:
                return f'exec: "{each[0]}": executable file not found in $PATH', ""
            if done.returncode < 0:
                return f"signal: {signal.strsignal(-done.returncode)}".lower(), done.stdout
            if done.returncode:
                return f"exit status {done.returncode}", done.stdout
        return "", done.stdout

    def wait(self) -> None:
        time.sleep(self.pause)


def wanted(current: str, allowed: dict[str, dict[str, str]]) -> dict[str, str] | None:
    """Return the version to go to, and its URL, for a node that every rollout reaches."""
    if numbers(current) >= numbers(allowed["suggested"]["version"]):
        return None
    below = numbers(current) < numbers(allowed["minimum"]["version"])
    return allowed["minimum"] if below else allowed["suggested"]


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.removeprefix("v").split("-")[0].split("."))


def executable(path: str, flags: int) -> int:
    return os.open(path, flags, 0o755)


def configured(config_dir: str, key: str) -> str:
    found = re.search(rf"^{re.escape(key)}: (\S+)", Path(config_dir, "config.yaml").read_text(), re.MULTILINE)
    return found[1] if found else "https://version.storj.io"


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def say(level: str, message: str, **fields: str) -> None:
    about = {"process": OWN, **fields}
    if not snake_case:
        about = {key if "error" in key else key.replace("_", " ").title(): value for key, value in about.items()}
    print(now(), level, message, json.dumps(about), sep="\t", file=sys.stderr, flush=True)


def end(number: int, frame: FrameType | None) -> None:
    say("INFO", f'Got a signal from the OS: "{signal.strsignal(number)}"')
    asked_to_end.set()


def main(arguments: Sequence[str]) -> None:
    global snake_case
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("run", "version"))
    parser.add_argument("--config-dir", default=".")
    parser.add_argument("--binary-location", default="storagenode")
    parser.add_argument("--service-name", default="storagenode")
    parser.add_argument("--binary-store-dir", default="")
    parser.add_argument("--version.server-address", dest="server")
    parser.add_argument("--version.check-interval", dest="interval", default="15m")
    parser.add_argument("--release", default="1.104.5", help="of the updater that is simulated")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between any two operations")
    parser.add_argument("--trial", type=float, help="seconds that trying a new version takes")
    options, _ = parser.parse_known_args(arguments)
    if options.command == "version":
        print(f"Release build\nVersion: v{options.release}")
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    snake_case = numbers(options.release)[:2] >= SNAKE
    say("INFO", "Configuration loaded", location=str(Path(options.config_dir, "config.yaml")))
    say("INFO", "Running on version", service=OWN, version=f"v{options.release}")
    if not Path(options.binary_location).exists():
        say("FATAL", "Unable to find storage node executable binary.")
        sys.exit(1)
    units = {"s": 1, "m": 60, "h": 3600}
    interval = float(options.interval[:-1]) * units[options.interval[-1]]
    updater = Updater(options)
    updater.cycle()
    while interval > 0 and not asked_to_end.wait(interval):
        updater.cycle()


if __name__ == "__main__":
    main(sys.argv[1:])
