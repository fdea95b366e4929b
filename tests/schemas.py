"""Write the schemas of what is printed as JSON: `python -m tests.schemas`; tests hold that they are up to date."""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from exporter.checked import CheckedNode
from remediate.diagnosis import Diagnosis
from remediate.preflight import Preflight
from remediate.reported import Reported

FOLDER = Path(__file__).parents[1] / "docs"
PRINTED: dict[str, TypeAdapter[Any]] = {
    "check": TypeAdapter(list[CheckedNode]),
    "doctor": TypeAdapter(Diagnosis),
    "notification": TypeAdapter(Reported),
    "preflight": TypeAdapter(list[Preflight]),
}


def path(command: str) -> Path:
    """Say where the schema of what a command prints is kept."""
    return FOLDER / f"{command}.schema.json"


def schema(command: str) -> str:
    """Derive the schema from what is serialised."""
    described = PRINTED[command].json_schema(mode="serialization")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"{command} --json"}
    return json.dumps(head | described, indent=2) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for command in PRINTED:
        path(command).write_text(schema(command))
