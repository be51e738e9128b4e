"""An author whose functions are asked more than once, with sets in another order: what differs then is no function of
the saga's state, and would have been decided by chance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from ..decision.author import Author, AuthorFault
from ..decision.history import History
from ..definition.steps import Known, State, changed_state


class TwiceAuthor(Author):
    """Asks the author's functions as always, and again, and faults those that answer otherwise.

    Args:
        tell: is told the sentence as well.
    """

    def __init__(self, tell: Callable[[str], None] = lambda _: None) -> None:
        super().__init__(error_texts=True)
        self._tell = tell

    def call(self, name: str, function: Callable[..., Any], *given: object) -> Any:
        """Call a function again with the same, and with sets in another order."""
        made = function(*given)
        if _answer(function, [reversed_sets(each) for each in given]) != made:
            self._accuse(name, made)
        for step in (1, -1):  # one of both is another order than that of the true hashes
            strings = _Strings(step)
            again = _answer(function, [_mapped(each, strings.hashed_by_age) for each in given])
            # A string that is looked up in a table of the author's is not found by its other hash: only what is the
            # same but for its order tells of a set.
            if again != made and _sorted(again) == _sorted(made):
                self._accuse(name, made)
        return made

    def _accuse(self, name: str, made: object) -> None:
        what = "another list" if isinstance(made, list) else "something else"
        sentence = (
            f"{name} gives {what} each time it is called. Make it of the state alone: sort what comes out of a set, "
            "which has no order, and take times and random numbers from the event that the saga starts with."
        )
        self._tell(sentence)
        raise AuthorFault(sentence)


class _Nothing:
    """What is equal to nothing."""


def _answer(function: Callable[..., Any], given: list[Any]) -> Any:
    try:
        return function(*given)
    except BaseException:
        return _Nothing()


# --- sets in another order --------------------------------------------------------------------------------------------


class _ReversedSet(set[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from reversed(list(super().__iter__()))


class _ReversedFrozenset(frozenset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from reversed(list(super().__iter__()))


def reversed_sets(value: Any) -> Any:
    """The same value, whose sets are run through backwards."""
    return _mapped(value, lambda each: each)


class _Strings:
    """Strings that are equal to those they come from, and whose hashes put them into a set by their age."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._known: dict[str, _String] = {}

    def hashed_by_age(self, text: str) -> str:
        found = self._known.get(text)
        if found is None:
            found = self._known[text] = _String(text)
            found.number = 1000 + self._step * len(self._known)
        return found


class _String(str):
    __slots__ = ("number",)

    number: int

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) is True

    def __hash__(self) -> int:
        return self.number


def _mapped(value: Any, text: Callable[[str], str]) -> Any:
    """A state, message or part of one, with other strings, and with its sets in another order."""
    kind = value.__class__
    if kind is State:
        return _state(value, text)
    if kind is str:
        return text(value)
    if isinstance(value, msgspec.Struct):
        return replace(value, **{name: _mapped(getattr(value, name), text) for name in value.__struct_fields__})
    if kind is dict:
        return {name: _mapped(each, text) for name, each in value.items()}
    collection = _COLLECTIONS.get(kind)
    return value if collection is None else collection([_mapped(each, text) for each in value])


_COLLECTIONS: dict[object, Callable[[list[Any]], Any]] = {
    set: _ReversedSet,
    frozenset: _ReversedFrozenset,
    list: list,
    tuple: tuple,
}


def _state(state: State[Any], text: Callable[[str], str]) -> State[Any]:
    def change(known: Known) -> Known:
        history = cast(History, known)
        steps = {name: replace(step, reply=_mapped(step.reply, text)) for name, step in history.steps.items()}
        return replace(history, start=_mapped(history.start, text), steps=steps)

    return changed_state(state, change)


def _sorted(value: Any) -> Any:
    """A value in which the order of lists means nothing."""
    kind = value.__class__
    if isinstance(value, msgspec.Struct):
        return (value.__class__.__name__, [_sorted(getattr(value, name)) for name in value.__struct_fields__])
    if kind in (list, tuple, set, frozenset, _ReversedSet, _ReversedFrozenset):
        return sorted((_sorted(each) for each in value), key=repr)
    return value
