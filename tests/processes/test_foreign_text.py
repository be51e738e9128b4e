"""Whatever stands in a field that somebody else writes, no renderer hands it to the terminal as it is.

Here every view, drawing and log line is given hostile texts in each field that its type has;
`test_foreign_text_stored.py` stores them on a server, and runs the commands.
"""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import msgspec
import pytest
from msgspec.structs import replace
from rich.console import Console

from antiphon.contracts.identity import SagaKey
from antiphon.coordinator.views.parked import Message, Waiting
from antiphon.coordinator.views.timeline import Summary, Timeline
from antiphon.deploy.cli import flows, listing, operating, trace
from antiphon.deploy.local import demo, up
from antiphon.deploy.local.children import Child
from antiphon.deploy.render import plain, tables, terminal, waterfall
from antiphon.flow.draw import as_dot, as_json, as_mermaid
from antiphon.flow.graph import Edge, Flow, Node
from antiphon.flow.lookup import About
from antiphon.flow.svg import as_svg
from antiphon.tracing.projection import tree
from antiphon.tracing.projection.differences import Difference
from antiphon.tracing.projection.project import Projection
from antiphon.tracing.projection.spans import Span
from tests.support.hostile import FORGED, HALF, HOSTILE, assert_harmless, harm_in, infected, whole

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy/antiphon/deploy"
TEXTS: Final = (HOSTILE, HOSTILE + HALF)
KEY: Final = SagaKey.of("order", "one")

VIEWS: Final[dict[type[msgspec.Struct], Callable[[Any], None]]] = {
    Timeline: tables.print_timeline,
    Summary: lambda view: tables.print_summaries([view]),
    Waiting: lambda view: tables.print_waiting([view]),
    listing.Listed: lambda view: listing.print_listed([view]),
    Message: lambda view: terminal.say(*operating._described(view)),
    About: lambda view: terminal.say(*flows._told(view)),
}
"""What a command shows, and by which function. A saga's type and id are tokens before a command looks for it."""
TOKENS: Final = {"type": "order", "id": "one", "saga": "order/one"}


def filled(shape: type[msgspec.Struct], text: str) -> Iterator[Any]:
    """Values of a shape with the text in each field that takes one, and in all of them."""
    names = set(shape.__struct_fields__) & set(TOKENS)
    for value in [*(value for _, value in infected(shape, text)), whole(shape, text)]:
        try:
            found = msgspec.convert(value, shape)
        except (msgspec.ValidationError, UnicodeEncodeError):
            continue  # a number, or a word out of a few
        yield replace(found, **{name: TOKENS[name] for name in names})


