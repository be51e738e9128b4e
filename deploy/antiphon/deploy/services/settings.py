"""Settings of a process: declared once, given as options, by environment variables, or in one TOML file.

What is given in several places holds by that order. All mistakes are told at once, because who deploys a process sees
each of its starts late.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Final, cast

import msgspec

from antiphon.contracts.errors import PlatformError
from antiphon.link.addresses import without_password

YES: Final = frozenset({"1", "true", "yes", "on"})
NO: Final = frozenset({"0", "false", "no", "off"})
FILE_SUFFIX: Final = "_FILE"
"""What the variable of a secret has behind its name where it names a file that holds the secret, as images of databases
have it; Kubernetes and Docker mount secrets as files."""
HIDDEN: Final = "…"

DEFAULT: Final = "default"
OPTION: Final = "option"


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting of a process."""

    name: str
    """As an option without its dashes in front: `handler-seconds`. In a file with `_` for `-`."""
    variable: str
    """The environment variable."""
    help: str
    kind: type = str
    """`str`, `bool`, `int`, `float`, or `list` of texts."""
    default: Any = ""
    """What holds when nobody says anything; None where somebody must."""
    metavar: str = ""
    least: float = -math.inf
    most: float = math.inf
    choices: tuple[str, ...] = ()
    is_secret: bool = False
    """Its value is shown to nobody, and may be in a file."""
    is_argument: bool = False
    """On the command line it stands without a name."""
    has_option: bool = True
    short: str = ""
    check: Callable[[Any], object] | None = None
    """Raises an AntiphonError, or ValueError, whose text is the sentence, for a value that is of the kind and wrong."""

    @property
    def key(self) -> str:
        """Its name in a file and in a program."""
        return self.name.replace("-", "_")


class Value(msgspec.Struct, frozen=True):
    """What holds for a setting, and where it comes from: `option`, a variable, a file with a key, or `default`."""

    setting: Setting
    value: Any
    origin: str

    @property
    def shown(self) -> Any:
        """The value as people may see it."""
        if self.setting.is_secret and self.value:
            return HIDDEN
        return without_password(self.value) if isinstance(self.value, str) else self.value


class Mistaken(PlatformError):
    """Settings cannot hold. The sentence names all of them, a line each."""


class Values(msgspec.Struct, frozen=True):
    """The settings of one process, as they hold."""

    by_key: dict[str, Value]

    def __getitem__(self, key: str) -> Any:
        return self.by_key[key].value

    def __iter__(self) -> Any:
        return iter(self.by_key.values())


def resolve(
    settings: Iterable[Setting],
    options: Mapping[str, Any],
    environment: Mapping[str, str],
    file: Mapping[str, tuple[Any, str]],
    *,
    is_complete: bool = True,
    mistakes: Iterable[str] = (),
) -> Values:
    """The value of each setting.

    Args:
        settings: what there is.
        options: what the command line gave, by keys; texts, lists of texts, or for flags booleans.
        environment: variables.
        file: what a file gave, by keys, each with where it stands.
        is_complete: whether it is a mistake that somebody must give a setting and nobody has.
        mistakes: those that were found in the file before.

    Raises:
        Mistaken: at least one cannot hold.
    """
    found, mistakes = dict[str, Value](), [*mistakes]
    for setting in settings:
        try:
            given, origin = _given(setting, options, environment, file)
        except OSError as error:
            mistakes.append(f"{setting.variable}{FILE_SUFFIX}: the file cannot be read ({error})")
            continue
        where = _where(setting, origin)
        if origin == DEFAULT and given is None and is_complete:
            mistakes.append(f"{setting.variable} is missing: {_told(setting)}")
            continue
        try:
            value = given if origin == DEFAULT else _converted(setting, given)
            if setting.check is not None and value:
                setting.check(value)
        except (ValueError, PlatformError) as error:
            mistakes.append(f"{where}: {error}")
            continue
        found[setting.key] = Value(setting, value, origin)
    if mistakes:
        raise Mistaken(_all_of(mistakes))
    return Values(found)


