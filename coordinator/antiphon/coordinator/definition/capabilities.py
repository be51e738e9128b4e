"""Which sagas a coordinator serves, as data: for the flow of messages, and for the registration of its processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from antiphon.contracts.identity import CLIENT, COORDINATOR
from antiphon.contracts.registration import Capabilities, Followed, Named, ServedSaga, ServedStep, named, token

from .definition import Definition, Meaning, StepDefinition


def capabilities_of(definitions: Iterable[Definition]) -> Capabilities:
    """The sagas by these definitions and those that they start, by names and types alone."""
    served = {each.label: _served(each) for definition in definitions for each in _with_children(definition)}
    return Capabilities(name=COORDINATOR, sagas=tuple(served.values()))


def participants_of(sagas: Iterable[ServedSaga]) -> set[str]:
    """Whoever carries commands of sagas out, emits what they wait for, or is to react in them. Whoever is only recorded
    is not needed."""
    steps = [step for saga in sagas for step in saga.steps]
    found = {each.owner for step in steps for each in (step.command, step.awaits) if each is not None}
    return (found | {name for saga in sagas for followed in saga.flow for name in followed.by}) - {CLIENT, COORDINATOR}


def _with_children(definition: Definition) -> Iterator[Definition]:
    yield definition
    for child in definition.children:
        yield from _with_children(child)


def _served(saga: Definition) -> ServedSaga:
    return ServedSaga(
        name=saga.name,
        version=saga.version,
        shape=saga.shape,
        start=named(saga.start_shape),
        is_led=saga.is_led,
        steps=tuple(_step(each) for each in saga.steps.values()),
        notes=_heard(saga, "note") if saga.is_led else (),
        flow=tuple(_flow(saga)),
        completes=_heard(saga, "completed"),
        compensates=_heard(saga, "compensated"),
    )


def _heard(saga: Definition, means: Meaning) -> tuple[Named, ...]:
    return tuple(named(heard.shape) for heard in saga.events.values() if heard.means == means)


def _flow(saga: Definition) -> Iterator[Followed]:
    if saga.begins:
        yield Followed(event=named(saga.start_shape), by=saga.begins)
    for heard in saga.events.values():
        if heard.next:
            yield Followed(event=named(heard.shape), by=heard.next)


def _step(step: StepDefinition) -> ServedStep:
    sent = named(step.do.contract) if step.do is not None else None
    is_child = step.kind == "child"
    return ServedStep(
        name=step.name,
        after=step.after,
        when=token(step.when.__name__) if step.when is not None else "",
        command=None if is_child else sent,
        is_for_each=bool(step.elements_max),
        reply=named(step.reply) if step.reply is not None else None,
        undo=named(step.undo.contract) if step.undo is not None else None,
        is_pivot=step.is_pivot,
        awaits=named(step.signal) if step.signal is not None else None,
        unless=tuple(map(named, step.unless)),
        child=step.child,
        starts=sent if is_child else None,
    )
