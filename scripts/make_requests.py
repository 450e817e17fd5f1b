"""Make the requests that distsim ships: ``python scripts/make_requests.py`` (from the repository's root; writes ``traces/``).

Chats: 300 requests in sessions of 4 turns on average that begin at 0.5 a second; each turn repeats the conversation so far,
and half a minute of reading and typing lies between an answer and the next turn. Sessions begin with one of 8 system prompts,
some much more popular than others. Lengths of a turn: prompt lognormal with median 120 tokens, answer with median 130. All of
it is drawn from distsim's own laws, nothing is measured; the medians are of the size that conversation traces have
(docs/requests.md says where to get measured ones).
"""

from __future__ import annotations

from distsim.serving.requests.read import requests
from distsim.serving.requests.write import write

CHATS = "traces/chat_sessions.jsonl"


def main(path: str = CHATS) -> None:
    """Write the file."""
    table = requests(
        "poisson:qps=0.5", n=300, seed=1,
        lengths="lognormal:prompt_median=120,prompt_sigma=1,output_median=130,output_sigma=0.9",
        sessions="turns=4,think=30s,prefixes=8,prefix_tokens=256-1024", max_total=8192,
    )  # fmt: skip
    write(table, path)


if __name__ == "__main__":
    main()
