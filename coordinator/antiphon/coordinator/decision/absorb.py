"""What a fact makes of a history. Pure."""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from antiphon.contracts.errors import Unusable
from antiphon.contracts.messages import Event

from .awaited import came
from .choreography import happened
from .facts import Answer, Cancel, ChildEnded, Fact, Granted, Happened, LetGo, Operated, Signalled, Start, Tick, Unread
from .history import KNOWS_MORE, History, cancelled, with_step
from .reads import ATTEMPTS_READ
from .requests import apply_request
from .resolving import closed
from .timeouts import ticked
from .transitions import (
    done,
    fail,
    mark_unknown,
    never_happened,
    refuse,
    release,
    request_cancel,
    start_compensating,
)
from .unread import cannot_be_read, unread


def absorb(history: History, fact: Fact, counts: bool | None = None) -> History:
    """The history once a fact is known. Late and repeated facts are only marked as recorded.

    Args:
        history: what was known before.
        fact: what has become known.
        counts: of an operator's request, whether the journal says that it was fulfilled; None if it says nothing.
    """
    if not isinstance(fact, Tick):
        history = replace(history, named=history.named | {fact.sequence}, now_ns=max(history.now_ns, fact.at_ns))
    if history.end is not None:
        return history
    told = _absorbed(history, fact, counts)
    if isinstance(fact, Answer | Happened) and _is_idle(history, told):
        return _heard(history, told, fact)
    return told


def _absorbed(history: History, fact: Fact, counts: bool | None) -> History:
    match fact:
        case Answer(direction="do"):
            return _answered(history, fact)
        case Answer(direction="close"):
            return closed(history, fact)
        case Answer():
            return _undo_answered(history, fact)
        case Start():
            return _started(history, fact)
        case Tick():
            return ticked(history, fact)
        case Signalled():
            return came(history, fact.step, fact.event)
        case Happened():
            return _happened(history, fact.event)
        case ChildEnded():
            return _child_ended(history, fact)
        case Cancel():
            return _cancelled(history, fact)
        case LetGo():
            return replace(history, let_go=True)
        case Granted():
            return replace(history, granted=history.granted | {fact.lock})
        case Operated():
            return _asked_for(history, fact, counts)
        case Unread():
            return unread(history, fact)
        case _:
            assert_never(fact)


# --- what a participant says that nobody waits for --------------------------------------------------------------------


def is_beyond(history: History, fact: Fact) -> bool:
    """Whether nothing follows from a fact, and the journal says of the likes of it only that there are more."""
    if not isinstance(fact, Answer | Happened) or source_of(history, fact) not in history.more:
        return False
    return _is_idle(history, _absorbed(history, fact, None))


def source_of(history: History, fact: Answer | Happened) -> str:
    """The participant that stored a fact, which was accepted from nobody else."""
    return (
        fact.event.__contract__.owner if isinstance(fact, Happened) else history.definition.step(fact.step).participant
    )


def _is_idle(before: History, told: History) -> bool:
    """Whether nothing follows from what was taken in: of a choreography, that it neither turns nor ends."""
    if before.definition.is_led:
        return told is before
    return (told.turned, told.over) == (before.turned, before.over)


def _heard(history: History, told: History, fact: Answer | Happened) -> History:
    """The history with one fact more from which nothing follows; what was said beyond the bound was not heard."""
    source = source_of(history, fact)
    heard = {**history.heard, source: history.heard.get(source, 0) + 1}
    return replace(history if source in history.more else told, heard=heard)


def _started(history: History, fact: Start) -> History:
    if history.start is not None:
        return history
    return replace(history, start=fact.event, start_digest=fact.digest, started_ns=fact.at_ns, parent=fact.parent)


def _answered(history: History, fact: Answer) -> History:
    """An answer to a command counts while it is awaited, and never afterwards."""
    step = history.steps.get(fact.step)
    if step is None or step.phase not in ("sent", "settling"):
        return history
    definition = history.definition.step(fact.step)
    match fact.kind:
        case "done":
            return done(with_step(history, fact.step, answer=fact.sequence), fact.step, fact.event)
        case "refused" if not definition.is_retriable:
            return refuse(history, fact.step, f"{fact.step} was refused: {fact.reason}", fact.reason)
        case "refused" | "exhausted" if definition.is_retriable:
            return fail(history, fact.step, step.attempts, fact)
        case "exhausted" if step.phase == "sent":
            history = with_step(history, fact.step, is_open=fact.code == "open")
            return mark_unknown(history, fact.step, f"{fact.step} has no known outcome: {fact.reason}", fact.reason)
        case "superseded" if step.phase == "sent" and fact.attempt == step.attempts and step.closing is None:
            return _overtaken(history, fact)
        case _:
            return history


