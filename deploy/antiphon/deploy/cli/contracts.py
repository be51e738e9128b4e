"""What the commands about contracts write and print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from antiphon.contracts.compat.compatibility import compare_contracts
from antiphon.contracts.compat.schema import Contracts, schema_of
from antiphon.contracts.counting import counted
from antiphon.contracts.foreign_text import harmless_json
from antiphon.contracts.messages import Message
from antiphon.flow.asyncapi import NotExported, contracts_in, export, messages_of

from ..render.terminal import say, say_encoded, say_json
from .flows import load_parts
from .payloads import as_utf8

DOCUMENT: Final = "asyncapi.json"
SCHEMAS: Final = "schemas"


def export_contracts(apps: Sequence[str], folder: Path | None, title: str, version: str) -> None:
    """Print the document, or write it and the schemas of all messages into a folder."""
    parts = load_parts(apps)
    document = _encoded(export(parts, title, version))
    if folder is None:
        say_encoded(document.removesuffix(b"\n"))
        return
    schemas, messages = folder / SCHEMAS, messages_of(parts)
    try:
        _write(folder / DOCUMENT, document, schemas, messages)
    except OSError as error:
        raise NotExported(f"cannot write to {error.filename}: {error.strerror}.") from None
    say(f"wrote {folder / DOCUMENT} and {len(messages)} schemas in {schemas}.")


def _write(path: Path, document: bytes, schemas: Path, messages: Mapping[str, type[Message]]) -> None:
    """Write all of it, and delete what an earlier export wrote of messages that are gone.

    Raises:
        OSError: a file cannot be written.
    """
    schemas.mkdir(parents=True, exist_ok=True)
    earlier = _exported(path)
    path.write_bytes(document)
    for type_, message in messages.items():
        (schemas / f"{type_}.json").write_bytes(_encoded(schema_of(message)))
    for file in schemas.glob("*.json"):  # and no other file, whatever an earlier document names
        if file.stem in earlier and file.stem not in messages:
            file.unlink()


def check_contracts(apps: Sequence[str], against: Path, as_json: bool) -> int:
    """Print what breaks; the exit code."""
    old = _read(against / DOCUMENT if against.is_dir() else against)
    new = contracts_in(export(load_parts(apps), "", ""))
    changes = compare_contracts(old, new)
    if as_json:
        say_json(changes)
    elif changes:
        say(*(change.sentence for change in changes))
    else:
        added = len({*new.messages} - {*old.messages})
        say(f"nothing breaks: {counted(len(old.messages), 'message')} compared, {added} added.")
    return 1 if changes else 0


def _exported(document: Path) -> set[str]:
    """The messages of the export that is there already. Only its files may go; others are somebody's own."""
    try:
        return {*_read(document).messages}
    except NotExported:
        return set()


def _read(path: Path) -> Contracts:
    try:
        document: Any = msgspec.json.decode(as_utf8(path.read_bytes(), str(path)))
    except OSError as error:
        remedy = f"Write it with: antiphon contracts export --output {_folder_of(path)}"
        raise NotExported(f"cannot read {path}: {error.strerror}. {remedy}") from None
    except msgspec.DecodeError as error:
        raise NotExported(f"{path} is no JSON: {error}.") from None
    return contracts_in(document)


def _folder_of(path: Path) -> Path:
    return path.parent if path.suffix == ".json" else path


def _encoded(document: Any) -> bytes:
    return harmless_json(msgspec.json.format(msgspec.json.encode(document), indent=2)) + b"\n"