def read_file(
    path: str, tables: Iterable[str], table: str, settings: Iterable[Setting]
) -> tuple[dict[str, tuple[Any, str]], list[str]]:
    """What a TOML file gives one process: the keys at its top, for all, and those in the process's own table.

    Args:
        path: the file.
        tables: the names of all tables that there may be.
        table: that of the process.
        settings: of all processes, so that a key of another one's is no mistake at the top.

    Returns:
        By keys the value, and where it stands; and a sentence for each key that is nobody's.

    Raises:
        Mistaken: it cannot be read.
    """
    try:
        with open(path, "rb") as opened:
            content = tomllib.load(opened)
    except OSError as error:
        raise Mistaken(f"the settings file {path} cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Mistaken(f"the settings file {path} is no TOML ({error})") from None
    known = {setting.key for setting in settings}
    found, mistakes, tables = dict[str, tuple[Any, str]](), list[str](), {*tables}

    def take(key: str, value: Any, place: str, allowed: set[str], *, counts: bool) -> None:
        name = key.replace("-", "_")
        if name not in allowed:
            near = get_close_matches(name, allowed, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(allowed))}"
            mistakes.append(f"{path}: {place}{key} is no setting; {hint}")
        elif counts:
            found[name] = value, f"{path}, {place}{name}"

    for key, value in content.items():
        if not isinstance(value, dict):
            take(key, value, "", known | tables, counts=True)
    for key, value in content.items():
        if isinstance(value, dict):
            if key not in tables:
                mistakes.append(f"{path}: [{key}] is no table; there are {', '.join(sorted(tables))}")
                continue
            for inner, each in cast("dict[str, Any]", value).items():
                take(inner, each, f"{key}.", known, counts=key == table)
    return found, mistakes


def _all_of(mistakes: list[str]) -> str:
    return mistakes[0] if len(mistakes) == 1 else "\n".join(["these settings cannot hold:", *mistakes])


def _given(
    setting: Setting,
    options: Mapping[str, Any],
    environment: Mapping[str, str],
    file: Mapping[str, tuple[Any, str]],
) -> tuple[Any, str]:
    option = options.get(setting.key)
    if option is not None and option != []:
        return option, OPTION
    if setting.is_secret and (path := environment.get(setting.variable + FILE_SUFFIX)):
        with open(path, encoding="utf-8", errors="replace") as opened:
            return opened.read().rstrip("\r\n"), setting.variable + FILE_SUFFIX
    if text := environment.get(setting.variable):
        return text, setting.variable
    return file.get(setting.key, (setting.default, DEFAULT))


def _where(setting: Setting, origin: str) -> str:
    return (setting.metavar if setting.is_argument else f"--{setting.name}") if origin == OPTION else origin


def _told(setting: Setting) -> str:
    """How to give it."""
    option = f"{setting.metavar} on the command line, or " if setting.is_argument else f"--{setting.name}, or "
    return f"give {option if setting.has_option else ''}the variable. {setting.help}"


def _converted(setting: Setting, given: Any) -> Any:
    """What was given, as its kind.

    Raises:
        ValueError: it is of another kind, or too small or large; the text says what to give.
    """
    kind = setting.kind
    if kind is list:
        texts = [part.strip() for part in given.split(",")] if isinstance(given, str) else given
        try:
            return msgspec.convert(texts, list[Annotated[str, msgspec.Meta(min_length=1)]])
        except msgspec.ValidationError:
            raise ValueError(f"give texts, {_example(setting)}") from None
    if kind is bool:
        if isinstance(given, str) and given.lower() in YES | NO:
            return given.lower() in YES
        if not isinstance(given, bool):
            raise ValueError(f"{_quoted(setting, given)} is neither true nor false")
        return given
    if kind is str:
        if not isinstance(given, str):
            raise ValueError(f"give a text, not {_quoted(setting, given)}")
        if not setting.choices or not given:
            return given
        if given.lower() not in setting.choices:
            raise ValueError(f"{_quoted(setting, given)} is none of {', '.join(setting.choices)}")
        return given.lower()
    return _number(setting, given)


def _number(setting: Setting, given: Any) -> Any:
    kind = setting.kind
    try:
        value = math.nan if isinstance(given, bool) else kind(given)
    except (TypeError, ValueError):
        value = math.nan
    is_cut = kind is int and isinstance(given, float) and given != value
    if is_cut or not setting.least <= value <= setting.most or not math.isfinite(value):
        what = "a whole number" if kind is int else "a number"
        bounds = f" from {setting.least:g}" if setting.least > -math.inf else ""
        bounds += f" to {setting.most:g}" if setting.most < math.inf else ""
        raise ValueError(f"{_quoted(setting, given)} is not {what}{bounds}")
    return value


def _quoted(setting: Setting, given: Any) -> str:
    return "what is given" if setting.is_secret else repr(given)


def _example(setting: Setting) -> str:
    return f"such as {setting.metavar}, with commas between them" if setting.metavar else "with commas between them"
