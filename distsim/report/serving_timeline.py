"""A timeline of a service in Chrome's trace format: opens in https://ui.perfetto.dev and chrome://tracing.

A process per replica with its iterations as slices (a steady stretch is one slice; of pipelined replicas those that overlap go
to lanes of their own), and its queue and KV blocks as counters; one process with the requests as asynchronous slices, each
made of waiting, prompt and generation. Large runs are cut to ``SLICES`` iterations and ``REQUESTS`` requests, the earliest;
``otherData`` says what is shown.
"""

from __future__ import annotations

import gzip
import heapq
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from distsim.errors import ConfigError
from distsim.serving.result import ServingResult

SLICES = 200_000
REQUESTS = 20_000
#: process of the requests
_REQUESTS_AT = 1_000_000


def write_timeline(path: str | os.PathLike[str], result: ServingResult) -> None:
    """Write it, gzipped where the name ends in .gz; to a temporary name first. Equal results give equal bytes. Raises
    ConfigError where the place cannot be written."""
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    total, asked = len(result.iterations["start"]), len(result.requests)
    note = f"{min(total, SLICES):,} of {total:,} slices, {min(asked, REQUESTS):,} of {asked:,} requests"
    head = {"displayTimeUnit": "ms", "otherData": {"shown": note, "end_us": result.end / 1e6}}
    try:
        with part.open("wb") as raw:
            file = gzip.GzipFile("", "wb", compresslevel=5, fileobj=raw, mtime=0) if target.suffix == ".gz" else raw
            file.write(json.dumps(head)[:-1].encode() + b', "traceEvents": [\n')
            separator = b""
            for event in _events(result):
                file.write(separator + event.encode())
                separator = b",\n"
            file.write(b"\n]}\n")
            if file is not raw:
                file.close()
        part.replace(target)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror or error}", where=str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def check_timeline(path: str) -> None:
    """Refuse, before any work, what could not be written. Raises ConfigError."""
    if not path.endswith((".json", ".json.gz")):
        raise ConfigError("has no ending of a timeline", where=path, expected="timeline.json or timeline.json.gz")
    folder = Path(path).absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot be written: no folder {folder} to write to", where=path)
    if Path(path).is_dir():
        raise ConfigError("is a folder", where=path, expected="a file such as timeline.json.gz")


def _events(result: ServingResult) -> Iterator[str]:
    for row in result.replicas:
        name = json.dumps(f"replica {row.number} ({row.pool}, {row.gpus} x {row.gpu})")
        yield f'{{"ph":"M","name":"process_name","pid":{row.number},"args":{{"name":{name}}}}}'
    yield f'{{"ph":"M","name":"process_name","pid":{_REQUESTS_AT},"args":{{"name":"requests"}}}}'
    yield from _iterations(result)
    yield from _requests(result)


def _iterations(result: ServingResult) -> Iterator[str]:
    log = result.iterations
    order = np.lexsort((log["replica"], log["start"]))[:SLICES]
    free: dict[int, list[tuple[int, int]]] = {}  #: replica -> heap of (end, lane)
    columns = (log[name][order].tolist() for name in log)
    for values in zip(*columns, strict=True):
        one = dict(zip(log, values, strict=True))
        replica, start, took = one["replica"], one["start"], one["ps"] * one["count"]
        lanes = free.setdefault(replica, [])
        if lanes and lanes[0][0] <= start:
            lane = lanes[0][1]
            heapq.heapreplace(lanes, (start + took, lane))
        else:
            lane = len(lanes)
            heapq.heappush(lanes, (start + took, lane))
        parts = [f"{one['prefills']} prompts ({one['tokens']} tokens)"] if one["prefills"] else []
        parts += [f"{one['sequences']} generate"] if one["sequences"] else []
        name = json.dumps(" + ".join(parts) + (f", {one['count']} times" if one["count"] > 1 else ""))
        kind = "prefill" if one["prefills"] else "decode"
        args = f'"kv_tokens":{one["kv"]},"each_us":{_us(one["ps"])}'
        yield (
            f'{{"ph":"X","name":{name},"cat":"{kind}","pid":{replica},"tid":{lane},"ts":{_us(start)},"dur":{_us(took)},'
            f'"args":{{{args}}}}}'
        )
        yield f'{{"ph":"C","name":"KV blocks","pid":{replica},"ts":{_us(start)},"args":{{"used":{one["used"]}}}}}'
        yield f'{{"ph":"C","name":"queue","pid":{replica},"ts":{_us(start)},"args":{{"waiting":{one["waiting"]}}}}}'


def _requests(result: ServingResult) -> Iterator[str]:
    requests = result.requests
    names = ("arrival", "scheduled", "first", "completed", "prompt", "output", "replica")
    columns = (getattr(requests, name)[:REQUESTS].tolist() for name in names)
    for row, (arrival, scheduled, first, completed, prompt, output, replica) in enumerate(zip(*columns, strict=True)):
        if scheduled < 0:
            continue
        args = f'{{"prompt_tokens":{prompt},"output_tokens":{output},"replica":{replica}}}'
        last = max(arrival, scheduled, first, completed)
        spans = [("request", arrival, last), ("waiting", arrival, scheduled)]
        spans += [("prompt", scheduled, first)] if first >= 0 else []
        spans += [("generation", first, completed)] if completed > first >= 0 else []
        for name, begin, end in spans:
            said = f'"{name} {row}"' if name == "request" else f'"{name}"'
            place = f'"cat":"request","id":{row},"pid":{_REQUESTS_AT},"tid":0'
            yield f'{{"ph":"b","name":{said},{place},"ts":{_us(begin)},"args":{args if name == "request" else "{}"}}}'
            yield f'{{"ph":"e","name":{said},{place},"ts":{_us(end)}}}'


def _us(ps: int) -> str:
    """Microseconds, exact."""
    return f"{ps // 1_000_000}.{ps % 1_000_000:06d}"
