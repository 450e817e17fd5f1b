"""``distsim ui`` through its pages: ticking two results, finding, turning a knob, and the result that comes of it."""

from __future__ import annotations

import shutil

import pytest

from distsim.report.folder import load


@pytest.fixture(scope="module")
def folder(results_folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("shelf")
    for name in ("run", "run-chunk", "service-a", "study-a"):
        shutil.copytree(results_folder / name, place / name)
    return place


def tick(browser, name):
    browser.find(f'input[data-name="{name}"]').click()


def test_the_index_lists_all_and_compares_two_of_a_kind(browser, server):
    browser.open(server.address)
    assert [row.text.split()[0] for row in browser.find_all("#results tbody tr")] == [
        "run",
        "run-chunk",
        "service-a",
        "study-a",
    ]
    button, note = browser.find("#compare"), browser.find("#compare-note")
    tick(browser, "run")
    assert not button.is_enabled()
    tick(browser, "service-a")
    assert not button.is_enabled()
    assert "do not compare" in note.text
    tick(browser, "service-a")
    tick(browser, "run-chunk")
    assert note.text == "run against run-chunk"
    browser.find("#find").send_keys("chunk")
    assert [row.is_displayed() for row in browser.find_all("#results tbody tr")] == [False, True, False, False]
    assert browser.unreached_after_tab() == []
    button.click()
    assert browser.wait("document.querySelector('h1').textContent").startswith("B takes")
    assert browser.errors() == []
    assert {one.split("?")[0] for one in browser.requests()} <= {server.address, f"{server.address}report"}
    browser.find(".tools a").click()
    assert browser.wait("location.pathname") == "/"


def test_a_turned_knob_gives_a_result_that_is_listed_and_compared(browser, server):
    browser.open(f"{server.address}knobs?of=run")
    assert browser.find("#name").get_attribute("value") == "run-2"
    assert browser.unreached_after_tab() == []
    browser.find("#run").click()
    assert "nothing is changed" in browser.wait("document.querySelector('#said.bad')?.textContent")
    field = browser.find('[data-knob="gpu.compute"]')
    field.send_keys("fast")
    browser.find("#run").click()
    assert "gpu.compute" in browser.wait(
        "/gpu/.test(document.querySelector('#said.bad')?.textContent) && $('said').textContent"
    )
    field.clear()
    field.send_keys("2x")
    browser.find("#run").click()
    state = browser.wait("document.querySelector('#jobs tr[data-state=done], #jobs tr[data-state=failed]')?.textContent", 90)
    assert "gpu.compute 2x" in state
    assert "step" in state
    before, after = (load(server.shelf.folder / name).summary["makespan_ps"] for name in ("run", "run-2"))
    assert after < before
    assert browser.find("#name").get_attribute("value") == "run-3"
    assert all("422" in one for one in browser.errors())  # the two refusals
    report, comparison = browser.find_all("#jobs a")
    assert report.get_attribute("href").endswith("/report?of=run-2")
    comparison.click()
    head = browser.wait("location.search.includes('with=run-2') && document.querySelector('h1').textContent")
    assert head.startswith("B takes")
    assert "less than A" in head
    browser.open(server.address)
    assert "run-2" in browser.find("#results tbody").text
    assert "run-2" in browser.find("#jobs").text


def test_pages_keep_their_colours_and_a_refusal_is_a_page(browser, server):
    browser.scheme("dark")
    for path in ("", "knobs?of=run", "report?of=run"):
        browser.open(server.address + path)
        assert browser.luminance() < 0.1
        assert browser.errors() == []
    browser.open(f"{server.address}report?of=../etc")
    assert browser.find("h1").text == "404 Not Found"
    browser.find("a").click()
    assert browser.wait("location.pathname") == "/"
