"""`contracts export` and `contracts check` as a team's CI meets them: export, change a message, see it named."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.flow.test_commands import ORDER, antiphon

STOCK = """
from antiphon.contracts import Command, Event
from antiphon.participants import Participant, Transaction

class Reserved(Event, name="stock.reserved", owner="stock"):
    pieces: int

class Reserve(Command[Reserved], name="stock.reserve"):
    pieces: int

stock = Participant("stock")

@stock.handles(Reserve)
async def reserve(command: Reserve, tx: Transaction) -> Reserved: ...
"""


def test_an_incompatible_change_fails_and_a_compatible_one_passes(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(STOCK)
    done = antiphon(tmp_path, "contracts", "export", "--app=shop", "--output=old")
    assert done.stdout == "wrote old/asyncapi.json and 2 schemas in old/schemas.\n", done.stderr
    check = ("contracts", "check", "--app=shop", "--against=old")

    (tmp_path / "shop.py").write_text(STOCK.replace("    pieces: int\n", "    pieces: int\n    note: str = ''\n"))
    done = antiphon(tmp_path, *check)
    assert (done.returncode, done.stdout) == (0, "nothing breaks: 2 messages compared, 0 added.\n")

    (tmp_path / "shop.py").write_text(STOCK.replace("    pieces: int\n", "    pieces: int\n    shelf: str\n"))
    done = antiphon(tmp_path, *check)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == (
        "stock.reserve.v1: field shelf was added without a default. New code of stock cannot read what old code of "
        "coordinators wrote or is still writing. Take it back, or declare version=2 beside it and let this one go when "
        "nothing uses it any more."
    )
    done = antiphon(tmp_path, *check[:-1], "--against=old/asyncapi.json", "--json")
    assert (done.returncode, len(json.loads(done.stdout))) == (1, 2)


def test_the_document_is_printed_where_no_folder_is_named(tmp_path: Path) -> None:
    done = antiphon(tmp_path, "contracts", "export", *ORDER, "--title=Orders", "--version=7")
    assert json.loads(done.stdout)["info"]["version"] == "7"
    assert list(tmp_path.iterdir()) == []


def test_a_schema_of_a_message_that_is_gone_goes_as_well(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(STOCK.replace("stock.reserve", "stock.gone"))
    antiphon(tmp_path, "contracts", "export", "--app=shop", "--output=old")
    schemas = tmp_path / "old" / "schemas"
    (schemas / "mine.json").write_text("{}")
    assert (schemas / "stock.gone.v1.json").exists()
    (tmp_path / "shop.py").write_text(STOCK)
    antiphon(tmp_path, "contracts", "export", "--app=shop", "--output=old")
    assert sorted(path.stem for path in schemas.iterdir()) == ["mine", "stock.reserve.v1", "stock.reserved.v1"]


def test_what_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(STOCK)
    (tmp_path / "old" / "asyncapi.json").mkdir(parents=True)
    done = antiphon(tmp_path, "contracts", "export", "--app=shop", "--output=old")
    assert (done.returncode, done.stderr) == (1, "antiphon: cannot write to old/asyncapi.json: Is a directory.\n")


def test_what_cannot_be_compared_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "other.json").write_text("{}")
    for old, sentence in (
        ("nowhere", "cannot read nowhere: No such file or directory. Write it with: antiphon contracts export"),
        ("bad.json", "bad.json is no JSON"),
        ("other.json", "this is no document that `antiphon contracts export` wrote"),
    ):
        done = antiphon(tmp_path, "contracts", "check", *ORDER, f"--against={old}")
        assert done.returncode == 1
        assert done.stderr.startswith(f"antiphon: {sentence}"), done.stderr


EVERYTHING = f"""
import sys

sys.path.append({str(Path(__file__).parents[3])!r})
import msgspec
from tests.support.cargo import TRAVELS, Cargo

def struct(names):
    fields = [(f"field_{{n}}", TRAVELS[name][0]) for n, name in enumerate(names)]
    return msgspec.defstruct("Everything", fields, frozen=True)

cargo = Cargo(struct(TRAVELS), None)
saga, child, mover = cargo.saga, cargo.child, cargo.mover
"""


def test_all_that_travels_is_exported_checked_and_compared(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(EVERYTHING)
    done = antiphon(tmp_path, "contracts", "export", "--app=shop", "--output=old")
    assert (done.returncode, done.stdout) == (0, "wrote old/asyncapi.json and 8 schemas in old/schemas.\n"), done.stderr
    done = antiphon(tmp_path, "flow", "check", "--app=shop")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stdout + done.stderr
    done = antiphon(tmp_path, "contracts", "check", "--app=shop", "--against=old")
    assert (done.returncode, done.stdout) == (0, "nothing breaks: 8 messages compared, 0 added.\n"), done.stderr
    turned = "reversed(list(TRAVELS))"
    (tmp_path / "shop.py").write_text(EVERYTHING.replace("struct(TRAVELS)", f"struct({turned})"))
    done = antiphon(tmp_path, "contracts", "check", "--app=shop", "--against=old")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr


def test_a_class_that_cannot_travel_is_a_sentence_and_no_traceback(tmp_path: Path) -> None:
    later = STOCK.replace("from antiphon.contracts", "from __future__ import annotations\nfrom antiphon.contracts", 1)
    (tmp_path / "shop.py").write_text(later.replace("    pieces: int\n\nstock", "    pieces: Pieces\n\nstock"))
    for command in (("contracts", "export"), ("flow", "check")):
        done = antiphon(tmp_path, *command, "--app=shop")
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        assert "Reserve: its annotations cannot be read (name 'Pieces' is not defined)" in done.stderr
