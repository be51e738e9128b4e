"""The drawings hold every node and edge, and their coordinates do not collide."""

from __future__ import annotations

import re
from datetime import timedelta
from itertools import combinations
from xml.etree import ElementTree

import msgspec
import pytest

from antiphon.contracts import Event
from antiphon.coordinator import Saga, State
from antiphon.flow.draw import as_dot, as_json, as_mermaid
from antiphon.flow.graph import Flow, build
from antiphon.flow.layout import NODE_HEIGHT, lay_out
from antiphon.flow.svg import as_svg
from tests.unit.flow.shop import Ordered, Release, Reserve, choreographed, orchestrated
from tests.unit.flow.test_check import ORDER_SYSTEM

FLOWS = {"order": build(ORDER_SYSTEM), "shop": choreographed().flow, "nothing": build([])}


class Cleared(Event, name="fraud.cleared"):
    pass


def needs_more(s: State[Ordered]) -> bool:
    return s.start.pieces > 1


def with_everything() -> Saga[Ordered]:
    """A saga with a step of each kind."""
    saga = Saga(Ordered, name="everything", version=1, deadline=timedelta(hours=1))

    @saga.step(needs_no_compensation=True)
    def first(s: State[Ordered]) -> Reserve:
        return Reserve(pieces=1)

    cleared = saga.signal(Cleared, after=first)
    waited = saga.wait("cooling_off", timedelta(hours=1), after=cleared)

    @saga.step(when=needs_more, after=waited, needs_no_compensation=True)
    def second(s: State[Ordered]) -> Reserve:
        return Reserve(pieces=s.start.pieces)

    @saga.each(after=waited)
    def many(s: State[Ordered]) -> list[Reserve]:
        return [Reserve(pieces=1)]

    @many.compensation
    def back(s: State[Ordered], reserve: Reserve) -> Release:
        return Release(reason=s.reason)

    @saga.child(orchestrated(), after=second)
    def another(s: State[Ordered]) -> Ordered:
        return s.start

    return saga


def test_every_kind_of_step_has_its_place() -> None:
    flow = build([with_everything()])
    edges = {(edge.source, edge.target, edge.kind, edge.label) for edge in flow.edges}
    assert edges >= {
        ("client", "event:shop.ordered.v1", "emits", ""),
        ("event:shop.ordered.v1", "step:everything.first", "starts", ""),
        ("step:everything.first", "command:stock.reserve.v1", "emits", ""),
        ("event:stock.reserved.v1", "step:everything.fraud-cleared", "follows", ""),
        ("client", "event:fraud.cleared.v1", "emits", ""),
        ("event:fraud.cleared.v1", "step:everything.fraud-cleared", "awaits", ""),
        ("step:everything.fraud-cleared", "step:everything.cooling_off", "follows", ""),
        ("step:everything.cooling_off", "step:everything.second", "follows", "needs_more"),
        ("step:everything.many", "command:stock.reserve.v1", "emits", "for each"),
        ("step:everything.many", "compensation:stock.release.v1", "compensates", ""),
        ("step:everything.another", "event:shop.ordered.v1", "emits", ""),
        ("end:order.completed", "end:everything.completed", "ends", ""),
    }


@pytest.mark.parametrize("name", FLOWS)
def test_no_two_nodes_stand_in_one_place(name: str) -> None:
    flow = FLOWS[name]
    layout = lay_out(flow)
    boxes = [layout.boxes[id] for id in flow.nodes]
    for one, other in combinations(boxes, 2):
        apart_x = abs(one.x - other.x) >= (one.width + other.width) / 2
        assert apart_x or abs(one.y - other.y) > NODE_HEIGHT, (one, other)
    assert all(0 < box.x < layout.width and 0 < box.y < layout.height for box in boxes)


def test_messages_flow_from_left_to_right() -> None:
    flow = FLOWS["order"]
    boxes = lay_out(flow).boxes
    for edge in flow.edges:
        if edge.kind != "compensates":
            assert boxes[edge.source].x < boxes[edge.target].x, edge


@pytest.mark.parametrize("name", FLOWS)
def test_the_svg_is_well_formed_and_shows_all(name: str) -> None:
    flow = FLOWS[name]
    root = ElementTree.fromstring(as_svg(flow))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {node.label for node in flow.nodes.values()} <= set(texts)
    paths = [e for e in root.iter("{http://www.w3.org/2000/svg}path") if e.get("class", "").startswith("edge")]
    assert len(paths) == len(flow.edges)
    assert "href" not in as_svg(flow), "it needs nothing from elsewhere"


@pytest.mark.parametrize("name", FLOWS)
def test_mermaid_and_dot_have_a_line_for_every_node_and_edge(name: str) -> None:
    flow = FLOWS[name]
    mermaid, dot = as_mermaid(flow), as_dot(flow)
    assert len(re.findall(r":::kind-\w+$", mermaid, re.MULTILINE)) == len(flow.nodes)
    assert len(re.findall(r"^  n\d+\w+ -\.?->", mermaid, re.MULTILINE)) == len(flow.edges)
    assert len(re.findall(r"^  n\d+\w+ \[label=", dot, re.MULTILINE)) == len(flow.nodes)
    assert len(re.findall(r"^  n\d+\w+ -> ", dot, re.MULTILINE)) == len(flow.edges)


def test_the_json_can_be_read_back() -> None:
    flow = FLOWS["order"]
    drawn = msgspec.json.decode(as_json(flow))
    assert [node["id"] for node in drawn["nodes"]] == list(flow.nodes)
    assert len(drawn["edges"]) == len(flow.edges)


def test_one_saga_type_can_be_drawn_alone() -> None:
    flow: Flow = FLOWS["order"].within("choreographed-order")
    assert {node.kind for node in flow.nodes.values()} == {"client", "event", "handler", "end"}
    assert {edge.saga for edge in flow.edges} == {"choreographed-order"}
    assert "handler:inventory.release_refunded" in flow.nodes
