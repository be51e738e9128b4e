"""The flow as a picture that needs no other program: a browser opens it, and a README shows it."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from antiphon.contracts.foreign_text import harmless

from .draw import COLOURS, DASHED, FAILURE, colours
from .graph import Edge, Flow, Node
from .layout import MARGIN, NODE_HEIGHT, Box, Layout, lay_out

LEGEND: Final = ("event", "command", "compensation", "handler", "step", "end")
LEGEND_HEIGHT: Final = 34.0
LEGEND_STEP: Final = 112.0

STYLE: Final = (
    "text{font:11px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#111;text-anchor:middle}"
    ".edge{fill:none;stroke:#6b7480;stroke-width:1.2;marker-end:url(#tip)}"
    ".dashed{stroke-dasharray:4 3;stroke:#8a3f96;marker-end:url(#undo)}"
    ".note{font-size:9px;fill:#4a525a;paint-order:stroke;stroke:#fff;stroke-width:3px}"
)


def as_svg(flow: Flow) -> str:
    """The picture: nodes in layers from left to right, and what a colour stands for below."""
    layout = lay_out(flow)
    width = max(layout.width, LEGEND_STEP * (len(LEGEND) + 1) + MARGIN)
    top = min((_peak(layout, edge) - MARGIN for edge in flow.edges if _is_back(layout, edge)), default=0.0)
    top = min(top, 0.0)
    height = layout.height + LEGEND_HEIGHT - top
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {top:.0f} {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" aria-label="Flow of messages">',
        f"<style>{STYLE}</style>",
        f"<defs>{_tip('tip', '#6b7480')}{_tip('undo', '#8a3f96')}</defs>",
        f'<rect y="{top:.0f}" width="100%" height="100%" fill="#ffffff"/>',
        *(_edge(edge, layout, flow) for edge in flow.edges),
        *(_node(node, layout.boxes[node.id]) for node in flow.nodes.values()),
        *_legend(layout.height + LEGEND_HEIGHT / 2 - MARGIN / 2),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _tip(name: str, colour: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
    )


# --- nodes ------------------------------------------------------------------------------------------------------------


def _node(node: Node, box: Box) -> str:
    fill, line = colours(node)
    title = f"<title>{_for_svg(node.kind)} of {_for_svg(node.owner)}</title>"
    return f"<g>{title}{_shape(node.kind, box, fill, line)}{_text(box.x, box.y, node.caption)}</g>"


def _shape(kind: str, box: Box, fill: str, line: str) -> str:
    left, top, right, bottom = _sides(box)
    paint = f'fill="{fill}" stroke="{line}"'
    match kind:
        case "step":
            points = f"{left},{box.y} {left + 8},{top} {right - 8},{top} {right},{box.y} {right - 8},{bottom} "
            return f'<polygon points="{points}{left + 8},{bottom}" {paint}/>'
        case "end":
            inner = _rectangle(left + 3, top + 3, box.width - 6, NODE_HEIGHT - 6, 10, paint)
            return _rectangle(left, top, box.width, NODE_HEIGHT, NODE_HEIGHT / 2, paint) + inner
        case "command" | "compensation":
            bars = f'<path d="M{left + 4} {top}V{bottom}M{right - 4} {top}V{bottom}" stroke="{line}"/>'
            return _rectangle(left, top, box.width, NODE_HEIGHT, 0, paint) + bars
        case "event" | "client" | "failure":
            return _rectangle(left, top, box.width, NODE_HEIGHT, NODE_HEIGHT / 2, paint)
        case _:
            return _rectangle(left, top, box.width, NODE_HEIGHT, 3, paint)


def _sides(box: Box) -> tuple[float, float, float, float]:
    return (
        round(box.x - box.width / 2, 1),
        round(box.y - NODE_HEIGHT / 2, 1),
        round(box.x + box.width / 2, 1),
        round(box.y + NODE_HEIGHT / 2, 1),
    )


def _rectangle(left: float, top: float, width: float, height: float, round_: float, paint: str) -> str:
    return f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{round_:.1f}" {paint}/>'


def _text(x: float, y: float, text: str, style: str = "") -> str:
    attribute = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" dy="0.35em"{attribute}>{_for_svg(text)}</text>'


def _for_svg(text: str) -> str:
    return escape(harmless(text))


# --- edges ------------------------------------------------------------------------------------------------------------


def _edge(edge: Edge, layout: Layout, flow: Flow) -> str:
    way = [layout.boxes[id] for id in layout.ways[edge]]
    style = "edge dashed" if edge.kind in DASHED else "edge"
    path = _back(way[0], way[-1]) if _is_back(layout, edge) else _onwards(way)
    source, target = flow.nodes[edge.source].label, flow.nodes[edge.target].label
    title = f"<title>{_for_svg(source)} {edge.kind} {_for_svg(target)}</title>"
    note = _text(*_beside(way), edge.label, "note") if edge.label else ""
    return f'<g>{title}<path class="{style}" d="{path}"/>{note}</g>'


def _onwards(way: list[Box]) -> str:
    """From the right side of the source, level through each point on the way, to the left side of the target."""
    x, y = way[0].x + way[0].width / 2, way[0].y
    path = [f"M{x:.1f} {y:.1f}"]
    for box in way[1:]:
        to = box.x - box.width / 2
        bend = (to - x) / 2
        path.append(f"C{x + bend:.1f} {y:.1f} {to - bend:.1f} {box.y:.1f} {to:.1f} {box.y:.1f}")
        x, y = box.x + box.width / 2, box.y
        if box.width and box is not way[-1]:
            path.append(f"L{x:.1f} {y:.1f}")
    return " ".join(path)


def _is_back(layout: Layout, edge: Edge) -> bool:
    return layout.boxes[edge.target].x <= layout.boxes[edge.source].x + NODE_HEIGHT


def _back(source: Box, target: Box) -> str:
    """From what undoes to what is undone: straight where one stands above the other, else in a bow over the rest."""
    if abs(source.x - target.x) <= NODE_HEIGHT and source.y != target.y:
        side = NODE_HEIGHT / 2 if source.y > target.y else -NODE_HEIGHT / 2
        return f"M{source.x:.1f} {source.y - side:.1f} L{target.x:.1f} {target.y + side:.1f}"
    top = _bow(source, target)
    return (
        f"M{source.x:.1f} {source.y - NODE_HEIGHT / 2:.1f} C{source.x:.1f} {top:.1f} "
        f"{target.x:.1f} {top:.1f} {target.x:.1f} {target.y - NODE_HEIGHT / 2:.1f}"
    )


def _bow(source: Box, target: Box) -> float:
    """How high the bow is drawn towards; it reaches three quarters of that."""
    return min(source.y, target.y) - NODE_HEIGHT - abs(source.x - target.x) / 14


def _peak(layout: Layout, edge: Edge) -> float:
    source, target = layout.boxes[edge.source], layout.boxes[edge.target]
    return (_bow(source, target) * 3 + min(source.y, target.y)) / 4


def _beside(way: list[Box]) -> tuple[float, float]:
    first, second = way[0], way[1]
    side = -1 if second.y < first.y else 1
    return (first.x + first.width / 2 + second.x - second.width / 2) / 2 + 4, second.y + side * 9


# --- legend -----------------------------------------------------------------------------------------------------------


def _legend(y: float) -> Iterator[str]:
    kinds = [*((kind, COLOURS[kind]) for kind in LEGEND), ("failure", FAILURE)]
    for place, (kind, (fill, line)) in enumerate(kinds):
        box = Box(MARGIN + LEGEND_STEP * (place + 0.5), y, LEGEND_STEP - 12)
        yield _shape(kind, box, fill, line) + _text(box.x, box.y, kind)
