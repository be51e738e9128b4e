"""`antiphon setup`: what would be made of streams and consumers, and then making it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from antiphon.contracts.counting import counted
from antiphon.contracts.differences import Config, changes
from antiphon.contracts.errors import PlatformError
from antiphon.contracts.targets import UNKNOWN_BOUND, Loss
from antiphon.contracts.topology import (
    ASKED_REPLICAS,
    BUCKETS,
    EVENTS,
    PARKED,
    Bound,
    Listener,
    reactions_consumer_name,
)
from antiphon.link import Link
from antiphon.link.applying import carry_out
from antiphon.link.pairs import VARIABLE
from antiphon.link.preview import Action, Change, Desired, LessSafe, Preview, client_bounds, preview
from antiphon.link.readmodel_places import forget_reader, require_gone
from antiphon.link.setup import (
    Bounds,
    NotChanged,
    bounds_set,
    consumer_configs,
    consumers_in_words,
    former_consumers,
    former_coordinators,
    left_behind,
    stream_configs,
)
from antiphon.participants.participant import Participant

from ..exit_codes import DIFFERS
from ..modules import CannotLoad
from ..render.plain import warn
from ..render.terminal import say, say_json
from .flows import load_parts
from .sagas import only_for

Named = TypeVar("Named", str, tuple[str, str])
DONE: Final[dict[Action, str]] = {"create": "created", "change": "changed", "keep": "unchanged", "delete": "deleted"}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asked for.

    Args:
        desired: what is to be set up.
        silent: participants that are declared and react to nothing.
        allowed: what may become less safe.
        forgets_readmodels: read models for which old sagas are kept no more.
        as_json: whether the answer is for a program.
    """

    desired: Desired
    silent: tuple[str, ...]
    allowed: tuple[Loss, ...] = ()
    forgets_readmodels: tuple[str, ...] = ()
    as_json: bool = False

    @property
    def names(self) -> list[str]:
        """The participants that were named."""
        return [each.name for each in self.desired.listeners]


class Done(msgspec.Struct, frozen=True):
    """What a set-up has come to.

    Args:
        changed: sentences about what there was before, and is otherwise now.
        forgotten: read models for which old sagas are kept no more.
        forgotten_bounds: clients, and the saga types of which they have a bound no more.
        bounds: how many bytes streams may take.
        clients: how many sagas clients may have open.
    """

    changed: list[str]
    forgotten: list[str]
    forgotten_bounds: list[tuple[str, str]]
    bounds: Bounds
    clients: list[Bound]


def listeners_of(apps: Sequence[str], participants: Sequence[str]) -> tuple[Listener, ...]:
    """The participants that are declared in modules, and those that are named.

    Raises:
        CannotLoad: modules are named, and have none.
    """
    found = [part.listener for part in (load_parts(apps) if apps else []) if isinstance(part, Participant)]
    if apps and not found:
        raise CannotLoad(f"there is no participant in {', '.join(apps)}; name the modules that have them.")
    declared = {each.name for each in found}
    return (*found, *(Listener(name) for name in participants if name not in declared))


def asked_for(
    apps: Sequence[str],
    desired: Desired,
    allowed: Collection[Loss],
    as_json: bool,
    forgets_readmodels: Sequence[str] = (),
) -> Asked:
    """A desired with what its declarations tell.

    Raises:
        CannotLoad: reactions are to be forgotten that are declared, or of a participant that is not.
        BadIdentity: no participant may have such a name.
    """
    desired.consumers()
    declared = desired.listeners if not apps else listeners_of(apps, ())
    silent = tuple(each.name for each in declared if not each.hears) if apps else ()
    if refused := [name for name in desired.forget_reactions if name not in silent]:
        raise CannotLoad(
            f"reactions of {refused[0]} are not to be forgotten: name with --app where it is declared, and it must "
            "react to nothing there."
        )
    return Asked(
        desired=desired,
        silent=silent,
        allowed=(*allowed,),
        forgets_readmodels=once(forgets_readmodels),
        as_json=as_json,
    )


def once(names: Iterable[Named]) -> tuple[Named, ...]:
    """Names, each of which may have been given twice."""
    return tuple(dict.fromkeys(names))


