"""A message that somebody else has deleted is gone, whatever words the server has for that."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.topology import EVENTS
from antiphon.link import Link
from antiphon.link.purging import delete, delete_all


class Answering:
    """A link on which each request has one answer."""

    def __init__(self, error: dict[str, Any] | None) -> None:
        self.answer = {"error": error} if error else {"success": True}

    async def request(self, subject: str, data: bytes = b"") -> bytes:
        return msgspec.json.encode(self.answer)


GONE = [
    {"code": 500, "err_code": 10057, "description": "no message found"},
    {"code": 500, "err_code": 10057, "description": "stream store EOF"},
    {"code": 400, "err_code": 10043, "description": "sequence 496 not found"},
]


@pytest.mark.parametrize("error", GONE, ids=lambda error: error["description"])
async def test_what_is_gone_counts_as_deleted_and_not_as_a_failure(error: dict[str, Any]) -> None:
    link = cast("Link", Answering(error))
    assert not await delete(link, EVENTS, 496)
    assert await delete_all(link, EVENTS, (496, 497)) == 0


async def test_any_other_answer_says_that_nobody_knows() -> None:
    assert await delete(cast("Link", Answering(None)), EVENTS, 496)
    with pytest.raises(Ambiguous, match="message 496 of stream EVENTS was not deleted: disk is full"):
        await delete(cast("Link", Answering({"err_code": 10057, "description": "disk is full"})), EVENTS, 496)
