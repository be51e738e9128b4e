"""What an administrator does for accounts; and sizes as a person writes them."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from antiphon.contracts.counting import counted
from antiphon.contracts.identity import check_token
from antiphon.contracts.topology import Bound
from antiphon.participants.participant import Participant

from ..admin.operator_mode import KEYS, signed, write_signed
from ..admin.rights import ANY, Grant, Rights, write_secrets
from ..modules import CannotLoad, WrongValue
from ..render.plain import warn
from ..render.terminal import say_document
from .flows import load_parts
from .values import value_of

NKEY: Final = re.compile("U[A-Z2-7]{55}")
"""A public key of a user as nkeys write it, in base32."""

BYTES_MIN: Final = 1_000_000
"""Less than this is a unit that was forgotten."""


def bytes_in(text: str) -> int:
    """A size such as 500MB, 20GB or 8GiB, in bytes.

    Raises:
        CannotLoad: it is none.
    """
    found = re.fullmatch(r"([0-9]{1,15})(?:([KMGT])(i?)B)?", text)
    size = int(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2] or " ") if found else 0
    if not 0 < size < 2**62:
        raise CannotLoad(f"{text!r} is no size; give one such as 500MB, 20GB or 8GiB.")
    if size < BYTES_MIN:
        raise CannotLoad(f"{text!r} is {size} bytes, in which no platform can work; give a size such as 500MB or 20GB.")
    return size


def print_rights(
    apps: Sequence[str],
    participants: Sequence[str],
    clients: Sequence[str],
    former_clients: Sequence[str],
    operators: Sequence[str],
    nkeys: Sequence[str],
    folder: Path | None,
    jwt: Path | None,
    bounds: Sequence[str] = (),
    pairs: int = 1,
) -> None:
    """Print the accounts, and write new passwords or creds files where the administrator wants them."""
    if jwt is not None and (nkeys or folder is not None):
        raise WrongValue("with --jwt users have creds files: leave out --nkey and --secrets.")
    starts = {part.name: part.starts for part in (load_parts(apps) if apps else []) if isinstance(part, Participant)}
    if apps and not starts:
        raise CannotLoad(f"there is no participant in {', '.join(apps)}; name the modules that have them.")
    with value_of("--participant"):
        for name, types in started(participants).items():
            starts[name] = tuple(dict.fromkeys((*starts.get(name, ()), *types)))
    if not starts:
        raise WrongValue("name the participants, with --participant NAME or --app MODULE.")
    with value_of("--client"):
        grants = granted(clients)
    with value_of("--nkey"):
        keys = dict(map(_nkey, nkeys))
    with value_of("--bound"):
        bounded = bounded_types(bounds)
    with value_of():
        rights = Rights(
            tuple(starts), grants, operators, keys, starts, former_clients=former_clients, bounds=bounded, pairs=pairs
        )
    config = _signed(rights, jwt) if jwt is not None else rights.config()
    if folder is not None:
        with _told_if_no_place(folder):
            files = write_secrets(folder, rights.new_passwords(), pairs)
        warn(f"wrote {counted(len(files), 'file')} to {folder}/, readable by you only.")
    for text in (each for each in bounds if ":" in each):
        warn(
            f"--bound {text}: accounts say of which sagas of a client the open ones are counted, and no number; that "
            f"is for antiphon setup --bound {text}."
        )
    if not clients and not former_clients:
        warn("no client has an account: whoever starts sagas needs one, --client NAME=TYPE.")
    for name in former_clients:
        warn(
            f"{name} may start, cancel and signal every saga, and read what others have started, as clients of an "
            "earlier release need it; name it with --client once it runs this one."
        )
    say_document(config)


def _signed(rights: Rights, folder: Path) -> str:
    with _told_if_no_place(folder):
        made = signed(rights, folder)
        files = write_signed(folder, made)
    warn(
        f"wrote {counted(len(files), 'file')} to {folder}/, readable by you only. Whoever has {folder / KEYS}/ can "
        "make users: keep it where you keep secrets, and give it to no server."
    )
    return made.config


@contextmanager
def _told_if_no_place(folder: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise CannotLoad(f"cannot write secrets to {folder}: {error.strerror}.") from None


def granted(clients: Iterable[str]) -> dict[str, list[Grant]]:
    """What clients may do, of `NAME=TYPE` or `NAME=TYPE:VERB,VERB`, each of which may come several times.

    Raises:
        BadIdentity: a name or a type cannot be a token.
        DefinitionError: there is no such verb.
        CannotLoad: a text is none of both, or it means every type or signal.
    """
    found: dict[str, list[Grant]] = {}
    for text in clients:
        name, equals, grant = text.partition("=")
        saga_type, colon, verbs = grant.partition(":")
        if not (name and equals and saga_type) or (colon and not verbs):
            raise CannotLoad(f"{text!r} is not NAME=TYPE or NAME=TYPE:VERB,VERB, as in web=order:start,read.")
        if ANY in grant:
            raise CannotLoad(f"{text!r} means more than one type or signal: name each that {name} needs.")
        found.setdefault(name, []).append(Grant(saga_type, tuple(verbs.split(","))) if verbs else Grant(saga_type))
    return found


def started(participants: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The types of the sagas that participants' programs start, of `NAME` or `NAME=TYPE,TYPE`.

    Raises:
        CannotLoad: a text means every type.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in participants:
        name, _, types = text.partition("=")
        if ANY in types:
            raise CannotLoad(f"{text!r} means every saga type: name each that the program of {name} starts.")
        found[name] = tuple(dict.fromkeys((*found.get(name, ()), *filter(None, types.split(",")))))
    return found


def bounded_types(texts: Iterable[str]) -> dict[str, list[str]]:
    """The saga types of which clients have a bound, of `NAME=TYPE` or `NAME=TYPE:NUMBER`; the number is for `setup`.

    Raises:
        BadIdentity: a name or a type cannot be a token.
        DefinitionError: there can be no such number.
        CannotLoad: a text is none of both.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        if ":" in text:
            bound_of(text)
        name, equals, saga_type = text.partition(":")[0].partition("=")
        if not (name and equals and saga_type):
            raise CannotLoad(f"{text!r} is not NAME=TYPE, as in shop=order.")
        if saga_type not in (types := found.setdefault(name, [])):
            types.append(saga_type)
    return found


