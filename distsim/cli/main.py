"""The command line's entry: finds the command, runs it, turns refusals into one clear message and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Any

from distsim.cli import COMMANDS
from distsim.errors import DistsimError

_DESCRIPTION = """distsim: discrete-event simulation of distributed ML training.

  distsim demo                                   a Llama training step on a fat tree, now
  distsim run TRACE --topo h100_superpod         your trace: Chakra .et or JSON, .parquet, SimAI .txt, GOAL
  distsim compare TRACE --topo fat_tree          closed form, fair shares, queues: what the choice is worth
  distsim collective all_reduce -b 1KiB -e 1GiB --ranks 16 --topo dgx_h100 --collectives nccl
  distsim serve --model llama3-70b --cluster h100:gpus=8 --tp 4 --requests traces/chat_sessions.jsonl --qps 4
  distsim topo h100_superpod --gpus 1024 --draw superpod.svg
"""


def parser_for(argv: list[str]) -> argparse.ArgumentParser:
    """The parser; only the module of the command that argv names is imported."""
    from distsim import __version__

    parser = argparse.ArgumentParser(
        prog="distsim", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"distsim {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(
            name, help=summary, description=summary, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        if name == chosen:
            module = importlib.import_module(f"distsim.cli.{name}")
            sub.description = module.__doc__
            module.prepare(sub)
            sub.set_defaults(run=module.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command. Exit codes: 0 ok, 1 a fault in the simulated input, 2 usage, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        args = parser_for(argv).parse_args(argv)
        jit: Any = importlib.import_module("distsim.kernel.jit")
        jit.announce = lambda: print("compiling kernels, once on this machine: some 10 s ...", file=sys.stderr)
        return int(args.run(args) or 0)
    except DistsimError as error:
        print(f"distsim: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # the reader of our output has gone (| head): not an error of ours
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"distsim: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except (OverflowError, MemoryError, RecursionError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        print(f"distsim: a number or a nesting in the input is too large for this machine ({text})", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("distsim: interrupted; nothing was written", file=sys.stderr)
        return 130
