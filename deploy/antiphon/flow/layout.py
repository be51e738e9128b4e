"""Where nodes stand: in layers from left to right, so that messages flow one way and edges cross little.

The method is Sugiyama's (1981): break cycles, give each node a layer, let long edges pass through points of their own
in the layers between, order each layer by its neighbours, and then give out coordinates.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Final

import msgspec

from .graph import Edge, Flow

SWEEPS: Final = 24
"""How often the layers are ordered by their neighbours, to and fro; more changes nothing in flows of 100 nodes."""
CHARACTER: Final = 6.6
"""Width of a character, in pixels, of the 11 pixel font in which nodes are labelled."""
NODE_HEIGHT: Final = 26.0
NODE_PADDING: Final = 22.0
LAYER_GAP: Final = 64.0
ROW_GAP: Final = 16.0
MARGIN: Final = 24.0


class Box(msgspec.Struct, frozen=True):
    """A node's place: its middle, and how wide it is. A point that an edge passes through has no width."""

    x: float
    y: float
    width: float


class Layout(msgspec.Struct, frozen=True):
    """Where everything is. `ways` has the points of each edge from its source to its target."""

    width: float
    height: float
    boxes: dict[str, Box]
    ways: dict[Edge, tuple[str, ...]]


Layers = list[list[str]]
Neighbours = dict[str, list[str]]


def lay_out(flow: Flow) -> Layout:
    """Give every node a place."""
    forward = _forward(flow)
    layer_of = _layers(flow, forward)
    ways, widths = _ways(forward, layer_of), {id: _width(node.caption) for id, node in flow.nodes.items()}
    layers = _ordered(layer_of, ways)
    boxes = _placed(layers, ways, widths)
    everything = {edge: ways.get(edge, (edge.source, edge.target)) for edge in flow.edges}
    right = max((box.x + box.width / 2 for box in boxes.values()), default=0.0)
    bottom = max((box.y for box in boxes.values()), default=0.0)
    return Layout(right + MARGIN, bottom + NODE_HEIGHT / 2 + MARGIN, boxes, everything)


def _width(label: str) -> float:
    return len(label) * CHARACTER + NODE_PADDING


# --- layers -----------------------------------------------------------------------------------------------------------


def _forward(flow: Flow) -> list[Edge]:
    """The edges that go from left to right: all but those from an undoing to what it undoes, and what closes cycles."""
    leaving: dict[str, list[Edge]] = defaultdict(list)
    for edge in flow.edges:
        if not (edge.kind == "compensates" and flow.nodes[edge.source].kind == "handler"):
            leaving[edge.source].append(edge)
    kept: list[Edge] = []
    state: dict[str, int] = {}

    def visit(begin: str) -> None:
        state[begin] = 1
        path = [(begin, iter(leaving[begin]))]  # not by recursion: what runs may be a chain of any length
        while path:
            node, edges = path[-1]
            edge = next(edges, None)
            if edge is None:
                state[node] = 2
                path.pop()
                continue
            if state.get(edge.target) != 1:
                kept.append(edge)
            if edge.target not in state:
                state[edge.target] = 1
                path.append((edge.target, iter(leaving[edge.target])))

    entered = {edge.target for edges in leaving.values() for edge in edges}
    for node in [*(id for id in flow.nodes if id not in entered), *flow.nodes]:
        if node not in state:
            visit(node)
    return kept


def _layers(flow: Flow, forward: list[Edge]) -> dict[str, int]:
    """The length of the longest way to each node; sources without a past stand right before what they lead to."""
    arriving: dict[str, list[str]] = defaultdict(list)
    leaving: dict[str, list[str]] = defaultdict(list)
    for edge in forward:
        arriving[edge.target].append(edge.source)
        leaving[edge.source].append(edge.target)
    found = dict.fromkeys(flow.nodes, 0)
    unseen = {node: len(arriving[node]) for node in flow.nodes}
    ready = [node for node, count in unseen.items() if not count]
    while ready:
        node = ready.pop()
        for following in leaving[node]:
            found[following] = max(found[following], found[node] + 1)
            unseen[following] -= 1
            if not unseen[following]:
                ready.append(following)
    for node in flow.nodes:
        if not arriving[node] and leaving[node]:
            found[node] = min(found[each] for each in leaving[node]) - 1
    return found


