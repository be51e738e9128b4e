"""`antiphon flow`, `flow who` and `flow check` as a person or a CI run meets them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.support.commands import run_antiphon

ORDER = [
    f"--app=antiphon.order.{name}"
    for name in ("saga", "choreographed.saga", *(f"choreographed.{s}" for s in ("inventory", "billing", "shipping")))
]

SPOILT = """
from antiphon.contracts import Event
from antiphon.participants import Participant, Transaction

from tests.support.commands import run_antiphon

class Paid(Event, name="billing.paid", owner="billing"): pass
class Shipped(Event, name="shipping.shipped", owner="shipping"): pass

shipping = Participant("shipping")

@shipping.reacts_to(Paid)
async def ship(event: Paid, tx: Transaction) -> Shipped: ...
"""


def antiphon(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_antiphon(arguments, os.environ, folder)


def test_the_order_system_s_flow_has_no_mistakes(tmp_path: Path) -> None:
    done = antiphon(tmp_path, "flow", "check", *ORDER)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "nothing is amiss: 13 events, 3 commands, 2 compensations, 11 handlers.\n"


def test_mistakes_are_sentences_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "spoilt.py").write_text(SPOILT)
    done = antiphon(tmp_path, "flow", "check", "--app", "spoilt")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "unheard: event shipping.shipped is emitted by shipping.ship() and handled by nobody. Let a participant react "
        "to it, name it among the ends of its choreography, or do not publish it: a reaction may return None.",
        "unsaid: event billing.paid is awaited by shipping.ship() and is emitted by nobody there. Let billing publish "
        "it, or name the module that does with --app.",
    ]
    as_json = antiphon(tmp_path, "flow", "check", "--app", "spoilt:shipping", "--json")
    assert as_json.returncode == 1
    assert [each["mistake"] for each in json.loads(as_json.stdout)] == ["unheard", "unsaid"]


def test_a_package_is_all_that_its_modules_define(tmp_path: Path) -> None:
    done = antiphon(tmp_path, "flow", "who", "inventory.reserve.failed", "--app", "antiphon.order")
    assert "emitted by      inventory.reserve_for_order(), when it refuses order.created" in done.stdout, done.stderr
    (tmp_path / "shop" / "inner" / "tests").mkdir(parents=True)
    for name, text in (
        ("shop/__init__.py", ""),
        ("shop/__main__.py", "raise SystemExit(7)"),
        ("shop/test_shipping.py", "raise AssertionError"),
        ("shop/inner/__init__.py", ""),
        ("shop/inner/shipping.py", SPOILT),
        ("shop/inner/again.py", "from .shipping import shipping"),
        ("shop/inner/tests/__init__.py", "raise AssertionError"),
    ):
        (tmp_path / name).write_text(text)
    found = antiphon(tmp_path, "flow", "who", "shipping.shipped", "--app", "shop")
    assert "  emitted by      shipping.ship()" in found.stdout, found.stderr
    assert found.stdout.count("shipping.ship()") == 1
    (tmp_path / "shop" / "web.py").write_text("import there_is_no_such_module")
    broken = antiphon(tmp_path, "flow", "who", "shipping.shipped", "--app", "shop")
    assert broken.returncode == 1
    assert "cannot import shop.web: there is no module 'there_is_no_such_module'" in broken.stderr


def test_who_handles_inventory_reserve_failed(tmp_path: Path) -> None:
    done = antiphon(tmp_path, "flow", "who", "inventory.reserve.failed", *ORDER)
    assert done.stdout.splitlines() == [
        "inventory.reserve.failed.v1: a failure of inventory",
        "  emitted by      inventory.reserve_for_order(), when it refuses order.created (choreographed-order)",
        "  handled by      the coordinator, which ends choreographed-order as compensated",
        "  then            nothing more",
    ]


def test_an_svg_is_written_where_it_shall_be(tmp_path: Path) -> None:
    done = antiphon(tmp_path, "flow", *ORDER, "--format=svg", "--saga=order", "--output=flow.svg")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "flow.svg").read_text().startswith("<svg ")


def test_what_cannot_be_drawn_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text("thing = 1\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)\n")
    for arguments, sentence in (
        (["flow", "--format", "dot"], "nothing to look at: name modules with --app"),
        (["flow", "--app", "bare"], "bare has neither a saga, nor a choreography, nor a participant."),
        (["flow", "--app", "bare:thing"], "bare:thing is a int, not a saga, a choreography or a participant."),
        (["flow", *ORDER[:1], "--saga", "oder"], "there are no sagas of type 'oder' here; there are order."),
        (["flow", "--app", "../bare"], "'../bare' is no module's name, such as antiphon.order.saga: name it"),
        (["flow", "check", "--app", "leaves"], "cannot import leaves: it ends the process, with 3, instead of only"),
        (["flow", *ORDER[:1], "--output=."], "cannot write the flow to .: Is a directory. Name another place."),
        (["flow", *ORDER[:1], "--output=no/x"], "cannot write the flow to no/x: No such file or directory."),
        (["flow", "who", "payment.chargd", *ORDER], "nobody says or hears payment.chargd. There are payment.charge"),
    ):
        done = antiphon(tmp_path, *arguments)
        assert done.returncode == 1
        assert done.stderr.startswith(f"antiphon: {sentence}"), done.stderr


def test_what_an_author_has_written_wrongly_is_said_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    for name, text in (
        ("__init__.py", ""),
        ("typed.py", "import json\n\ndef half(\n    pass\n"),
        ("indented.py", "x = 1\n  y = 2\n"),
        ("unsound.py", "from antiphon.contracts import Event\n\nclass Gone(Event):\n    at: int\n"),
        ("indirect.py", "from . import unsound\n"),
        ("raises.py", "import json\n\njson.loads('{')\n"),
        ("spelt.py", "from .mesages import Gone\n"),
        ("messages.py", ""),
        ("foreign.py", "\nimport there_is_no_such_module\n"),
        ("helped.py", "\nimport messages\n"),
    ):
        (tmp_path / "shop" / name).write_text(text)
    for name, said in (
        ("typed", "cannot import shop.typed: SyntaxError: "),
        ("typed", "(shop/typed.py, line 3)."),
        ("indented", "cannot import shop.indented: IndentationError: unexpected indent (shop/indented.py, line 2)."),
        ("unsound", "name='inventory.reserved'). (shop/unsound.py, line 3)"),
        ("indirect", "name='inventory.reserved'). (shop/unsound.py, line 3)"),
        ("raises", "(shop/raises.py, line 3)."),
        (
            "spelt",
            "cannot import shop.spelt: there is no module 'shop.mesages' (shop/spelt.py, line 1); did you mean "
            "'shop.messages'?",
        ),
        ("mesages", "cannot import shop.mesages: there is no module 'shop.mesages'; did you mean 'shop.messages'?"),
        (
            "foreign",
            "cannot import shop.foreign: there is no module 'there_is_no_such_module' (shop/foreign.py, line 2). "
            "Install it.",
        ),
        ("helped", "there is no module 'messages' (shop/helped.py, line 2); did you mean 'shop.messages'?"),
    ):
        done = antiphon(tmp_path, "flow", "--app", f"shop.{name}")
        assert done.returncode == 1
        assert said in done.stderr, done.stderr
        assert "importlib" not in done.stderr


def test_a_file_in_the_place_of_a_module_is_understood(tmp_path: Path) -> None:
    for given, meant in (
        ("shop/saga.py:order", "shop.saga:order"),
        ("./shop/saga.py:order", "shop.saga:order"),
        ("shop/saga.py", "shop.saga"),
        ("shop/saga:order", "shop.saga:order"),
        ("saga.py:order", "saga:order"),
        ("shop\\saga.py:order", "shop.saga:order"),
    ):
        done = antiphon(tmp_path, "flow", "--app", given)
        assert done.returncode == 1
        assert f"is no module's name; did you mean {meant}?" in done.stderr, done.stderr
