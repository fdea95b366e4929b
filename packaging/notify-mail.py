#!/usr/bin/python3
"""Mail what storagenode-remediate has done, or what a person is needed for.

    remediation:
      notify: [/usr/bin/python3, /opt/storagenode-keeper/notify-mail.py, you@example.org]

Reads the report (docs/notification.schema.json) from standard input, and hands the mail to the server on this host, or
to that of --server. No sendmail: the worker may not gain the rights that one has.
"""

import argparse
import json
import smtplib
import socket
import sys
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

SECONDS = 30


def mail(report: dict[str, Any], host: str) -> EmailMessage:
    """Write the mail; what is said of a node comes from its files and servers, and stays on one line."""
    message = EmailMessage()
    run = report["run"]
    what = (run["outcome"] or "not finished") if run else f"{report['decision']}, {report['reason']}"
    needed = "PLEASE LOOK: " if report["exit_code"] not in (0, 1) else ""
    about = report["node"] if report["program"] == "storagenode" else f"{report['node']}'s updater"
    message["Subject"] = plain(f"{needed}{about} on {host}: {what}")[:200]
    lines = [plain(report["text"]), ""]
    for entry in run["journal"] if run else ():
        if entry["event"] != "intent":
            at = f"{datetime.fromtimestamp(entry['at'], UTC):%Y-%m-%d %H:%M:%S}Z"
            lines.append(plain(f"{at}  {entry['step']:8} {entry['event']} {entry['data'].get('detail', '')}"))
    number = f" --run {run['id']}" if run else ""
    message.set_content("\n".join([*lines, "", f"More: storagenode-remediate history{number}", ""]))
    return message


def plain(text: str) -> str:
    """Take out what does not print."""
    return "".join(character if character.isprintable() else " " for character in text).rstrip()


def main() -> None:
    """Mail the report on standard input; the exit code is not 0 when that did not work."""
    host = socket.gethostname()
    parser = argparse.ArgumentParser(description="Mail a report of storagenode-remediate.")
    parser.add_argument("recipients", nargs="+", metavar="RECIPIENT")
    parser.add_argument("--from", dest="sender", default=f"storagenode-keeper@{host}")
    parser.add_argument("--server", default="127.0.0.1:25", metavar="HOST:PORT")
    options = parser.parse_args()
    message = mail(json.load(sys.stdin), host)
    message["From"] = options.sender
    message["To"] = ", ".join(options.recipients)
    name, _, port = options.server.rpartition(":")
    try:
        with smtplib.SMTP(name, int(port), timeout=SECONDS) as server:
            server.send_message(message, options.sender, options.recipients)
    except (OSError, smtplib.SMTPException) as error:
        sys.exit(f"{options.server}: {error}")


if __name__ == "__main__":
    main()
