"""Every error Antiphon raises, grouped by who must act on it.

Errors carry facts (which saga, which step, which subject) as attributes; the sentence is made from them in one place.
"""

from __future__ import annotations

from typing import Final

from .bounds import REASON_CHARS_MAX

SECONDS_MAX: Final = 36_500 * 86_400
"""The longest time that anything may be waited for: a hundred years. Servers count nanoseconds since 1970 in 64 bits,
which end in 2262, and fire at once what is due beyond (measured with nats-server 2.15)."""


class AntiphonError(Exception):
    """Something Antiphon noticed; the subclass says who must act."""


# --- the author of a contract or a definition -------------------------------------------------------------------------


class DefinitionError(AntiphonError):
    """A contract, a saga definition or a participant is unsound. Raised on import, with the remedy."""


class HastyTimeout(UserWarning):
    """A saga, or a step of it, gives up before another worker can have taken over from one that died. Warned of on
    import, and by `rehearse`; the author gives it more time."""


class ContractsChanged(DefinitionError):
    """Messages of a definition have changed so that sagas in flight, which began with the ones before, may break.
    Raised before a coordinator begins to work; the sentence names the fields, and one such saga."""


# --- what a handler says on purpose -----------------------------------------------------------------------------------


class _Verdict(AntiphonError):
    """What an author says with a reason of his own choice, which travels.

    It is raised in a hurry: as a bare class, with a number, with nothing, by a subclass that keeps its arguments to
    itself. None of that may turn the verdict into a TypeError, so whatever there is becomes a text.
    """

    missing = "no reason was given"
    """The reason where none is given."""
    _reason: str | None = None

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self._reason = _text(reason)

    @property
    def reason(self) -> str:
        """One sentence, which can be written as UTF-8; `missing` where none was given."""
        # A subclass need not have called our constructor; what it was made with is in `args` all the same.
        found = ", ".join(map(_text, self.args)) if self._reason is None else self._reason
        return found or self.missing

    @reason.setter
    def reason(self, reason: str) -> None:
        self._reason = _text(reason)

    def __str__(self) -> str:
        return self.reason


def _text(value: object) -> str:
    """A value as a text that can travel: half a character (a lone surrogate) has no UTF-8, so its code is written."""
    if value is None:
        return ""
    try:
        return str(value).encode("utf-8", "backslashreplace").decode()
    except BaseException:  # an author's `__str__` may do anything
        return type(value).__name__


# --- the business -----------------------------------------------------------------------------------------------------


class Refused(_Verdict):
    """A participant says no for a business reason; nothing happened and asking again will not help.

    Raise it in a handler before any effect matters: the transaction is rolled back and the refusal is stored, so that
    the same command is refused again without a second look.

    Args:
        reason: one sentence for whoever asked; it travels, and stays in the journal.
        nothing_outside: of a handler with effects outside its database: say so where the other side, asked under
            `outside.idempotency_key`, has said no to that key, and will not act on it later either. Then the refusal
            counts also where an earlier call of the handler came to no known end, because its process died, for
            instance. Without it such a refusal is a failed attempt: the earlier call may have acted.
    """

    missing = "refused without a reason"
    nothing_outside: bool = False

    def __init__(self, reason: str = "", *, nothing_outside: bool = False) -> None:
        super().__init__(reason)
        self.nothing_outside = nothing_outside


# --- time -------------------------------------------------------------------------------------------------------------


