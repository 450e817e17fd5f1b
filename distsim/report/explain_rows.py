"""What explains a run, row by row in words: the screen and the page lay out the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from distsim.analysis.critical import WAITING
from distsim.analysis.explain.findings import Explanation
from distsim.analysis.explain.links import PathCommunication
from distsim.analysis.explain.ranks import PARTS, RankTime
from distsim.analysis.explain.slack import Chain
from distsim.analysis.explain.starts import late_rows
from distsim.analysis.explain.story import ALONE, LATE, Leg, Repeat
from distsim.analysis.underway import LOCAL
from distsim.report.answer import iterations, percentages
from distsim.units import format_bandwidth, format_size, format_time

#: what is less than this of the step is not worth a line
_WORTH = 0.001
#: characters of a task's name
_NAME = 48
#: classes named in a leg, and ranks named in a list
_NAMED = 4
_SAID = {
    "compute": "compute", "exposed": "exposed communication", "memory": "memory", "late_start": "late start",
    "stragglers": "waiting for late members",
    "bubble": "waiting for messages (bubble)", "host": "waiting for the host", "dependency": "other dependencies",
    "ended": "ended, others go on",
}  # fmt: skip
_BOUNDS = {
    "infinite_network": "infinite network", "infinite_compute": "infinite compute",
    "fastest_communication": "no contention (fastest alike)", "free_host": "free host",
    "no_late_start": "no late start", "no_bubbles": "busiest rank, no break",
    "perfect_balance": "perfect balance",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Told:
    """A row of the critical path. ``legs``: what it stands for."""

    begin_ps: int
    ps: int
    what: str
    legs: tuple[Leg, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A row of where the time of ranks goes. ``who``: the rank that has most; -1: all have as much."""

    said: str
    mean_ps: float
    percent: int
    least_ps: int
    most_ps: int
    who: int
    inside: str  #: what it is made of


def answer(found: Explanation) -> str:
    """``484.9 ms on 64 ranks: the critical path is 38 % tp all_gather, ...; infinite network 109.8 ms, infinite ...``

    A whole captured trace of iterations begins with them, as that of the run does: ``5 steps of 341.2 ms (median); whole
    capture 1.733 s on 64 ranks: ...``.
    """
    result = found.result
    ranks = "1 rank" if result.ranks == 1 else f"{result.ranks:,} ranks"
    what = f"step {found.step} " if found.step else ""
    what += f"to the end of rank {found.rank} " if found.rank is not None else ""
    parts = [one for one in found.story.contributions if one.by in ("class", "operation")]
    steps = "" if found.step or found.rank is not None else iterations(result)
    what += f"{steps}; whole capture " if steps else ""
    parts += [one for one in found.story.contributions if one.by == "kind" and one.name in ALONE
              and one.name != "compute"]  # fmt: skip
    parts.sort(key=lambda one: (-one.ps, one.name))
    said = ", ".join(f"{percent(one.ps, found.end_ps)} {_named_part(found, one.name)}" for one in parts[:_NAMED] if one.ps)
    bounds = [f"{_BOUNDS[one.name]} {format_time(one.step_ps)}" for one in found.bounds[:2]]
    tail = f"; {', '.join(bounds)}" if bounds and found.rank is None else ""
    return f"{what}{format_time(found.end_ps)} on {ranks}: the critical path is {said or 'empty'}{tail}"


def _named_part(found: Explanation, name: str) -> str:
    """Of a late start, whose it is."""
    ranks = [leg.rank for leg in found.story.legs if leg.activity == LATE] if name == LATE else []
    return f"{LATE} ({_began(found, ranks[0])})" if ranks else _local(name)


def _began(found: Explanation, rank: int) -> str:
    """``rank 7 began 7.528 ms after rank 1``."""
    one = next((one for one in found.late_starts if one.rank == rank), None)
    return f"rank {rank} began {format_time(one.after_ps)} after rank {one.first}" if one else f"rank {rank} had not begun"


def path(found: Explanation, top: int) -> list[Told]:
    """The critical path in order of time: its ``top`` longest stretches, and what lies between them summed up."""
    told = found.story.told
    keep = set(sorted(range(len(told)), key=lambda at: (-told[at].ps, at))[:top])
    rows: list[Told] = []
    short: list[Leg | Repeat] = []

    def flush() -> None:
        if short:
            legs = tuple(leg for one in short for leg in _legs(one))
            what = _told(found, short[0]) if len(short) == 1 else f"{len(legs)} short legs: {_summed(legs)}"
            rows.append(Told(short[0].begin_ps, sum(one.ps for one in short), what, legs))
            short.clear()

    for at, one in enumerate(told):
        if at in keep:
            flush()
            rows.append(Told(one.begin_ps, one.ps, _told(found, one), _legs(one)))
        else:
            short.append(one)
    flush()
    return rows


def _legs(one: Leg | Repeat) -> tuple[Leg, ...]:
    return one.legs if isinstance(one, Repeat) else (one,)


def _told(found: Explanation, one: Leg | Repeat) -> str:
    """One row of the story."""
    if isinstance(one, Repeat):
        ranks = sorted({leg.rank for leg in one.legs if leg.rank >= 0})
        return f"{one.count} x: {_summed(one.legs)}" + (f" (on {_ranks_of(ranks)})" if ranks else "")
    if one.activity == LATE:
        return f"late start: {_began(found, one.rank)}"
    if one.activity == WAITING:
        return "nothing that is known ran"
    if one.activity == "compute":
        tasks = f", {one.tasks:,} tasks" if one.tasks > 1 else ""
        return f"rank {one.rank} computes: {_classes(one.classes)}{tasks}"
    if one.activity in LOCAL:
        names = f" ({_classes(one.classes)})" if one.classes else ""
        return f"rank {one.rank}: {_local(one.activity)}{names}"
    if one.collective < 0:
        spans = found.result.spans()
        where = found.places.get(one.row)
        sender = f" from rank {where.sender}" if where is not None and where.sender >= 0 else ""
        return f"rank {one.rank}: {one.activity} of {format_size(int(spans.bytes[one.row]))}{sender}{_on_link(found, one)}"
    row = found.result.collectives[one.collective]
    late = next((late for late in found.latecomers if late.collective == one.collective), None)
    said = f"{row.operation} of {one.group or 'all ranks'} ({row.ranks} ranks), {format_size(row.bytes)}{_on_link(found, one)}"
    if row.start_ps == row.first_ps:
        return said
    waited = f"; it waited {format_time(row.start_ps - row.first_ps)} for rank {late.rank if late else one.rank}"
    return said + waited + (f", which spent {_more(late.because)}" if late and late.because else "")


def _on_link(found: Explanation, leg: Leg) -> str:
    """`` over gpu0->leaf0 (77 % busy)``: the busiest of its links."""
    where, result = found.places.get(leg.row), found.result
    if where is None or where.link < 0 or not result.makespan:
        return ""
    share = int(result.links.busy[where.link]) / result.makespan
    return f" over {result.topology.link_name(where.link)} ({100 * share:.0f} % busy)"


def _summed(legs: Iterable[Leg]) -> str:
    """``tp all_gather 73 ms, compute 33 ms (gate_up 45 %)``, longest first."""
    total: dict[str, int] = {}
    classes: dict[str, int] = {}
    for leg in legs:
        name = _local(leg.activity) if leg.activity in ALONE else f"{leg.group} {leg.activity}".strip()
        total[name] = total.get(name, 0) + leg.ps
        for part, ps in leg.classes.items() if leg.activity == "compute" else ():
            classes[part] = classes.get(part, 0) + ps
    said = []
    for name, ps in sorted(total.items(), key=lambda item: (-item[1], item[0])):
        said.append(f"{name} {format_time(ps)}" + (f" ({_classes(classes)})" if name == "compute" and classes else ""))
    return ", ".join(said)


def _local(kind: str) -> str:
    return {"delay": "latency", "none": "no work", WAITING: "nothing known", "host": "host"}.get(kind, kind)


def _classes(classes: Mapping[str, int]) -> str:
    """``gemm 80 %, attention 12 %``."""
    total = sum(classes.values())
    if not total:
        return "no time"
    most = sorted(classes.items(), key=lambda item: (-item[1], item[0]))
    said = [f"{name} {percent(ps, total)}" for name, ps in most[:_NAMED]]
    return ", ".join(said) + (", ..." if len(most) > _NAMED else "")


def communications(found: Explanation, top: int) -> tuple[list[str], int]:
    """A sentence for each communication of the path that is worth one, and how many have none."""
    worth = [one for one in found.communications if max(one.ps, one.spread_ps) >= _WORTH * found.end_ps][:top]
    return [_explained(found, one) for one in worth], len(found.communications) - len(worth)


