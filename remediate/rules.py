"""What the operator allows: the `remediation` part of the configuration."""

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import AfterValidator, Field, model_validator

from exporter.config import AbsolutePath, Config, Duration, Part, WebAddress, WebConfig, validate
from exporter.version import NodeVersion
from remediate.window import Window


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
    """The operator's list, else the release's digest, unless it is answered that there is none."""
    TLS = "tls"


def _specifier(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        raise ValueError("expected versions such as ==1.120.3 or >=1.130,<1.131.2") from None
    if not text.strip():
        raise ValueError("expected versions such as ==1.120.3: an empty text would mean all of them")
    return text


def _versioned(url: str) -> str:
    if "{version}" not in url:
        raise ValueError("expected {version} in it, such as https://example.com/v{version}/sha256sums")
    return url


class Rules(Part):
    """The `remediation` part; every default is the cautious one."""

    start: Start = Start.IF_CRASHED
    dry_run: bool = False
    """Decide, record and tell, and do nothing, but for a person who says `run`."""
    never_install: tuple[Annotated[str, AfterValidator(_specifier)], ...] = ()
    """Versions that are never installed, whoever asks."""
    heal_updater: bool = False
    """Also update an official updater that is too old, and remove what blocks one, with nobody asking for it."""
    windows: tuple[Window, ...] = ()
    """When something may be done with nobody asking for it; at any time when there is none."""
    cool_down: Duration = timedelta(minutes=30)
    """How long a binary is left alone after a run that nobody asked for; less than alerts take to be repeated."""
    notify: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """A program and its arguments; gets a report as JSON on its standard input."""
    verify: VerifyMode = VerifyMode.PREFER
    releases: WebAddress = "https://github.com/storj/storj/releases/download"
    digests: WebAddress = "https://api.github.com/repos/storj/storj/releases/tags"
    sha256sums: Annotated[WebAddress, AfterValidator(_versioned)] | None = None
    """Address of a file of digests that the operator vouches for, with `{version}` in it where the version goes."""
    confirm_timeout: Duration = timedelta(minutes=15)
    download_timeout: Duration = timedelta(minutes=30)
    probe_user: str = "nobody"
    """Runs a downloaded binary for its version where there is no systemd to confine it."""
    spool: AbsolutePath = Path("/var/spool/storagenode-keeper")
    state_dir: AbsolutePath = Path("/var/lib/storagenode-remediate")
    status_file: AbsolutePath = Path("/var/lib/storagenode-keeper/status.json")
    webhook: WebConfig = WebConfig()

    @model_validator(mode="after")
    def _asked(self) -> Self:
        if self.sha256sums and self.verify is VerifyMode.TLS:
            raise ValueError("found sha256sums and `verify: tls`, which asks for no digest: expected prefer or require")
        return self

    def forbidding(self, version: NodeVersion) -> str | None:
        """Find what of `never_install` a version, or the release it comes before, is."""
        release = f"{version.major}.{version.minor}.{version.patch}"
        return next((text for text in self.never_install if release in SpecifierSet(text)), None)


def rules(config: Config, *, source: str) -> Rules:
    """Read the remediation part of a configuration.

    Raises:
        ConfigError: names the file, the key, what was found and what was expected.
    """
    return validate(Rules, dict(config.remediation), source=f"{source}: remediation")
