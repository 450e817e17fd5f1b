"""The chain of providers: order, memory, provenance, refusals, the default one."""

from __future__ import annotations

import time

import pytest

from distsim.cost.chain import Chain, Recorded, default_chain
from distsim.cost.kernel import Answer, Kernel, attention, gemm, grouped_gemm, memory
from distsim.errors import ConfigError
from distsim.hardware.gpu import gpu

H100, A100 = gpu("h100_sxm"), gpu("a100_sxm")


class Fake:
    """Serves one kind of kernel in a fixed time, and counts what it is asked."""

    def __init__(self, kind, seconds, source, error=0.1):
        self.kind, self.found, self.asked = kind, Answer(seconds, source, error), 0
        self.refused = {}

    def answer(self, kernel, gpu):
        self.asked += 1
        if kernel.kind == self.kind:
            return self.found
        self.refused[f"no {kernel.kind}"] = self.refused.get(f"no {kernel.kind}", 0) + 1
        return None


def test_the_first_that_can_answers():
    first, second, third = Fake("memory", 1.0, "a"), Fake("gemm", 2.0, "b"), Fake("gemm", 3.0, "c")
    chain = Chain([first, second, third])
    assert chain.answer(gemm(1, 2, 3, "bf16"), H100).source == "b"
    assert chain.answer(memory(7), H100).source == "a"
    assert (first.asked, second.asked, third.asked) == (2, 1, 0)
    assert chain.refused() == {"no gemm": 1}


def test_each_kernel_and_gpu_is_asked_once():
    fake = Fake("gemm", 2.0, "b")
    chain = Chain([fake])
    for _ in range(3):
        for kernel in (gemm(1, 2, 3, "bf16"), gemm(3, 2, 1, "bf16")):
            for one in (H100, A100):
                chain.answer(kernel, one)
    assert fake.asked == 4
    assert chain.provenance() == {"b": (12, 24.0)}


def test_provenance_counts_and_the_error_weighs_by_time():
    chain = Chain([Fake("memory", 1.0, "stream", 0.4), Fake("gemm", 3.0, "table", 0.0)])
    assert chain.error() == 0.0
    assert chain.provenance() == {}
    chain.answer(memory(7), H100)
    for _ in range(3):
        chain.answer(gemm(1, 2, 3, "bf16"), H100)
    assert list(chain.provenance().items()) == [("table", (3, 9.0)), ("stream", (1, 1.0))]
    assert chain.error() == pytest.approx(0.4 * 1 / 10)


def test_what_nobody_serves_is_refused_in_words():
    with pytest.raises(ConfigError) as caught:
        Chain([Fake("memory", 1.0, "a")]).answer(gemm(1, 2, 3, "fp8"), A100)
    text = str(caught.value)
    for part in ("gemm 1 x 2 x 3", "fp8", "a100_sxm", "bf16", "table of measured kernels"):
        assert part in text
    with pytest.raises(ConfigError, match="at least one"):
        Chain([])


def test_recorded_times_are_of_one_gpu():
    kernel = gemm(1, 2, 3, "bf16")
    chain = Chain([Recorded({kernel: 5.0}, H100), Fake("gemm", 2.0, "b")])
    assert chain.answer(kernel, H100) == Answer(5.0, "recorded", 0.0)
    assert chain.answer(kernel, A100).source == "b"


def test_a_remembered_answer_takes_about_a_microsecond():
    chain = Chain([Fake("gemm", 2.0, "b")])
    kernel = gemm(1, 2, 3, "bf16")
    chain.answer(kernel, H100)
    best = min(_timed(chain, kernel) for _ in range(5))
    assert best < 3e-6  # 0.3 us on an idle core


def _timed(chain, kernel):
    begun = time.process_time()
    for _ in range(10_000):
        chain.answer(kernel, H100)
    return (time.process_time() - begun) / 10_000