async def look_first(server: str, asked: Asked) -> int:
    """Say what a set-up would change, and change nothing; the exit code."""
    link = await Link.connect(server, name="administrator")
    try:
        with only_for("the administrator"):
            found = await preview(link, asked.desired)
            bounds = await client_bounds(link, asked.desired)
            refused = list[str]()
            forgotten = await _each_readmodel(require_gone, link, asked.forgets_readmodels, refused)
    finally:
        await link.close()
    try:
        found.require_allowed(asked.allowed)
    except LessSafe as error:
        refused.insert(0, str(error))
    if asked.as_json:
        told = _told(asked, found, bounds) | {"forgotten_readmodels": forgotten}
        say_json(told | {"dry_run": True, "refused": " ".join(refused)})
    else:
        say(*lines_of(found))
        say(*(f"to be forgotten: read model {name}" for name in forgotten))
        if found.pending or forgotten:
            say("nothing was changed: this was a dry run.")
    if refused:
        warn(" ".join(refused))
        return 1
    return DIFFERS if found.pending or forgotten else 0


async def set_up_platform(server: str, asked: Asked) -> None:
    """Say what is changed, create or update streams and consumers, and say which nobody needs any more.

    What fails keeps nothing else from being done, and is raised at the end.

    Raises:
        PlatformError: something was not done; all else was.
        LessSafe: nothing was done.
    """
    link = await Link.connect(server, name="administrator")
    try:
        with only_for("the administrator"):
            found = await preview(link, asked.desired)
            bounds = await client_bounds(link, asked.desired)
        if not asked.as_json:
            say(*lines_of(found, is_whole=False))
        _require_allowed(asked, found, bounds)
        before, failed = await _settings(link), list[str]()
        try:
            with only_for("the administrator"):
                await carry_out(link, asked.desired, asked.allowed)
        except NotChanged as error:
            failed.append(str(error))
        after = await _settings(link)
        forgotten = await _each_readmodel(forget_reader, link, asked.forgets_readmodels, failed)
        left = {name: waiting for name in asked.silent if (waiting := await left_behind(link, name)) is not None}
        former = await former_consumers(link)
        running = await former_coordinators(link) if former else 0
        clients = await bounds_set(link)
        bounded = {(each.client, each.saga_type) for each in clients}
        unbounded = [each for each in asked.desired.forget_bounds if each not in bounded]
        done = Done(_changed(before, after), forgotten, unbounded, _bounds_in(found, after), clients)
    finally:
        await link.close()
    _tell(asked, found, done, failed)
    for name, waiting in left.items():
        warn(
            f"{name} reacts to nothing any more, and its consumer {reactions_consumer_name(name)} is still there, with "
            f"{counted(waiting, 'event')} for reactions of an older program. Let that finish them; then have the "
            f"consumer deleted: the same command with --forget-reactions {name}."
        )
    if former:
        warn(
            f"in stream {EVENTS} there is still {consumers_in_words(former)}, for coordinators of earlier releases; "
            f"{running or 'none'} of them can be seen. Once none will be started again, have that deleted: the same "
            "command with --forget-former-coordinators."
        )
    if failed:
        raise PlatformError(" ".join(failed))


def _require_allowed(asked: Asked, found: Preview, bounds: Sequence[Bound]) -> None:
    """Check that every loss was named; a program is told what would be lost, too.

    Raises:
        LessSafe: one was not named.
    """
    try:
        found.require_allowed(asked.allowed)
    except LessSafe as error:
        if asked.as_json:
            say_json(_told(asked, found, bounds) | {"dry_run": False, "refused": str(error)})
        raise


def _bounds_in(found: Preview, settings: dict[str, Config]) -> Bounds:
    """How many bytes streams may take, by their settings."""
    most = {name: int(settings[f"stream {name}"]["max_bytes"]) for name in (*found.pairs.events, PARKED)}
    return Bounds(sum(most[name] for name in found.pairs.events), most[PARKED])


async def _each_readmodel(
    do: Callable[[Link, str], Awaitable[None]], link: Link, names: Sequence[str], failed: list[str]
) -> list[str]:
    """Forget read models, or look whether that can be done; those of which it was. Why one was not is added to
    `failed`."""
    forgotten = list[str]()
    for name in names:
        try:
            await do(link, name)
            forgotten.append(name)
        except PlatformError as error:
            failed.append(str(error))
    return forgotten


