"""docs/protocol.md says what the code does: verbs, fields, limits and kinds of errors."""

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from proxyagent import messages, protocol
from proxyagent.pin import MAX_PIN_BYTES

TEXT = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()
ROWS = {
    cells[0].strip(" `"): cells
    for cells in (line.strip("|").split("|") for line in TEXT.splitlines() if line.startswith("| `"))
}
REQUESTS = {request.model_fields["verb"].default: request for request in get_args(messages.AnyRequest)}
ANSWERS: dict[str, type[BaseModel]] = {
    "status": messages.AgentStatus,
    "issue": messages.IssueAnswer,
    "unlock": messages.UnlockAnswer,
    "pin-retry": messages.PinRetryAnswer,
    "voms-wait": messages.VomsWaitAnswer,
    "voms-proxy": messages.IssueAnswer,
    "voms-deliver": messages.VomsDeliverAnswer,
}


def names(cell: str) -> set[str]:
    return set(re.findall(r"`([a-z_]+)`", cell))


def test_every_verb_is_there_and_no_other() -> None:
    assert set(ROWS) == set(REQUESTS) == set(ANSWERS)


@pytest.mark.parametrize("verb", REQUESTS)
def test_every_field_is_there_and_no_other(verb: str) -> None:
    assert names(ROWS[verb][1]) == set(REQUESTS[verb].model_fields) - {"verb"}
    assert names(ROWS[verb][3]) == set(ANSWERS[verb].model_fields)


def test_the_limits_are_those_of_the_code() -> None:
    assert f"at most {protocol.MAX_FRAME_BYTES}" in TEXT
    assert f'"version": {protocol.VERSION}' in TEXT
    assert f"at most {MAX_PIN_BYTES} bytes" in TEXT