class Unavailable(_Verdict):
    """A participant cannot answer now; the same command may succeed later.

    Args:
        reason: one sentence for the operator; it travels, and stays in the journal.
        retry_after: the least number of seconds to wait before the next attempt; None leaves it to the backoff. What is
            no length of time counts as 0.
    """

    missing = "unavailable without a reason"
    retry_after: float | None = None

    def __init__(self, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Unrecoverable(_Verdict):
    """A handler failed in a way that no further attempt of this command will mend; what it did is rolled back.

    It is no refusal: what the handler did outside its database may have happened. So the outcome of the step is unknown
    at once, without the attempts that are left. A compensation, and a step past the pivot, are sent again by the
    coordinator, farther and farther apart, and soon wait for a person.

    Args:
        reason: one sentence for the operator; it travels, and stays in the journal.
    """

    missing = "unrecoverable without a reason"


class Conflict(AntiphonError):
    """Somebody else wrote to this journal first. Nobody must act: read the journal again and decide again."""


class InFlight(Conflict):
    """Somebody else's write to this journal is under way: it may be stored in a moment, or never."""


class Ambiguous(AntiphonError):
    """The connection or the server gave no answer to a write, which may or may not be stored.

    Nobody must act: the fact that caused the write is delivered again and the journal tells what became of it.
    """


# --- an operator: a message that cannot be used -----------------------------------------------------------------------


class Unusable(AntiphonError):
    """A message that no retry will mend. It goes to PARKED with the reason and its bytes.

    Args:
        reason: a sentence; what it quotes of a message may fill that, so the rest of a long one is left out.
        subject: where the message is stored.
    """

    def __init__(self, reason: str, *, subject: str = "") -> None:
        reason = reason[:REASON_CHARS_MAX]
        super().__init__(f"{reason} (subject {subject})" if subject else reason)
        self.reason = reason
        self.subject = subject


class Undecodable(Unusable):
    """The bytes are not the message their type promises."""


class TooLarge(Undecodable):
    """The message is larger than the protocol allows."""


class UnknownType(Undecodable):
    """The message's type is none that the receiver knows at this place."""


class UnknownCodec(Undecodable):
    """The message's data is compressed or encrypted in a way that the receiver does not know."""


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


class TooManyOpen(AntiphonError):
    """This client has as many sagas of the type open as it may. Nothing was changed; start it again later."""

    def __init__(self, saga_type: str, saga_id: str) -> None:
        super().__init__(
            f"saga {saga_type}/{saga_id} was not started: this client has as many sagas of type {saga_type} open as it "
            "may. Start it again once some have ended, or have an administrator raise the bound (antiphon setup "
            "--bound)."
        )
        self.saga_type, self.saga_id = saga_type, saga_id


class OtherVersion(AntiphonError):
    """The saga runs, or would begin, with another version of its definition than the caller asked for.

    `is_started` says which of the two it is: where it would begin, nothing was changed.
    """

    def __init__(self, saga_type: str, saga_id: str, version: int, wanted: int, is_started: bool) -> None:
        asked = f"with version {version}, and version {wanted} was asked for"
        super().__init__(
            f"saga {saga_type}/{saga_id} runs {asked}. It goes on: a saga keeps the version that it began with. For "
            "another version use another id."
            if is_started
            else f"saga {saga_type}/{saga_id} would begin {asked}. Nothing was started. New sagas begin with the "
            f"newest version that a coordinator has: run one with version {wanted}, or ask for version {version}."
        )
        self.saga_type, self.saga_id, self.version, self.wanted = saga_type, saga_id, version, wanted
        self.is_started = is_started


class UnknownSaga(AntiphonError):
    """No saga with this type and id was ever started.

    Args:
        saga_type: its type; empty where only the id is known.
        saga_id: its id.
        more: a further sentence, where something else can be done about it.
    """

    def __init__(self, saga_type: str, saga_id: str, more: str = "") -> None:
        name = f"{saga_type}/{saga_id}" if saga_type else f"with the id {saga_id}"
        super().__init__(f"there is no saga {name}; check its type and its id.{more and ' '}{more}")
        self.saga_type, self.saga_id = saga_type, saga_id


class TooLate(AntiphonError):
    """Nothing can come of a signal, a wish to cancel or an operator's request any more. Nothing was changed.

    `why` says what the saga has come to instead.
    """

    def __init__(self, saga_type: str, saga_id: str, what: str, why: str) -> None:
        super().__init__(
            f"{what} comes too late for saga {saga_type}/{saga_id}: {why}. Nothing was changed. Look at it: antiphon "
            f"show {saga_type}/{saga_id}"
        )
        self.saga_type, self.saga_id, self.what, self.why = saga_type, saga_id, what, why


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


class NotEnded(AntiphonError):
    """A saga cannot be forgotten before it has ended: without its journal nothing could be undone. The sentence says
    what brings it to its end.

    Args:
        saga_type: its type.
        saga_id: its id.
        state: how it stands: `running`, or `compensating`, where it cannot be cancelled any more.
        parked: why it waits for a person; empty where it does not.
    """

    def __init__(self, saga_type: str, saga_id: str, state: str = "running", parked: str = "") -> None:
        saga = f"{saga_type}/{saga_id}"
        if parked:
            remedy = (
                f"It is {state} and waits for a person ({parked}): antiphon retry, edit or resolve, as antiphon show "
                f"{saga} says"
            )
        elif state == "running":
            remedy = f"antiphon cancel {saga}, or let it complete where it is past its point of no return"
        else:
            remedy = f"It is {state}, which antiphon show {saga} follows"
        super().__init__(
            f"saga {saga} has not ended, and without its journal what it has begun could neither go on nor be undone. "
            f"Nothing was changed. {remedy}; and again once it has ended."
        )


class StartUnread(AntiphonError):
    """The coordinators cannot read a saga's start, as where its caller's contracts are older or newer than theirs.
    Nothing of the saga has happened. It begins once a coordinator runs that can read its start.

    `reason` names the field.
    """

    def __init__(self, saga_type: str, saga_id: str, reason: str) -> None:
        super().__init__(
            f"saga {saga_type}/{saga_id} has not begun: {reason}. Nothing was done. Start it under another id with the "
            "contracts that the coordinators have, or run a coordinator that can read it."
        )
        self.saga_type, self.saga_id, self.reason = saga_type, saga_id, reason


class Unclosed(Undecided):
    """An operator's request was sent on to the step's participant, which has not answered yet. It counts, or is
    rejected, by that answer, whenever it comes."""

    def __init__(self, what: str, id: str, participant: str, timeout_seconds: float) -> None:
        AntiphonError.__init__(
            self,
            f"{what} has journalled the request, and {participant} has not said within {timeout_seconds:g} s what "
            f"became of the step. Its answer decides whenever it comes: look later, with `antiphon show {id}`. Where "
            "none will come, since no worker of it runs or its library knows no close, ask again without the "
            "participant.",
        )
        self.what, self.verb, self.timeout_seconds = what, "resolve", timeout_seconds
        self.participant = participant


class OlderCoordinators(AntiphonError):
    """A coordinator of an earlier release runs, and could not read what closing a step writes into its journal."""

    def __init__(self, instances: list[str]) -> None:
        super().__init__(
            f"coordinators of an earlier release are registered ({', '.join(instances)}), and cannot read in a journal "
            "that a step is closed. Stop them (one that was killed is forgotten after 90 s), or resolve the step "
            "without its participant."
        )
        self.instances = instances


class StillRunning(AntiphonError):
    """A saga did not end within the time its caller was willing to wait. It goes on; ask again.

    `why` says what it stands still by, where a coordinator knows: a function of its definition that raises, for
    instance, or a participant that is paused. It goes on once that is mended.
    """

    def __init__(self, saga_type: str, saga_id: str, timeout_seconds: float, why: str = "") -> None:
        saga = f"{saga_type}/{saga_id}"
        late = f"saga {saga} has not ended within {timeout_seconds:g} s"
        super().__init__(
            f"{late}, since {why}. It stands still until that is mended: look at `antiphon show {saga}`."
            if why
            else f"{late}. It goes on: wait again, and for longer (timeout=, or --timeout). If it never ends: antiphon "
            "wait says which process does not run, antiphon parked what waits for a person, and "
            f"antiphon show {saga} for what it waits."
        )
        self.saga_type, self.saga_id, self.timeout_seconds, self.why = saga_type, saga_id, timeout_seconds, why


# --- an operator: the platform ----------------------------------------------------------------------------------------


class PlatformError(AntiphonError):
    """The NATS server is not as Antiphon needs it. The sentence ends with the remedy."""


class ServerUnreachable(PlatformError):
    """No NATS server answers at the given addresses."""


class ServerUnfit(PlatformError):
    """The server answers, but has no JetStream or is too old for message schedules."""


class Unanswered(PlatformError):
    """Nothing that the server said within the time given tells that it stored a message, as while a cluster chooses a
    leader. Whether it did is not known. Ask again with the same id: it is stored once."""

    def __init__(self, subject: str, timeout_seconds: float, why: str, remedy: str = "") -> None:
        super().__init__(
            f"nobody knows whether {subject} is stored: within {timeout_seconds:g} s {why}. Try again with the same "
            f"id, which does no harm.{remedy}"
        )
        self.subject, self.timeout_seconds = subject, timeout_seconds


class StreamMissing(PlatformError):
    """A stream or consumer that the administrator's set-up creates is not there."""


class RightsMissing(PlatformError):
    """The server refused a subject to this user.

    Args:
        sentence: what was refused, and what to do.
        refused: what was refused alone, for whoever knows better what to do; empty where nobody was let in.
    """

    def __init__(self, sentence: str, refused: str = "") -> None:
        super().__init__(sentence)
        self.refused = refused
