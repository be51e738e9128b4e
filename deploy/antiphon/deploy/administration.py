"""What an administrator does: create streams and consumers, and make accounts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import typer

from antiphon.contracts.topology import REGISTRATIONS, STREAMS, Listener
from antiphon.contracts.wire import check_token
from antiphon.link import Link, set_up
from antiphon.participants.participant import Participant

from .flows import load_parts
from .modules import CannotLoad
from .rights import Rights, write_secrets


async def set_up_platform(
    server: str, apps: Sequence[str], participants: Sequence[str], replicas: int, as_json: bool
) -> None:
    """Create or update streams and consumers, and say which."""
    for name in participants:
        check_token(name, "participant")
    found = [part.listener for part in (load_parts(apps) if apps else []) if isinstance(part, Participant)]
    if apps and not found:
        raise CannotLoad(f"there is no participant in {', '.join(apps)}; name the modules that have them.")
    declared = {each.name: each for each in found}
    wanted: list[str | Listener] = [*found, *(name for name in participants if name not in declared)]
    link = await Link.connect(server, name="administrator")
    try:
        await set_up(link, wanted, replicas)
    finally:
        await link.close()
    names = [each if isinstance(each, str) else each.name for each in wanted]
    streams = [stream.name for stream in (*STREAMS, REGISTRATIONS)]
    if as_json:
        done = {"streams": streams, "participants": names, "replicas": replicas}
        typer.echo(msgspec.json.encode(done))
    else:
        whom = f"the consumers of {', '.join(names)}" if names else "no consumers of participants"
        typer.echo(f"streams {', '.join(streams)} are there, with {replicas} replica(s), and {whom}.")


def print_rights(
    participants: Sequence[str],
    clients: Sequence[str],
    operators: Sequence[str],
    nkeys: Sequence[str],
    folder: Path | None,
) -> None:
    """Print the accounts, and write new passwords where the administrator wants them."""
    rights = Rights(participants, clients, operators, dict(map(_nkey, nkeys)))
    if folder is not None:
        files = write_secrets(folder, rights.new_passwords())
        sys.stderr.write(f"wrote {len(files)} files to {folder}/, readable by you only.\n")
    typer.echo(rights.config(), nl=False)


def _nkey(text: str) -> tuple[str, str]:
    user, equals, key = text.partition("=")
    if not (equals and key.startswith("U") and key.isalnum()):
        raise CannotLoad(f"{text!r} is not user=KEY with a public user nkey, which begins with U.")
    return user, key
