"""Replay a shipped Llama-3-8B training step, 64 ranks, on a fat tree; and say how to do the same by hand."""

from __future__ import annotations

import argparse
import shlex

from distsim.cli import run as replay

_WORDS = ("llama3_8b_tp8_dp8", "--topo", "fat_tree")


def prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Run and show the command."""
    parser = argparse.ArgumentParser()
    replay.prepare(parser)
    code = replay.run(parser.parse_args([*_WORDS, *(["--json"] if args.json else [])]))
    if not args.json:
        print(f"\nthe same by hand: distsim run {shlex.join(_WORDS)}")
    return code
