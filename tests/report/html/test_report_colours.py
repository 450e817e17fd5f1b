"""The two dark palettes of a page: the system's choice and the reader's."""

from __future__ import annotations

import re
from importlib.resources import files


def test_dark_is_the_same_dark_however_it_was_chosen():
    """CSS cannot say one block for a media query and an attribute; drawings read the variables, so they have to be plain."""
    text = (files("distsim.report.html") / "assets" / "page.css").read_text(encoding="utf-8")
    system = re.search(r'prefers-color-scheme: dark\) \{ :root:not\(\[data-theme="light"\]\) \{(.*?)\}', text, re.S)
    chosen = re.search(r':root\[data-theme="dark"\] \{(.*?)\}', text, re.S)
    assert system
    assert chosen
    assert system[1].split() == chosen[1].split()
    assert "--paper:" in chosen[1]