def _explained(found: Explanation, one: PathCommunication) -> str:
    times = f"{one.count:,} x {format_size(one.bytes / one.count)}"
    parts = [f"{one.group} {one.operation}".strip() + f": {format_time(one.ps)} ({percent(one.ps, found.end_ps)}), {times}"]
    if one.wire_ps is not None:
        parts.append(
            f"its bytes alone take {format_time(one.wire_ps)} at line rate ({percent(one.wire_ps, one.ps)}), the rest is "
            "latency and sharing"
        )
    if one.contended_ps is not None:
        parts.append(
            f"others were under way on its link for {format_time(one.contended_ps)} of it" if one.contended_ps
            else "nothing else was under way on its link"
        )  # fmt: skip
    if one.load is not None:
        load = one.load
        alike = f" (and {load.alike - 1} as busy)" if load.alike > 1 else ""
        use = f", {round(100 * load.share_in_use)} % while it is used" if load.share_in_use is not None else ""
        parts.append(
            f"busiest of its links {load.name}{alike}, {load.domain}, {format_bandwidth(load.bandwidth)}: "
            f"{round(100 * load.share)} % busy over the run{use}, {format_size(load.bytes)}"
        )
    if one.spread_ps:
        names = ", ".join(f"rank {rank} ({times} x)" for rank, times in one.last[:_NAMED])
        parts.append(f"before it the first member waited {format_time(one.spread_ps)} for the last: {names}")
    return "; ".join(parts)


def waited_for(found: Explanation, top: int) -> list[str]:
    """Sentences about collectives that waited, and ranks that came last again and again."""
    lines = []
    for one in [one for one in found.latecomers if one.after_ps >= _WORTH * found.result.makespan][: min(top, 5)]:
        row = found.result.collectives[one.collective]
        said = (
            f"{row.label} {row.operation}".strip() + f" at {format_time(row.start_ps)} waited for rank {one.rank}, which came "
            f"{format_time(one.after_ps)} after the member in the middle"
        )
        lines.append(said + (f": since {format_time(one.since_ps)} it spent {_more(one.because)}" if one.because else ""))
    for late in [one for one in found.stragglers if one.caused_ps >= _WORTH * found.result.makespan][: min(top, 3)]:
        lines.append(
            f"rank {late.rank} came last to {late.last:,} of {late.of:,} collectives that waited: others lost "
            f"{format_time(late.caused_ps)} in all"
        )
    return lines


def _more(because: Sequence[tuple[str, int]]) -> str:
    return " and ".join(f"{format_time(ps)} more {'' if what == 'idle' else 'on '}{what}" for what, ps in because)


def parts(found: Explanation) -> list[Part]:
    """Where the time of the ranks (or of the one that was asked for) goes; parts of no rank are left out."""
    chosen = _chosen(found)
    span = found.result.makespan
    if not chosen or not span:
        return []
    whole = {part: sum(one.parts[part] for one in chosen) for part in PARTS}
    shares = dict(zip(PARTS, percentages([whole[part] / (span * len(chosen)) for part in PARTS]), strict=True))
    rows = []
    for part in PARTS:
        if not whole[part]:
            continue
        values = [one.parts[part] for one in chosen]
        low, high = min(values), max(values)
        who = -1 if low == high else next(one.rank for one in chosen if one.parts[part] == high)
        rows.append(Part(_SAID[part], whole[part] / len(chosen), shares[part], low, high, who, _inside(chosen, part)))
    return rows


def hidden(found: Explanation) -> float:
    """Communication beside which a rank computes, ps, mean over ranks."""
    chosen = _chosen(found)
    return sum(sum(one.hidden.values()) for one in chosen) / len(chosen) if chosen else 0.0


def imbalance(found: Explanation) -> str:
    """A sentence, where ranks do not compute equally long."""
    computes = [one.parts["compute"] for one in _chosen(found)]
    total, most = sum(computes), max(computes, default=0)
    if not total or most == min(computes):
        return ""
    more = percent(most * len(computes) - total, total)
    return f"imbalance: the rank that computes longest does so {more} longer than the mean"


def _chosen(found: Explanation) -> list[RankTime]:
    return [one for one in found.ranks if found.rank is None or one.rank == found.rank]


