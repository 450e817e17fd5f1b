"""Run a flow scenario (netref/1): flows with starts, dependencies and routes of their own over given links.

  distsim flows scenario.json                              max-min fair shares, in float64 seconds
  distsim flows scenario.json --network fluid:rtt_weighted=true       shares by 1/latency, as SimGrid's default
  distsim flows scenario.json --network fluid:cap=25GBps   no flow faster than its NIC
  distsim flows scenario.json.gz --network cut_through     queues instead of shares; whole picoseconds
  distsim flows scenario.json --routing spray --network fluid:mtu=4096    other routes than the file's, packets counted
  distsim flows scenario.json --json | jq '.flows[] | [.id, .finish_s]'

Completion of a flow is from when it could start (its start, or the finish of the last that it waits for) to its last byte.
docs/networks.md has the format.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

_BUSIEST = 5  # links shown


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("scenario", metavar="FILE", help="a netref/1 file, plain or gzip")
    parser.add_argument(
        "--network", default="fluid", help="level, as for distsim run: fluid (default), cut_through, chunk, analytic, ideal"
    )
    parser.add_argument("--routing", default="", help="policy instead of the file's routes: ecmp, spray ...")
    parser.add_argument("--json", action="store_true", help="print one JSON document, every flow in it")


def run(args: argparse.Namespace) -> int:
    """Run it and print."""
    import numpy as np

    from distsim.network.flow_times import flow_times
    from distsim.trace.netref import read_netref
    from distsim.units import PS_PER_S, format_size, format_time

    scenario = read_netref(args.scenario)
    times = flow_times(scenario, args.network, args.routing)
    took = times.finish - ready(scenario, times.finish)
    makespan = float(times.finish.max()) if len(took) else 0.0
    summary = {
        "makespan_s": makespan,
        "completion_s": {
            "mean": float(took.mean()), "p50": float(np.percentile(took, 50)), "p99": float(np.percentile(took, 99)),
        } if len(took) else None,
    }  # fmt: skip
    usage = times.usage
    share = usage.bytes / scenario.bandwidth / makespan if makespan > 0 else np.zeros(len(scenario.bandwidth))
    busiest = [link for link in np.argsort(-share, kind="stable")[:_BUSIEST].tolist() if usage.bytes[link]]
    if args.json:
        print(json.dumps(_document(args, scenario, times, summary, share)))
        return 0

    def shown(seconds: float) -> str:
        return format_time(seconds * PS_PER_S)

    line = f"{scenario.name}: {len(scenario):,} flows in {shown(makespan)}"
    if len(took):
        mean, p50, p99 = (shown(value) for value in summary["completion_s"].values())  # type: ignore[union-attr]
        line += f"; completion mean {mean}, p50 {p50}, p99 {p99}"
    print(line)
    print(f"  {args.network} network" + (f", rates found {times.solves:,} times" if times.solves else ""))
    for link in busiest:
        names = scenario.node_names
        print(
            f"  link {scenario.link_id[link]}, {names[scenario.link_src[link]]} -> {names[scenario.link_dst[link]]}: "
            f"{100 * share[link]:.1f} % used, {format_size(int(usage.bytes[link]))}"
        )
    return 0


def ready(scenario: Any, finish: Any) -> Any:
    """Seconds at which every flow could start."""
    import numpy as np

    at = scenario.start.copy()
    np.maximum.at(at, np.repeat(np.arange(len(at)), np.diff(scenario.dep_ptr)), finish[scenario.dep])
    return at


def _document(args: argparse.Namespace, scenario: Any, times: Any, summary: dict[str, Any], share: Any) -> dict[str, Any]:
    """The JSON document: flows in the order of their ids."""
    flows = sorted(zip(scenario.flow_id.tolist(), times.activate.tolist(), times.finish.tolist(), strict=True))
    links = zip(scenario.link_id.tolist(), times.usage.bytes.tolist(), share.tolist(), strict=True)
    return {
        "scenario": scenario.name, "network": args.network, "flows_total": len(scenario), **summary, "solves": times.solves,
        "flows": [{"id": flow, "activate_s": activate, "finish_s": finish} for flow, activate, finish in flows],
        "links": [{"id": link, "bytes": sent, "used": used} for link, sent, used in links if sent],
    }  # fmt: skip