def _ways(forward: list[Edge], layer_of: dict[str, int]) -> dict[Edge, tuple[str, ...]]:
    """Each edge with a point in every layer that it crosses."""
    ways: dict[Edge, tuple[str, ...]] = {}
    for number, edge in enumerate(forward):
        points: list[str] = []
        for layer in range(layer_of[edge.source] + 1, layer_of[edge.target]):
            points.append(f"point:{number}.{layer}")
            layer_of[points[-1]] = layer
        ways[edge] = (edge.source, *points, edge.target)
    return ways


# --- order within layers ----------------------------------------------------------------------------------------------


def _neighbours(ways: dict[Edge, tuple[str, ...]]) -> tuple[Neighbours, Neighbours]:
    """To the left and to the right of each node or point."""
    left: Neighbours = defaultdict(list)
    right: Neighbours = defaultdict(list)
    for way in ways.values():
        for one, other in pairwise(way):
            right[one].append(other)
            left[other].append(one)
    return left, right


def _ordered(layer_of: dict[str, int], ways: dict[Edge, tuple[str, ...]]) -> Layers:
    """The layers, each ordered so that few edges cross: by the mean place of the neighbours, to and fro."""
    layers: Layers = [[] for _ in range(max(layer_of.values(), default=-1) + 1)]
    for node, layer in layer_of.items():
        layers[layer].append(node)
    left, right = _neighbours(ways)
    best, fewest = [list(layer) for layer in layers], _crossings(layers, right)
    for sweep in range(SWEEPS):
        by = left if sweep % 2 == 0 else right
        for beside, here in pairwise(layers if sweep % 2 == 0 else layers[::-1]):
            _order(here, beside, by)
        if (crossings := _crossings(layers, right)) < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    return best


def _order(layer: list[str], beside: list[str], by: Neighbours) -> None:
    """Sort a layer by where the neighbours stand in the one beside it; what has none stays where it is."""
    places = {node: place for place, node in enumerate(beside)}
    wanted = {
        node: _mean([places[each] for each in by[node] if each in places], place) for place, node in enumerate(layer)
    }
    layer.sort(key=wanted.__getitem__)


def _crossings(layers: Layers, right: Neighbours) -> int:
    """How many pairs of edges cross."""
    found = 0
    for layer, following in pairwise(layers):
        places = {node: place for place, node in enumerate(following)}
        ends = [end for node in layer for end in sorted(places[target] for target in right[node])]
        found += sum(later < earlier for index, earlier in enumerate(ends) for later in ends[index + 1 :])
    return found


def _mean(places: list[int], otherwise: int) -> float:
    return sum(places) / len(places) if places else float(otherwise)


# --- coordinates ------------------------------------------------------------------------------------------------------


def _placed(layers: Layers, ways: dict[Edge, tuple[str, ...]], widths: dict[str, float]) -> dict[str, Box]:
    left, right = _neighbours(ways)
    rows = _rows(layers, left, right)
    boxes: dict[str, Box] = {}
    x = MARGIN
    for layer in layers:
        wide = max((widths.get(node, 0.0) for node in layer), default=0.0)
        for node in layer:
            boxes[node] = Box(x + wide / 2, MARGIN + NODE_HEIGHT / 2 + rows[node], widths.get(node, 0.0))
        x += wide + LAYER_GAP
    return boxes


def _rows(layers: Layers, left: Neighbours, right: Neighbours) -> dict[str, float]:
    """How far down each node stands: near the mean of its neighbours, as far as those above and below let it."""
    step = NODE_HEIGHT + ROW_GAP
    rows = {node: place * step for layer in layers for place, node in enumerate(layer)}
    for sweep in range(SWEEPS):
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            wanted = [_wanted(rows, node, left, right) for node in layer]
            for node, row in zip(layer, _apart(wanted, step), strict=True):
                rows[node] = row
    top = min(rows.values(), default=0.0)
    return {node: row - top for node, row in rows.items()}


def _wanted(rows: dict[str, float], node: str, left: Neighbours, right: Neighbours) -> float:
    near = [rows[each] for each in (*left[node], *right[node])]
    return sum(near) / len(near) if near else rows[node]


def _apart(wanted: list[float], step: float) -> list[float]:
    """The nearest rows to those wanted that keep the order and the distance: blocks that touch move as one.

    Pool adjacent violators (Ayer et al. 1955), on what is left of each wish once the distance is taken off.
    """
    blocks: list[tuple[float, int]] = []
    for place, row in enumerate(wanted):
        blocks.append((row - place * step, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (last, count), (earlier, more) = blocks.pop(), blocks.pop()
            blocks.append(((last * count + earlier * more) / (count + more), count + more))
    offsets = [offset for offset, count in blocks for _ in range(count)]
    return [offset + place * step for place, offset in enumerate(offsets)]
