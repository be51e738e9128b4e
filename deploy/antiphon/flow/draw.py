"""The flow as text for programs that draw: Mermaid, Graphviz' DOT, and JSON."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from antiphon.contracts.foreign_text import harmless, harmless_json

from .graph import EdgeKind, Flow, Node, NodeKind

COLOURS: Final[dict[NodeKind, tuple[str, str]]] = {
    "client": ("#ffffff", "#555555"),
    "event": ("#fff3d6", "#b07d12"),
    "command": ("#dcebfa", "#2b6ca3"),
    "compensation": ("#f3e1f5", "#8a3f96"),
    "handler": ("#e2f3e4", "#3c7d45"),
    "step": ("#eef0f2", "#5b6770"),
    "end": ("#ffffff", "#222222"),
}
"""What a kind of node is filled with and outlined in."""

FAILURE: Final = ("#fbe0dd", "#b3372b")
"""The same for an event that says that something was refused."""

DASHED: Final[tuple[EdgeKind, ...]] = ("compensates",)

_SHAPES: Final[dict[NodeKind, tuple[str, str]]] = {
    "client": ("((", "))"),
    "event": ("([", "])"),
    "command": ("[[", "]]"),
    "compensation": ("[[", "]]"),
    "handler": ("[", "]"),
    "step": ("{{", "}}"),
    "end": ("(((", ")))"),
}

_DOT_SHAPES: Final[dict[NodeKind, str]] = {
    "client": "circle",
    "event": 'box, style="rounded,filled"',
    "command": "box, peripheries=2",
    "compensation": "box, peripheries=2",
    "handler": "box",
    "step": "hexagon",
    "end": "doublecircle",
}


def colours(node: Node) -> tuple[str, str]:
    """What a node is filled with and outlined in."""
    return FAILURE if node.is_failure else COLOURS[node.kind]


def as_json(flow: Flow) -> bytes:
    """Nodes and edges."""
    drawn = {"nodes": list(flow.nodes.values()), "edges": flow.edges}
    return harmless_json(msgspec.json.format(msgspec.json.encode(drawn), indent=2))


def as_mermaid(flow: Flow) -> str:
    """A flowchart in Mermaid's language, which several forges and editors draw."""
    names = _names(flow)
    lines = ["flowchart LR"]
    for node in flow.nodes.values():
        left, right = _SHAPES[node.kind]
        style = "failure" if node.is_failure else node.kind
        lines.append(f'  {names[node.id]}{left}"{_for_mermaid(node.caption)}"{right}:::kind-{style}')
    for edge in flow.edges:
        arrow = "-.->" if edge.kind in DASHED else "-->"
        label = f'|"{_for_mermaid(edge.label)}"|' if edge.label else ""
        lines.append(f"  {names[edge.source]} {arrow}{label} {names[edge.target]}")
    for kind, (fill, line) in [*COLOURS.items(), ("failure", FAILURE)]:
        lines.append(f"  classDef kind-{kind} fill:{fill},stroke:{line},color:#111111")
    return "\n".join(lines) + "\n"


def as_dot(flow: Flow) -> str:
    """A graph in the language of Graphviz."""
    names = _names(flow)
    lines = ["digraph flow {", "  rankdir=LR;", '  node [fontname="sans-serif", fontsize=10, style=filled];']
    for node in flow.nodes.values():
        fill, line = colours(node)
        lines.append(
            f'  {names[node.id]} [label="{_for_dot(node.caption)}", fillcolor="{fill}", color="{line}", '
            f"shape={_DOT_SHAPES[node.kind]}];"
        )
    for edge in flow.edges:
        attributes = [f'label="{_for_dot(edge.label)}"'] if edge.label else []
        attributes += ["style=dashed", "constraint=false"] if edge.kind in DASHED else []
        ending = f" [{', '.join(attributes)}]" if attributes else ""
        lines.append(f"  {names[edge.source]} -> {names[edge.target]}{ending};")
    return "\n".join([*lines, "}"]) + "\n"


def _for_mermaid(text: str) -> str:
    """A text inside quotation marks. Mermaid takes HTML, Markdown, entities and directives out of one, so every sign
    of ASCII that may mean something to it stands as its number."""
    return re.sub(r"[!-~]", lambda found: _sign_for_mermaid(found.group()), harmless(text))


def _sign_for_mermaid(sign: str) -> str:
    return sign if sign.isalnum() or sign in "_.,:()/=+-" else f"#{ord(sign)};"


def _for_dot(text: str) -> str:
    """A text inside quotation marks. Graphviz takes escapes and HTML entities out of one."""
    return harmless(text).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')


def _names(flow: Flow) -> dict[str, str]:
    """Identifiers that both languages take; numbered, because different ids may look alike without their marks."""
    return {id: f"n{number}_{re.sub(r'[^A-Za-z0-9]', '_', id)}" for number, id in enumerate(flow.nodes)}
