"""What runs, from registrations alone: the same flow as from source, and a sentence for each thing that differs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from antiphon.contracts.errors import Forged, Undecodable
from antiphon.contracts.registration import (
    ENTRIES_MAX,
    Capabilities,
    Handled,
    Named,
    Reacted,
    Registration,
    ServedSaga,
    named,
    read_registration,
)
from antiphon.contracts.subjects import registration_subject
from antiphon.contracts.topology import REGISTRATION_BYTES_MAX
from antiphon.flow.check import WHERE_IT_RUNS, Finding, check
from antiphon.flow.draw import as_mermaid
from antiphon.flow.graph import Part, assemble, build, capabilities_of
from antiphon.flow.lookup import who
from antiphon.flow.running import Running, check_running, compare_running, read_running, together
from antiphon.flow.svg import as_svg
from tests.unit.flow.shop import Paid, Reserved, choreographed, orchestrated, stock_with_handlers
from tests.unit.flow.test_check import ORDER_SYSTEM

STARTED = datetime(2026, 11, 25, tzinfo=UTC)


def registered(capabilities: Capabilities, instance: str = "one") -> tuple[str, bytes]:
    """What a process stores that does this."""
    fields: dict[str, Any] = {name: getattr(capabilities, name) for name in capabilities.__struct_fields__}
    registration = Registration(**fields, instance=instance, started=STARTED)
    return registration.subject, registration.encode()


def running(*parts: Part | Capabilities, instance: str = "one") -> Running:
    """A platform on which one process does what each part says."""
    capabilities = [part if isinstance(part, Capabilities) else capabilities_of(part) for part in parts]
    return read_running(registered(each, f"{instance}-{number}") for number, each in enumerate(capabilities))


def told(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    return [(each.mistake, each.about) for each in findings]


# --- the flow ---------------------------------------------------------------------------------------------------------


def test_the_flow_of_what_runs_is_that_of_the_source() -> None:
    source, platform = build(ORDER_SYSTEM), running(*ORDER_SYSTEM)
    assert {*platform.flow.edges} == {*source.edges}
    assert {*platform.flow.nodes} == {*source.nodes}
    assert check(platform.flow, WHERE_IT_RUNS) == check_running(platform) == []
    assert compare_running([capabilities_of(each) for each in ORDER_SYSTEM], platform) == []


def test_how_many_run_stands_beside_what_they_do() -> None:
    stock = capabilities_of(stock_with_handlers())
    platform = read_running(
        [registered(stock, "one"), registered(stock, "two"), registered(capabilities_of(orchestrated()))]
    )
    assert "stock.do_reserve() ×2" in as_mermaid(platform.flow)
    assert "stock.do_reserve() ×2" in as_svg(platform.flow)
    (about,) = who(platform.flow, "stock.reserve")
    assert about.handled_by == ("stock.do_reserve() ×2",)


def test_source_and_platform_are_drawn_as_one_that_says_where_they_differ() -> None:
    shop = choreographed()
    drawn = as_mermaid(
        together([capabilities_of(shop.stock), capabilities_of(shop.saga)], running(shop.billing, shop.saga))
    )
    assert "stock.reserve() (not running)" in drawn
    assert "billing.pay() ×1 (not in the source)" in drawn


# --- differences ------------------------------------------------------------------------------------------------------


def test_what_does_not_run_is_found() -> None:
    saga, stock = orchestrated(), stock_with_handlers()
    source = [capabilities_of(saga), capabilities_of(stock)]
    assert told(compare_running(source, running(saga))) == [("not running", "stock")]
    assert told(compare_running(source, running(stock))) == [("not running", "saga order v1")]
    without = msgspec.structs.replace(capabilities_of(stock), compensations=())
    (finding,) = compare_running(source, running(saga, without))
    assert finding.about == "compensation stock.release.v1"
    assert finding.sentence == (
        "compensation stock.release.v1 is handled by stock in the source, and by no process of it that runs. "
        "Deploy the newer program, or name the module that runs with --app."
    )


def test_a_command_without_a_running_handler_is_found_without_any_source() -> None:
    findings = check(running(orchestrated()).flow, WHERE_IT_RUNS)
    assert ("unhandled", "stock.reserve") in told(findings)
    assert "or start the process that does." in findings[0].sentence


def test_a_declared_reaction_that_does_not_run_is_found_without_any_source() -> None:
    shop = choreographed()
    findings = check(running(shop.stock, shop.saga).flow, WHERE_IT_RUNS)
    assert ("no reaction", "stock.reserved") in told(findings)
    assert "or start the process that does, or correct flow=." in findings[-1].sentence


def test_of_a_coordinator_too_old_to_say_its_flow_nothing_is_missed() -> None:
    shop = choreographed()
    served = capabilities_of(shop.saga).sagas[0]
    old = Capabilities(name="coordinator", sagas=(msgspec.structs.replace(served, flow=()),))
    assert check(running(shop.stock, shop.billing, old).flow, WHERE_IT_RUNS) == []


def test_what_runs_and_is_not_in_the_source_is_found() -> None:
    saga, stock = orchestrated(), stock_with_handlers()
    assert told(compare_running([capabilities_of(saga)], running(saga, stock))) == [("not in the source", "stock")]
    assert told(compare_running([capabilities_of(stock)], running(saga, stock))) == [
        ("not in the source", "saga order v1")
    ]
    without = msgspec.structs.replace(capabilities_of(stock), compensations=())
    findings = compare_running([capabilities_of(saga), without], running(saga, stock))
    assert told(findings) == [("not in the source", "compensation stock.release.v1")]


def test_an_older_version_that_is_served_until_its_sagas_have_ended_is_no_difference() -> None:
    old = capabilities_of(orchestrated())
    new = msgspec.structs.replace(old, sagas=(msgspec.structs.replace(old.sagas[0], version=2, shape="b"),))
    assert compare_running([new], running(old, new)) == []


def test_other_versions_of_messages_are_found_once() -> None:
    stock = capabilities_of(stock_with_handlers())
    old = msgspec.structs.replace(stock.commands[0], command=Named(type="stock.reserve.v7", owner="stock"))
    findings = compare_running([stock], running(msgspec.structs.replace(stock, commands=(old,))))
    assert told(findings) == [("other version", "command stock.reserve.v1")]
    assert findings[0].sentence.startswith(
        "stock takes stock.reserve.v7 (then stock.reserved.v1) where it runs, and stock.reserve.v1 (then "
        "stock.reserved.v1) in the source."
    )


def test_another_event_that_follows_is_found() -> None:
    shop = choreographed()
    source = capabilities_of(shop.billing)
    other = msgspec.structs.replace(source.reactions[0], emits=(Named(type="billing.paid.v2", owner="billing"),))
    findings = compare_running([source], running(msgspec.structs.replace(source, reactions=(other,))))
    assert told(findings) == [("other version", "event stock.reserved.v1 in shop")]


def test_coordinators_that_differ_in_shape_are_found() -> None:
    one = capabilities_of(orchestrated())
    other = msgspec.structs.replace(one, sagas=(msgspec.structs.replace(one.sagas[0], shape="another"),))
    platform = running(one, other)
    (finding,) = check_running(platform)
    assert (finding.mistake, finding.about) == ("two shapes", "order.v1")
    assert "another (coordinator.one-1)" in finding.sentence
    assert told(compare_running([one], running(other))) == [("other shape", "saga order v1")]


def test_two_participants_that_claim_one_event_are_found() -> None:
    theirs = Named(type="billing.paid.v1", owner="rival")
    rival = Capabilities(name="rival", reactions=(Reacted(event=named(Reserved), handler="pay", emits=(theirs,)),))
    billing = choreographed().billing
    for findings in (
        check(running(billing, rival).flow),
        compare_running([capabilities_of(billing)], running(billing, rival)),
    ):
        two = [each for each in findings if each.mistake == "two owners"]
        assert told(two) == [("two owners", "billing.paid.v1")]
        assert "billing and rival" in two[0].sentence


def test_where_nothing_is_registered_a_sentence_says_so() -> None:
    assert told(check_running(read_running([]))) == [("nobody", "")]
    gone = (registration_subject("stock", "one"), b"")
    assert told(check_running(read_running([gone]))) == [("nobody", "")]


# --- what is not to be believed ---------------------------------------------------------------------------------------


def test_a_claim_to_what_is_another_s_is_shown_and_drawn_nowhere() -> None:
    thief = Capabilities(
        name="thief",
        commands=(Handled(command=Named(type="stock.reserve.v1", owner="stock"), reply=named(Reserved), handler="it"),),
        reactions=(Reacted(event=named(Reserved), handler="pay", emits=(named(Paid),)),),
        sagas=capabilities_of(orchestrated()).sagas,
    )
    platform = running(thief)
    assert [each.sentence.partition(", so")[0] for each in check_running(platform)] == [
        "thief.one-0 says that it handles stock.reserve.v1, which is for stock to do",
        "thief.one-0 says that it publishes stock.reserved.v1, which is for stock to do",
        "thief.one-0 says that it publishes billing.paid.v1, which is for billing to do",
        "thief.one-0 says that it serves saga order, which is for coordinator to do",
    ]
    assert platform.flow.nodes == {}


def test_a_chain_without_end_is_checked_and_drawn() -> None:
    chain = [Named(type=f"rogue.event-{number}.v1", owner="rogue") for number in range(300)]
    reactions = tuple(
        Reacted(event=heard, handler=f"h{number}", emits=(chain[(number + 1) % len(chain)],))
        for number, heard in enumerate(chain)
    )
    platform = running(Capabilities(name="rogue", reactions=reactions))
    assert [each.mistake for each in check(platform.flow)] == ["cycle"]
    assert "rogue.h299() ×1" in as_svg(platform.flow)


SUBJECT, GOOD = registered(capabilities_of(stock_with_handlers()))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b'"name":"stock"', b'"name":"st ock"', "name"),
        (b"do_reserve", b'x\\"];evil', "handler"),
        (b"do_reserve", b"do_reserve\\n", "handler"),
        (b"stock.reserve.v1", b"stock.reserve", "command"),
        (b"stock.reserve.v1", b"stock.reserve.v0", "command"),
        (b"2026-11-25T00:00:00Z", b"2026-11-25T00:00:00", "started"),
        (b'"instance"', b'"version":"\\u001b[2J","instance"', "version"),
        (b'"commands":[', b'"commands":[' + b"{}," * (ENTRIES_MAX + 1), "commands"),
        (b"{", b"[", "array"),
    ],
)
def test_what_is_no_registration_is_not_read(old: bytes, new: bytes, says: str) -> None:
    assert old in GOOD
    with pytest.raises(Undecodable, match=says):
        read_registration(SUBJECT, GOOD.replace(old, new, 1))
    assert told(check_running(read_running([(SUBJECT, GOOD.replace(old, new, 1))])))[1] == ("unreadable", SUBJECT)


def test_nesting_without_end_and_too_many_bytes_are_not_read() -> None:
    for data in (b'{"a":' + b"[" * 200_000, GOOD + b" " * REGISTRATION_BYTES_MAX):
        with pytest.raises(Undecodable):
            read_registration(SUBJECT, data)


def test_a_registration_under_another_name_is_forged() -> None:
    with pytest.raises(Forged, match=r"it says that it is stock\.one"):
        read_registration(registration_subject("billing", "one"), GOOD)


def test_what_a_newer_library_says_besides_is_not_in_the_way() -> None:
    assert read_registration(SUBJECT, GOOD.replace(b"{", b'{"mood":{"good":true},', 1)).name == "stock"


# --- what is too much -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "chars"), [(ENTRIES_MAX + 1, 4), (900, 400)])
def test_a_large_registration_is_cut_with_a_sentence(count: int, chars: int) -> None:
    start = Named(type="shop.ordered.v1", owner="client")
    sagas = tuple(
        ServedSaga(name=f"s{number}", version=1, shape="a" * 60, start=start, notes=(start,) * (chars // 40))
        for number in range(count)
    )
    subject, data = registered(Capabilities(name="coordinator", sagas=sagas))
    assert len(data) <= REGISTRATION_BYTES_MAX
    read = read_registration(subject, data)
    assert 0 < len(read.sagas) < count
    assert read.cut.startswith(f"{count - len(read.sagas)} of {count} entries are left out")
    platform = read_running([(subject, data)])
    assert told(check_running(platform)) == [("cut", "coordinator.one")]
    findings = compare_running([Capabilities(name="coordinator", sagas=sagas[-1:])], platform)
    assert "not running" not in dict(told(findings)), "nobody knows what was left out"


def test_what_is_stored_is_what_is_read() -> None:
    assert assemble([read_registration(SUBJECT, GOOD)]).nodes == build([stock_with_handlers()]).nodes
