"""Reports of every kind in a browser: no errors, no requests, keyboard, colours, paper, narrow windows, tooltips."""

from __future__ import annotations

import dataclasses
import time

import pytest

from distsim import simulate
from distsim.cli.shipped import shipped
from distsim.report.folder import save
from distsim.report.html.kinds import page_of
from distsim.report.html.page import write

TAB, ENTER, HOME, END, LEFT, RIGHT, DOWN = "\ue004", "\ue007", "\ue011", "\ue010", "\ue012", "\ue014", "\ue015"
#: what a page is made of
PAGES = {
    "run": ("run",), "captured": ("captured",), "large": ("large",), "dense": ("dense",), "service": ("service-a",),
    "study": ("study-a",),
    "runs": ("run", "run-chunk"), "services": ("service-a", "service-b"), "studies": ("study-a", "study-b"),
}  # fmt: skip


@pytest.fixture(scope="session")
def page(results_folder, tmp_path_factory):
    """The file of a page by name, written once."""
    place, written = tmp_path_factory.mktemp("pages"), {}

    def found(name):
        if name not in written:
            target = place / f"{name}.html"
            write(page_of([str(results_folder / one) for one in PAGES[name]]), target)
            written[name] = target
        return written[name]

    return found


def draw_all(browser):
    """Every section, also those below the fold."""
    browser.driver.execute_async_script("const done = arguments[0]; distsim.all().then(() => done())")
    browser.idle()


@pytest.fixture(scope="module", params=PAGES)
def opened(request, window, page):
    """A page with everything drawn, open for the tests of its kind."""
    window.narrow(None)
    window.scheme("")
    window.open(page(request.param))
    draw_all(window)
    window.asked, window.said = window.requests(), window.errors()
    return window


def test_a_page_draws_everything_without_a_word_on_the_console_and_asks_nobody(opened):
    assert opened.said == []
    assert opened.asked == [opened.driver.current_url]
    assert opened.run("return document.querySelectorAll('section[data-draw]:not([data-drawn]), [role=alert]').length") == 0
    charts = opened.run("return document.querySelectorAll('.chart').length")
    assert opened.run("return document.querySelectorAll('.chart .main-svg').length") >= charts


def test_all_controls_are_reached_by_the_tabulator_and_have_names(opened):
    assert len(opened.tab_order()) > 5
    assert opened.unreached() == []
    nameless = opened.run(
        "const controls = document.querySelectorAll('a, button, input, select, summary, canvas[tabindex], [role=application]');"
        "const named = e => e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length || e.title;"
        "return [...controls].filter(e => !named(e)).map(e => e.outerHTML)"
    )
    assert nameless == []
    assert opened.run("return [...document.querySelectorAll('[tabindex]')].every(e => e.tabIndex <= 0)")


def test_a_narrow_window_does_not_scroll_sideways(opened):
    opened.narrow(500)
    assert opened.wait("innerWidth <= 500 && document.documentElement.scrollWidth <= innerWidth")
    opened.narrow(None)


def test_light_dark_and_the_choice_between_them(opened):
    opened.scheme("light")
    assert opened.luminance() > 0.9
    opened.scheme("dark")
    assert opened.luminance() < 0.1
    button = opened.find("#theme")
    button.click()
    assert "light" in button.get_attribute("aria-label")
    assert opened.luminance() > 0.9
    button.click()
    opened.scheme("light")
    assert opened.luminance() < 0.1
    button.click()  # as the system again
    assert opened.luminance() > 0.9
    assert opened.errors() == []


def test_it_prints(opened):
    opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    hidden = opened.run(
        "return [...document.querySelectorAll('nav, .tools')].every(e => getComputedStyle(e).display === 'none')"
    )
    made = opened.pdf()
    opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert hidden
    assert made.startswith(b"%PDF")
    assert len(made) > 20_000
    assert opened.errors() == []


def test_1024_ranks_are_small_and_open_at_once(browser, page, record_property):
    target = page("large")
    size = target.stat().st_size
    begin = time.perf_counter()
    browser.open(target, settle=False)
    waited, loaded = 1000 * (time.perf_counter() - begin), browser.load_ms()
    record_property("bytes", size)
    record_property("load_ms", loaded)
    print(f"\n1,024 ranks: {size / 1e6:.2f} MB, load event after {loaded:.0f} ms, {waited:.0f} ms in all")
    assert size <= 8 << 20
    assert loaded <= 6000  # the bar is 2 s; shared machines may be slow
    draw_all(browser)
    assert browser.errors() == []


