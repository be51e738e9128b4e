"""JSON that a person gives: in whatever encoding an editor writes, and with no field that nothing would read."""

from __future__ import annotations

import codecs
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from antiphon.contracts import Event
from antiphon.deploy.cli.payloads import as_utf8, read_event, read_payload
from antiphon.deploy.modules import CannotLoad

JSON = '{"by": "Zoë", "note": "日本"}'


class Line(msgspec.Struct, kw_only=True):
    item: str
    quantity: int = 1


class Card(msgspec.Struct, tag="card", kw_only=True):
    number: str
    holder: str = ""


class Invoice(msgspec.Struct, tag="invoice", kw_only=True):
    address: str


class Bought(Event, name="shop.bought"):
    by: str
    note: str = ""
    lines: tuple[Line, ...] = ()
    gifts: dict[str, Line] = msgspec.field(default_factory=dict)
    pays: Card | Invoice | None = None
    renamed: str = msgspec.field(name="reNamed", default="")


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_a_payload_is_read_in_every_encoding_that_an_editor_writes(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "payload.json").write_bytes(JSON.encode(encoding))
    assert read_event(f"@{tmp_path / 'payload.json'}", Bought) == Bought(by="Zoë", note="日本")


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE])
def test_a_mark_says_the_order_of_bytes(mark: bytes) -> None:
    encoding = "utf-16-be" if len(mark) == 2 else "utf-32-be"
    assert as_utf8(mark + JSON.encode(encoding), "x") == JSON.encode()


def test_one_from_stdin_is_read_alike() -> None:
    program = "from antiphon.deploy.cli.payloads import read_payload; print(read_payload('@-'))"
    ran = subprocess.run(
        [sys.executable, "-c", program], input='{"a":1}'.encode("utf-16"), capture_output=True, check=True
    )
    assert ran.stdout.strip() == b"b'{\"a\":1}'"


@pytest.mark.parametrize("data", [b"", b"\n", b"\xef\xbb\xbf", b"  \r\n"])
def test_an_empty_file_is_a_sentence(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "payload.json").write_bytes(data)
    with pytest.raises(CannotLoad, match=r"^there is no payload in .*payload\.json: it is empty"):
        read_payload(f"@{tmp_path / 'payload.json'}")


def test_an_empty_text_and_a_file_without_a_name_are_sentences() -> None:
    with pytest.raises(CannotLoad, match=r"^there is no payload in what was given: it is empty"):
        read_payload("")
    with pytest.raises(CannotLoad, match=r"^there is no name behind the @ of the payload"):
        read_payload("@")


@pytest.mark.parametrize("data", ['{"by": "Zoë"}'.encode("latin-1"), b"\xff\xfe{", b"\xff\xfe\x00\xd8"])
def test_what_is_no_text_is_a_sentence(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "payload.json").write_bytes(data)
    with pytest.raises(CannotLoad, match=r"payload\.json is no text in UTF-8 or UTF-16\. Save it as UTF-8"):
        read_payload(f"@{tmp_path / 'payload.json'}")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('{"by": "Ada", "nota": "x"}', "Bought has no field 'nota'; did you mean 'note'? Nothing was sent."),
        ('{"bye": "Ada"}', "Bought has no field 'bye'; did you mean 'by'?"),
        ('{"by": "Ada", "zzz": 1}', "Bought has no field 'zzz'; it has by, gifts, lines, note, pays, reNamed."),
        ('{"by": "Ada", "renamed": ""}', "Bought has no field 'renamed'; did you mean 'reNamed'?"),
        (
            '{"by": "Ada", "lines": [{"item": "x"}, {"item": "y", "quantty": 2}]}',
            "Bought.lines[1] has no field 'quantty'; did you mean 'quantity'?",
        ),
        (
            '{"by": "Ada", "gifts": {"Bob": {"item": "x", "quantities": 2}}}',
            "Bought.gifts.Bob has no field 'quantities'; did you mean 'quantity'?",
        ),
        (
            '{"by": "Ada", "pays": {"type": "card", "number": "1", "holdre": "A"}}',
            "Bought.pays has no field 'holdre'; did you mean 'holder'?",
        ),
    ],
)
def test_a_misspelt_field_is_refused_with_the_one_that_was_meant(written: str, said: str) -> None:
    with pytest.raises(CannotLoad) as raised:
        read_event(written, Bought)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "event",
    [
        Bought(by="Ada"),
        Bought(by="Ada", lines=(Line(item="x"),), gifts={"any key": Line(item="y")}, pays=Card(number="1")),
        Bought(by="Ada", pays=Invoice(address="here"), renamed="x"),
    ],
)
def test_what_is_written_in_full_is_read(event: Any) -> None:
    assert read_event(msgspec.json.encode(event).decode(), Bought) == event


@pytest.mark.parametrize("name", ["order.json", "sub/order", "missing.json", "-"])
def test_a_file_without_the_sign_is_told_from_json(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for there in ("order.json", "sub/order"):
        (tmp_path / there).write_text('{"by": "Ada"}')
    with pytest.raises(CannotLoad) as raised:
        read_event(name, Bought)
    assert (
        str(raised.value) == f"{name} is no JSON. To read it from {'stdin' if name == '-' else 'a file'}, write @{name}"
    )


@pytest.mark.parametrize("payload", ["order", "{'by': 'Ada'}", '{"by" "Ada"}', "[1,,2]"])
def test_json_that_is_none_says_where_and_an_example(payload: str) -> None:
    with pytest.raises(CannotLoad, match=r"^what was given is no JSON: .* at line 1, column \d+"):
        read_event(payload, Bought)


def test_json_that_is_none_is_found_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "payload.json").write_text('{\n  "by": "Zoë" "note"\n}')
    with pytest.raises(CannotLoad, match=r"payload\.json is no JSON: .* at line 2, column 15"):
        read_event(f"@{tmp_path / 'payload.json'}", Bought)
