"""The chain of compute providers: each kernel is answered by the first provider that can; every answer keeps its source.

Order of :func:`default_chain`: times recorded in a trace, a table's exact hits, the nearest four ratios of a table over the
model, the models with parameters of the GPU or of its family (tile/wave for GEMMs, tiles for attention, streams for the rest),
the p-norm roofline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from distsim.cost.kernel import Answer, Kernel, KernelProvider
from distsim.errors import ConfigError
from distsim.hardware.gpu import Gpu
from distsim.params import parse, validated
from distsim.registry import lookup

#: models of the default chain, in order
MODELS = ("tile_wave", "attention", "stream", "pnorm")


class Share(NamedTuple):
    """What one source answered: kernels asked for (repeats included), and their seconds."""

    kernels: int
    seconds: float


class _Asked:
    """An answer, and how often it was given."""

    __slots__ = ("answer", "times")

    def __init__(self, answer: Answer) -> None:
        self.answer, self.times = answer, 1


class Chain:
    """Asks its providers in order, and remembers every answer by (kernel, GPU)."""

    def __init__(self, providers: Sequence[KernelProvider]) -> None:
        """Raises ConfigError without providers."""
        if not providers:
            raise ConfigError("a chain needs at least one compute provider")
        self.providers = tuple(providers)
        self._gpu: Gpu | None = None
        self._memory: dict[Kernel, _Asked] = {}
        #: GPUs by identity: they hold mappings, and so cannot be keys; kept alive here
        self._memories: dict[int, tuple[Gpu, dict[Kernel, _Asked]]] = {}

    def answer(self, kernel: Kernel, gpu: Gpu) -> Answer:
        """The duration. Raises ConfigError, naming kernel and GPU, where no provider can tell."""
        if gpu is not self._gpu:
            self._memory = self._memories.setdefault(id(gpu), (gpu, {}))[1]
            self._gpu = gpu
        known = self._memory.get(kernel)
        if known is not None:
            known.times += 1
            return known.answer
        for provider in self.providers:
            found = provider.answer(kernel, gpu)
            if found is not None:
                self._memory[kernel] = _Asked(found)
                return found
        raise unserved(kernel, gpu)

    def provenance(self) -> dict[str, Share]:
        """Source -> what it answered, the most seconds first."""
        counts: dict[str, list[float]] = {}
        for one in self._asked():
            entry = counts.setdefault(one.answer.source, [0, 0.0])
            entry[0] += one.times
            entry[1] += one.times * one.answer.seconds
        ordered = sorted(counts.items(), key=lambda item: (-item[1][1], item[0]))
        return {source: Share(int(kernels), seconds) for source, (kernels, seconds) in ordered}

    def error(self) -> float:
        """Usual relative error of all answers, weighted by their seconds: a band that errors of one sign would fill; 0 before
        the first answer."""
        seconds = total = 0.0
        for one in self._asked():
            spent = one.times * one.answer.seconds
            seconds += spent
            total += spent * one.answer.error
        return total / seconds if seconds else 0.0

    def refused(self) -> dict[str, int]:
        """Reason -> kernels that a table was asked for in vain (each different kernel once)."""
        found: dict[str, int] = {}
        for provider in self.providers:
            for reason, count in getattr(provider, "refused", {}).items():
                found[reason] = found.get(reason, 0) + count
        return found

    def _asked(self) -> list[_Asked]:
        return [one for _, memory in self._memories.values() for one in memory.values()]


def unserved(kernel: Kernel, gpu: Gpu) -> ConfigError:
    """The refusal of a kernel that no provider serves."""
    shape = " x ".join(map(str, kernel.shape)) or f"{kernel.bytes:.0f} bytes"
    known = kernel.dtype in gpu.peak
    return ConfigError(
        f"no compute provider can time {kernel.kind} {shape} in {kernel.dtype} on {gpu.name}",
        expected="" if known else f"a data type that {gpu.name} has a peak for: {', '.join(gpu.peak)}",
        fix="Give a table of measured kernels that holds it (columns: docs/compute.md), or another data type or GPU.",
    )


class Recorded:
    """Durations that a trace recorded, by kernel."""

    def __init__(self, times: Mapping[Kernel, float], gpu: Gpu) -> None:
        """times: seconds, on ``gpu``."""
        self._times, self._gpu = times, gpu

    def answer(self, kernel: Kernel, gpu: Gpu) -> Answer | None:
        """See KernelProvider.answer."""
        seconds = self._times.get(kernel) if gpu is self._gpu else None
        return None if seconds is None else Answer(seconds, "recorded", 0.0)


class _First:
    """Several models as one: what a table corrects."""

    def __init__(self, models: Sequence[KernelProvider]) -> None:
        self._models = models

    def answer(self, kernel: Kernel, gpu: Gpu) -> Answer | None:
        return next((found for model in self._models if (found := model.answer(kernel, gpu)) is not None), None)


def default_chain(
    gpu: Gpu,
    table: str | Callable[[KernelProvider], KernelProvider] | None = None,
    calibration: str | None = None,
    *,
    recorded: Mapping[Kernel, float] | None = None,
    kernels: str = "training",
    extrapolate: bool = False,
) -> Chain:
    """The usual chain.

    table: a file of measured kernels, ``aiconfigurator`` with its options (``aiconfigurator:backend=sglang``), or a function
    that makes a table over the model it is given. calibration: a file that ``distsim calibrate compute`` wrote. recorded:
    seconds by kernel, on ``gpu``. kernels: of attention, ``training`` or ``serving`` (see distsim.cost.kernels.attention).
    extrapolate: let the table answer outside its range.

    Raises: ConfigError on a file that cannot be used.
    """
    options: dict[str, dict[str, Any]] = {"tile_wave": {"file": calibration}, "attention": {"kernels": kernels}}
    models: list[KernelProvider] = [lookup("kernels", name)(**options.get(name, {})) for name in MODELS]
    providers = list(models)
    if table is not None:
        over = _First(models)
        providers.insert(0, table(over) if callable(table) else _table(table, over, extrapolate))
    if recorded is not None:
        providers.insert(0, Recorded(recorded, gpu))
    return Chain(providers)


def _table(text: str, over: KernelProvider, extrapolate: bool) -> KernelProvider:
    """The table of a file, or of the package aiconfigurator-core."""
    if text.partition(":")[0] != "aiconfigurator":
        made: KernelProvider = lookup("kernels", "table")(text, extrapolate=extrapolate, over=over)
        return made
    component = lookup("kernels", "aiconfigurator")
    name, options = parse(text)
    given = validated(component.Params, name, {"extrapolate": extrapolate, **options}).model_dump()
    made = component(**given, over=over)
    return made
