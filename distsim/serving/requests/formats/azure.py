"""The Azure LLM inference traces: CSV of TIMESTAMP, ContextTokens, GeneratedTokens, one row a request.

Timestamps are dates of up to nine decimals of a second; the first request is at time 0. The files of 2024 end them in +00:00.
Source: Patel et al., "Splitwise" (2024); github.com/Azure/AzurePublicDataset.
"""

from __future__ import annotations

import re
from typing import NoReturn

import numpy as np

from distsim.errors import ConfigError
from distsim.registry import register
from distsim.serving.requests.columns import Columns
from distsim.serving.requests.trace import ReplayParameters, Rows

_FORM = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{1,9})?")


@register("requests", "azure")
class Azure:
    """``azure:file=AzureLLMInferenceTrace_conv.csv,stretch=4``."""

    columns = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
    Params = ReplayParameters

    @staticmethod
    def rows(columns: Columns) -> Rows:
        """See Format."""
        texts = [text.strip().removesuffix("Z").removesuffix("+00:00") for text in columns.texts("TIMESTAMP")]
        wrong = next((row for row, text in enumerate(texts) if not _FORM.fullmatch(text)), None)
        if wrong is not None:
            _refuse(texts[wrong], wrong, columns)
        try:
            times = np.array(texts, dtype="datetime64[ns]")
        except ValueError:
            times = np.array([_time(text, row, columns) for row, text in enumerate(texts)])
        since = (times - times.min()).astype(np.int64)  # ns
        far = np.flatnonzero(since >= (1 << 62) // 1000)
        if len(far):
            raise ConfigError("more than 53 days after the first", where=columns.place(int(far[0]), "TIMESTAMP"))
        return Rows(
            file=columns.file, arrival=since * 1000, prompt=columns.whole("ContextTokens"),
            output=columns.whole("GeneratedTokens"),
        )  # fmt: skip


def _time(text: str, row: int, columns: Columns) -> np.datetime64:
    try:
        return np.datetime64(text, "ns")
    except ValueError:
        _refuse(text, row, columns)


def _refuse(text: str, row: int, columns: Columns) -> NoReturn:
    raise ConfigError(
        f"{text!r} is no time" if text else "is empty", where=columns.place(row, "TIMESTAMP"),
        expected="2023-11-16 18:17:03.9799600 (UTC, without an offset)",
    )  # fmt: skip
