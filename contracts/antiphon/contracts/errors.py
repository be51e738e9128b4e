"""Every error Antiphon raises, grouped by who must act on it.

Errors carry facts (which saga, which step, which subject) as attributes; the sentence is made from them in one place.
"""

from __future__ import annotations

from typing import Final

SECONDS_MAX: Final = 36_500 * 86_400
"""The longest time that anything may be waited for: a hundred years. Servers count nanoseconds since 1970 in 64 bits,
which end in 2262, and fire at once what is due beyond (measured with nats-server 2.15)."""


class AntiphonError(Exception):
    """Something Antiphon noticed; the subclass says who must act."""


# --- the author of a contract or a definition -------------------------------------------------------------------------


class DefinitionError(AntiphonError):
    """A contract, a saga definition or a participant is unsound. Raised on import, with the remedy."""


# --- the business -----------------------------------------------------------------------------------------------------


class Refused(AntiphonError):
    """A participant says no for a business reason; nothing happened and asking again will not help.

    Raise it in a handler before any effect matters: the transaction is rolled back and the refusal is stored, so that
    the same command is refused again without a second look.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


# --- time -------------------------------------------------------------------------------------------------------------


class Unavailable(AntiphonError):
    """A participant cannot answer now; the same command may succeed later.

    Args:
        reason: one sentence for the operator.
        retry_after: the least number of seconds to wait before the next attempt; None leaves it to the backoff.

    Raises:
        DefinitionError: that is no number, or more than a hundred years.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        if retry_after is not None and not retry_after <= SECONDS_MAX:  # this way round: nothing holds for nan
            raise DefinitionError(
                f"Unavailable: retry_after={retry_after}, and it is at most {SECONDS_MAX} seconds, which is a hundred "
                "years. Where no later attempt will help, raise Unrecoverable."
            )
        self.reason = reason
        self.retry_after = retry_after


class Unrecoverable(AntiphonError):
    """A handler failed in a way that no further attempt of this command will mend; what it did is rolled back.

    It is no refusal: what the handler did outside its database may have happened. So the outcome of the step is unknown
    at once, without the attempts that are left. A compensation, and a step past the pivot, are sent again by the
    coordinator, farther and farther apart, and soon wait for a person.

    Args:
        reason: one sentence for the operator.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Conflict(AntiphonError):
    """Somebody else wrote to this journal first. Nobody must act: read the journal again and decide again."""


class Ambiguous(AntiphonError):
    """The connection or the server gave no answer to a write, which may or may not be stored.

    Nobody must act: the fact that caused the write is delivered again and the journal tells what became of it.
    """


# --- an operator: a message that cannot be used -----------------------------------------------------------------------


class Unusable(AntiphonError):
    """A message that no retry will mend. It goes to PARKED with the reason and its bytes."""

    def __init__(self, reason: str, *, subject: str = "") -> None:
        super().__init__(f"{reason} (subject {subject})" if subject else reason)
        self.reason = reason
        self.subject = subject


class Undecodable(Unusable):
    """The bytes are not the message their type promises."""


class TooLarge(Undecodable):
    """The message is larger than the protocol allows."""


class UnknownType(Undecodable):
    """The message's type is none that the receiver knows at this place."""


class WrongShape(Undecodable):
    """A field is missing, or holds a value of another type than the contract says."""


class BadIdentity(Unusable):
    """A saga id, saga type or other token has a form that cannot be part of a subject."""


class Forged(Unusable):
    """The message claims something its subject, or the rights of its sender, contradict."""


# --- a caller of the client -------------------------------------------------------------------------------------------


class AlreadyStarted(AntiphonError):
    """The saga id is taken by a start with another payload. Nothing was changed; choose another id.

    `unread` says why the class at hand cannot read that payload, where this is so: it may be the same or not.
    """

    def __init__(self, saga_type: str, saga_id: str, unread: str = "") -> None:
        payload = f"a payload that cannot be read here ({unread})" if unread else "another payload"
        super().__init__(
            f"saga {saga_type}/{saga_id} was already started with {payload}; nothing was changed. "
            "Use another id, or start it with the payload it has."
        )
        self.saga_type, self.saga_id, self.unread = saga_type, saga_id, unread


class UnknownSaga(AntiphonError):
    """No saga with this type and id was ever started."""

    def __init__(self, saga_type: str, saga_id: str) -> None:
        name = f"{saga_type}/{saga_id}" if saga_type else f"with the id {saga_id}"
        super().__init__(f"there is no saga {name}; check its type and its id.")
        self.saga_type, self.saga_id = saga_type, saga_id


class AlreadySignalled(AntiphonError):
    """The saga has got this signal with another payload, and the first one counts. Nothing was changed.

    `unread` says why the class at hand cannot read that payload, where this is so: it may be the same or not.
    """

    def __init__(self, saga_type: str, saga_id: str, signal: str, unread: str = "") -> None:
        payload = f"a payload that cannot be read here ({unread})" if unread else "another payload"
        super().__init__(
            f"saga {saga_type}/{saga_id} has got the signal {signal} before, with {payload}. The first one "
            "counts; nothing was changed."
        )
        self.saga_type, self.saga_id, self.signal, self.unread = saga_type, saga_id, signal, unread


class Undecided(AntiphonError):
    """An operator's request is stored, and no coordinator has said yet what becomes of it. It will when one can."""

    def __init__(self, what: str, verb: str, timeout_seconds: float) -> None:
        super().__init__(
            f"the request to {verb} {what} is stored, and no coordinator has decided on it within {timeout_seconds:g} "
            "s. It counts once one does: see that coordinators with its definition run, and look again."
        )
        self.what, self.verb, self.timeout_seconds = what, verb, timeout_seconds


class StillRunning(AntiphonError):
    """A saga did not end within the time its caller was willing to wait. It goes on; ask again."""

    def __init__(self, saga_type: str, saga_id: str, timeout_seconds: float) -> None:
        super().__init__(
            f"saga {saga_type}/{saga_id} has not ended within {timeout_seconds:g} s. It goes on: wait again, or look "
            f"at `antiphon show {saga_id}`."
        )
        self.saga_type, self.saga_id, self.timeout_seconds = saga_type, saga_id, timeout_seconds


# --- an operator: the platform ----------------------------------------------------------------------------------------


class PlatformError(AntiphonError):
    """The NATS server is not as Antiphon needs it. The sentence ends with the remedy."""


class ServerUnreachable(PlatformError):
    """No NATS server answers at the given addresses."""


class ServerUnfit(PlatformError):
    """The server answers, but has no JetStream or is too old for message schedules."""


class StreamMissing(PlatformError):
    """A stream or consumer that the administrator's set-up creates is not there."""


class RightsMissing(PlatformError):
    """The server refused a subject to this user."""
