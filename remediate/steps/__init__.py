"""What each step of a run does, one module a step or two."""

from remediate.journal import Outcome


class StepError(Exception):
    """A step that could not be done; the outcome says who is to blame, the text what a person should know."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail
