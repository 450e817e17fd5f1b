"""Where a trace's bytes are: the rank files of a prefix, a folder, a single file or a tar, and how results are written.

Rank files are called ``PREFIX.<rank>.et`` (or ``.json``) and number their ranks from 0 without a gap. Anything may be
gzip. The groups file is ``PREFIX.json`` beside them.
"""

from __future__ import annotations

import gzip
import io
import itertools
import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distsim.errors import ConfigError, TraceError

_RANKED = re.compile(r"^(?P<stem>.*)\.(?P<rank>\d{1,9})\.(?P<kind>et|json)(?:\.gz)?$")
_TAR = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True, slots=True)
class RankFile:
    """One rank's part of a trace; ``load`` gives its bytes, unzipped."""

    rank: int
    label: str  #: path, for messages
    load: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Located:
    """The rank files of a trace in rank order, and its groups file (label, bytes) if there is one."""

    source: str
    kind: str  #: "et" or "json"
    files: tuple[RankFile, ...]
    groups: tuple[str, bytes] | None = None


def paths_of(trace: str | tuple[str, ...]) -> tuple[str, ...]:
    """The paths of a trace that is named by one path, or by those of its ranks."""
    return (trace,) if isinstance(trace, str) else trace


def shown(trace: str | tuple[str, ...]) -> str:
    """A trace's paths, for messages."""
    first, *rest = paths_of(trace)
    return f"{first} and {len(rest)} more" if rest else first


def is_tar(path: str) -> bool:
    """By its name."""
    return path.endswith(_TAR)


def unzip(data: bytes, label: str) -> bytes:
    """The bytes, gunzipped if they are gzip. TraceError where the gzip stream is damaged."""
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(
            f"is a damaged gzip file ({error})", where=label, fix="Copy it again from where it was made."
        ) from None


