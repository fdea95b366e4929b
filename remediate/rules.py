"""What the operator allows: the `remediation` part of the configuration."""

from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from exporter.config import AbsolutePath, Config, Duration, Part, WebAddress, WebConfig, validate


class Start(StrEnum):
    """When a node is started after its update."""

    NEVER = "never"
    IF_CRASHED = "if-crashed"
    """Only when it was down because of its version."""
    ALWAYS = "always"


class VerifyMode(StrEnum):
    """What must vouch for an archive besides TLS and the version the program itself prints."""

    REQUIRE = "require"
    PREFER = "prefer"
    """The release's digest, unless the service answers that there is none."""
    TLS = "tls"


class Rules(Part):
    """The `remediation` part; every default is the cautious one."""

    start: Start = Start.IF_CRASHED
    verify: VerifyMode = VerifyMode.PREFER
    releases: WebAddress = "https://github.com/storj/storj/releases/download"
    digests: WebAddress = "https://api.github.com/repos/storj/storj/releases/tags"
    confirm_timeout: Duration = timedelta(minutes=15)
    download_timeout: Duration = timedelta(minutes=30)
    probe_user: str = "nobody"
    """Runs a downloaded binary for its version where there is no systemd to confine it."""
    spool: AbsolutePath = Path("/var/spool/storagenode-keeper")
    state_dir: AbsolutePath = Path("/var/lib/storagenode-remediate")
    status_file: AbsolutePath = Path("/var/lib/storagenode-keeper/status.json")
    webhook: WebConfig = WebConfig()


def rules(config: Config, *, source: str) -> Rules:
    """Read the remediation part of a configuration.

    Raises:
        ConfigError: names the file, the key, what was found and what was expected.
    """
    return validate(Rules, dict(config.remediation), source=f"{source}: remediation")
