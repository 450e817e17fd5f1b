"""Which files are captured traces, judged by their beginning; imports next to nothing, since every trace passes here."""

from __future__ import annotations

import os
import re
import zlib

#: how much of a file is looked at
HEAD = 1 << 18
_NAMES = (".json", ".json.gz")
_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{")
_TRACE_EVENTS = re.compile(rb'"traceEvents"\s*:\s*\[')
_EVENT_LIST = re.compile(rb'(?:\xef\xbb\xbf)?\s*\[\s*\{\s*"(?:ph|cat|name|pid|tid|ts|dur|args)"\s*:')


def recognises(data: bytes) -> bool:
    """Whether these bytes are (the beginning of) a Kineto trace: an object with traceEvents, or a list of events."""
    if _OBJECT.match(data):
        return _TRACE_EVENTS.search(data) is not None
    return _EVENT_LIST.match(data) is not None and b'"ph"' in data[:HEAD]


def captures_of(path: str) -> tuple[str, ...]:
    """The captured traces of a folder in natural order (rank 2 before rank 10), or the file itself; empty where it is none."""
    if not os.path.isdir(path):
        return (path,) if os.path.isfile(path) and is_capture(path) else ()
    names = sorted((name for name in os.listdir(path) if name.endswith(_NAMES)), key=_natural)
    return tuple(full for full in (os.path.join(path, name) for name in names) if os.path.isfile(full) and is_capture(full))


def is_capture(path: str) -> bool:
    """Whether a file is a Kineto trace, judged by its beginning."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False
    if head[:2] == b"\x1f\x8b":
        try:
            head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEAD)
        except zlib.error:
            return False
    return recognises(head)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
