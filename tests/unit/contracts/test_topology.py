"""Which names participants may have, and what is said where a stream or a consumer is not there."""

from __future__ import annotations

import pytest

from antiphon.contracts import identity
from antiphon.contracts.errors import BadIdentity
from antiphon.contracts.topology import (
    BOUNDED,
    EVENTS,
    EXPORTER_CONSUMER,
    FORMER_CONSUMERS,
    PLATFORM_CONSUMERS,
    PLATFORM_USERS,
    SAGA,
    Consumer,
    answering_participants,
    answers_consumer,
    check_participant,
    participant_consumers,
    participant_consumers_of,
)
from antiphon.deploy.admin.rights import Rights
from antiphon.link.connection import missing

OF_THE_PLATFORM = (*PLATFORM_CONSUMERS, EXPORTER_CONSUMER)
OF_ANSWERS = {"coordinator-answers-", "coordinator-answers-billing", answers_consumer("x-on").name}
OF_CONSUMERS = {*(consumer.name for consumer in OF_THE_PLATFORM), *FORMER_CONSUMERS, *OF_ANSWERS, BOUNDED}
TAKEN = {*identity.RESERVED, *PLATFORM_USERS, *OF_CONSUMERS}


@pytest.mark.parametrize("name", sorted(TAKEN | set(Rights([]).users())))
def test_no_participant_has_the_name_of_a_source_a_user_or_a_consumer_of_the_platform(name: str) -> None:
    with pytest.raises(BadIdentity, match="is a name of the platform; call the participant something else"):
        check_participant(name)


@pytest.mark.parametrize(
    ("name", "suffix"), [("billing-undo", "-undo"), ("billing-close", "-close"), ("billing-on", "-on")]
)
def test_no_participant_has_the_consumers_of_another(name: str, suffix: str) -> None:
    with pytest.raises(BadIdentity, match=f"no participant's name may end in {suffix}"):
        check_participant(name)


@pytest.mark.parametrize("name", ["billing", "exporters", "undo", "on-call"])
def test_other_names_are_free(name: str) -> None:
    assert check_participant(name) == name


@pytest.mark.parametrize("consumer", OF_THE_PLATFORM, ids=lambda consumer: consumer.name)
def test_what_the_platform_itself_needs_is_made_by_setup_alone(consumer: Consumer) -> None:
    assert str(missing(consumer.stream, consumer.name)).endswith("as administrator: antiphon setup")


def test_what_a_participant_needs_is_made_by_naming_it() -> None:
    assert str(missing(SAGA, "billing-undo")).endswith("antiphon setup --participant billing")
    assert str(missing(SAGA, "billing-close")).endswith("antiphon setup --participant billing")
    assert str(missing(EVENTS, answers_consumer("billing").name)).endswith("antiphon setup --participant billing")
    assert str(missing(EVENTS, "billing-on")).endswith("antiphon setup --app MODULE:billing")
    assert str(missing(SAGA)).endswith("antiphon setup")


def test_whom_coordinators_hear_is_known_by_the_names_of_consumers_and_others_are_passed_over() -> None:
    names = [answers_consumer(name).name for name in ("billing", "stock", "client", "stock-on", "in ventory", "")]
    assert answering_participants([*names, "coordinator-answers", "billing-on", "sweeper"]) == {"billing", "stock"}
    (only,) = answers_consumer("billing").filters
    assert only == "evt.*.*.*.billing.>"


def test_a_close_is_delivered_by_a_consumer_of_its_own() -> None:
    filters = {consumer.name: consumer.filters for consumer in participant_consumers("billing")}
    assert filters == {
        "billing": ("saga.*.*.*.c.cmd.billing.*.do.*",),
        "billing-undo": ("saga.*.*.*.c.cmd.billing.*.undo.*",),
        "billing-close": ("saga.*.*.*.c.cmd.billing.*.close.*",),
    }


def test_a_pause_of_a_participant_holds_back_no_close() -> None:
    assert [name for _, name in participant_consumers_of("billing")] == ["billing", "billing-undo", "billing-on"]
