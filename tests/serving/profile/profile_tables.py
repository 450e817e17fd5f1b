"""Profiles made by hand, for tests: kernels whose times are straight lines in all sizes."""

from __future__ import annotations

import gzip
from pathlib import Path

LAYERS = 32  # of llama3-8b
TOKENS = (1, 8, 16, 64, 256, 1024, 2048)
CHUNKS, CACHED, SEQUENCES, LENGTHS = (16, 256, 2048), (0, 512, 4096), (1, 8, 64, 256), (16, 1024, 8192)


def dense_us(tokens):
    return 10.0 + tokens * 0.25


def attention_us(chunk, cached, n, kv):
    return 5.0 + chunk * (chunk + cached) * 1e-4 + n * kv * 1e-3 + (2.0 if chunk and n else 0.0)


def write(path, header, rows):
    with gzip.open(path, "wt") as file:
        file.write("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


def profile(folder: Path, *, mlp=True, skew=0.25, at="") -> Path:
    """A profile of straight lines: any right interpolation meets them exactly."""
    home = folder / at if at else folder
    home.mkdir(parents=True, exist_ok=True)
    names = ["embedding", "final_layernorm", "layernorm", "qkv_proj", "rotary_emb", "o_proj"]
    names += ["gate_up_proj", "act_fn", "down_proj"] if mlp else []
    write(home / "dense.csv.gz", "layer,tokens,time_us", [(name, t, dense_us(t)) for name in names for t in TOKENS])
    ends = [(name, n, 100.0 + n) for name in ("lm_head", "sampler") for n in (1, 16, 256)]
    write(home / "per_sequence.csv.gz", "layer,sequences,time_us", ends)
    grid = [(c, k, 0, 0) for c in CHUNKS for k in CACHED] + [(0, 0, n, v) for n in SEQUENCES for v in LENGTHS]
    grid += [(c, k, n, v) for c in CHUNKS for k in CACHED for n in SEQUENCES[:-1] for v in LENGTHS]
    write(
        home / "attention.csv.gz", "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us",
        [(*point, attention_us(*point)) for point in grid],
    )  # fmt: skip
    if skew:  # of three passes together, as published profiles have it
        rows = []
        for n, mean, longest in ((8, 500, 1024), (8, 1024, 8192), (64, 2000, 8192)):
            low, high = (3 * attention_us(0, 0, n, kv) for kv in (mean, longest))
            rows.append((0, 0, n, mean, longest, low, high, low + skew * (high - low)))
        write(home / "skew.csv.gz", "pc,kp,n,kv_mean,kv_big,t_mean_us,t_max_us,t_skew_us", rows)
    return folder