def _overtaken(history: History, fact: Answer) -> History:
    """The participant has gone on with a step from which the journal still waits for its latest attempt: SAGA was
    restored from a backup. What can go back does, as far as the participant has not done so already; what can only go
    forward is asked for by further attempts."""
    reason = f"{KNOWS_MORE}: {fact.reason}"
    if history.definition.step(fact.step).is_retriable:
        return fail(history, fact.step, fact.attempt, replace(fact, reason=reason))
    return mark_unknown(history, fact.step, f"{fact.step} has no known outcome: {reason}", reason)


def is_ahead(history: History, fact: Answer | ChildEnded) -> bool:
    """Whether a fact answers a command that the journal does not have, or is the end of a child that was not started:
    it was read before that was stored, or SAGA was restored from a backup that is older than the answer. It may still
    be the answer, once the command is sent again, and is stored no second time; so it must not be recorded now.

    Only of attempts that are soon sent: what a participant stores about others has no bound.
    """
    if history.end is not None or fact.sequence in history.named or not history.definition.is_led:
        return False
    step = history.steps.get(fact.step)
    if step is None:  # an element of a list that is not written down
        return fact.attempt <= ATTEMPTS_READ
    if isinstance(fact, ChildEnded) or fact.direction == "do":
        sent, may_be_sent = step.attempts, step.phase in ("waiting", "sent")
    elif fact.direction == "undo":
        sent, may_be_sent = step.undo_attempts, step.phase != "undone"
    else:
        sent, may_be_sent = step.closes, True
    return may_be_sent and sent < fact.attempt <= sent + ATTEMPTS_READ


def _undo_answered(history: History, fact: Answer) -> History:
    """What must succeed is over once any attempt did; anything else means to try again later, for ever."""
    step = history.steps.get(fact.step)
    if step is None or step.phase not in ("undoing", "settling"):
        return history
    if fact.kind == "settled" and step.phase == "settling":
        return done(history, fact.step, fact.event) if fact.event else never_happened(history, fact.step)
    if fact.kind == "done" and step.phase == "undoing":
        return release(with_step(history, fact.step, phase="undone", again_ns=0), fact.step)
    return fail(history, fact.step, step.undo_attempts, fact)


def _asked_for(history: History, fact: Operated, is_rejected: bool | None) -> History:
    try:
        return apply_request(history, fact, is_rejected)
    except Unusable as error:  # it fitted the class that took it in
        what = f"the payload of {fact.user}'s {fact.verb} of {fact.operation.step}"
        return replace(history, unread=cannot_be_read(what, error))


def _child_ended(history: History, fact: ChildEnded) -> History:
    step = history.steps[fact.step]
    if fact.attempt != step.attempts:
        return history
    if fact.end.outcome == "completed":
        return done(history, fact.step, fact.end) if step.phase == "sent" else history
    if step.phase in ("undoing", "unknown"):  # unknown: the parent is paused, or it would have cancelled the child
        return with_step(history, fact.step, phase="undone", again_ns=0)
    if step.phase != "sent":
        return history
    if history.definition.step(fact.step).is_retriable:
        again = Answer(fact.sequence, fact.at_ns, fact.step, "do", fact.attempt, "refused", 0, reason=fact.end.reason)
        return fail(history, fact.step, step.attempts, again)
    reason = f"the saga it started was compensated: {fact.end.reason}"
    return refuse(history, fact.step, f"{fact.step} was refused: {reason}", reason)


def _cancelled(history: History, fact: Cancel) -> History:
    if not history.definition.is_led:
        return history  # nobody could be told
    reason = cancelled(fact.reason)
    return (
        start_compensating(history, reason)
        if fact.by_parent and not history.is_past_pivot
        else request_cancel(history, reason)
    )


def _happened(history: History, event: Event) -> History:
    heard = history.definition.events[event.__contract__.type]
    if heard.step:
        return came(history, heard.step, event)
    return history if history.definition.is_led else happened(history, event)