def read_bytes(path: str | Path) -> bytes:
    """A file's bytes, unzipped. TraceError where it cannot be read."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise TraceError(f"cannot be read ({error.strerror})", where=str(path)) from None
    return unzip(data, str(path))


def locate(path: str) -> Located:
    """Rank files of a prefix, folder, tar or single rank file. TraceError where there are none or a rank is missing."""
    if is_tar(path) and os.path.isfile(path):
        return _arrange(path, _members(path))
    archive = path.rpartition(":")[0]
    if is_tar(archive) and os.path.isfile(archive):  # one of several traces in a tar
        return _arrange(path, {label: load for label, load in _members(archive).items() if label.startswith(path + ".")})
    if os.path.isfile(path):
        match = _RANKED.match(path)
        kind = match["kind"] if match else "json" if path.removesuffix(".gz").endswith(".json") else "et"
        return Located(path, kind, (RankFile(0, path, lambda: read_bytes(path)),))
    folder, stem = (path, None) if os.path.isdir(path) else os.path.split(path)
    try:
        names = sorted(os.listdir(folder or "."))
    except OSError:
        names = []
    found: dict[str, Callable[[], bytes]] = {}
    for name in names:
        if stem is not None and not name.startswith(stem + "."):
            continue
        if name.endswith((".et", ".et.gz", ".json", ".json.gz")):
            full = os.path.join(folder, name)
            found[full] = lambda full=full: read_bytes(full)  # type: ignore[misc]
    if not any(_RANKED.match(name) for name in found):
        near = [n for n in names if n.endswith((".et", ".json", ".parquet", ".et.gz", *_TAR))][:3]
        raise TraceError(
            "there is no such trace", where=path, near=near,
            expected="a file, a folder or tar of PREFIX.<rank>.et files, or such a PREFIX",
        )  # fmt: skip
    return _arrange(path, found)


def _members(path: str) -> dict[str, Callable[[], bytes]]:
    """Name -> bytes of the files in a tar that may belong to a trace."""
    found: dict[str, Callable[[], bytes]] = {}
    try:
        whole = read_bytes(path)
        with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as archive:
            for member in archive:
                if member.isfile() and member.name.endswith((".et", ".et.gz", ".json", ".json.gz")):
                    label, data = f"{path}:{member.name}", whole[member.offset_data : member.offset_data + member.size]
                    found[label] = lambda label=label, data=data: unzip(data, label)  # type: ignore[misc]
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise TraceError(f"is not a readable tar ({error})", where=path, fix="Copy it again from where it was made.") from None
    return found


def _arrange(source: str, found: dict[str, Callable[[], bytes]]) -> Located:
    """Sort out which files are ranks (of one prefix and kind, without gaps) and which is the groups file."""
    ranked: dict[tuple[str, str], dict[int, RankFile]] = {}
    others: list[str] = []
    for label, load in found.items():
        match = _RANKED.match(label)
        if match is None:
            others.append(label)
            continue
        rank = int(match["rank"])
        files = ranked.setdefault((match["stem"], match["kind"]), {})
        if rank in files:
            raise TraceError(f"rank {rank} has two files, {files[rank].label} and {label}", where=source, fix="Remove one.")
        files[rank] = RankFile(rank, label, load)
    if len({kind for _, kind in ranked}) > 1:
        ranked = {key: files for key, files in ranked.items() if key[1] == "et"}
    if len(ranked) != 1:
        raise TraceError(
            f"holds rank files of {len(ranked)} traces" if ranked else "holds no PREFIX.<rank>.et files",
            where=source, near=sorted(stem for stem, _ in ranked)[:5],
            fix="Give one prefix." if ranked else "",
        )  # fmt: skip
    (((stem, kind), files),) = ranked.items()
    absent = max(files) + 1 - len(files)
    if absent:
        missing = list(itertools.islice((rank for rank in itertools.count() if rank not in files), min(absent, 8)))
        some = ", ".join(map(str, missing)) + (" ..." if absent > 8 else "")
        raise TraceError(
            f"the file of rank{'s' if absent > 1 else ''} {some} is missing ({stem}.{missing[0]}.{kind}); "
            f"ranks go up to {max(files)}",
            where=source, fix="Every rank needs a file; ranks are numbered from 0.",
        )  # fmt: skip
    beside = [other for other in others if other.removesuffix(".gz") == stem + ".json"]
    groups = (beside[0], found[beside[0]]()) if beside else None
    return Located(source, kind, tuple(files[rank] for rank in sorted(files)), groups)


class Output:
    """Files that appear all at once or not at all: written to temporary names, renamed when the block ends well."""

    def __init__(self) -> None:
        self._pending: list[tuple[str, str]] = []

    def reserve(self, path: str) -> str:
        """A temporary path to write to; it becomes ``path``."""
        folder = os.path.dirname(path)
        try:
            if folder:
                os.makedirs(folder, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=folder or ".")
        except OSError as error:
            raise ConfigError(f"cannot be written ({error.strerror})", where=path) from None
        os.close(handle)
        self._pending.append((temporary, path))
        return temporary

    def write(self, path: str, data: bytes) -> None:
        """These bytes, gzipped if ``path`` ends in .gz (without a time stamp: equal input gives equal files)."""
        if path.endswith((".gz", ".tgz")):
            data = gzip.compress(data, mtime=0)
        with open(self.reserve(path), "wb") as file:
            file.write(data)

    def finish(self) -> None:
        """Give all files their names."""
        umask = os.umask(0)
        os.umask(umask)
        for temporary, path in self._pending:
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, path)
        self._pending.clear()

    def drop(self) -> None:
        """Remove what was not finished."""
        for temporary, _ in self._pending:
            if os.path.exists(temporary):
                os.unlink(temporary)


@contextmanager
def output() -> Iterator[Output]:
    """``with output() as out: out.write(path, data)``: nothing half-written remains after an error or Ctrl-C."""
    out = Output()
    try:
        yield out
        out.finish()
    finally:
        out.drop()
