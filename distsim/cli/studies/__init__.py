"""Faces of the studies: one module each, with ``prepare(parser)`` and ``run(args, progress) -> Finding``; its docstring is the
help. What all studies share (``-o``, ``--json``, ``--quiet``) is :mod:`distsim.cli.study`.
"""
