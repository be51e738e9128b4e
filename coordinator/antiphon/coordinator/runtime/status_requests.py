"""Status requests: how a saga stands, asked by clients over a connection of their own, and answered in any case."""

from __future__ import annotations

import msgspec

from antiphon.contracts import subjects
from antiphon.contracts.errors import AntiphonError
from antiphon.contracts.payloads import StatusAnswer
from antiphon.link import Link
from antiphon.link.faults import class_of, say

from .coordinator import Coordinator
from .request_queue import source_of


async def answer_status_requests(link: Link, coordinator: Coordinator) -> None:
    """Take status requests from now on.

    Args:
        link: over which they come and are answered. One of their own keeps a flood of them from standing before facts,
            and from having the server drop the connection that facts come over.
        coordinator: knows the answers.
    """

    def on_request(subject: str, reply: str, data: bytes, headers: bytes | None) -> None:
        if reply:  # without it nobody waits for an answer
            coordinator.requests.take(source_of(reply, headers), StatusRequest(link, coordinator, subject, reply))

    for saga_type, queue in coordinator.status_queues.items():
        await link.subscribe(subjects.status_filter(saga_type), on_request, queue=queue)


class StatusRequest:
    """A status request, which is answered in any case: silence would mean that no coordinator of its type runs.

    Args:
        link: where the answer is sent.
        coordinator: knows it.
        subject: says which saga.
        reply: where the answer goes.
    """

    __slots__ = ("_coordinator", "_is_done", "_link", "_reply", "_subject")

    def __init__(self, link: Link, coordinator: Coordinator, subject: str, reply: str) -> None:
        self._link, self._coordinator, self._subject, self._reply = link, coordinator, subject, reply
        self._is_done = False

    def begin(self) -> None:
        """Read the saga and answer."""
        self._coordinator.store.guard.call(self, self._ask)

    def refuse(self, sentence: str) -> None:
        """Answer that there are too many."""
        self._send(StatusAnswer(error=sentence))

    def failed(self, error: BaseException) -> None:
        """Answer that it cannot be told."""
        sentence = f"looking it up raised {class_of(error)}, and the coordinator's log says where"
        self._send(StatusAnswer(error=sentence))
        say("status.faulty", error, self._subject)
        self._leave()

    def _ask(self) -> None:
        try:
            self._coordinator.status(subjects.parse_status(self._subject), self._send, self._leave)
        except AntiphonError as error:
            self._send(StatusAnswer(error=str(error)))
            self._leave()

    def _send(self, answer: StatusAnswer) -> None:
        self._link.answer(self._reply, msgspec.json.encode(answer))

    def _leave(self) -> None:
        if not self._is_done:
            self._is_done = True
            self._coordinator.requests.done()
