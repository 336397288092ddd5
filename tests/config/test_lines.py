"""The line index agrees with the document, however it is written."""

from __future__ import annotations

import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.lines import KeyPath, LineIndex, syntax_line

DOCUMENT = '''\
# a comment with [brackets] and = signs
title = "one"                  # 2
text = """
[not.a.table]
key = 1 """"                   # closes on 5 with a quote of content
after = 6

[gateway]
limits.connections = 9         # dotted
limits."header bytes" = 10
"quoted.key" = 11
list = [                       # 12
  "a,]", # 13
  'b#',
  [1, 2,
   3],                         # 16
  { x = 1, y.z = [ "}" ] },    # 17
]
raw = \'\'\'
\'\'\'
when = 2024-01-01T00:00:00Z    # 21

[apps.tools]
empty = []
none = {}
[[apps.tools.instances]]       # 26
id = "a"
[apps.tools.instances.env]     # 28
A = "1"
[[apps.tools.instances]]       # 30
id = "b"
checks = [{ path = "/" }, { path = "/x" }]
[ apps . "other app" ]         # 33
path = "/"
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("text",), 3),
        (("after",), 6),
        (("gateway",), 8),
        (("gateway", "limits"), 9),
        (("gateway", "limits", "connections"), 9),
        (("gateway", "limits", "header bytes"), 10),
        (("gateway", "quoted.key"), 11),
        (("gateway", "list"), 12),
        (("gateway", "list", 0), 13),
        (("gateway", "list", 1), 14),
        (("gateway", "list", 2, 1), 15),
        (("gateway", "list", 2, 2), 16),
        (("gateway", "list", 3, "y", "z", 0), 17),
        (("gateway", "raw"), 19),
        (("gateway", "when"), 21),
        (("apps",), 23),
        (("apps", "tools"), 23),
        (("apps", "tools", "none"), 25),
        (("apps", "tools", "instances"), 26),
        (("apps", "tools", "instances", 0), 26),
        (("apps", "tools", "instances", 0, "env", "A"), 29),
        (("apps", "tools", "instances", 1), 30),
        (("apps", "tools", "instances", 1, "id"), 31),
        (("apps", "tools", "instances", 1, "checks", 1, "path"), 32),
        (("apps", "other app", "path"), 34),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_each_key_has_its_line(path: KeyPath, line: int, newline: str) -> None:
    tomllib.loads(DOCUMENT)
    assert LineIndex(DOCUMENT.replace("\n", newline)).line(path) == line


def test_a_key_that_is_not_written_down_gets_the_line_of_its_table() -> None:
    index = LineIndex(DOCUMENT)
    assert index.line(("apps", "tools", "instances", 1, "address")) == 30
    assert index.line(("gateway", "limits", "nothing", "here")) == 9
    assert index.line(("nothing",)) == 1
    assert index.line(()) == 1


def test_a_header_written_after_its_subtable_has_its_own_line() -> None:
    assert LineIndex("[a.b]\nx = 1\n[a]\ny = 2\n").line(("a",)) == 3


@pytest.mark.parametrize("text", ["", "\n", "# only a comment", "a = 1", "a = 1 # no newline at the end"])
def test_small_documents(text: str) -> None:
    assert LineIndex(text).line(("a",)) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\nb = \n", 2), ("a = 1\na = 2", 2), ("[a]\n\n[a]\n", 3), ("a = 1\nb = [1,\n\n", 4), ('a = """\n\n', 3)],
)
def test_a_syntax_error_names_its_line(text: str, line: int) -> None:
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    assert syntax_line(caught.value, text) == line


# --- any document -------------------------------------------------------------------------

_strings = st.text(st.characters(codec="utf-8", exclude_characters="\x7f", exclude_categories=("Cc", "Cs")), max_size=8)
_scalars = st.one_of(
    st.booleans().map(lambda value: "true" if value else "false"),
    st.integers(-10, 10).map(str),
    _strings.map(lambda text: json.dumps(text, ensure_ascii=False)),
    _strings.map(lambda text: "'" + text.replace("'", "") + "'"),
    st.lists(_strings, max_size=3).map(lambda lines: "'''\n" + "\n".join(lines).replace("'", "") + "'''"),
    st.lists(_strings, max_size=3).map(
        lambda lines: '"""\n' + "\n".join(json.dumps(line, ensure_ascii=False)[1:-1] for line in lines) + '"""'
    ),
)
_breaks = st.sampled_from(["", " ", "\n", "\n  # ],} \"'\n", "\n\n"])


@st.composite
def _arrays(draw: st.DrawFn, children: st.SearchStrategy[str]) -> str:
    items = draw(st.lists(st.tuples(_breaks, children, _breaks), max_size=3))
    return "[" + ",".join("".join(item) for item in items) + draw(_breaks) + "]"


@st.composite
def _tables(draw: st.DrawFn, children: st.SearchStrategy[str]) -> str:
    items = draw(st.dictionaries(_strings, children, max_size=3))
    return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)} = {value}" for key, value in items.items()) + "}"


_values = st.recursive(_scalars, lambda children: _arrays(children) | _tables(children), max_leaves=8)


def _paths(value: object, path: KeyPath = ()) -> list[KeyPath]:
    items: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    found = [path] if path else []
    for key, child in items:
        found += _paths(child, (*path, key))
    return found


@given(values=st.lists(_values, max_size=6))
def test_every_path_of_any_document_lies_within_its_statement(values: list[str]) -> None:
    text, bounds = "", {}
    for number, value in enumerate(values):
        first = text.count("\n") + 1
        text += f"key{number} = {value}\n"
        bounds[f"key{number}"] = (first, text.count("\n"))
    index = LineIndex(text)
    written = index._lines
    for path in _paths(tomllib.loads(text)):
        first, last = bounds[str(path[0])]
        assert first <= written[path] <= last, path
