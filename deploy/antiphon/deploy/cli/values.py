"""Values of options, read: what is wrong is wrong usage, and the sentence names the option."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from antiphon.contracts.errors import AntiphonError

from ..modules import WrongValue


@contextmanager
def value_of(option: str = "") -> Generator[None]:
    """Read the value of an option in this block, before anything is begun.

    Args:
        option: as it is written, such as `--bound`; empty where the sentence names what it is about by itself.

    Raises:
        WrongValue: the value cannot be used; the sentence begins with the option.
    """
    try:
        yield
    except AntiphonError as error:
        raise WrongValue(f"{option}: {error}" if option else str(error)) from None
