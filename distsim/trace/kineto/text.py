"""The JSON of a Kineto file, event by event: never the whole document in memory, and what is damaged is stepped over.

Kineto writes its JSON by hand: files that were cut off when a job died, trailing commas, ``nan`` and ``inf`` in numbers and
backslashes or bytes of other encodings in names do occur. The text is read as Latin-1, one byte a character (any file decodes,
and takes no more memory than it has bytes); :func:`proper` mends the few strings that are kept.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from distsim.errors import TraceError
from distsim.trace.kineto.sniff import HEAD

_BETWEEN = re.compile(r"[ \t\r\n,\x00]*")
_SPACE = re.compile(r"[ \t\r\n]*")
_NEXT_EVENT = re.compile(r'\}[ \t\r\n]*,[ \t\r\n]*\{[ \t\r\n]*"')
_NO_NUMBER = re.compile(r"(?<=[:\[,])(\s*)[-+]?(?:nan|inf(?:inity)?)(?:\([a-z]*\))?(?=\s*[,}\]])", re.IGNORECASE)
_NO_ESCAPE = re.compile(r'\\(?!["\\/bfnrt]|u[0-9a-fA-F]{4})')
_FRACTION = re.compile(rb'"ts"\s*:\s*(\d{13,})\.\d')
#: from here on a float64 of microseconds does not tell nanoseconds apart any more (an ulp is 2 ns)
_COARSE_US = 2**43


def proper(text: str) -> str:
    """A string of the text as its writer meant it: UTF-8, where it is."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:  # \u escapes beyond Latin-1: it has been right from the start, but for half a pair
        return text.encode("utf-8", "replace").decode()


class Events:
    """The events of a file, and afterwards what else it says.

    ``head`` (the other keys of the document), ``damaged`` (events stepped over), ``mended`` (events with numbers or escapes
    that are no JSON) and ``cut`` (the end is missing) are complete once the iteration is over.
    """

    def __init__(self, data: bytes, label: str) -> None:
        self.label = label
        self.head: dict[str, Any] = {}
        self.damaged = 0
        self.mended = 0
        self.cut = False
        self._seen = False  # the list of events
        coarse = _FRACTION.search(data, 0, HEAD)
        #: times are Decimal: a float would lose nanoseconds
        self.exact = coarse is not None and int(coarse[1]) >= _COARSE_US
        self._as_it_is = data.isascii() and not self.exact
        self._text = data.decode("latin-1")
        decoder: Any = json.JSONDecoder(parse_float=Decimal if self.exact else None, strict=False)
        self._scan = decoder.scan_once

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Raises TraceError where the file is not JSON at all."""
        text = self._text
        start = _SPACE.match(text, 3 if text.startswith("\xef\xbb\xbf") else 0)
        at = start.end() if start else 0
        if text[at : at + 1] == "[":
            yield from self._events(at + 1)
            return
        at += 1
        while True:
            at = _end(_BETWEEN, text, at)
            if at >= len(text):
                self.cut = True
                return
            if text[at] == "}":
                return
            try:
                key, at = self._scan(text, at)
                at = _end(_SPACE, text, at)
                if text[at : at + 1] != ":" or not isinstance(key, str):
                    raise ValueError("a key and a colon are missing")
                at = _end(_SPACE, text, at + 1)
                if key == "traceEvents" and text[at : at + 1] == "[":
                    at = yield from self._events(at + 1)
                    if self.cut:
                        return
                    continue
                self.head[key], at = self._scan(text, at)
            except (ValueError, StopIteration, RecursionError) as error:
                events = text.find('"traceEvents"', at)
                if events < 0:
                    if "traceEvents" in self.head or self._seen:
                        self.cut = True
                        return
                    raise TraceError(f"is not JSON ({error})", where=self.label) from None
                self.damaged += 1
                at = events

    def kept(self, args: dict[str, Any]) -> dict[str, Any]:
        """Arguments of an event that stay in memory: as :func:`plain`, and equal words of a hundred thousand of them once."""
        proper_args = args if self._as_it_is else plain(args)
        intern = sys.intern
        return {intern(key): intern(value) if type(value) is str else value for key, value in proper_args.items()}

    def _events(self, at: int):  # type: ignore[no-untyped-def]
        """The events of the list that starts here; returns the place after it."""
        text, scan, between, size = self._text, self._scan, _BETWEEN.match, len(self._text)
        self._seen = True
        while True:
            at = between(text, at).end()  # type: ignore[union-attr]
            if at >= size:
                self.cut = True
                return at
            if text[at] == "]":
                return at + 1
            try:
                event, at = scan(text, at)
            except (ValueError, StopIteration):
                following = _NEXT_EVENT.search(text, at)
                end = following.start() + 1 if following else self._last(at)
                event = self._mend(text[at:end])
                if event is None and following is None:
                    self.cut = True
                    return size
                at = end
            except RecursionError:
                raise TraceError("is nested too deeply", where=self.label) from None
            if isinstance(event, dict):
                yield event
            else:
                self.damaged += 1

    def _last(self, at: int) -> int:
        """End of the last event of the list, which cannot be read as it stands."""
        end = re.compile(r"\}[ \t\r\n,]*\]").search(self._text, at)
        return end.start() + 1 if end else len(self._text)

    def _mend(self, text: str) -> Any:
        """An event whose numbers or escapes are no JSON; None where it cannot be read even so."""
        mended = _NO_ESCAPE.sub(r"\\\\", _NO_NUMBER.sub(r"\1null", text))
        try:
            event = self._scan(mended, 0)[0]
        except (ValueError, StopIteration):
            return None
        self.mended += 1
        return event


def plain(value: Any) -> Any:
    """What the file says, with proper strings and floats for exact numbers.

    >>> plain({"dtype": "Float", "est": [Decimal("0.5")]})
    {'dtype': 'Float', 'est': [0.5]}
    """
    if isinstance(value, str):
        return proper(value)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {proper(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at
