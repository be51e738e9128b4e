"""What must hold after any run, whoever died: one function for each invariant, over the evidence. Pure.

Each function says what is wrong in sentences, and looks at each saga, row and line once.
"""

from __future__ import annotations

import gc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import msgspec

from antiphon.contracts.counting import counted
from antiphon.contracts.errors import Unusable
from antiphon.contracts.identity import COORDINATOR, SagaKey
from antiphon.contracts.reader import Entry, Fact
from antiphon.contracts.subjects import is_by_itself
from antiphon.contracts.topology import EXPORTER, READMODEL
from antiphon.coordinator.decision.absorb import absorb
from antiphon.coordinator.decision.decide import decide
from antiphon.coordinator.decision.entries import read_entry
from antiphon.coordinator.decision.facts import Finish, Send
from antiphon.coordinator.decision.fold import Unfoldable, absorb_cause, apply
from antiphon.coordinator.decision.history import begin
from antiphon.coordinator.decision.replay import is_news, read_facts
from antiphon.coordinator.definition.definition import Definition
from antiphon.coordinator.views.summary import Overview, begun, read_cause, read_told, tell, unread
from antiphon.coordinator.views.timeline import spoken, timeline_of
from antiphon.tracing.projection.ids import trace_id
from antiphon.tracing.projection.project import project
from antiphon.tracing.projection.spans import Span

from .evidence import Evidence, InboxRow, SagaEvidence, Sample, StoredTrace, Trouble
from .waits import Waits

NANO: Final = 1_000_000_000
WATCHERS: Final = frozenset({EXPORTER, READMODEL})
"""Processes that look at the sagas, and from which no command has an attempt."""
TIMELINES_MAX: Final = 5
"""How many timelines a report has."""
SENTENCES_MAX: Final = 30
"""How many violations it has."""
SAMPLES_MIN: Final = 8
"""Fewer samples of a process say nothing of its growth."""
GROWTH_MAX: Final = 1.25
"""How much more memory a process may take in the last quarter of its life than in the second."""
GROWTH_BYTES_MIN: Final = 16 << 20
"""Below this growth it may be caches that fill."""
DESCRIPTORS_MORE_MAX: Final = 20
"""How many more files and connections it may have open."""
AFTER_HARM_SECONDS: Final = 15.0
"""For how long after the end of a trouble a command may still lose an attempt to it: until a way that was cut is
noticed, and what somebody held has come again, which is a matter of seconds each."""


class Violation(msgspec.Struct, frozen=True):
    """Something that must not be.

    Args:
        invariant: its number, as in `I3`.
        sentence: what is wrong.
        saga: whose timeline shows it; None where it is about no saga.
    """

    invariant: str
    sentence: str
    saga: SagaKey | None = None

    def __str__(self) -> str:
        return f"{self.invariant} {self.saga}: {self.sentence}" if self.saga else f"{self.invariant} {self.sentence}"


Sentences = Iterator[tuple[SagaKey | None, str]]
Invariant = Callable[[Evidence], Sentences]


def check(evidence: Evidence) -> list[Violation]:
    """All that is wrong. A hundred thousand sagas take about a minute."""
    is_collecting = gc.isenabled()
    gc.disable()  # the evidence is large and holds no circles: going through it again and again takes a seventh of all
    try:
        return [
            Violation(name, sentence, saga) for name, holds in INVARIANTS.items() for saga, sentence in holds(evidence)
        ]
    finally:
        if is_collecting:
            gc.enable()


def report(evidence: Evidence, violations: list[Violation]) -> str:
    """What is wrong, in sentences, and below them what happened in the first sagas that they are about."""
    lines = [f"{counted(len(violations), 'violation')} of what must hold:", *map(str, violations[:SENTENCES_MAX])]
    if len(violations) > SENTENCES_MAX:
        lines.append(f"and {len(violations) - SENTENCES_MAX} more")
    concerned = dict.fromkeys(each.saga for each in violations if each.saga is not None)
    for key in list(concerned)[:TIMELINES_MAX]:
        lines += ["", f"--- {key}", *story(evidence.sagas.get(key))]
    return "\n".join(lines)