def _inside(chosen: Sequence[RankTime], part: str) -> str:
    """What a part is made of, mean over ranks."""
    total: dict[str, int] = {}
    for one in chosen:
        if part == "compute":
            for name, ps in one.compute.items():
                total[name] = total.get(name, 0) + ps
        elif part == "host":
            return _launching(chosen)
        elif part == "late_start":
            return "before they began: nothing is known of it"
        elif part in ("exposed", "stragglers"):
            for (operation, group), ps in getattr(one, part).items():
                name = f"{group} {operation}".strip()
                total[name] = total.get(name, 0) + ps
    most = sorted(total.items(), key=lambda item: (-item[1], item[0]))
    said = [f"{name} {format_time(ps / len(chosen))}" for name, ps in most[:_NAMED]]
    return ", ".join(said) + (f" and {len(most) - _NAMED} more" if len(most) > _NAMED else "")


def _launching(chosen: Sequence[RankTime]) -> str:
    """``643 launches a rank, 18.2 us of host work each``; empty where a trace tells no launches."""
    launches, work = sum(one.launches for one in chosen), sum(one.host_work for one in chosen)
    if not launches:
        return ""
    return f"{launches / len(chosen):,.0f} launches a rank, {format_time(work / launches)} of host work each"


def slack(found: Explanation) -> list[tuple[str, str, str]]:
    """How much later tasks could end: (slack, tasks, their time)."""
    rows = []
    for one in found.slack.bins if found.slack is not None else ():
        name = "none" if one.most == 0 else "more" if one.most >= 1 else f"up to {100 * one.most:g} % of the step"
        rows.append((name, f"{one.tasks:,}", format_time(one.time_ps)))
    return rows


def near(found: Explanation, top: int) -> list[str]:
    """Sentences about paths that are as long, or nearly so."""
    free, lines = found.slack, []
    if free is None:
        return []
    if len(free.parallel) > 1:
        lines.append(f"tasks without slack are on {_ranks_of(free.parallel.tolist())}: critical paths in parallel")
    span = found.result.makespan
    for chains in _alike(free.chains)[: min(top, 5)]:
        first = chains[0]
        ranks = sorted({rank for chain in chains for rank in chain.ranks})
        lines.append(
            f"near: {_ranks_of(ranks)}, {format_time(first.work_ps)} of work (longest: {_named(found, first)}) around "
            f"{format_time(first.begin_ps)}" + (f" and {len(chains) - 1} likewise" if len(chains) > 1 else "")
            + f", could take {format_time(first.slack_ps)} longer; that path is {percent(first.slack_ps, span)} shorter"
        )  # fmt: skip
    return lines


def _alike(chains: Sequence[Chain]) -> list[list[Chain]]:
    """Chains of equal slack and work (symmetric ranks, repeated stretches) together."""
    found: dict[tuple[int, int, int], list[Chain]] = {}
    for chain in chains:
        found.setdefault((chain.slack_ps, chain.work_ps, chain.tasks), []).append(chain)
    return list(found.values())


def _named(found: Explanation, chain: Chain) -> str:
    spans = found.result.spans()
    name, kind = int(spans.name[chain.row]), spans.kinds[int(spans.kind[chain.row])]
    told = LATE if late_rows(spans)[chain.row] else (spans.names[name] if name >= 0 else "") or kind
    return told if len(told) <= _NAME else told[: _NAME - 1] + "…"


def bounds(found: Explanation) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """What the step could be at best: heads and rows of a table; no rows where there are none."""
    span = found.result.makespan
    again = any(one.resimulated_ps is not None for one in found.bounds)
    rows = []
    for one in found.bounds:
        more = (("-" if one.resimulated_ps is None else format_time(one.resimulated_ps)),) if again else ()
        rows.append((_BOUNDS[one.name], one.about, format_time(one.step_ps), percent(span - one.step_ps, span), *more))
    return ("bound, to first order", "if", "step", "saves", *(("run again",) if again else ())), rows


def _ranks_of(ranks: Sequence[int]) -> str:
    """``rank 3``, ``ranks 0, 1, 2, 3 and 60 more``, ``all`` in a row as a range."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if len(ranks) > 2 and ranks[-1] - ranks[0] == len(ranks) - 1:
        return f"ranks {ranks[0]} to {ranks[-1]}"
    more = f" and {len(ranks) - _NAMED} more" if len(ranks) > _NAMED else ""
    return f"ranks {', '.join(map(str, ranks[:_NAMED]))}{more}"


def percent(part: int | float, whole: int | float) -> str:
    """``12 %``, ``1.2 %``."""
    share = 100 * part / whole if whole else 0.0
    return f"{share:.0f} %" if share >= 10 or share == 0 else f"{share:.1f} %"
