"""What is stopped for a swap: a loop, also while it is alive, and no node that has recovered."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from exporter.config import NodeConfig
from exporter.status import ServiceState, ServiceStatus
from remediate.journal import Outcome, Run
from remediate.steps import StepError, confirm
from remediate.steps.confirm import Look, confirm_down, must_stop
from tests.remediate.test_plan import RUN

ALPHA = NodeConfig.model_validate({"name": "alpha", "service": "systemd:alpha.service", "binary": "/bin/sh"})
STOPPED, RUNNING, CRASHED = ServiceState.STOPPED, ServiceState.RUNNING, ServiceState.CRASHED
LOOPING, MASKED = ServiceState.CRASH_LOOPING, ServiceState.MASKED


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirm, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(confirm, "_RECOVERED_SECONDS", 0.05)


def run(seen: ServiceState) -> Run:
    return replace(RUN, seen={"alpha": str(seen)})


def looks(states: Sequence[ServiceState]) -> Look:
    """See one state after the other, and the last one for ever."""

    def seen() -> Iterator[ServiceStatus]:
        for state in states:
            yield ServiceStatus(state=state, detail="as told", since=7.0)
        while True:
            yield ServiceStatus(state=states[-1], detail="as told", since=7.0)

    statuses = seen()
    return lambda _: next(statuses)


@pytest.mark.parametrize(
    ("seen", "states", "stops"),
    [
        (LOOPING, [LOOPING], True),
        (LOOPING, [RUNNING, RUNNING, LOOPING], True),
        (LOOPING, [STOPPED], False),
        (LOOPING, [CRASHED], False),
        (CRASHED, [LOOPING], True),
    ],
)
def test_a_loop_is_stopped_also_where_it_is_seen_alive(
    seen: ServiceState, states: list[ServiceState], stops: bool
) -> None:
    assert must_stop(ALPHA, run(seen), looks(states), stop_running=False) is stops


def test_a_loop_that_has_ended_well_is_no_reason_to_stop_a_node() -> None:
    with pytest.raises(StepError, match="alpha was crash_looping, and runs now") as error:
        must_stop(ALPHA, run(LOOPING), looks([RUNNING]), stop_running=False)
    assert error.value.outcome is Outcome.ABANDONED
    other = replace(run(LOOPING), node="beta")
    assert must_stop(ALPHA, other, looks([RUNNING]), stop_running=True) is False, "what is said of one is said of it"


def test_a_node_that_could_not_be_started_again_is_not_stopped() -> None:
    with pytest.raises(StepError, match="is not stopped, since it would not be started again: its storage is not") as e:
        must_stop(ALPHA, run(RUNNING), looks([RUNNING]), stop_running=True)
    assert e.value.outcome is Outcome.FAILED
    left = replace(run(RUNNING), starts={"alpha": RUN.starts["beta"]})
    assert must_stop(ALPHA, left, looks([RUNNING]), stop_running=True)


@pytest.mark.parametrize(
    ("seen", "state", "ours", "rests"),
    [
        (STOPPED, STOPPED, False, True),
        (CRASHED, CRASHED, False, True),
        (LOOPING, STOPPED, True, True),
        (LOOPING, CRASHED, True, True),
        (LOOPING, CRASHED, False, True),  # systemd has given up
        (RUNNING, STOPPED, True, True),
        (LOOPING, STOPPED, False, False),
        (CRASHED, STOPPED, False, False),
        (RUNNING, STOPPED, False, False),
    ],
)
def test_what_somebody_else_has_stopped_is_not_among_what_may_be_started(
    seen: ServiceState, state: ServiceState, ours: bool, rests: bool
) -> None:
    found = confirm_down(run(seen), [ALPHA], looks([state]), ["alpha"] if ours else [])
    assert found == ({"alpha": 7.0} if rests else {})


@pytest.mark.parametrize(
    ("seen", "state"),
    [(STOPPED, RUNNING), (STOPPED, LOOPING), (STOPPED, CRASHED), (LOOPING, MASKED), (CRASHED, ServiceState.STARTING)],
)
def test_what_is_not_down_as_it_was_is_abandoned(seen: ServiceState, state: ServiceState) -> None:
    with pytest.raises(StepError, match=f"alpha is {state}") as error:
        confirm_down(run(seen), [ALPHA], looks([state]), [])
    assert error.value.outcome is Outcome.ABANDONED
    assert confirm_down(replace(run(seen), node="beta"), [ALPHA], looks([state]), []).keys() <= {"alpha"}