def story(saga: SagaEvidence | None) -> list[str]:
    """What happened in a saga, line by line."""
    if saga is None or not (saga.entries or saga.events):
        return ["neither stream holds anything of it"]
    try:
        return [spoken(line) for line in timeline_of(saga.key, saga.pages).lines]
    except Unusable as error:
        return [f"its messages cannot be read: {error}"]


# --- I1 to I5: sagas and effects --------------------------------------------------------------------------------------


def every_saga_ends_or_is_parked(evidence: Evidence) -> Sentences:
    """I1: every started saga ends completed or compensated, or is parked and visible, or waits for another that has not
    ended."""
    waits = Waits(evidence)
    for key, saga in evidence.sagas.items():
        if saga.end is not None or str(key) in evidence.open:
            continue
        if not saga.entries:
            if any(fact.kind == "start" for fact in saga.read.facts):
                yield key, "it was started, and nobody began it: it has no journal"
            continue
        try:
            stands = saga.stands
        except Unusable as error:
            yield key, f"its journal cannot be read: {error.reason}"
            continue
        if not stands.parked and not stands.paused:
            if waits.for_another(saga) is not None:
                continue
            whom = f"it waits for {', '.join(stands.waits_for)}" if stands.waits_for else "nothing was sent"
            yield key, f"it has not ended and is not parked: it is {stands.state}, and {whom}"
        elif stands.parked and key not in evidence.parked:
            yield key, f"it waits for a person ({stands.parked}), and PARKED says nothing of it"


def the_books_balance(evidence: Evidence) -> Sentences:
    """I2: money and stock add up over all ledgers."""
    for sentence in evidence.books:
        yield None, sentence
    for name, effects in evidence.ledgers.items():
        left = defaultdict[tuple[str, str], int](int)
        for effect in effects:
            if effect.amount:
                left[effect.saga, effect.account] += effect.amount
        for (saga_name, account), amount in left.items():
            saga = evidence.by_name.get(saga_name)
            if amount and saga is not None and saga.end is not None and saga.end.outcome == "compensated":
                yield saga.key, f"it was compensated, and {name} has {amount:+} of it left on account {account}"


def no_effect_happens_twice(evidence: Evidence) -> Sentences:
    """I3: no effect twice."""
    for name, effects in evidence.ledgers.items():
        found = defaultdict[tuple[str, str, str], list[str]](list)
        for effect in effects:
            found[effect.saga, effect.step, effect.direction].append(effect.effect)
        for (saga_name, step, direction), lines in found.items():
            if len(lines) > 1:
                done = "done" if direction == "do" else "taken back"
                whose = evidence.by_name.get(saga_name)
                said = f"{name} has {len(lines)} lines of what step {step} has {done}: {', '.join(map(str, lines))}"
                yield (whose.key, said) if whose else (None, f"{said} (for {saga_name}, which is no saga)")


def compensations_mirror_effects(evidence: Evidence) -> Sentences:
    """I4: compensations mirror effects: in reverse order, each once, none for what never happened."""
    for saga in evidence.sagas.values():
        yield from ((saga.key, sentence) for sentence in _ways_back(saga, evidence.definition_of(saga)))
        yield from ((saga.key, sentence) for sentence in _rows_of_ended(evidence, saga))
    for name, effects in evidence.ledgers.items():
        by_step = defaultdict[tuple[str, str], Counter[str]](Counter[str])
        for effect in effects:
            by_step[effect.saga, effect.step][effect.direction] += 1
        for (saga_name, step), counts in by_step.items():
            whose = evidence.by_name.get(saga_name)
            if whose is None:
                yield None, f"{name} has an effect of step {step} for {saga_name}, which was never started"
            else:
                yield from ((whose.key, said) for said in _mirrored(evidence, whose, name, step, counts))


