"""Telling systemd how we are, where it asks to be told (sd_notify): one datagram, and nobody waits for it."""

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Send a line such as `READY=1`, `STOPPING=1` or `STATUS=…`; where nobody listens, nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address.startswith("@"):
        address = "\0" + address[1:]
    if address:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
            teller.sendto(state.encode(), socket.MSG_DONTWAIT, address)