def drawn(browser):
    """What the last frame drew, once it has been drawn."""
    browser.idle()
    return int(browser.run("return document.querySelector('.timeline').dataset.drawn"))


def test_100000_tasks_cost_no_more_than_their_pixels(browser, page):
    """Frames are bound by rows times pixels, at any zoom; what is asked for in between is drawn once."""
    browser.open(page("dense"))
    draw_all(browser)
    assert browser.run("return distsim.timelines.timeline.spans.count") == 100_000
    rows, width = browser.run("const t = distsim.timelines.timeline; return [t.spans.rows.length, t.width]")
    seen = [drawn(browser)]
    browser.run("document.querySelector('.stage').focus()")
    for key in "+" * 12:
        browser.keys(key)
        seen.append(drawn(browser))
    assert max(seen) <= 4 * rows * width
    assert 0 < seen[-1] < 5_000  # far in, there are few tasks in sight
    frames = browser.run(
        "const t = distsim.timelines.timeline; let frames = 0; const frame = t.frame.bind(t);"
        "t.frame = () => { frames++; frame(); }; for (let k = 0; k < 100; k++) t.move(0.001); return new Promise(done =>"
        "requestAnimationFrame(() => requestAnimationFrame(() => done(frames))))"
    )
    assert frames <= 2


def test_the_timeline_by_keyboard_alone(browser, page):
    browser.open(page("run"))
    draw_all(browser)
    window = "const t = distsim.timelines.timeline; return [t.from, t.to, t.spans.last]"
    browser.run("document.querySelector('.stage').focus()")
    whole = browser.run(window)
    assert whole[:2] == [0, whole[2]]
    browser.keys("+", "+")
    inner = browser.run(window)
    assert inner[1] - inner[0] < 0.5 * whole[2]
    browser.keys(HOME)
    assert browser.run(window)[0] == 0
    browser.keys(END)
    assert browser.run(window)[1] == pytest.approx(whole[2])
    browser.keys("0")
    assert browser.run(window) == whole
    browser.keys(DOWN, "n")
    assert browser.run("return distsim.timelines.timeline.selected") >= 0
    assert "duration" in browser.find(".timeline .details").text


def test_a_step_is_shown_by_its_name_and_by_its_row(browser, page):
    browser.open(page("captured"))
    draw_all(browser)
    window = "const t = distsim.timelines.timeline; return [t.from * t.spans.tick, t.to * t.spans.tick]"
    steps = browser.run("return distsim.timelines.timeline.spans.steps")
    assert [step["name"] for step in steps] == [f"ProfilerStep#{number}" for number in range(3)]
    choose = browser.find("#timeline select")
    choose.send_keys("ProfilerStep#1")
    from_, to = browser.run(window)
    near = 0.03 * (steps[1]["end"] - steps[1]["begin"])
    assert (from_, to) == pytest.approx((steps[1]["begin"], steps[1]["end"]), abs=near)
    browser.run("document.querySelector('#iterations tbody tr:nth-child(3) button').focus()")
    browser.keys(ENTER)
    near = 0.05 * (steps[2]["end"] - steps[2]["begin"])
    assert browser.run(window)[0] == pytest.approx(steps[2]["begin"], abs=near)
    choose.send_keys(HOME)
    assert browser.run(window)[0] == 0
    browser.run("document.querySelector('#why tbody button').focus()")
    browser.keys(ENTER)
    assert browser.run("return distsim.timelines.timeline.selected") >= 0


def test_a_tooltip_tells_the_task_under_the_pointer(browser, page):
    browser.open(page("run"))
    draw_all(browser)
    spot = browser.run(
        "const t = distsim.timelines.timeline, s = t.spans;"
        "let k = 0; for (let j = 0; j < s.count; j++) if (s.length[j] > s.length[k]) k = j;"
        "const row = s.rowOf(k); document.querySelector('.stage').scrollIntoView({block: 'center'});"
        "t.body.scrollTop = Math.max(0, row.y - 40);"
        "const x = (s.begin[k] + s.length[k] / 2) / s.last * t.width, y = row.y - t.body.scrollTop + row.height / 2;"
        "return {name: s.nameOf(k), x, y}"
    )
    stage = browser.find(".stage")
    width, height = browser.run("const b = arguments[0].getBoundingClientRect(); return [b.width, b.height]", stage)
    shown = browser.run(
        "return distsim.timelines.timeline.canvas.getBoundingClientRect().top - arguments[0].getBoundingClientRect().top", stage
    )
    browser.hover(stage, round(spot["x"] - width / 2), round(spot["y"] + shown - height / 2))
    assert spot["name"] in browser.wait(
        "document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent"
    )