def _ways_back(saga: SagaEvidence, definition: Definition | None) -> Iterator[str]:
    done, undone_at, named = set[str](), dict[str, int](), dict[int, int]()
    for entry in saga.read.entries:
        named.setdefault(entry.cause_sequence, entry.sequence)
    for fact in saga.read.facts:
        if fact.kind == "undone" and fact.sequence in named:
            undone_at.setdefault(fact.address.step, named[fact.sequence])
    first: dict[str, int] = {}
    for entry in saga.read.entries:
        if entry.command is None:
            continue
        if entry.kind == "do":
            done.add(entry.command.step)
        elif entry.kind == "undo":
            if entry.command.step not in done:
                yield f"step {entry.command.step} was compensated, and its command was never sent"
            first.setdefault(entry.command.step, entry.sequence)
    if definition is None:
        return
    for name, sequence in first.items():
        for later in definition.step(name).dependents:
            for other in (each for each in first if each == later or each.rpartition("-")[0] == later):
                if first[other] > sequence or undone_at.get(other, sequence + 1) > sequence:
                    yield f"step {name} was compensated before {other}, which depends on it, had been undone"


def _rows_of_ended(evidence: Evidence, saga: SagaEvidence) -> Iterator[str]:
    """What the inboxes must say once a saga is over."""
    end, definition = saga.end, evidence.definition_of(saga)
    if end is None or definition is None or not definition.is_led:
        return
    resolved = any(entry.record is not None and entry.record.by for entry in saga.read.entries)
    for participant, row in evidence.rows_by_saga.get(saga.key, ()):
        if is_by_itself(row.step) or resolved:
            continue
        try:
            step = definition.step(row.step)
        except KeyError:
            yield f"{participant} has a row for step {row.step}, which the definition has not"
            continue
        if end.outcome == "compensated" and row.state == "done" and step.undo is not None:
            yield f"it was compensated, and what {participant} did for step {row.step} was never undone"
        if end.outcome == "completed" and row.state in ("undone", "undoing", "void"):
            yield f"it completed, and {participant} says that step {row.step} is {row.state}"


def _mirrored(evidence: Evidence, saga: SagaEvidence, name: str, step: str, counts: Counter[str]) -> Iterator[str]:
    if counts["undo"] and not counts["do"]:
        yield f"{name} says that step {step} was taken back, and it was never done"
    if saga.end is None:
        return
    if saga.end.outcome == "completed" and counts["undo"]:
        yield f"it completed, and {name} says that step {step} was taken back"
    definition = evidence.definition_of(saga)
    if saga.end.outcome == "compensated" and counts["do"] and not counts["undo"] and _has_undo(definition, step):
        yield f"it was compensated, and {name} says that step {step} was not taken back"


def _has_undo(definition: Definition | None, step: str) -> bool:
    if definition is None:
        return False
    try:
        return definition.step(step).undo is not None
    except KeyError:
        return False


def nothing_acknowledged_is_lost(evidence: Evidence) -> Sentences:
    """I5: nothing acknowledged is lost: what clients were told, what participants answered, and what was durable before
    that."""
    for key in evidence.told_started:
        saga = evidence.sagas.get(key)
        if saga is None or not any(fact.kind == "start" for fact in saga.read.facts):
            yield key, "a client was told that it is started, and EVENTS holds no start of it"
    for key, outcomes in evidence.told_outcomes.items():
        end = saga.end if (saga := evidence.sagas.get(key)) is not None else None
        for outcome in outcomes:
            if end is None or end.outcome != outcome:
                said = end.outcome if end is not None else "not ended"
                yield key, f"a client was told that it is {outcome}, and by its journal it is {said}"
    covered = {
        (name, effect.saga.partition("/")[0], effect.step)
        for name, effects in evidence.ledgers.items()
        for effect in effects
    }
    written = {
        (name, effect.saga, effect.step)
        for name, effects in evidence.ledgers.items()
        for effect in effects
        if effect.direction == "do"
    }
    for saga in evidence.sagas.values():
        yield from ((saga.key, said) for said in _lost_answers(evidence, saga))
        if saga.end is None or saga.end.outcome != "completed":
            continue  # books may strike out what was taken back
        for fact in saga.read.facts:
            if fact.kind == "done" and fact.address.source != COORDINATOR:
                for name in evidence.ledgers:
                    place = (name, saga.key.type, fact.address.step)
                    if place in covered and (name, str(saga.key), fact.address.step) not in written:
                        yield saga.key, f"step {fact.address.step} was answered as done, and {name} has no line of it"


