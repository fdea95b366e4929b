"""What a journal says has happened, or may have."""

import pytest

from remediate.journal import Entry, Event, Inode, Outcome, facts
from tests.remediate.test_plan import HELD, JOURNAL, NEW, entry


def test_nothing_is_known_of_an_empty_journal() -> None:
    known = facts(())
    assert (known.staged, known.held, known.stopped, known.started) == (None, {}, (), {})


def test_an_intent_to_stop_something_counts_as_done() -> None:
    assert facts((entry("hold", Event.INTENT),)).held == HELD
    assert facts((entry("hold", Event.INTENT), entry("hold", Event.FAILED))).held == HELD
    assert facts((entry("confirm", Event.INTENT), entry("confirm", Event.FAILED))).stopped == ("alpha",)


def test_an_updater_that_was_found_at_work_later_is_held_too() -> None:
    again = {unit: {"/changed/since": [1, 2]} for unit in HELD}
    later = {"held": again | {"late.service": {}}, "stop": []}
    confirm = Entry(step="confirm", event=Event.INTENT, at=0, data=later)
    assert facts((entry("hold", Event.INTENT), confirm)).held == {**HELD, "late.service": {}}


def test_any_other_intent_counts_as_not_done() -> None:
    assert facts((entry("extract", Event.INTENT),)).staged is None
    assert facts((entry("hold", Event.INTENT), entry("release", Event.INTENT))).held == HELD
    assert facts((entry("confirm", Event.INTENT), entry("start", Event.INTENT))).stopped == ("alpha",)
    assert facts((entry("confirm", Event.INTENT), entry("restore", Event.FAILED))).stopped == ("alpha",)


def test_what_is_put_back_is_off_the_record_though_another_is_not() -> None:
    both = Entry(step="hold", event=Event.INTENT, at=0, data={"held": HELD | {"other.service": {}}})
    failed = Entry(step="release", event=Event.FAILED, at=0, data={"released": ["other.service"]})
    assert facts((both, failed)).held == HELD
    assert facts((both, entry("release", Event.FAILED))).held == HELD | {"other.service": {}}
    again = Entry(step="confirm", event=Event.INTENT, at=0, data={"held": {"other.service": {}}, "stop": []})
    assert facts((both, failed, again)).held == HELD | {"other.service": {}}


def test_a_whole_journal() -> None:
    known = facts(JOURNAL)
    assert known.staged == NEW == Inode(1, 20)
    assert (known.held, known.stopped) == ({}, ())
    assert known.started == {"alpha": (Outcome.UPDATED, "it runs"), "beta": (Outcome.UPDATED, "left")}


def test_starts_of_two_recoveries_add_up() -> None:
    first = Entry(step="start", event=Event.DONE, at=0, data={"results": {"alpha": ["updated", "a"]}})
    second = Entry(step="start", event=Event.DONE, at=1, data={"results": {"beta": ["unconfirmed", "b"]}})
    assert facts((first, second)).started == {
        "alpha": (Outcome.UPDATED, "a"),
        "beta": (Outcome.UNCONFIRMED, "b"),
    }


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_has_the_exit_code_of_its_meaning(outcome: Outcome) -> None:
    expected = {
        0: {Outcome.UPDATED, Outcome.HEALED, Outcome.SUPERSEDED},
        1: {Outcome.LATER, Outcome.BAD_VERSION, Outcome.FAILED, Outcome.UNDONE, Outcome.INTERRUPTED},
        3: {Outcome.ABANDONED},
        4: {Outcome.UNREADABLE, Outcome.UNCONFIRMED, Outcome.START_FAILED, Outcome.LEFT_DOWN, Outcome.STILL_HELD},
    }
    assert outcome in expected[outcome.exit_code]
