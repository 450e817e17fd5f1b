"""Look at results in the browser: an index of a folder, the report of each, two side by side, and knobs to run them again.

  distsim ui results/                   every result below the folder; opens a browser
  distsim ui results/ --no-open         print the address only (over ssh: ssh -L 8000:127.0.0.1:8000 host)
  distsim ui results/ --port 8000       this port; default: a free one

Results are the folders that -o of run, train, serve, sweep and capacity write. Knobs (speeds of links and GPUs, algorithms,
plans; see distsim whatif) run a result again in a process of its own; what comes out is a folder beside it. The server answers
this machine only (127.0.0.1), loads nothing from anywhere, and ends with Ctrl-C. docs/report.md says more.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("results", metavar="RESULTS", help="folder that holds folders of results")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (default 0: a free one)")
    parser.add_argument("--no-open", action="store_true", help="do not open a browser")
    parser.add_argument("--json", action="store_true", help="print the address and the results as one JSON document")


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from distsim.report.ui import pages
    from distsim.report.ui.server import Server
    from distsim.report.ui.shelf import Shelf

    shelf = Shelf(args.results)
    server = Server(shelf, args.port)
    entries = shelf.entries()
    if args.json:
        made = {"address": server.address, "folder": str(shelf.folder), "results": [pages.listed(entry) for entry in entries]}
        print(json.dumps(made), flush=True)
    else:
        count = f"{len(entries)} result{'s' if len(entries) != 1 else ''}"
        print(f"{count} of {args.results} at {server.address} (Ctrl-C ends)", flush=True)
    if not args.no_open:
        import webbrowser

        if not webbrowser.open(server.address):
            print("distsim: no browser was found; open the address in one", file=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended by another process: as by Ctrl-C
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        print("distsim: ended", file=sys.stderr)
    finally:
        server.close()
    return 0