def _lost_answers(evidence: Evidence, saga: SagaEvidence) -> Iterator[str]:
    """What an inbox says was done must have been answered, and the other way round."""
    rows = evidence.rows_by_saga.get(saga.key, [])
    answered = {(fact.address.source, fact.address.step) for fact in saga.read.facts}
    # The row of a reaction that happens once does without the hash that its event's step ends with.
    emitted = {(source, step.rpartition("-")[0]) for source, step in answered if is_by_itself(step)}
    for participant, row in rows:
        is_told = (participant, row.step) in answered or (participant, row.step) in emitted
        if row.answer_type and not is_told and str(saga.key) not in evidence.open:
            yield f"{participant} has {_doing(row)} step {row.step}, and EVENTS holds no answer of it"
    known = {(participant, row.step) for participant, row in rows}
    for fact in saga.read.facts:
        source, step = fact.address.source, fact.address.step
        if fact.kind == "done" and source in evidence.inboxes and (source, step) not in known:
            yield f"{source} has answered that step {step} is done, and its inbox has no row of that"


def _doing(row: InboxRow) -> str:
    return {"done": "done", "refused": "refused", "undone": "undone"}.get(row.state, f"({row.state})")


# --- I6 to I8: journals and traces ------------------------------------------------------------------------------------


def journals_are_well_formed(evidence: Evidence) -> Sentences:
    """I6: nothing after the end, one decision for each fact, every entry by a coordinator."""
    for saga in evidence.sagas.values():
        for sentence in (*saga.read.faults, *_malformed(saga)):
            yield saga.key, sentence


def _malformed(saga: SagaEvidence) -> Iterator[str]:
    facts = {message.sequence for message in saga.events}
    ended, last, seen = 0, "", set[str]()
    for number, entry in enumerate(saga.read.entries, 1):
        envelope = entry.envelope
        if ended:
            yield f"entry {number} was written after its end, which was entry {ended}"
        if entry.end is not None:
            ended = ended or number
        if envelope.source != COORDINATOR:
            yield f"entry {number} was written by {envelope.source}"
        if entry.cause_sequence and entry.cause_sequence not in facts:
            yield f"entry {number} names {envelope.cause}, which is no message of this saga in EVENTS"
        if envelope.cause != last and envelope.cause in seen and entry.cause_sequence:
            yield f"entry {number} decides on {envelope.cause} once more: others were decided on in between"
        last = envelope.cause
        seen.add(last)


def the_journal_is_what_would_be_decided(evidence: Evidence) -> Sentences:
    """I7: the decision over the stored journal gives the commands that were sent, and nothing is owed at the end."""
    for saga in evidence.sagas.values():
        definition = evidence.definition_of(saga)
        if definition is not None:
            yield from ((saga.key, sentence) for sentence in _decisions(evidence, saga, definition))


def _decisions(evidence: Evidence, saga: SagaEvidence, definition: Definition) -> Iterator[str]:
    try:
        entries = [read_entry(message.subject, message.sequence, message.data) for message in saga.entries]
        facts, unusable = read_facts(definition, saga.events)
        facts = unusable | facts
        history = begin(saga.key, definition)
        for number, entry in enumerate(entries, 1):
            history = absorb_cause(history, entry, facts)
            if isinstance(entry.what, (Send, Finish)) and not _is_due(entry.what, decide(history)):
                yield f"entry {number} ({_said(entry.what)}) is nothing that was to be done then"
            history = apply(history, entry)
        for sequence, fact in facts.items():  # those that no entry names
            if sequence not in history.named and is_news(history, fact):
                history = absorb(history, fact)
    except Unusable:
        return  # I6 says so
    except Unfoldable as error:
        yield str(error)
        return
    if str(saga.key) not in evidence.open and (
        owed := [each for each in decide(history) if isinstance(each, (Send, Finish))]
    ):
        yield f"its journal lacks {', '.join(map(_said, owed))}, which follows from what it holds"


