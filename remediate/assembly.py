"""What every command that acts is put together from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from sqlite3 import DatabaseError

from exporter.config import Config, ConfigError
from remediate.remediation import Remediation
from remediate.rules import Rules
from remediate.schema import SchemaError
from remediate.steps.fetch import Progress
from remediate.store import Store
from remediate.worker import Publisher


@dataclass(frozen=True, slots=True)
class Assembly:
    """The worker's parts."""

    rules: Rules
    store: Store
    remediation: Remediation
    publisher: Publisher


@contextmanager
def assembled(config: Config, rules: Rules, *, progress: Progress = lambda done, total: None) -> Iterator[Assembly]:
    """Open the store and put everything together.

    Raises:
        ConfigError: the store's directory cannot be used, or there is no user to run a downloaded binary as.
    """
    try:
        store = Store(rules.state_dir)
    except (OSError, DatabaseError, SchemaError) as error:
        raise ConfigError(f"remediation.state_dir: {rules.state_dir} cannot be used: {error}") from None
    try:
        publisher = Publisher(config, rules, store)
        remediation = Remediation(config, rules, store, progress=progress, changed=publisher.publish)
        yield Assembly(rules, store, remediation, publisher)
    finally:
        store.close()
