"""Texts that do harm where they are shown as they are, in every field of a shape; and what harm is."""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import msgspec.inspect as mi

FORGED: Final = "FORGED"
"""What would begin a line of its own if a line separator went through."""

HOSTILE: Final = "".join(
    (
        "HOSTILE\x1b]0;title\x07\x1b[2J\x9b31m\x90q\x9c",  # title, screen, colour, by C0 and by C1
        f"\r\n{FORGED}\u2028{FORGED}\u2029{FORGED}\x85{FORGED}\x0b{FORGED}\x0c{FORGED}\x1c{FORGED}\r{FORGED}\t\x00\x08\x7f",
        "\u202e\u2066\u2069\u200f\u061c",  # right to left
        "\u200b\u200d\u2060\ufeff\u00ad\u3164\u2800\ufe0f\U000e0041",  # nothing to be seen
        "e" + "\u0301" * 40,  # marks that run over other lines
        "[bold][/][link=http://evil.example/]x[/link]:warning:",  # markup
        "\"'`\\<script>alert(1)</script>&amp;&#27;#quot;;|}%%{init: {}}%%-->\\N\\l]]>",  # Mermaid, DOT, SVG, HTML
    )
)
HALF: Final = "\ud800"
"""Half a character: no JSON that is decoded here has one, and a text in memory may."""
TOKEN: Final = re.sub(r"[^\x01-\x7e]|[\s.*>]", "", HOSTILE)[:60]
"""What of it may stand in a subject."""

UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def harm_in(text: str) -> list[str]:
    """What stands in a text that a terminal or a browser would obey, or that nobody would see, but for line feeds."""
    found = [
        each
        for each in text
        if each != "\n" and unicodedata.category(each) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    ]
    found += UNSEEN.findall(text)
    found += re.findall("[\u0300-\u036f]{8,}", text)
    return found


def assert_harmless(text: str) -> None:
    """Nothing harmful is in a text, and what was hostile is there to be seen."""
    assert harm_in(text) == []
    assert f"\n{FORGED}" not in text
    if "HOSTILE" in text and FORGED in text and "…" not in text:
        assert re.search(r"(\\+|#92;)(x1b|u001b)|1b 5d 30", text)


# --- every field of a shape -------------------------------------------------------------------------------------------


def infected(shape: Any, text: str = HOSTILE) -> Iterator[tuple[str, Any]]:
    """Values of a shape as JSON has them, in each of which one place holds the text, with the name of that place."""
    return _infected(mi.type_info(shape), text, ())


def whole(shape: Any, text: str = HOSTILE) -> Any:
    """A value of a shape as JSON has it, all of whose free texts are this one."""
    return _plain(mi.type_info(shape), (), text)


def structs_in(*modules: Any) -> list[type[msgspec.Struct]]:
    """All structs that modules define, in the order of their names."""
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__ == module.__name__
    }
    return sorted((each for each in found if not each.__name__.startswith("_")), key=lambda each: each.__name__)


def _infected(node: mi.Type, text: str, above: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    match node:
        case mi.StructType() if node.cls not in above:
            plain = _plain(node, above)
            for field in node.fields:
                for place, value in _infected(field.type, text, (*above, node.cls)):
                    yield f"{field.encode_name}.{place}".rstrip("."), {**plain, field.encode_name: value}
        case mi.VarTupleType() | mi.ListType() | mi.SetType():
            for place, value in _infected(node.item_type, text, above):
                yield place, [value]
        case mi.DictType():
            yield "key", {text: _plain(node.value_type, above)}
            for place, value in _infected(node.value_type, text, above):
                yield place, {"k": value}
        case mi.UnionType():
            for each in node.types:
                if not isinstance(each, mi.NoneType):
                    yield from _infected(each, text, above)
        case mi.Metadata():
            yield from _infected(node.type, text, above)
        case mi.BytesType():
            yield "", base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()
        case mi.RawType() | mi.AnyType():
            yield "", {"reason": text, text: 1}
        case _:
            yield "", text


def _plain(node: mi.Type, above: tuple[Any, ...], text: str = "a") -> Any:
    match node:
        case mi.StructType():
            if node.cls in above:
                return {}
            wanted = {each.encode_name: _plain(each.type, (*above, node.cls), text) for each in node.fields}
            tag = {node.tag_field: node.tag} if node.tag_field else {}
            return {**tag, **wanted}
        case mi.VarTupleType() | mi.ListType() | mi.SetType():
            return [_plain(node.item_type, above, text)]
        case mi.DictType():
            return {"k": _plain(node.value_type, above, text)}
        case mi.UnionType():
            return _plain(next(each for each in node.types if not isinstance(each, mi.NoneType)), above, text)
        case mi.Metadata():
            return _plain(node.type, above, text)
        case mi.LiteralType():
            return node.values[0]
        case mi.DateTimeType():
            return "2026-11-27T09:00:00Z"
        case mi.BytesType():
            return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()
        case mi.IntType() | mi.FloatType():
            return max(1, node.ge or 1)
        case mi.BoolType():
            return True
        case mi.RawType() | mi.AnyType():
            return {"reason": text}
        case mi.StrType():
            return next((each for each in (text, "a", "a.v1", "") if re.search(node.pattern or "", each)), "")
        case _:
            return None