def _is_due(what: Send | Finish, actions: Iterable[object]) -> bool:
    if isinstance(what, Finish):
        return any(isinstance(each, Finish) and each.end.outcome == what.end.outcome for each in actions)
    return what in actions


def _said(what: Send | Finish) -> str:
    if isinstance(what, Finish):
        return f"the end, {what.end.outcome}"
    return f"{'undo ' if what.direction == 'undo' else ''}{what.step} #{what.attempt}"


def every_trace_is_whole(evidence: Evidence) -> Sentences:
    """I8: every trace has one root, resolvable parents, unique ids and children inside parents, and equals the
    projection of the journal."""
    for saga in evidence.sagas.values():
        if not saga.entries:
            continue
        try:
            found = project(saga.key, saga.entries, saga.events)
        except Unusable:
            continue  # I6 says so
        if found.outcome:
            yield from ((saga.key, sentence) for sentence in _tree(found.spans))
        if evidence.traces is not None and evidence.encode is not None:
            wanted, stored = evidence.encode(found.spans), evidence.traces.get(trace_id(saga.key), {})
            yield from ((saga.key, sentence) for sentence in _exported(wanted, stored))
    known = {trace_id(key) for key in evidence.sagas}
    if strays := (evidence.traces or {}).keys() - known:
        yield None, f"the tracing backend has {len(strays)} traces of sagas that never were"


def _exported(wanted: StoredTrace, stored: StoredTrace) -> Iterator[str]:
    if lacking := wanted.keys() - stored.keys():
        yield f"the tracing backend lacks {len(lacking)} of its {counted(len(wanted), 'span')}"
    if more := stored.keys() - wanted.keys():
        yield f"the tracing backend has {counted(len(more), 'span')} of nothing that happened"
    if any(stored[each] != wanted[each] for each in stored.keys() & wanted.keys()):
        yield "the tracing backend has spans that differ from those of its journal"


def _tree(spans: tuple[Span, ...]) -> Iterator[str]:
    by_id = {span.span_id: span for span in spans}
    if len(by_id) != len(spans):
        yield "two spans of its trace have one id"
    roots = [span for span in spans if not span.parent_id]
    if len(roots) != 1:
        yield f"its trace has {len(roots)} roots"
    for span in spans:
        parent = by_id.get(span.parent_id)
        if not span.parent_id:
            continue
        if parent is None:
            yield f"the parent of the span {span.name!r} is not in its trace"
        elif not parent.start_ns <= span.start_ns < span.end_ns <= parent.end_ns:
            yield f"the span {span.name!r} does not lie inside its parent {parent.name!r}"


# --- I9 to I15: time, and others --------------------------------------------------------------------------------------


def all_end_in_time(evidence: Evidence) -> Sentences:
    """I9: after the last fault, all end within the bound."""
    bound_ns = round(evidence.bound_seconds * NANO)
    for saga in evidence.sagas.values():
        last = saga.read.entries[-1] if saga.read.entries else None
        began_ns = min((message.stored_ns for message in saga.events), default=0)
        if last is None or last.end is None or not evidence.last_fault_ns:
            continue
        late_ns = last.at_ns - max(began_ns, evidence.last_fault_ns)
        if late_ns > bound_ns:
            yield (
                saga.key,
                f"it ended {late_ns / NANO:.1f} s after the last fault, and the bound is {evidence.bound_seconds:g} s",
            )


