"""Why a run took as long as it did, on one screen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap

from distsim.analysis.critical import WAITING
from distsim.analysis.explain.findings import Explanation
from distsim.analysis.explain.links import PathCommunication
from distsim.analysis.explain.ranks import PARTS, RankTime
from distsim.analysis.explain.slack import Chain
from distsim.analysis.explain.story import Leg, Repeat
from distsim.analysis.underway import LOCAL
from distsim.report.answer import percentages
from distsim.report.table import table
from distsim.units import format_bandwidth, format_size, format_time

#: what is less than this of the step is not worth a line
_WORTH = 0.001
#: characters of a task's name
_NAME = 48
#: classes named in a leg, and ranks named in a list
_NAMED = 4
_SAID = {
    "compute": "compute", "exposed": "exposed communication", "memory": "memory", "stragglers": "waiting for late members",
    "bubble": "waiting for messages (bubble)", "host": "waiting for the host", "dependency": "other dependencies",
    "ended": "ended, others go on",
}  # fmt: skip
_BOUNDS = {
    "infinite_network": "infinite network", "infinite_compute": "infinite compute",
    "fastest_communication": "no contention (fastest alike)", "free_host": "free host", "no_bubbles": "no bubbles",
    "perfect_balance": "perfect balance",
}  # fmt: skip


def answer(found: Explanation) -> str:
    """``484.9 ms on 64 ranks: the critical path is 38 % tp all_gather, ...; infinite network 109.8 ms, infinite ...``"""
    result = found.result
    ranks = "1 rank" if result.ranks == 1 else f"{result.ranks:,} ranks"
    what = f"step {found.step} " if found.step else ""
    what += f"to the end of rank {found.rank} " if found.rank is not None else ""
    parts = [one for one in found.story.contributions if one.by in ("class", "operation")]
    parts += [one for one in found.story.contributions if one.by == "kind" and one.name in (*LOCAL, WAITING)
              and one.name != "compute"]  # fmt: skip
    parts.sort(key=lambda one: (-one.ps, one.name))
    said = ", ".join(f"{_percent(one.ps, found.end_ps)} {_local(one.name)}" for one in parts[:_NAMED] if one.ps)
    bounds = [f"{_BOUNDS[one.name]} {format_time(one.step_ps)}" for one in found.bounds[:2]]
    tail = f"; {', '.join(bounds)}" if bounds and found.rank is None else ""
    return f"{what}{format_time(found.end_ps)} on {ranks}: the critical path is {said or 'empty'}{tail}"


def text(found: Explanation, width: int = 100, top: int = 12) -> str:
    """The screen; its first line is the answer. ``top``: rows of each section."""
    lines = [answer(found)]
    for note in found.notes:
        lines += wrap(f"note: {note}", width, subsequent_indent="  ")
    sections = (
        _path(found, width, top), _communication(found, width, top), _late(found, width, top), _ranks(found, width, top),
        _slack(found, width, top), _bounds(found, width),
    )  # fmt: skip
    for section in sections:
        lines += ["", *section] if section else []
    return "\n".join(lines)


# --- the path -----------------------------------------------------------------------------------------------------------


def _path(found: Explanation, width: int, top: int) -> list[str]:
    told = found.story.told
    if not told:
        return []
    keep = set(sorted(range(len(told)), key=lambda at: (-told[at].ps, at))[:top])
    rows: list[tuple[str, str, str, str]] = []
    short: list[Leg | Repeat] = []

    def flush() -> None:
        if short:
            legs = [leg for one in short for leg in _legs(one)]
            ps = sum(one.ps for one in short)
            what = _told(found, short[0]) if len(short) == 1 else f"{len(legs)} short legs: {_summed(legs)}"
            rows.append((format_time(short[0].begin_ps), format_time(ps), _percent(ps, found.end_ps), what))
            short.clear()

    for at, one in enumerate(told):
        if at in keep:
            flush()
            rows.append((format_time(one.begin_ps), format_time(one.ps), _percent(one.ps, found.end_ps), _told(found, one)))
        else:
            short.append(one)
    flush()
    head = f"critical path, {len(found.story.legs)} legs"
    lines = [f"  {'at':>9}  {'takes':>8}  {'share':>6}  {head}"]
    for begin, ps, share, what in rows:
        lead = f"  {begin:>9}  {ps:>8}  {share:>6}  "
        lines += wrap(what, width, initial_indent=lead, subsequent_indent=" " * len(lead))
    return lines


def _legs(one: Leg | Repeat) -> tuple[Leg, ...]:
    return one.legs if isinstance(one, Repeat) else (one,)


def _told(found: Explanation, one: Leg | Repeat) -> str:
    """One row of the story."""
    if isinstance(one, Repeat):
        ranks = sorted({leg.rank for leg in one.legs if leg.rank >= 0})
        return f"{one.count} x: {_summed(one.legs)}" + (f" (on {_ranks_of(ranks)})" if ranks else "")
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
        name = _local(leg.activity) if leg.activity in (*LOCAL, WAITING) else f"{leg.group} {leg.activity}".strip()
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
    said = [f"{name} {_percent(ps, total)}" for name, ps in most[:_NAMED]]
    return ", ".join(said) + (", ..." if len(most) > _NAMED else "")


def _communication(found: Explanation, width: int, top: int) -> list[str]:
    lines = []
    worth = [one for one in found.communications if max(one.ps, one.spread_ps) >= _WORTH * found.end_ps][:top]
    for one in worth:
        lines += wrap(_explained(found, one), width, initial_indent="  ", subsequent_indent="    ")
    more = len(found.communications) - len(worth)
    lines += [f"  and {more} more (--json lists all)"] if more > 0 and lines else []
    return ["communication on the path, and what holds it up", *lines] if lines else []


def _explained(found: Explanation, one: PathCommunication) -> str:
    times = f"{one.count:,} x {format_size(one.bytes / one.count)}"
    parts = [f"{one.group} {one.operation}".strip() + f": {format_time(one.ps)} ({_percent(one.ps, found.end_ps)}), {times}"]
    if one.wire_ps is not None:
        parts.append(
            f"its bytes alone take {format_time(one.wire_ps)} at line rate ({_percent(one.wire_ps, one.ps)}), the rest is "
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


def _late(found: Explanation, width: int, top: int) -> list[str]:
    lines = []
    for one in [one for one in found.latecomers if one.after_ps >= _WORTH * found.result.makespan][: min(top, 5)]:
        row = found.result.collectives[one.collective]
        said = (
            f"{row.label} {row.operation}".strip() + f" at {format_time(row.start_ps)} waited for rank {one.rank}, which came "
            f"{format_time(one.after_ps)} after the member in the middle"
        )
        said += f": since {format_time(one.since_ps)} it spent {_more(one.because)}" if one.because else ""
        lines += wrap(said, width, initial_indent="  ", subsequent_indent="    ")
    for late in [one for one in found.stragglers if one.caused_ps >= _WORTH * found.result.makespan][: min(top, 3)]:
        said = (
            f"rank {late.rank} came last to {late.last:,} of {late.of:,} collectives that waited: others lost "
            f"{format_time(late.caused_ps)} in all"
        )
        lines += wrap(said, width, initial_indent="  ", subsequent_indent="    ")
    return ["who was waited for", *lines] if lines else []


def _more(because: Sequence[tuple[str, int]]) -> str:
    return " and ".join(f"{format_time(ps)} more {'' if what == 'idle' else 'on '}{what}" for what, ps in because)


# --- ranks, slack, bounds -----------------------------------------------------------------------------------------------


def _ranks(found: Explanation, width: int, top: int) -> list[str]:
    chosen = [one for one in found.ranks if found.rank is None or one.rank == found.rank]
    span = found.result.makespan
    if not chosen or not span:
        return []
    whole = {part: sum(one.parts[part] for one in chosen) for part in PARTS}
    percent = dict(zip(PARTS, percentages([whole[part] / (span * len(chosen)) for part in PARTS]), strict=True))
    rows = []
    for part in PARTS:
        if not whole[part]:
            continue
        values = [one.parts[part] for one in chosen]
        low, high = min(values), max(values)
        who = next(one.rank for one in chosen if one.parts[part] == high)
        spread = "" if low == high else f"{format_time(low)} to {format_time(high)} (rank {who})"
        rows.append((_SAID[part], format_time(whole[part] / len(chosen)), f"{percent[part]} %", spread, _inside(chosen, part)))
    title = f"rank {found.rank}" if found.rank is not None else "mean over ranks"
    lines = [f"where the time of ranks goes ({title}); parts add up to {format_time(span)}"]
    for said, time, share, spread, inside in rows:
        lead = f"  {said:<30}{time:>9}  {share:>5}  "
        more = "; ".join(filter(None, (spread, inside)))
        lines += wrap(more, width, initial_indent=lead, subsequent_indent=" " * len(lead)) or [lead]
    hidden = sum(sum(one.hidden.values()) for one in chosen)
    if hidden:
        lines.append(f"  {'hidden communication':<30}{format_time(hidden / len(chosen)):>9}         under computation")
    computes = [one.parts["compute"] for one in chosen]
    total, most = sum(computes), max(computes)
    if total and most > min(computes):
        more = _percent(most * len(chosen) - total, total)
        lines.append(f"  imbalance: the rank that computes longest does so {more} longer than the mean")
    return [line.rstrip() for line in lines]


def _inside(chosen: Sequence[RankTime], part: str) -> str:
    """What a part is made of, mean over ranks."""
    total: dict[str, int] = {}
    for one in chosen:
        if part == "compute":
            for name, ps in one.compute.items():
                total[name] = total.get(name, 0) + ps
        elif part in ("exposed", "stragglers"):
            for (operation, group), ps in getattr(one, part).items():
                name = f"{group} {operation}".strip()
                total[name] = total.get(name, 0) + ps
    most = sorted(total.items(), key=lambda item: (-item[1], item[0]))
    said = [f"{name} {format_time(ps / len(chosen))}" for name, ps in most[:_NAMED]]
    return ", ".join(said) + (f" and {len(most) - _NAMED} more" if len(most) > _NAMED else "")


def _slack(found: Explanation, width: int, top: int) -> list[str]:
    free = found.slack
    if free is None:
        return []
    rows = []
    for one in free.bins:
        name = "none" if one.most == 0 else "more" if one.most >= 1 else f"up to {100 * one.most:g} % of the step"
        rows.append((name, f"{one.tasks:,}", format_time(one.time_ps)))
    head = ("slack (how much later a task could end)", "tasks", "that take")
    lines = table(head, rows, width=width)
    if len(free.parallel) > 1:
        lines.append(f"  tasks without slack are on {_ranks_of(free.parallel.tolist())}: critical paths in parallel")
    span = found.result.makespan
    for chains in _alike(free.chains)[: min(top, 5)]:
        first = chains[0]
        ranks = sorted({rank for chain in chains for rank in chain.ranks})
        said = (
            f"near: {_ranks_of(ranks)}, {format_time(first.work_ps)} of work (longest: {_named(found, first)}) around "
            f"{format_time(first.begin_ps)}" + (f" and {len(chains) - 1} likewise" if len(chains) > 1 else "")
            + f", could take {format_time(first.slack_ps)} longer; that path is {_percent(first.slack_ps, span)} shorter"
        )  # fmt: skip
        lines += wrap(said, width, initial_indent="  ", subsequent_indent="    ")
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
    told = (spans.names[name] if name >= 0 else "") or kind
    return told if len(told) <= _NAME else told[: _NAME - 1] + "…"


def _bounds(found: Explanation, width: int) -> list[str]:
    span = found.result.makespan
    again = any(one.resimulated_ps is not None for one in found.bounds)
    rows = []
    for one in found.bounds:
        more = (("-" if one.resimulated_ps is None else format_time(one.resimulated_ps)),) if again else ()
        rows.append((_BOUNDS[one.name], one.about, format_time(one.step_ps), _percent(span - one.step_ps, span), *more))
    head = ("bound, to first order", "if", "step", "saves", *(("run again",) if again else ()))
    return table(head, rows, text=2, width=width) if rows else []


def _ranks_of(ranks: Sequence[int]) -> str:
    """``rank 3``, ``ranks 0, 1, 2, 3 and 60 more``, ``all`` in a row as a range."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if len(ranks) > 2 and ranks[-1] - ranks[0] == len(ranks) - 1:
        return f"ranks {ranks[0]} to {ranks[-1]}"
    more = f" and {len(ranks) - _NAMED} more" if len(ranks) > _NAMED else ""
    return f"ranks {', '.join(map(str, ranks[:_NAMED]))}{more}"


def _percent(part: int | float, whole: int | float) -> str:
    share = 100 * part / whole if whole else 0.0
    return f"{share:.0f} %" if share >= 10 or share == 0 else f"{share:.1f} %"