def _tell(asked: Asked, found: Preview, done: Done, failed: Sequence[str]) -> None:
    bounds = done.bounds
    if asked.as_json:
        most: dict[str, Any] = {"events_max_bytes": bounds.events, "parked_max_bytes": bounds.parked}
        told = {"dry_run": False, "refused": "", "changed": done.changed, "forgotten_readmodels": done.forgotten}
        say_json(_told(asked, found, done.clients) | most | told | {"failed": [*failed]})
        return
    whom = f"the consumers of {', '.join(asked.names)}" if asked.names else "no consumers of participants"
    streams = ", ".join(each.name for each in (*found.pairs.streams(), *BUCKETS))
    say(f"streams {streams} are there, with {counted(found.replicas, 'replica')}, and {whom}.")
    for name, size in (("events", bounds.events), ("parked", bounds.parked)):
        say(f"{name.upper()} may take {size / 1e9:.3g} GB ({size} bytes); --{name}-max-bytes sets another bound.")
    if found.pairs.count > 1:
        say(
            f"sagas are spread over {found.pairs.count} pairs of streams, which stays so. Processes that may not ask "
            f"the server need to be told: {VARIABLE}={found.pairs.count}."
        )
    say(*(f"client {b.client} may have {counted(b.most, 'saga')} of type {b.saga_type} open." for b in done.clients))
    for b in asked.desired.client_bounds:
        named = f"{b.client}={b.saga_type}"
        say(
            f"the bound of {b.client} holds once its account is made with antiphon rights --bound {named}; "
            f"antiphon doctor --rights FOLDER --client {named} tries that. Whether there is such a client and saga "
            f"type is not known here: --forget-bound {named} undoes it."
        )
    say(
        *(
            f"client {client} has no bound of open sagas of type {type_} any more."
            for client, type_ in done.forgotten_bounds
        )
    )
    say(*(f"read model {name} is forgotten: old sagas are kept for it no more." for name in done.forgotten))
    if done.changed:
        say(*done.changed)


def _told(asked: Asked, found: Preview, clients: Sequence[Bound]) -> dict[str, Any]:
    """What a program is told in any case. A bound that is not known yet is null."""
    bounds = {name: found.bound_of(name) for name in (EVENTS, PARKED)}
    return {
        "streams": [each.name for each in (*found.pairs.streams(), *BUCKETS)],
        **({"pairs": found.pairs.count} if found.pairs.count > 1 else {}),
        "participants": asked.names,
        "replicas": found.replicas,
        **{f"{name.lower()}_max_bytes": None if most == UNKNOWN_BOUND else most for name, most in bounds.items()},
        "changes": [_as_data(each) for each in found.changes],
        "client_bounds": [{"client": b.client, "saga_type": b.saga_type, "most": b.most} for b in clients],
        "forgotten_readmodels": [*asked.forgets_readmodels],
    }


def _as_data(change: Change) -> dict[str, Any]:
    return {
        "kind": change.kind,
        "stream": change.stream,
        "name": change.consumer or change.stream,
        "action": DONE[change.action],
        "settings": {each.setting: {"from": each.was, "to": each.becomes} for each in change.settings},
        "reductions": change.reductions,
    }


def lines_of(found: Preview, *, is_whole: bool = True) -> list[str]:
    """What a set-up makes of the server, for a person.

    Args:
        found: what it makes of it.
        is_whole: whether what stays as it is has its names; else there is a count of it.
    """
    of = {action: [each for each in found.changes if each.action == action] for action in DONE}
    lines = [f"to be created: {_names(of['create'])}"] if of["create"] else []
    lines += [f"to be changed: {each.what}: {_arrows(each)}" for each in of["change"]]
    lines += [f"to be deleted: {_names(of['delete'])}"] if of["delete"] else []
    return [*lines, f"unchanged: {_names(of['keep']) if is_whole else len(of['keep'])}"] if of["keep"] else lines


def _arrows(change: Change) -> str:
    shown = [each for each in change.settings if each.setting != ASKED_REPLICAS] or change.settings
    return "; ".join(f"{each.setting} {each.was_in_words} → {each.becomes_in_words}" for each in shown)


def _names(changes: Sequence[Change]) -> str:
    """Streams and consumers by their names, the consumers of one stream together."""
    streams = [each.stream for each in changes if not each.consumer]
    consumers = defaultdict[str, list[str]](list)
    for each in changes:
        if each.consumer:
            consumers[each.stream].append(each.consumer)
    said = [f"streams {', '.join(streams)}"] if streams else []
    said += [f"consumers of {stream}: {', '.join(names)}" for stream, names in consumers.items()]
    return "; ".join(said)


async def _settings(link: Link) -> dict[str, Config]:
    """How streams and consumers are set up, by what they are called."""
    streams = {f"stream {name}": config for name, config in (await stream_configs(link)).items()}
    consumers = await consumer_configs(link) if streams else {}
    return streams | {f"consumer {name} of stream {stream}": each for (stream, name), each in consumers.items()}


def _changed(before: dict[str, Config], after: dict[str, Config]) -> list[str]:
    """What an administrator should know of what was changed: nothing where there was no platform before."""
    if not before:
        return []
    lines = [f"{what} was not there; it was created." for what in after if what not in before]
    lines += [f"{what} was deleted." for what in before if what not in after]
    for what in after.keys() & before.keys():
        if differing := changes(before[what], after[what]):
            lines.append(f"{what}: {'; '.join(differing)}.")
    return sorted(lines)
