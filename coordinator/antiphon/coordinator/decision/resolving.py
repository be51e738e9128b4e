"""An operator resolves a step: at once where nobody holds it, and else once its participant was asked. Pure.

A participant may still be at work on the step, so its inbox has the last word: a close asks it to take the operator's
word, and what the machine has committed before decides.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from antiphon.contracts.clock import rfc3339
from antiphon.contracts.envelope import MESSAGE_BYTES_MAX, pack, unpack_raw
from antiphon.contracts.errors import Unusable
from antiphon.contracts.messages import Close, CloseForm, ends_step
from antiphon.contracts.payloads import Operation, Record

from ..definition.definition import StepDefinition, element
from .facts import Answer, Fact, Operated, SendClose
from .history import ENTRIES_MAX, NOW_NS, History, with_step
from .pacing import asking_pace_ns
from .room import ATTEMPT_ENTRIES, CLOSE_ENTRIES, room
from .transitions import done, never_happened, refuse, release
from .way_back import way_back

HELD: Final = frozenset({"command", "list"})
"""The kinds of steps that a participant holds in its inbox."""

TEXT_CHARS_MAX: Final = 1000
"""How much of a reason travels with a close, and how much of a participant's sentence stands in the journal."""

REPLY_BYTES_MAX: Final = MESSAGE_BYTES_MAX - 16 * 1024
"""How large a reply may be that an operator gives: a close carries it with a reason, and so does its answer."""

UNPACED_CLOSES: Final = 2
"""So many closes of a step have no pace: the first, and the one after somebody has looked outside."""


def is_asked(history: History, operation: Operation) -> bool:
    """Whether the participant has a word in a resolve, and is asked before it counts."""
    return is_held(history, operation.step) and operation.asks


def is_unasked(history: History, operation: Operation) -> bool:
    """Whether a resolve counts although a participant holds the step, and may be at work on it."""
    return is_held(history, operation.step) and not operation.asks


def is_held(history: History, name: str) -> bool:
    """Whether a participant holds a step in its inbox."""
    return history.definition.step(name).kind in HELD


def to_close(history: History, fact: Operated) -> SendClose:
    """The close that asks for what an operator wants resolved; `against_resolve` has nothing against it."""
    operation, name = fact.operation, fact.operation.step
    form, type_, reply = _form(history, operation), "", None
    if form == "done":
        definition = history.definition.step(name)
        assert definition.reply is not None
        type_, reply = definition.reply.__contract__.type, pack(_reply(definition, operation))
    close = Close(
        form=form,
        type=type_,
        claim=operation.claim,
        user=fact.user,
        reason=operation.reason[:TEXT_CHARS_MAX],
        **({"reply": reply} if reply is not None else {}),
    )
    return SendClose(name, history.steps[name].closes + 1, fact.sequence, close)


def _form(history: History, operation: Operation) -> CloseForm:
    if operation.happened is False:
        return "never"
    return "undone" if _goes_back(history, operation.step) and not operation.has_payload else "done"


def _goes_back(history: History, name: str) -> bool:
    """Whether what a step waits for is its compensation, sent or not."""
    return history.steps[name].phase == "undoing" or name in way_back(history).first


# --- what speaks against it -------------------------------------------------------------------------------------------


def against_resolve(history: History, fact: Operated) -> str:
    """Why a step cannot be resolved, as a sentence; empty where it can be, or its participant can be asked."""
    operation = fact.operation
    if not operation.reason:
        return "say why: a reason is missing"
    return _against_step(history, operation) or _against_claim(history, operation) or _against_close(history, fact)


def _against_step(history: History, operation: Operation) -> str:
    name = operation.step
    step, definition = history.steps[name], history.definition.step(name)
    if step.elements:
        return f"it consists of {step.elements} elements, {element(name, 0)} and on; resolve the one that is stuck"
    if _goes_back(history, name):
        return _against_way_back(definition, operation)
    if step.phase == "settling" and operation.happened is False:
        return ""
    is_event_awaited = step.phase == "awaiting" and definition.kind == "event"
    if is_event_awaited and operation.happened is False and (definition.unless or not definition.is_retriable):
        return ""
    if definition.is_retriable and operation.happened is False:
        return f"{name} is past the point of no return and must happen; do it by hand, and say so with its reply"
    is_answer_awaited = step.phase == "sent" and definition.is_retriable and definition.reply
    if step.phase == "settling" or is_event_awaited or is_answer_awaited:
        return _against_reply(definition, operation)
    if step.phase == "sent":
        return f"{name} is in flight, and its own answer decides; cancel the saga to have it compensated"
    return f"{name} does not wait for anybody: it is {step.phase}"