@pytest.mark.parametrize("text", TEXTS, ids=["whole", "half"])
@pytest.mark.parametrize("shape", VIEWS, ids=lambda shape: shape.__name__)
def test_a_view_shows_hostile_texts_and_obeys_none(
    shape: type[msgspec.Struct], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for view in filled(shape, text):
        VIEWS[shape](view)
        assert_harmless(capsys.readouterr().out)


@pytest.mark.parametrize("shape", VIEWS, ids=lambda shape: shape.__name__)
def test_json_has_hostile_texts_as_they_are_and_is_harmless(
    shape: type[msgspec.Struct], capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    for view in filled(shape, HOSTILE):
        terminal.say_json(view)
        out = capsysbinary.readouterr().out
        assert harm_in(out.decode()) == []
        assert json.loads(out) == json.loads(msgspec.json.encode(view))


# --- traces -----------------------------------------------------------------------------------------------------------

NAMES: Final = {*re.findall(r'"(saga\.\w+)"', Path(waterfall.__file__).read_text() + Path(tree.__file__).read_text())}
"""The attributes that are drawn."""


def projections(text: str) -> Iterator[Projection]:
    attributes = dict.fromkeys(NAMES - {"saga.queue_ms"}, text)
    root = Span("t", "r", "", text, "internal", text, 0, 10**9, {**attributes, "saga.outcome": "completed"})
    for number, (_, value) in enumerate(infected(Span, text)):
        try:
            span = msgspec.convert(value, Span)
        except (msgspec.ValidationError, UnicodeEncodeError):
            continue
        found = {**attributes, **span.attributes} if number % 2 else {"saga.direction": "do", **span.attributes}
        child = replace(span, span_id="c", parent_id="r", start_ns=10, end_ns=10**8, attributes=found)
        yield Projection(KEY, (root, child), (), read_to=1, outcome="completed" if number % 3 else "")


@pytest.mark.parametrize("text", TEXTS, ids=["whole", "half"])
@pytest.mark.parametrize("width", [60, 100, 200])
def test_a_trace_is_drawn_with_hostile_texts_and_obeys_none(text: str, width: int) -> None:
    drawn = 0
    for projection in projections(text):
        out = io.StringIO()
        screen = Console(file=out, width=width, highlight=False)
        trace.draw(screen, projection, True, f"http://x/{text}")
        first, second = projection.spans
        screen.print(
            waterfall.difference_table([Difference(text, first, second), Difference(text, second, None)], width)
        )
        assert_harmless(out.getvalue())
        drawn += 1
    assert drawn > 8


# --- flows ------------------------------------------------------------------------------------------------------------


def drawn_flows(text: str) -> Iterator[Flow]:
    """Flows of two nodes and an edge, with the text in each field."""
    one, two = Node("one", "event", "a", "b"), Node("two", "handler", "c", "d")
    edge = Edge("one", "two", "handles")
    for node in filled_parts(Node, text):
        found = replace(node, id=f"{node.id}1")
        yield Flow({found.id: found, "two": two}, (Edge(found.id, "two", "handles"),), {}, {}, {})
    for each in filled_parts(Edge, text):
        yield Flow({"one": one, "two": two}, (replace(each, source="one", target="two"), edge), {}, {}, {})


def filled_parts(shape: Any, text: str) -> Iterator[Any]:
    for _, value in infected(shape, text):
        try:
            yield msgspec.convert(value, shape)
        except (msgspec.ValidationError, UnicodeEncodeError):
            continue


MERMAID: Final = re.compile(
    r"flowchart LR|  n\d\w*\W{1,3}\"[^\"<>&`%|{}\\]*\"\W{1,3}:::kind-\w+"
    r"|  n\d\w* (-->|-\.->)(\|\"[^\"<>&`%|{}\\]*\"\|)? n\d\w*|  classDef .*"
)
DOT: Final = re.compile(
    r"(digraph flow \{|\}|  (rankdir|node ).*|  n\d\w*( -> n\d\w*)?( \[(\w+=(\"([^\"\\]|\\[\"\\])*\"|\w+)(, )?)+\])?;)"
)


@pytest.mark.parametrize("text", TEXTS, ids=["whole", "half"])
def test_no_text_breaks_out_of_a_drawing(text: str) -> None:
    for flow in drawn_flows(text):
        for line in as_mermaid(flow).splitlines():
            assert MERMAID.fullmatch(line), line
        for line in as_dot(flow).splitlines():
            assert DOT.fullmatch(line), line
            assert not re.search(r"&(?!amp;)", line)
        picture = ElementTree.fromstring(as_svg(flow))
        assert {each.tag.rpartition("}")[2] for each in picture.iter()} <= SVG_TAGS
        for drawn in (as_mermaid(flow), as_dot(flow), as_svg(flow)):
            assert harm_in(drawn) == []
        if HALF not in text:
            assert harm_in(as_json(flow).decode()) == []


SVG_TAGS: Final = {"svg", "style", "defs", "marker", "path", "rect", "g", "title", "text", "polygon"}


# --- lines ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS, ids=["whole", "half"])
def test_lines_are_harmless_on_both_streams(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say(text, "and more")
    terminal.say_document(f"{text}\n")
    plain.warn(text)
    plain.warn_fault(ValueError(text))
    out = capsys.readouterr()
    for each in (out.out, out.err):
        assert FORGED in each
        assert harm_in(each) == []
    assert out.out.startswith("HOSTILE")
    assert f"\n{FORGED}" not in out.err


@pytest.mark.parametrize("text", TEXTS, ids=["whole", "half"])
def test_lines_of_children_and_about_them_are_harmless(text: str) -> None:
    out = io.StringIO()
    screen = Console(file=out, width=80, highlight=False)
    up.speaker(screen)(text, text)
    demo._noter(screen)(text, text)
    assert FORGED in out.getvalue()
    assert_harmless(out.getvalue())


async def test_what_a_child_writes_is_harmless_in_its_log_and_on_the_terminal(tmp_path: Path) -> None:
    lines = list[str]()
    program = f"import sys; sys.stdout.buffer.write({HOSTILE.encode()!r} + b'\\xff\\n' + b'x' * 70000 + b'\\nlast')"
    command = [sys.executable, "-c", program]
    child = Child("child", command, {}, tmp_path, lambda _, line: lines.append(line), lambda *_: None)
    child._process = await child._spawn()
    await child._follow(child._process)
    await child._process.wait()
    logged = child.log.read_text()
    assert "\\x1b]0;title" in logged
    assert f"\n{'x' * 70000}\nlast" in logged
    assert "\\xff" in logged
    assert harm_in(logged) == []
    for line in lines:
        assert harm_in(line) == []
        assert "\n" not in line


LOGGING: Final = """
    import logging, sys
    import structlog
    from antiphon.tracing.telemetry.logs import configure
    from tests.support.hostile import HALF, HOSTILE

    configure(readable=sys.argv[1] == "text")
    log = structlog.get_logger()


    class Odd:
        def __repr__(self):
            return HOSTILE


    log.info(HOSTILE, text=HOSTILE, values=[HOSTILE, {HOSTILE: HOSTILE}], odd=Odd(), **{HOSTILE: 1})
    log.info("half", text=HOSTILE + HALF)
    logging.warning(HOSTILE)
    logging.getLogger(HOSTILE).error("%s", HOSTILE, stack_info=True)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.exception("it.failed", subject=HOSTILE)
        logging.exception(HOSTILE)
    log.error("last", exc_info=ValueError(HOSTILE))
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_line_of_a_log_is_obeyed_by_a_terminal(form: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LOGGING), form], cwd=ROOT, capture_output=True, timeout=120, check=True
    )
    said = ran.stderr.decode()
    assert FORGED in said
    assert "last" in said
    assert harm_in(said) == []
    for line in said.splitlines():
        if form == "json":
            assert isinstance(json.loads(line), dict)
        else:
            assert re.match(r"\d{4}-\d\d-\d\dT|    |$", line), line


# --- the command line -------------------------------------------------------------------------------------------------

MODULE: Final = f"""
def __getattr__(name):
    if name == "refused":
        return "{{}}"
    raise ValueError({HOSTILE!r})
"""


def antiphon(folder: Path, *arguments: str) -> str:
    """Run the command line to its end, and return what it said in vain."""
    ran = subprocess.run(
        [sys.executable, "-m", "antiphon.deploy", *arguments], cwd=folder, capture_output=True, timeout=120, check=False
    )
    assert ran.returncode in (1, 2)
    assert harm_in(ran.stdout.decode()) == []
    return ran.stderr.decode()


def test_an_error_is_told_in_harmless_words(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text(f"raise ValueError({HOSTILE!r})\n")
    for arguments in (("diff", "broken:x", "broken:x"), ("diff", "faulty:x", "faulty:x")):
        said = antiphon(tmp_path, *arguments)
        assert "HOSTILE" in said
        assert harm_in(said) == []
        assert f"\n{FORGED}" not in said


def test_nothing_is_written_to_the_terminal_but_by_what_makes_it_harmless() -> None:
    found = [
        f"{path.relative_to(ROOT)} {name}"
        for path in sorted(DEPLOY.rglob("*.py"))
        if path not in (DEPLOY / "render/terminal.py", DEPLOY / "render/plain.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (name := _writes(node))
    ]
    assert found == []


def _writes(node: ast.AST) -> str:
    match node:
        case ast.Call(func=ast.Name(id="print" | "Console" as name)):
            return name
        case ast.Call(func=ast.Attribute(attr="echo" | "secho" | "write" | "writelines" as name) as function):
            whose = ast.unparse(function.value)
            return f"{whose}.{name}" if name.endswith("echo") or "std" in whose else ""
        case ast.ImportFrom(module="rich.markup"):
            return "rich.markup"
        case _:
            return ""