def bounds_of(texts: Iterable[str]) -> tuple[Bound, ...]:
    """The bounds of clients, each of `NAME=TYPE:NUMBER`.

    Raises:
        BadIdentity: a name or a type cannot be a token.
        DefinitionError: there can be no such bound.
        CannotLoad: a text is none, or a client is given two bounds of one type.
    """
    found: dict[tuple[str, str], Bound] = {}
    for bound in map(bound_of, texts):
        if found.setdefault((bound.client, bound.saga_type), bound) is not bound:
            raise CannotLoad(f"client {bound.client} is given two bounds of {bound.saga_type} sagas: name one.")
    return tuple(found.values())


def forgotten_bounds(texts: Iterable[str], kept: Iterable[Bound]) -> list[tuple[str, str]]:
    """The clients and saga types whose bounds are to be forgotten, each of `NAME=TYPE`.

    Args:
        texts: as a person wrote them.
        kept: the bounds that are to be set.

    Raises:
        BadIdentity: a name or a type cannot be a token.
        CannotLoad: a text is no such thing, or a bound is to be set and forgotten.
    """
    wanted = {(each.client, each.saga_type) for each in kept}
    found = list[tuple[str, str]]()
    for text in texts:
        client, equals, saga_type = text.partition("=")
        if not (client and equals and saga_type) or ":" in text:
            raise CannotLoad(f"{text!r} is not NAME=TYPE, as in shop=order.")
        named = check_token(client, "client"), check_token(saga_type, "saga type")
        if named in wanted:
            raise CannotLoad(f"a bound of {text} is to be set and to be forgotten: name one of both.")
        found.append(named)
    return found


def bound_of(text: str) -> Bound:
    """A client's bound, of `NAME=TYPE:NUMBER`.

    Raises:
        BadIdentity: the name or the type cannot be a token.
        DefinitionError: there can be no such bound.
        CannotLoad: the text is none.
    """
    found = re.fullmatch(r"([^=:]+)=([^=:]+):([0-9]{1,9})", text)
    if not found:
        raise CannotLoad(f"{text!r} is not NAME=TYPE:NUMBER, as in shop=order:1000.")
    return Bound(found[1], found[2], int(found[3]))


def _nkey(text: str) -> tuple[str, str]:
    user, equals, key = text.partition("=")
    if not (equals and NKEY.fullmatch(key)):
        raise CannotLoad(f"{text!r} is not user=KEY with a public user nkey: U and 55 more letters and digits.")
    return user, key
