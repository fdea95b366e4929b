import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jeepney import DBusAddress, DBusErrorResponse, Endianness, new_error, new_method_call, new_method_return

from exporter.dbus import SYSTEM_BUS, pick
from exporter.services.systemd import SystemdReader
from exporter.status import ServiceState
from tests.exporter.bus import bus, main_pid

ASKED = new_method_call(DBusAddress("/a", "b.c", "d.e"), "GetAll", "s", ("",))
ASKED.header.serial = 7
TYPES = {"SubState": "s", "ExecMainStatus": "i", "ConditionResult": "b", "NRestarts": "u", "RuntimeMaxUSec": "t"}
MISLEADING = b"\x09\0\0\0NRestarts\0\x01u\0\x02\0\0\0"
"""The bytes of an entry that says 2, which only a value can be."""

values: Mapping[str, st.SearchStrategy[Any]] = {
    "s": st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    "i": st.integers(-(2**31), 2**31 - 1),
    "b": st.booleans(),
    "u": st.integers(0, 2**32 - 1),
    "t": st.integers(0, 2**64 - 1),
    "ay": st.binary() | st.just(MISLEADING),
    "as": st.lists(st.sampled_from([*TYPES, "\x01s", ""])),
    "(bs)": st.tuples(st.booleans(), st.sampled_from([*TYPES])),
}


def variant(kind: str) -> st.SearchStrategy[tuple[str, Any]]:
    return st.tuples(st.just(kind), values[kind])


def reply(properties: Mapping[str, tuple[str, Any]], endianness: Endianness = Endianness.little) -> bytes:
    """Write what GetAll is answered with."""
    message = new_method_return(ASKED, "a{sv}", (dict(properties),))
    message.header.endianness = endianness
    written: bytes = message.serialise(serial=1)
    return written


@given(
    st.fixed_dictionaries({name: variant(kind) for name, kind in TYPES.items()}),
    st.dictionaries(
        st.sampled_from(["Id", "StatusText", "State", "xNRestarts"]), st.sampled_from([*values]).flatmap(variant)
    ),
    st.randoms(use_true_random=False),
    st.sampled_from(Endianness),
)
def test_what_is_picked_is_what_is_parsed(
    wanted: dict[str, tuple[str, Any]], others: dict[str, tuple[str, Any]], order: Random, endianness: Endianness
) -> None:
    entries = [*wanted.items(), *others.items()]
    order.shuffle(entries)
    message = reply(dict(entries), endianness)
    assert pick(message, TYPES) == {name: value for name, (_, value) in wanted.items()}


def test_a_value_that_looks_like_an_entry_is_not_taken_for_one() -> None:
    for entries in (
        {"IPIngressFilterPath": ("ay", MISLEADING), "NRestarts": ("u", 1)},
        {"NRestarts": ("u", 1), "IPIngressFilterPath": ("ay", MISLEADING)},
    ):
        assert pick(reply(entries), {"NRestarts": "u"}) == {"NRestarts": 1}


def test_a_property_of_another_type_is_given_as_it_is() -> None:
    assert pick(reply({"NRestarts": ("t", 2**40)}), {"NRestarts": "u"}) == {"NRestarts": 2**40}


def test_a_refusal_is_told() -> None:
    refusal = new_error(ASKED, "org.freedesktop.DBus.Error.AccessDenied", "s", ("no",)).serialise(serial=1)
    with pytest.raises(DBusErrorResponse, match="AccessDenied"):
        pick(refusal, TYPES)


def test_each_is_told_of_his_own_unit_in_whatever_order_the_answers_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SYSTEM_BUS.close()
    units = [f"{kind}{number}" for number in range(40) for kind in ("n", "late")]
    told = []

    def read(unit: str) -> None:
        status = SystemdReader(f"{unit}.service").read(5 if unit.startswith("n") else 0.02)
        told.append((unit, status.pid))

    with bus(tmp_path / "bus") as served, ThreadPoolExecutor(8) as pool:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", served.address)
        for served.late_seconds in (0, 0.015, 0.05):
            list(pool.map(read, units))
        SYSTEM_BUS.close()
    assert len(told) == 3 * len(units)
    assert {unit for unit, pid in told if pid is None} <= {unit for unit in units if unit.startswith("late")}
    assert any(pid for unit, pid in told if unit.startswith("late"))
    assert all(pid in (None, main_pid(unit)) for unit, pid in told)


def test_a_unit_is_read_with_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SYSTEM_BUS.close()
    with bus(tmp_path / "bus") as served:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", served.address)
        reader = SystemdReader("n.service")
        reader.read(1)
        before = served.calls
        assert reader.read(1).state is ServiceState.RUNNING
        assert served.calls == before + 1  # with two of them it could change in between
        SYSTEM_BUS.close()


def test_a_bus_that_takes_in_nobody_is_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SYSTEM_BUS.close()
    with bus(tmp_path / "bus", refuses=True) as served:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", served.address)
        status = SystemdReader("n.service").read(1)
        assert status.state is ServiceState.UNKNOWN
        assert "LimitsExceeded" in status.detail
        deadline = time.monotonic() + 20
        while any(connection.fileno() >= 0 for connection in served.open):
            assert time.monotonic() < deadline, threading.enumerate()
            time.sleep(0.005)


def test_a_connection_that_nobody_uses_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.dbus._SEND_SECONDS", 0.02)
    SYSTEM_BUS.close()
    with bus(tmp_path / "bus") as served:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", served.address)
        reader = SystemdReader("n.service")
        for pause in (0.1, 0):
            assert reader.read(1).state is ServiceState.RUNNING
            time.sleep(pause)
        assert served.connections == 1
        SYSTEM_BUS.close()