def nothing_is_left_undelivered(evidence: Evidence) -> Sentences:
    """I10: no consumer is left with pending work, and PARKED holds exactly what should be there."""
    for each in evidence.consumers:
        if each.pending or each.unacked:
            yield (
                None,
                (
                    f"consumer {each.name} of {each.stream} has {each.pending} messages that were not delivered, and "
                    f"{each.unacked} without an ack"
                ),
            )
    for sentence in evidence.set_aside:
        yield None, sentence
    for what in evidence.unnoticed:
        yield None, f"a hostile user has published {what}, which nobody can use, and PARKED does not list it"
    for key, saga in evidence.sagas.items():
        for participant, row in evidence.rows_by_saga.get(key, ()):
            if row.state in ("claimed", "undoing") and saga.end is not None:
                yield key, f"it has ended, and {participant} has begun step {row.step} and come to no end of it"


def nobody_is_held_up_by_others(evidence: Evidence) -> Sentences:
    """I11: a hung or endlessly failing participant does not slow commands of others beyond the bound."""
    yield from _held_up(evidence, [trouble for trouble in evidence.troubles if trouble.names])


def nothing_grows(evidence: Evidence) -> Sentences:
    """I12: no growth of memory or descriptors."""
    lives = defaultdict[tuple[str, int], list[Sample]](list)
    for sample in evidence.samples:
        lives[sample.process, sample.pid].append(sample)
    for (name, _), samples in lives.items():
        if len(samples) < SAMPLES_MIN:
            continue
        quarter = len(samples) // 4
        before, after = samples[quarter : 2 * quarter], samples[-quarter:]
        memory = [sum(each.memory_bytes for each in part) / quarter for part in (before, after)]
        if memory[1] > memory[0] * GROWTH_MAX and memory[1] - memory[0] > GROWTH_BYTES_MIN:
            yield None, f"{name} has grown from {memory[0] / 1e6:.0f} to {memory[1] / 1e6:.0f} MB"
        files = [min(each.descriptors for each in part) for part in (before, after)]
        if files[1] > files[0] + DESCRIPTORS_MORE_MAX:
            yield None, f"{name} had {files[0]} files and connections open, and has {files[1]}"


def nobody_erases_what_others_wrote(evidence: Evidence) -> Sentences:
    """I13: one client or participant, whatever it sends, erases no evidence. That it delays nobody is said by I11."""
    if evidence.erased:
        gone = counted(evidence.erased, "message of EVENTS is gone", "messages of EVENTS are gone")
        yield None, f"{gone}, and nobody purged that"


def the_read_model_agrees_with_the_journals(evidence: Evidence) -> Sentences:
    """I14: the read model has a row for each saga, which is the fold of its journal, and no other."""
    if evidence.listed is None:
        return
    for key, saga in evidence.sagas.items():
        try:
            wanted = folded(saga)
        except Unusable:
            continue  # I6 says so
        row = evidence.listed.get(str(key))
        if wanted is None and row is None:
            continue
        if row is None or wanted is None:
            yield key, "the read model has no row of it" if row is None else "the read model has a row of it"
        elif row != wanted:
            wrong = [name for name in wanted.__struct_fields__ if getattr(row, name) != getattr(wanted, name)]
            said = ", ".join(f"{name} {getattr(row, name)!r}, and not {getattr(wanted, name)!r}" for name in wrong)
            yield key, f"the read model says of it {said}"
    if strays := evidence.listed.keys() - evidence.by_name.keys():
        yield None, f"the read model has rows of sagas that never were: {', '.join(sorted(strays)[:5])}"


def planned_restarts_cost_nothing(evidence: Evidence) -> Sentences:
    """I15: a planned restart of a coordinator or of a participant's process costs no command an attempt.

    Said only of commands that met one, from where they were sent until they were answered, and no other trouble that
    could have cost them one: neither their participant's nor everybody's, nor shortly before. Attempts that failed are
    known by the inbox; where that cannot be read, an attempt that was lost looks like one that failed.
    """
    restarts = [each for each in evidence.troubles if each.restarted and each.names.isdisjoint(WATCHERS)]
    if not restarts:
        return
    harm = [each for each in (*evidence.troubles, *evidence.hung) if not each.restarted]
    for saga in evidence.sagas.values():
        sent = {entry.command: entry for entry in saga.read.entries if entry.command is not None}
        for fact in saga.read.facts:
            entry = sent.get(fact.answers) if fact.answers is not None else None
            if entry is None or entry.command is None or entry.command.participant not in evidence.inboxes:
                continue
            failed = evidence.failed.get(entry.envelope.id, 0)
            lost = fact.envelope.tries - 1 - failed
            if lost < 1:
                continue
            met = [each.restarted for each in restarts if _meets(each, entry, fact)]
            if met and not any(_meets(each, entry, fact, AFTER_HARM_SECONDS) for each in harm):
                yield saga.key, _lost_attempts(entry, fact, failed, met)