def test_search_counts_what_matches(browser, page):
    browser.open(page("run"))
    draw_all(browser)
    browser.find(".timeline input[type=search]").send_keys("all_reduce")
    told = browser.wait("document.querySelector('.timeline .found').textContent")
    count = browser.run(
        "const s = distsim.timelines.timeline.spans; return [...s.kind].filter(k => s.kinds[k] === 'all_reduce').length"
    )
    assert told.startswith(f"{count:,} task")


def test_two_timelines_move_together_and_a_millisecond_is_as_wide_in_both(browser, page):
    browser.open(page("runs"))
    draw_all(browser)
    ps = "return [0, 1].map(k => distsim.timelines[`timelines-${k}`]).map(t => [t.from * t.spans.tick, t.to * t.spans.tick])"
    first, second = browser.run(ps)
    assert first == pytest.approx(second)
    browser.run("document.querySelector('#timelines-first .stage').focus()")
    browser.keys("+", "+", RIGHT)
    moved, other = browser.run(ps)
    assert moved[1] - moved[0] < 0.5 * (first[1] - first[0])
    assert moved == pytest.approx(other)
    browser.find("#together").click()
    browser.run("document.querySelector('#timelines-second .stage').focus()")
    browser.keys("0")
    moved_again, other = browser.run(ps)
    assert moved_again == pytest.approx(moved)
    assert other == pytest.approx(second)


def test_points_of_a_study_tell_themselves_when_hovered(browser, page):
    browser.open(page("study"))
    draw_all(browser)
    best = browser.run(
        "const plot = document.getElementById('points-chart'); plot.scrollIntoView({block: 'center'});"
        "const marks = [...plot.querySelectorAll('.scatterlayer .point')].map(e => e.getBoundingClientRect());"
        "const box = plot.getBoundingClientRect(), mark = marks.sort((a, b) => b.width - a.width)[0];"
        "return [mark.x + mark.width / 2 - box.x - box.width / 2, mark.y + mark.height / 2 - box.y - box.height / 2]"
    )
    browser.hover(browser.find("#points-chart"), *map(round, best))
    told = browser.wait("document.querySelector('#points-chart .hoverlayer .hovertext')?.textContent")
    assert "(best)" in told
    assert "makespan" in told
    for control in ("#points-x", "#points-y", "#points-colour"):
        select = browser.find(control)
        before = select.get_attribute("value")
        select.send_keys(DOWN)
        assert (
            select.get_attribute("value") != before
            or len(browser.run("return [...arguments[0].options].map(o => o.value)", select)) == 1
        )
    browser.idle()
    assert browser.errors() == []


def test_tables_sort_by_their_values(browser, page):
    browser.open(page("service"))
    cells = "return [...document.querySelectorAll('#latencies tbody tr')].map(row => Number(row.cells[2].dataset.key))"
    head = browser.find("#latencies th:nth-child(3) button")
    head.send_keys(ENTER)
    first = browser.run(cells)
    head.send_keys(ENTER)
    assert {tuple(first), tuple(browser.run(cells))} == {tuple(sorted(first)), tuple(sorted(first, reverse=True))}


def test_names_from_a_trace_are_never_markup(browser, tmp_path):
    result = simulate(shipped()["moe_all_to_all"], "fat_tree")
    spans = result.spans()
    evil = "</script><img src=x onerror='window.hacked = true'><script>window.hacked = true</script>"
    bad = dataclasses.replace(
        spans, names=tuple(f"{name}{evil}" for name in spans.names), groups=tuple(evil for _ in spans.groups)
    )
    worse = dataclasses.replace(result, warnings=(evil,), make_spans=lambda: bad)
    for name in ("a", "b"):
        save(worse, tmp_path / f"<b>{name}")
    for folders in ([tmp_path / "<b>a"], [tmp_path / "<b>a", tmp_path / "<b>b"]):
        write(page_of([str(one) for one in folders]), tmp_path / "bad.html")
        browser.open(tmp_path / "bad.html")
        draw_all(browser)
        browser.run("Object.values(distsim.timelines)[0].select(3, true)")
        assert browser.run("return [window.hacked ?? null, document.querySelectorAll('img').length]") == [None, 0]
        assert browser.errors() == []
