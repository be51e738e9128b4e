"""What a contract promises, and which classes are refused with which sentence."""

from __future__ import annotations

import msgspec
import pytest

from antiphon.contracts import BadIdentity, Command, Compensation, DefinitionError, Event
from antiphon.contracts.identity import RESERVED
from antiphon.contracts.messages import Close, Closed, Refusal, answer_name, answer_type, close_type, closed_type
from tests.support.trip import ASKED, BookRoom, FreeRoom, RoomBooked, TripAsked


def test_a_command_is_owned_by_whoever_owns_its_reply() -> None:
    assert BookRoom.__contract__.owner == RoomBooked.__contract__.owner == "hotel"
    assert BookRoom.__reply__ is RoomBooked


def test_a_compensation_is_owned_by_whoever_owns_what_it_undoes() -> None:
    assert FreeRoom.__contract__.owner == "hotel"
    assert FreeRoom.__undoes__ is BookRoom


def test_the_version_is_part_of_the_type_and_dots_become_dashes_in_subjects() -> None:
    contract = BookRoom.__contract__
    assert (contract.type, contract.token) == ("hotel.book.v1", "hotel-book")
    assert answer_name(contract, "refused") == "hotel.book.refused"
    assert answer_type(contract, "refused") == "hotel.book.refused.v1"


def test_an_event_without_an_owner_comes_from_clients() -> None:
    assert TripAsked.__contract__.owner == "client"


def test_messages_are_frozen_and_take_their_fields_by_name() -> None:
    with pytest.raises(AttributeError):
        ASKED.nights = 3  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue] # this is what is tested
    with pytest.raises(TypeError):
        TripAsked("Ada", 2)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue] # this is what is tested


def test_a_message_without_a_name_is_refused_with_an_example() -> None:
    with pytest.raises(DefinitionError, match=r"Nameless has no name on the wire. Add one: class Nameless\("):

        class Nameless(Event):
            pass


def test_versions_count_from_one() -> None:
    with pytest.raises(DefinitionError, match="versions count from 1"):

        class Early(Event, name="early", version=0):
            pass


@pytest.mark.parametrize("owner", sorted(RESERVED - {"client"}))
def test_names_of_the_platform_own_no_event(owner: str) -> None:
    with pytest.raises(DefinitionError, match="is a name of the platform"):

        class Taken(Event, name="taken", owner=owner):
            pass


@pytest.mark.parametrize("owner", ["", "airline"])
def test_an_answer_without_an_owner_is_the_class_to_change(owner: str) -> None:
    with pytest.raises(DefinitionError) as raised:

        class AskClient(Command[TripAsked], name="client.ask", owner=owner):
            pass

    assert str(raised.value) == (
        "TripAsked answers the command AskClient, and does not say which participant does it. Add the owner: "
        f"class TripAsked(Event, name='trip.asked', owner='{owner or 'billing'}')."
    )


def test_a_command_cannot_be_owned_by_another_than_its_reply() -> None:
    with pytest.raises(DefinitionError, match="owned by 'airline', but RoomBooked by 'hotel'"):

        class Stolen(Command[RoomBooked], name="hotel.steal", owner="airline"):
            pass


def test_a_compensation_cannot_be_owned_by_another_than_what_it_undoes() -> None:
    with pytest.raises(DefinitionError, match="owned by 'airline', but BookRoom by 'hotel'"):

        class Stolen(Compensation[BookRoom], name="hotel.steal", owner="airline"):
            pass


def test_a_command_must_name_its_reply_and_a_compensation_what_it_undoes() -> None:
    with pytest.raises(DefinitionError, match=r"must name its counterpart in brackets: Command\["):

        class Bare(Command, name="bare"):  # type: ignore[type-arg] # pyright: ignore[reportMissingTypeArgument]
            pass

    with pytest.raises(DefinitionError, match=r"must name its counterpart in brackets: Compensation\["):

        class BareUndo(Compensation, name="bare"):  # type: ignore[type-arg] # pyright: ignore[reportMissingTypeArgument]
            pass


@pytest.mark.parametrize("name", ["with space", "star*", "x" * 65, "greater>"])
def test_a_name_must_fit_into_a_subject(name: str) -> None:
    with pytest.raises(DefinitionError, match=r"message name .* and dots"):

        class Odd(Event, name=name):
            pass


def test_who_must_act_is_the_author_and_not_the_operator() -> None:
    assert not issubclass(DefinitionError, BadIdentity)


def test_a_close_and_its_answer_are_called_by_the_command_of_the_step() -> None:
    contract = BookRoom.__contract__
    assert (close_type(contract), closed_type(contract)) == ("hotel.book.close.v1", "hotel.book.closed.v1")


def test_no_reply_has_the_name_of_the_answer_to_a_close() -> None:
    class AccountClosed(Event, name="account.closed", owner="bank"):
        pass

    with pytest.raises(DefinitionError, match="is how Antiphon says that Account is closed"):

        class Account(Command[AccountClosed], name="account"):
            pass


def test_no_compensation_has_the_name_of_a_close() -> None:
    with pytest.raises(DefinitionError, match="closes what an operator resolves of BookRoom"):

        class CloseBooking(Compensation[BookRoom], name="hotel.book-close"):
            pass


def test_what_is_not_said_does_not_travel() -> None:
    said = (Refusal(reason="full"), Refusal(reason="?", code="open"), Close(form="never"), Closed(verdict="closed"))
    assert [msgspec.to_builtins(each) for each in said] == [
        {"reason": "full"},
        {"reason": "?", "code": "open"},
        {"form": "never"},
        {"verdict": "closed"},
    ]
