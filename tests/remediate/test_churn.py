"""I6: a server that changes its mind, clocks that jump, alerts without end: no more than one true need would."""

import itertools
import random
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from exporter.version import NodeVersion
from remediate.decision import Reason, Request, Trigger
from remediate.journal import Outcome, Run
from remediate.spool import Spool
from remediate.store import Store
from remediate.worker import work
from tests.remediate.acting import DAY, HOUR, YEAR, Clock, acting, ask
from tests.remediate.conftest import NEW, OLD, Stage
from tests.remediate.test_restraint import failed
from tests.simulators import build

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]

MINDS = (
    {"minimum": NEW, "suggested": NEW},
    {"minimum": "1.103.0", "suggested": NEW},
    {"minimum": "1.104.6", "suggested": "1.104.6"},
    {"minimum": "1.154.0", "suggested": "1.154.0"},
    {"minimum": "1.104.6", "suggested": "1.104.1"},
    {"minimum": "v0.0.1", "suggested": "v0.0.1"},
    {"minimum": "2.0.0", "suggested": "2.0.0"},
    {"minimum": "1.101.0", "suggested": "1.101.0"},
    {"minimum": "1.105.0", "suggested": "1.106.0"},
)


def runs(stage: Stage) -> list[Run]:
    with closing(Store(stage.state_dir)) as store:
        return list(reversed(store.runs(limit=1000)))


def changing(stage: Stage) -> Iterator[None]:
    """Let the server think something else before each look."""
    chance = random.Random(20)
    for mind in itertools.chain(MINDS, iter(lambda: chance.choice(MINDS), None)):
        stage.versions.set(**mind)
        yield


def test_a_server_that_changes_its_mind_at_every_look(stage: Stage, tmp_path: Path) -> None:
    """A hundred alerts and a hundred rounds of the watch, within an hour: one run, of the one binary."""
    stage.rules["cool_down"] = "1h"
    for version in ("1.103.0", "1.104.6", "1.105.0"):
        stage.publish(build.node(version, tmp_path / version), version)
    clock = Clock()
    minds = changing(stage)
    versions = {OLD}
    with acting(stage, clock) as remediation:
        for _ in range(100):
            for trigger in (Trigger.ALERT, Trigger.WATCH):
                next(minds)
                remediation.run(Request(node="alpha", trigger=trigger))
            clock.now += 30
            installed = [str(run.target) for run in runs(stage) if run.outcome is Outcome.UPDATED]
            assert installed == sorted(installed, key=NodeVersion.parse), "I5"
            versions |= set(installed)
    assert [str(run.target) for run in runs(stage)] == [NEW]
    assert versions == {OLD, NEW}
    stage.assert_updated()


def test_day_after_day_it_only_ever_goes_up(stage: Stage, tmp_path: Path) -> None:
    """With cool-downs that end: at most one run an hour, each to a higher version, and soon there is none left."""
    stage.rules["cool_down"] = "1h"
    for version in ("1.103.0", "1.104.6", "1.105.0"):
        stage.publish(build.node(version, tmp_path / version), version)
    clock = Clock()
    minds = changing(stage)
    with acting(stage, clock) as remediation:
        for _ in range(60):
            next(minds)
            remediation.run(Request(node="alpha", trigger=Trigger.ALERT))
            clock.now += 20 * 60
    made = runs(stage)
    assert all(run.outcome is Outcome.UPDATED for run in made), [str(run.outcome) for run in made]
    targets = [run.target for run in made]
    assert targets == sorted(set(targets))
    assert 1 <= len(targets) <= 3
    gaps = [later.started - before.started for before, later in itertools.pairwise(made)]
    assert all(gap >= HOUR for gap in gaps)


def test_a_hundred_requests_by_the_spool_are_one_run(stage: Stage) -> None:
    with stage.assembly() as assembly:
        for _ in range(100):
            Spool(stage.spool).put("alpha")
            work(Spool(stage.spool), ["alpha"], assembly.remediation, lambda: None)
    assert len(runs(stage)) == 1


