"""Which numbers of stages, virtual stages and micro-batches a schedule takes, and how it says that it does not."""

from __future__ import annotations

from distsim.errors import ConfigError


def check_numbers(name: str, stages: int, virtual: int, micro_batches: int) -> None:
    """Raise ConfigError where a number is below 1."""
    for what, number in (("pipeline stages", stages), ("virtual stages", virtual), ("micro-batches", micro_batches)):
        if number < 1:
            raise ConfigError(f"{number} {what}", where=f"pipeline schedule {name}", expected="1 or more")


def one_chunk_per_stage(name: str, stages: int, virtual: int, micro_batches: int) -> None:
    """Raise ConfigError where virtual > 1 is asked of a schedule that has no virtual stages, or a number is below 1."""
    check_numbers(name, stages, virtual, micro_batches)
    if virtual > 1:
        raise ConfigError(
            f"{name} has no virtual stages, but vpp is {virtual}", where="pipeline schedule", expected="vpp 1",
            near=("interleaved",), fix="Take the schedule interleaved for vpp > 1.",
        )  # fmt: skip


def nearest(number: int, multiple: int, least: int) -> tuple[str, ...]:
    """The multiples just below and just above, of those that are not below ``least`` (itself a multiple).

    >>> nearest(13, 2, 8), nearest(5, 2, 8)
    (('12', '14'), ('8',))
    """
    below = number // multiple * multiple
    return tuple(str(one) for one in dict.fromkeys((max(below, least), max(below + multiple, least))))