def _against_way_back(definition: StepDefinition, operation: Operation) -> str:
    if not operation.has_payload:
        return ""
    if definition.kind not in HELD or not operation.claim:
        return (
            "a compensation has no reply; only where the command itself may have happened outside, a claim and a reply "
            "say that it has, and it is compensated by that"
        )
    return _against_reply(definition, operation)


def _against_reply(definition: StepDefinition, operation: Operation) -> str:
    try:
        reply = _reply(definition, operation)
    except Unusable as error:
        return f"it needs the reply of {operation.step}, since later steps may look at it: {error.reason}"
    size = len(bytes(pack(reply)))
    return f"the reply has {size} bytes, and {REPLY_BYTES_MAX} are the most" if size > REPLY_BYTES_MAX else ""


def _against_claim(history: History, operation: Operation) -> str:
    if not operation.claim or is_asked(history, operation):
        return ""
    if is_held(history, operation.step):
        return "name a claim, or do not ask the participant; not both"
    return f"no participant holds {operation.step}, so there is no claim of it"


def _against_close(history: History, fact: Operated) -> str:
    """Why the participant cannot be asked now."""
    operation = fact.operation
    if not is_asked(history, operation):
        return ""
    step = history.steps[operation.step]
    if step.closing is not None:
        return (
            f"a close is under way since {rfc3339(step.closing_ns)}, asked for by {step.closing.close.user}, and its "
            "answer decides; only a resolve without the participant does not wait for it"
        )
    if room(history) < CLOSE_ENTRIES:
        return (
            f"its journal has {history.entries} of {ENTRIES_MAX} entries, and the rest is kept for compensations; a "
            "resolve without the participant is still taken"
        )
    soonest_ns = step.closing_ns + asking_pace_ns(history, CLOSE_ENTRIES // ATTEMPT_ENTRIES)
    if step.closes < UNPACED_CLOSES or fact.at_ns >= soonest_ns:
        return ""
    return (
        f"its participant was asked {step.closes} times to close it, and the journal, with {history.entries} of "
        f"{ENTRIES_MAX} entries, has room for that again at {rfc3339(soonest_ns)}"
    )


def _reply(definition: StepDefinition, operation: Operation) -> Any:
    """The reply an operator stands in for.

    Raises:
        Unusable: there is none, or it does not fit its contract.
    """
    assert definition.reply is not None
    if not operation.has_payload:
        raise Unusable(f"give a {definition.reply.__name__}")
    return unpack_raw(operation.payload, definition.reply)


# --- at once ----------------------------------------------------------------------------------------------------------


def resolve(history: History, fact: Operated) -> History:
    """The history once an operator's word counts, without a participant having been asked."""
    operation, name = fact.operation, fact.operation.step
    history = _by_hand(history, name, fact.user, operation.reason)
    if is_unasked(history, operation):
        history = with_step(history, name, unasked=fact)
    if history.steps[name].phase in ("undoing", "done", "unknown"):
        return with_step(history, name, phase="undone")
    if operation.happened is False:
        return never_happened(history, name)
    return done(history, name, _reply(history.definition.step(name), operation))


def _by_hand(history: History, name: str, user: str, reason: str) -> History:
    return with_step(replace(history, fault=""), name, reason=f"resolved by {user}: {reason}", again_ns=0)


def acted_after_all(history: History, fact: Fact) -> str:
    """What a person must be told of an answer: the machine has acted on a step that counted as resolved, and whose
    participant was not asked. Empty for all others."""
    step = history.steps.get(fact.step) if isinstance(fact, Answer) else None
    if step is None or step.unasked is None or not isinstance(fact, Answer):
        return ""
    is_news = fact.sequence > step.unasked.sequence or fact.sequence not in history.named
    is_effect = (fact.kind == "done" and fact.found) or (fact.kind == "settled" and fact.event is not None)
    if not is_news or not is_effect:
        return ""
    is_undone = (fact.direction, fact.kind) == ("undo", "done")
    return said_after_all(fact.step, step.unasked.user, fact.attempt, is_undone)


def said_after_all(step: str, user: str, attempt: int, is_undone: bool) -> str:
    """That a step was resolved by hand and done, or undone, by the machine all the same, as a sentence."""
    what = "undone" if is_undone else "done"
    return (
        f"{step} was resolved by {user} without its participant, and attempt {attempt} has {what} it all the same: it "
        f"may have been {what} twice"
    )


# --- once the participant has said what it knows ----------------------------------------------------------------------


def verdict(history: History, fact: Answer) -> Record | None:
    """What is recorded of an answer to a close: whether the request counts. None where no close waits for it."""
    closing = _closing(history, fact)
    if closing is None:
        return None
    goes_back = _goes_back(history, fact.step)
    return Record(by=closing.close.user, step=fact.step, request=closing.request, rejected=_why_not(fact, goes_back))


def _closing(history: History, fact: Answer) -> SendClose | None:
    """The close that an answer is to; none if that was answered, or never sent."""
    step = history.steps.get(fact.step)
    if step is None or step.closing is None or fact.closed is None or step.closing.number != fact.attempt:
        return None
    return step.closing


def _why_not(fact: Answer, goes_back: bool) -> str:
    """Why the operator's word does not count, as a sentence; empty if it does."""
    said = fact.closed
    assert said is not None
    who = f"attempt {said.attempt}" if said.attempt else "an attempt"
    match said.verdict:
        case "closed":
            return ""
        case "refused":
            sentence = f"{who} was refused: {said.reason}"
        case "done":
            sentence = said.reason or f"{who} has done it"
        case "undone":
            sentence = said.reason or f"{who} has undone it"
        case "void":
            sentence = said.reason or (
                "there is nothing to undo" if goes_back else "it has not been done, and never will be"
            )
        case "doubt":
            key = f", under the key {said.key}" if said.key else ""
            sentence = (
                f"claim {said.claim} may have done it outside{key}; look there, then resolve again naming claim "
                f"{said.claim}"
            )
    return sentence[:TEXT_CHARS_MAX]


def closed(history: History, fact: Answer) -> History:
    """The history once a participant has answered a close: the operator's word counts, or what the machine did."""
    closing = _closing(history, fact)
    if closing is None or fact.closed is None:
        return history
    name, verdict, close = fact.step, fact.closed.verdict, closing.close
    goes_back = _goes_back(history, name)
    history = with_step(history, name, closing=None)
    if not goes_back and history.steps[name].phase not in ("sent", "settling"):
        return history  # the machine's own answer came first
    if verdict == "closed":
        history = _by_hand(history, name, close.user, close.reason)
    if not ends_step(close.form, verdict, goes_back):
        return _undo_now(history, name, close) if verdict == "closed" else history
    if goes_back:
        history = with_step(history, name, phase="undone", again_ns=0)
        return history if verdict == "closed" else release(history, name)
    return _decided(history, fact, close)


def _undo_now(history: History, name: str, close: Close) -> History:
    """Its command has happened, with this reply, as the participant knows now: its compensation is tried at once."""
    again_ns = NOW_NS if history.steps[name].phase == "undoing" else 0
    history = replace(history, marked=history.marked - {name})
    return with_step(history, name, is_open=False, again_ns=again_ns, reply=_given(history, name, close))


def _given(history: History, name: str, close: Close) -> Any:
    """The reply that an operator has given."""
    reply = history.definition.step(name).reply
    assert reply is not None
    return unpack_raw(close.reply, reply)


def _decided(history: History, fact: Answer, close: Close) -> History:
    """What became of a command, or of a pivot that was being settled."""
    name, is_retriable = fact.step, history.definition.step(fact.step).is_retriable
    assert fact.closed is not None
    match fact.closed.verdict:
        case "done":
            return done(history, name, fact.event)
        case "closed" if close.form == "done":
            return done(history, name, _given(history, name, close))
        case "refused" if not is_retriable:
            reason = fact.closed.reason
            return refuse(history, name, f"{name} was refused: {reason}", reason)
        case "closed" | "void" if not is_retriable:
            return never_happened(history, name)
        case _:
            return history  # it must happen, and is tried again
