"""What each step of a run does, one module a step or two."""

from collections.abc import Sequence

from remediate.journal import Outcome
from remediate.services.errors import ServiceError


class StepError(Exception):
    """A step that could not be done; the outcome says who is to blame, the text what a person should know.

    `released` names what was put back all the same.
    """

    def __init__(self, outcome: Outcome, detail: str, released: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail
        self.released = released


def failed(what: str, error: OSError | ServiceError) -> StepError:
    """Say that something on this host stood in the way of a step."""
    if isinstance(error, OSError) and error.strerror:
        where = f" of {error.filename}" if error.filename else ""
        return StepError(Outcome.FAILED, f"cannot {what}{where}: {error.strerror}")
    return StepError(Outcome.FAILED, f"cannot {what}: {error}")