def test_failures_for_the_networks_sake_are_tried_once_a_cool_down(stage: Stage) -> None:
    stage.rules["cool_down"] = "1h"
    stage.host.set(behaviour="status:503")
    clock = Clock()
    with acting(stage, clock) as remediation:
        for _ in range(36):
            remediation.run(Request(node="alpha", trigger=Trigger.ALERT))
            clock.now += 5 * 60
    assert [run.outcome for run in runs(stage)] == [Outcome.LATER] * 3
    stage.assert_untouched()


@pytest.mark.parametrize("jumps", [(YEAR,), (-YEAR,), (YEAR, -YEAR), (-YEAR, YEAR), (60, -60), (-60,)])
def test_a_clock_that_jumps_opens_no_circuit_and_closes_none(stage: Stage, jumps: tuple[float, ...]) -> None:
    stage.rules["cool_down"] = "1h"
    clock = Clock()
    with closing(Store(stage.state_dir, now=clock)) as store:
        for _ in range(3):
            failed(store, stage.binary)
            clock.now += HOUR
    for jump in jumps:
        clock.now += jump
        assert ask(stage, clock).decision.reason is Reason.CIRCUIT_OPEN
    stage.assert_untouched()


@pytest.mark.parametrize("jump", [YEAR, -YEAR, DAY, -DAY])
def test_a_clock_that_was_wrong_for_a_while_blocks_nobody_for_ever(stage: Stage, jump: float) -> None:
    """A run ends while the clock is wrong; when that is right again, the next need is met within a cool-down."""
    stage.rules["cool_down"] = "1h"
    clock = Clock()
    clock.now += jump
    stage.host.set(behaviour="status:503")
    report = ask(stage, clock)
    assert report.run is not None
    assert report.run.outcome is Outcome.LATER
    stage.host.set(behaviour="ok")
    clock.now -= jump
    clock.now += HOUR
    assert ask(stage, clock).decision.reason is Reason.BELOW_MINIMUM
    stage.assert_updated()


def test_requests_between_jumps_are_one_run(stage: Stage) -> None:
    stage.rules["cool_down"] = "1h"
    clock = Clock()
    for jump in (0.0, YEAR, -2 * YEAR, YEAR, -DAY, DAY):
        clock.now += jump
        ask(stage, clock)
        ask(stage, clock, Trigger.WATCH)
    assert [run.outcome for run in runs(stage)] == [Outcome.UPDATED]


def test_a_jump_of_the_minimum_is_believed_step_by_step_however_the_clock_jumps(stage: Stage) -> None:
    clock = Clock()
    stage.versions.set(minimum="1.100.0", suggested=NEW)
    assert ask(stage, clock).decision.reason is not Reason.INCONSISTENT_SERVER
    for jump in (0.0, -YEAR, 2 * YEAR - timedelta(days=300).total_seconds()):
        clock.now += jump
        stage.versions.set(minimum="1.154.0", suggested="1.154.0")
        assert ask(stage, clock).decision.reason is Reason.INCONSISTENT_SERVER, jump
    stage.versions.set(minimum="1.101.0", suggested=NEW)
    assert ask(stage, clock).decision.reason is not Reason.INCONSISTENT_SERVER
    stage.assert_untouched()


def test_a_minimum_that_slips_for_a_moment_is_no_measure_for_the_next(stage: Stage) -> None:
    """Else the true one would be a jump, for years."""
    stage.install(stage.new)
    clock = Clock()
    for minimum in (NEW, "1.1.0", NEW, "1.1.0"):
        stage.versions.set(minimum=minimum, suggested=NEW)
        assert ask(stage, clock).decision.reason is not Reason.INCONSISTENT_SERVER, minimum
        clock.now += HOUR
    stage.versions.set(minimum=NEW)
    stage.install(stage.old)
    assert ask(stage, clock).decision.reason is Reason.BELOW_MINIMUM