KERNELS = {
    "gemm": gemm(4096, 4096, 4096, "bf16"),
    "grouped_gemm": grouped_gemm(8, 512, 4096, 4096, "bf16"),
    "attention": attention(1, 4096, 4096, 32, 8, 128, 128, "bf16"),
    "attention_backward": attention(1, 4096, 4096, 32, 8, 128, 128, "bf16", backward=True),
    "decode_attention": attention(8, 1, 4096, 32, 8, 128, 128, "bf16", causal=False)._replace(kind="decode_attention"),
    "memory": memory(1e8),
}


@pytest.mark.parametrize("name", ["h100_sxm", "a100_sxm", "b200_sxm", "l40s", "h200_sxm", "mi300x", "tpu_v5p"])
def test_the_default_chain_times_every_kind_on_every_gpu(name):
    one = gpu(name)
    chain = default_chain(one)
    for kind, kernel in KERNELS.items():
        found = chain.answer(kernel, one)
        ideal = max(kernel.flops / one.peak["bf16"], kernel.bytes / one.memory_bandwidth)
        assert ideal * 0.5 < found.seconds < ideal * 20 + 1e-4, kind
        assert 0 < found.error < 1
    assert sum(share.kernels for share in chain.provenance().values()) == len(KERNELS)


def test_models_answer_in_their_order():
    chain = default_chain(H100)
    sources = {kind: chain.answer(kernel, H100).source for kind, kernel in KERNELS.items()}
    assert sources["attention"] == sources["attention_backward"] == sources["decode_attention"] == "attention"
    assert sources["memory"] == "stream"
    assert sources["gemm"].startswith("tile_wave")
    # attention without fused kernels of that data type falls to the last resort
    assert chain.answer(KERNELS["attention"]._replace(dtype="tf32"), H100).source.startswith("pnorm")


def test_a_table_goes_before_the_models_and_corrects_them(tmp_path):
    path = tmp_path / "t.csv"
    model = default_chain(H100)
    sizes = (2048, 8192)
    lines = ["system,dtype,m,n,k,latency_us"]
    for m in sizes:
        for n in sizes:
            for k in sizes:
                lines.append(f"h100_sxm,bf16,{m},{n},{k},{model.answer(gemm(m, n, k, 'bf16'), H100).seconds * 3e6}")
    path.write_text("\n".join(lines) + "\n")
    chain = default_chain(H100, str(path))
    assert chain.answer(gemm(2048, 2048, 2048, "bf16"), H100).source == "table"
    between = chain.answer(KERNELS["gemm"], H100)
    assert between.source == "interpolated"
    assert between.seconds == pytest.approx(3 * model.answer(KERNELS["gemm"], H100).seconds, rel=1e-6)
    assert chain.answer(gemm(64, 2048, 2048, "bf16"), H100).source.startswith("tile_wave")
    assert chain.refused() == {"outside the measured range": 1}
    wide = default_chain(H100, str(path), extrapolate=True)
    assert wide.answer(gemm(64, 2048, 2048, "bf16"), H100).source == "extrapolated"
    recorded = default_chain(H100, str(path), recorded={KERNELS["gemm"]: 1.0})
    assert recorded.answer(KERNELS["gemm"], H100).source == "recorded"


def test_default_chain_refuses_what_it_cannot_use(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.csv"):
        default_chain(H100, str(tmp_path / "none.csv"))
    with pytest.raises(ConfigError, match="unknown key"):
        default_chain(H100, "aiconfigurator:nonsense=1")
    with pytest.raises(ConfigError, match="in int8 on v100_sxm"):
        default_chain(gpu("v100_sxm")).answer(Kernel("gemm", (1, 2, 3), "int8", 12.0, 12.0), gpu("v100_sxm"))


def test_serving_kernels_take_longer_than_training_ones():
    kernel = KERNELS["attention"]
    trained = default_chain(H100).answer(kernel, H100).seconds
    assert default_chain(H100, kernels="serving").answer(kernel, H100).seconds > trained
