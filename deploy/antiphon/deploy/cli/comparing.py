"""`antiphon compare`: what participants did that restored streams cannot know."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from antiphon.contracts.counting import counted
from antiphon.coordinator.definition.capabilities import capabilities_of, participants_of

from ..admin.comparison import Comparing, Comparison
from ..modules import WrongValue, load_sagas
from ..render.plain import warn
from ..render.terminal import say, say_json
from .operating import who_asks
from .sagas import reader


async def compare_inboxes(
    server: str, apps: Sequence[str], databases: Mapping[str, str], user: str, pauses: bool, as_json: bool
) -> bool:
    """Print what was found; whether nothing is left to be done by hand."""
    definitions = [saga.definition for each in apps for saga in load_sagas(each)]
    if not definitions:
        raise WrongValue("it is not said which sagas are compared: --app PACKAGE for each.")
    tell_left_out(participants_of(capabilities_of(definitions).sagas), databases)
    async with reader(server) as link:
        comparing = Comparing(link, definitions)
        found = await comparing.compare(databases)
        if pauses:
            named = [await comparing.pause(each, user or who_asks()) for each in found.overtaken]
            found = Comparison(found.open, named, found.unknown, found.unread)
    if as_json:
        say_json(found)
    else:
        _tell(found)
    return found.is_settled


def tell_left_out(participants: Collection[str], databases: Collection[str]) -> None:
    """Say whose databases are not looked at, and which belong to nobody who takes part in these sagas."""
    for name in sorted({*participants} - {*databases}):
        warn(
            f"antiphon: what {name} did is not compared, so a saga that it alone has carried on is not named. Give its "
            f"database, too: --database {name}=URL."
        )
    for name in sorted({*databases} - {*participants}):
        warn(f"antiphon: no participant {name} takes part in these sagas; known are {', '.join(sorted(participants))}.")


def _tell(found: Comparison) -> None:
    for each in found.overtaken:
        say(f"{each.saga}{' (paused)' if each.is_paused else ''}: {each.why}")
    for saga, steps in sorted(found.unknown.items()):
        say(f"{saga}: the streams know nothing of it; {', '.join(steps)}")
    for saga, why in sorted(found.unread.items()):
        warn(f"antiphon: {saga} could not be compared: {why}")
    say(
        f"{counted(found.open, 'saga is open', 'sagas are open')}; of {len(found.overtaken)} the participants know "
        f"more than the journal, and of {len(found.unknown)} only the participants know."
    )
    if any(not each.is_paused for each in found.overtaken):
        say("Before coordinators run, have them paused: the same command with --pause.")
