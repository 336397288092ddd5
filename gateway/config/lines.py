"""Where each key of a TOML document stands: key path -> line.

`tomllib` gives values without positions, so this walks the text a second time. It is no parser: it is handed only
text that `tomllib` has accepted, keeps track of nesting and strings, and leaves what keys mean to `tomllib`.
"""

from __future__ import annotations

import re
import tomllib

KeyPath = tuple[str | int, ...]
"""Table keys and array positions from the document's root."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_INLINE_BLANK = re.compile(r"[ \t]*")
_KEY = re.compile(r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*'|[ \t.])+""")
_BASIC = re.compile(r'"(?:[^"\\]|\\.)*"')
_LITERAL = re.compile(r"'[^']*'")
# The closing quotes may have one or two quotes of content before them (TOML 1.0, "String").
_MULTI_BASIC = re.compile(r'"""(?:[^\\]|\\.)*?"""(?!")', re.DOTALL)
_MULTI_LITERAL = re.compile(r"'''.*?'''(?!')", re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\r\n]+")


class LineIndex:
    """The line (from 1) of every key, array element and table header of one document."""

    def __init__(self, text: str) -> None:
        """Index `text`, which `tomllib.loads` has accepted."""
        self._text = text.replace("\r\n", "\n")
        self._at = 0
        self._line = 1
        self._counted = 0
        self._lines: dict[KeyPath, int] = {}
        self._arrays: dict[KeyPath, int] = {}
        self._document()

    def line(self, path: KeyPath) -> int:
        """The line of `path`, or of the nearest table around it that is written down; 1 for none."""
        for end in range(len(path), 0, -1):
            line = self._lines.get(path[:end])
            if line is not None:
                return line
        return 1

    def _document(self) -> None:
        table: KeyPath = ()
        self._take(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._take(_BLANK)

    def _header(self) -> KeyPath:
        line = self._here()
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        self._at += brackets
        parts = _key_parts(self._take(_KEY))
        self._at += brackets
        path: KeyPath = ()
        for number, part in enumerate(parts, 1):
            path = (*path, part)
            last = number == len(parts)
            if last and brackets == 2:
                self._note(path, line)
                self._arrays[path] = self._arrays.get(path, -1) + 1
            # A header that goes through an array of tables means its newest element (TOML 1.0, "Array of Tables").
            if path in self._arrays:
                path = (*path, self._arrays[path])
            self._note(path, line)
        # `[a.b]` before `[a]` only implies `a`; its own header says better where it stands.
        self._lines[path] = line
        return path

    def _pair(self, table: KeyPath) -> None:
        line = self._here()
        path = table
        for part in _key_parts(self._take(_KEY)):
            path = (*path, part)
            self._note(path, line)
        self._at += 1  # "="
        self._take(_INLINE_BLANK)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        text, at = self._text, self._at
        if text.startswith('"""', at):
            self._take(_MULTI_BASIC)
        elif text.startswith("'''", at):
            self._take(_MULTI_LITERAL)
        elif text[at] == '"':
            self._take(_BASIC)
        elif text[at] == "'":
            self._take(_LITERAL)
        elif text[at] == "[":
            self._array(path)
        elif text[at] == "{":
            self._inline_table(path)
        else:
            self._take(_SCALAR)

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        number = 0
        self._take(_BLANK)
        while self._text[self._at] != "]":
            self._note((*path, number), self._here())
            self._value((*path, number))
            number += 1
            self._comma()
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        self._take(_BLANK)
        while self._text[self._at] != "}":
            self._pair(path)
            self._comma()
        self._at += 1

    def _comma(self) -> None:
        self._take(_BLANK)
        if self._text[self._at] == ",":
            self._at += 1
            self._take(_BLANK)

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise AssertionError(f"not TOML at line {self._here()}")
        self._at = match.end()
        return match.group()

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _note(self, path: KeyPath, line: int) -> None:
        self._lines.setdefault(path, line)


def _key_parts(text: str) -> list[str]:
    """The parts of a dotted key, as TOML reads them."""
    parts: list[str] = []
    value: object = tomllib.loads(f"{text} = 0")
    while isinstance(value, dict):
        ((part, value),) = value.items()
        parts.append(part)
    return parts


def syntax_line(error: ValueError, text: str) -> int:
    """The line that a `tomllib` error is about; it says so only in its text before Python 3.14."""
    found = re.search(r"at line (\d+)", str(error))
    return int(found.group(1)) if found else text.count("\n") + 1
