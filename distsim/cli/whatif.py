"""Change something about a finished run: a first-order estimate at once, then the simulation, side by side.

  distsim whatif out --knobs                             what can be turned on this run, and how it stands
  distsim whatif out --set link.spine.bandwidth=2x       links of a domain; link.*.bandwidth: of all
  distsim whatif out --set gpu.compute=1.5x --set collective.algorithm=tree
  distsim whatif out --set rank.5.compute=+20%           a straggler mended
  distsim whatif capture --set rank.7.start=0ms --set rank.7.host=1.5x     of a captured trace: its start, its host threads
  distsim whatif out --set link.rail.bandwidth=800Gbps -o faster     absolute values; the new result in faster/
  distsim whatif step --set plan.tp=4 --set gpu=h200     a training step: any field of its plan
  distsim whatif out --set gpu.compute=2x --no-simulate  the estimate alone
  distsim whatif out --levers                            every knob by what 10 % of it saves, checked by simulations

RESULT is a folder of `distsim run -o` or `distsim train -o`, whose trace and topology files are still there. Values: a factor
(2x, 0.5x, +10%), or the new value with its unit. docs/whatif.md says how estimates are made and when they are exact.
"""

from __future__ import annotations

import argparse
import sys

from distsim.cli.progress import Progress
from distsim.errors import ConfigError


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("result", metavar="RESULT", help="results folder of distsim run -o or distsim train -o")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KNOB=VALUE", dest="settings", help="turn a knob; repeatable"
    )
    parser.add_argument("--levers", action="store_true", help="rank every continuous knob by what it saves")
    parser.add_argument("--knobs", action="store_true", help="list the knobs of this run")
    parser.add_argument("--no-simulate", action="store_true", help="estimates alone")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="write the re-simulated result there")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--quiet", action="store_true", help="print the first line only")


def run(args: argparse.Namespace) -> int:
    """Estimate, simulate, print."""
    from distsim.report.document import dumps
    from distsim.report.reopen import reopen
    from distsim.scenario import scenario_of

    settings = _settings(args)
    if args.output is not None:
        from distsim.report.folder import check_target

        check_target(args.output)
    with Progress() as progress:
        progress(None, f"reading {args.result}")
        result = reopen(args.result)
        try:
            scenario = scenario_of(result.spec)
        except ConfigError as error:
            raise ConfigError(error.what, where=args.result, expected=error.expected, near=error.near, fix=error.fix) from None
        if args.knobs:
            from distsim.report.whatif import knobs_document, knobs_text

            knobs = scenario.knobs()
            print(dumps(knobs_document(knobs)) if args.json else knobs_text(knobs))
            return 0
        changed = scenario.changed(settings)
        from distsim.analysis.whatif.estimate import Recorded

        recorded = Recorded(scenario, result)
        if args.levers:
            from distsim.analysis.whatif.levers import levers
            from distsim.report.whatif import levers_document, levers_text

            found = levers(recorded, not args.no_simulate, progress)
            shown = dumps(levers_document(found, recorded)) if args.json else levers_text(found, recorded)
            print(shown.splitlines()[0] if args.quiet and not args.json else shown)
            return 0
        from distsim.analysis.whatif.outcome import outcome
        from distsim.report.whatif import answer, document, text

        progress(None, "estimating")
        changed.check()
        estimate = recorded.estimate(changed)
        if not (args.no_simulate or args.quiet or args.json):
            print(f"estimate: {answer(settings, outcome(recorded, estimate, None))}; simulating ...", file=sys.stderr)
        after = None if args.no_simulate else changed.run(progress)
        told = outcome(recorded, estimate, after)
        if args.output is not None and after is not None:
            from distsim.report.folder import save

            progress(None, f"writing {args.output}")
            save(after, args.output)
    if args.json:
        print(dumps(document(settings, told, recorded, changed)))
    else:
        print(answer(settings, told) if args.quiet else text(settings, told, recorded, changed))
    if args.output is not None and not args.quiet:
        print(f"results in {args.output}", file=sys.stderr)
    return 0


def _settings(args: argparse.Namespace) -> dict[str, str]:
    """Knobs and values. Raises ConfigError where arguments make no sense together."""
    found: dict[str, str] = {}
    for part in args.settings:
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name or not value:
            raise ConfigError(f"{part!r} is not KNOB=VALUE", where="--set", expected="such as link.spine.bandwidth=2x")
        if name in found:
            raise ConfigError(f"{name} is set twice", where="--set")
        found[name] = value
    chosen = [option for option, on in (("--set", found), ("--levers", args.levers), ("--knobs", args.knobs)) if on]
    if len(chosen) != 1:
        what = "nothing to do" if not chosen else f"{' and '.join(chosen)} exclude each other"
        raise ConfigError(what, where="whatif", expected="--set KNOB=VALUE, --levers or --knobs")
    if args.output is not None and (args.no_simulate or not found):
        raise ConfigError("there is no new result to write", where="--output", fix="Give --set, without --no-simulate.")
    return found