def _meets(trouble: Trouble, entry: Entry, fact: Fact, after_seconds: float = 0.0) -> bool:
    """Whether somebody's trouble, or the time after it, fell between a command to him and its answer."""
    assert entry.command is not None
    whose = not trouble.names or entry.command.participant in trouble.names
    return whose and trouble.from_ns < fact.at_ns and entry.at_ns < trouble.to_ns + round(after_seconds * NANO)


def _lost_attempts(entry: Entry, fact: Fact, failed: int, met: Iterable[str]) -> str:
    assert entry.command is not None
    return (
        f"step {entry.command.step} was tried {fact.envelope.tries} times by {entry.command.participant}, of which "
        f"{failed} failed, and met nothing but planned restarts: of {', '.join(dict.fromkeys(met))}"
    )


def folded(saga: SagaEvidence) -> Overview | None:
    """The row of a saga, folded from both streams at once; None of one that has none."""
    row, causes = unread(saga.key), {message.sequence: read_cause(message) for message in saga.events}
    starts = [cause for cause in causes.values() if cause is not None and cause.address.is_start]
    if not starts and not saga.entries:
        return None
    for start in starts:
        row = begun(row, start)
    for message in saga.entries:
        if (told := read_told(message)) is not None:
            row = tell(row, told, causes.get(told.cause_sequence))
    return row


def _held_up(evidence: Evidence, troubles: list[Trouble]) -> Sentences:
    """Commands to those who had no trouble that took longer than the bound while others had some."""
    if not troubles:
        return
    bound_ns = round(evidence.bound_seconds * NANO)
    for saga in evidence.sagas.values():
        answers = {fact.answers: fact for fact in saga.read.facts if fact.answers is not None}
        for entry in saga.read.entries:
            answer = answers.get(entry.command) if entry.command is not None else None
            if answer is None or answer.at_ns - entry.at_ns <= bound_ns:
                continue
            during = [each for each in evidence.troubles if each.from_ns < answer.at_ns and entry.at_ns < each.to_ns]
            whose = _whose(during)
            if (
                whose
                and entry.command is not None
                and entry.command.participant not in whose
                and all(d.names for d in during)
            ):
                yield saga.key, _delay(entry, answer, whose)


def _whose(troubles: list[Trouble]) -> set[str]:
    return {name for trouble in troubles for name in trouble.names}


def _delay(entry: Entry, answer: Fact, whose: Iterable[str]) -> str:
    assert entry.command is not None
    return (
        f"{entry.command.participant} took {(answer.at_ns - entry.at_ns) / NANO:.1f} s for step {entry.command.step}, "
        f"while {', '.join(sorted(whose))} had trouble that is none of its own"
    )


INVARIANTS: Final[Mapping[str, Invariant]] = {
    "I1": every_saga_ends_or_is_parked,
    "I2": the_books_balance,
    "I3": no_effect_happens_twice,
    "I4": compensations_mirror_effects,
    "I5": nothing_acknowledged_is_lost,
    "I6": journals_are_well_formed,
    "I7": the_journal_is_what_would_be_decided,
    "I8": every_trace_is_whole,
    "I9": all_end_in_time,
    "I10": nothing_is_left_undelivered,
    "I11": nobody_is_held_up_by_others,
    "I12": nothing_grows,
    "I13": nobody_erases_what_others_wrote,
    "I14": the_read_model_agrees_with_the_journals,
    "I15": planned_restarts_cost_nothing,
}
