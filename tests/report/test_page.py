"""The page in a real browser: it opens without errors or requests, moves, sorts, and stays text."""

import csv
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Open = Callable[[Path], Any]


def errors(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def requests(browser: Any) -> set[str]:
    """The addresses that the page asked for, but for itself and what it holds in memory."""
    found = set()
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.add(message["params"]["request"]["url"])
    return {url for url in found if not url.startswith(("data:", "blob:"))}


def run(browser: Any, script: str, *arguments: Any) -> Any:
    return browser.execute_script(script, *arguments)


def texts_of(browser: Any, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
    return run(browser, script, selector)


def backgrounds(browser: Any) -> list[str]:
    script = (
        "return [...document.querySelectorAll('#tokens span')]"
        ".map((e) => getComputedStyle(e).backgroundColor)"
    )
    return run(browser, script)


def slide(browser: Any, index: int) -> str:
    """Move the slider as a user does: the input event, and what the page then says."""
    run(
        browser,
        "const s = document.getElementById('slider'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('input', {bubbles: true}));",
        index,
    )
    return run(browser, "return document.querySelector('.slide output').textContent")


def open_sequence(browser: Any, run_index: int, sequence: int) -> None:
    """Through the list's button, whichever page of the list it is on."""
    run(
        browser,
        """
        const [r, sequence] = arguments;
        const box = document.querySelector('#list input[type=search]');
        box.value = `sequence=${sequence}`;
        box.dispatchEvent(new Event('input', {bubbles: true}));
        const select = document.querySelector('#list select');
        select.value = data.runs[r].label;
        select.dispatchEvent(new Event('change', {bubbles: true}));
        document.querySelector('#list tbody button').click();
        """,
        run_index,
        sequence,
    )


def test_it_opens_without_an_error_and_without_a_request(opened: Open, page: Path) -> None:
    browser = opened(page)
    assert errors(browser) == []
    assert requests(browser) == {page.as_uri()}
    assert len(texts_of(browser, ".plot .main-svg")) >= 4
    assert run(browser, "return document.documentElement.scrollWidth <= innerWidth")


def test_the_policy_lets_nothing_out_and_no_other_script_run(opened: Open, page: Path) -> None:
    browser = opened(page)
    blocked = browser.execute_async_script(
        """
        const done = arguments[arguments.length - 1];
        const found = [];
        const told = (e) => found.push(e.violatedDirective);
        document.addEventListener("securitypolicyviolation", told);
        const script = document.createElement("script");
        script.textContent = "document.title = 'owned'";
        document.body.append(script);
        const image = new Image();
        image.src = "http://127.0.0.1:9/x.png";
        const end = () => setTimeout(() => done([document.title, found]), 200);
        fetch("http://127.0.0.1:9/").catch(end);
        """
    )
    title, directives = blocked
    assert "owned" not in title.removesuffix(": what the sweeps found").split(", ")[0]
    assert title != "owned"
    assert {"connect-src", "img-src", "script-src-elem"} <= set(directives)
    errors(browser)  # the three refusals are in the log, as they should be


def test_hostile_text_stays_text(opened: Open, page: Path) -> None:
    browser = opened(page)
    assert browser.title != "owned"
    assert (
        run(browser, "return document.querySelectorAll('main img, main b b, .plot img').length")
        == 0
    )
    assert run(browser, "return document.scripts.length") == 3
    open_sequence(browser, 0, 1)
    shown = run(browser, "return document.getElementById('tokens').textContent")
    assert shown.startswith("</script><script>document.title='owned'</script>\"><img src=x")
    open_sequence(browser, 0, 2)
    shown = run(browser, "return document.getElementById('tokens').textContent")
    assert shown.startswith(
        "[U+202E]gnp.exe[U+202C] a\u2400b\u241b[31m [U+200B]&amp;<b>bold</b> <!-- -->"
    )
    assert "onerror" in "".join(texts_of(browser, "#summary td"))
    legend = "".join(texts_of(browser, "#curves .legendtext"))
    assert "<script>document.title='owned'" in legend
    assert errors(browser) == []


def test_a_cut_character_is_shown_whole_and_line_ends_are_seen(opened: Open, page: Path) -> None:
    browser = opened(page)
    open_sequence(browser, 0, 0)
    shown = run(browser, "return document.getElementById('tokens').textContent")
    assert shown.startswith(
        "It was the best of times, it was the worst of times.\u21b5\n\u21e5caf\u00e9 "
    )
    # A byte a token: 64 of them, the first of the two bytes of é an empty one.
    assert len(texts_of(browser, "#tokens span")) == 64
    assert len(texts_of(browser, "#tokens span.part")) >= 1


def test_the_slider_changes_the_colours_with_the_losses(opened: Open, page: Path, two_runs) -> None:
    browser = opened(page)
    open_sequence(browser, 0, 1)
    assert slide(browser, 0) == "step 0"
    first = backgrounds(browser)
    assert slide(browser, 7) == "step 64"
    last = backgrounds(browser)
    assert first != last
    assert first[0] == last[0], "the first token has no loss, so it has no colour"

    def strength(colour: str) -> float:
        inside = colour[colour.index("(") + 1 : -1].replace("/", ",").split(",")
        return float(inside[3]) if len(inside) > 3 else 1.0

    rows = two_runs[0].rows
    for index, colours in ((0, first), (7, last)):
        step = (0, 1, 2, 4, 8, 16, 32, 64)[index]
        nll = rows[step]["token_nll"][1].as_py()
        shown = [strength(colour) for colour in colours[1:]]
        most = 5.5607  # ln 260
        expected = [min(loss / most, 1) * 0.85 for loss in nll]
        assert shown == pytest.approx(expected, abs=0.005)


def test_the_keys_move_slider_and_token(opened: Open, page: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser = opened(page)
    open_sequence(browser, 0, 1)
    slider = browser.find_element(By.ID, "slider")
    slider.send_keys(Keys.HOME)
    slider.send_keys(Keys.ARROW_RIGHT)
    assert texts_of(browser, ".slide output") == ["step 1"]
    tokens = browser.find_element(By.ID, "tokens")
    tokens.send_keys(Keys.END)
    assert "Token 64" in texts_of(browser, "#readout")[0]
    tokens.send_keys(Keys.ARROW_LEFT)
    told = texts_of(browser, "#readout")[0]
    assert "Token 63" in told
    assert "nats: the model gives it" in told
    assert "chosen token" in "".join(texts_of(browser, "#reader .legendtext"))
    assert errors(browser) == []


def test_what_is_memorized_says_when_it_was_and_when_no_more(opened: Open, page: Path) -> None:
    browser = opened(page)
    heads = texts_of(browser, "#list thead th")
    rows = run(
        browser,
        "return [...document.querySelectorAll('#list tbody tr')]"
        ".map((r) => [...r.cells].map((c) => c.textContent))",
    )
    assert heads[:5] == ["run", "sequence", "memorized at", "at the end", "times lost"]
    own = [row[1:5] for row in rows if row[0] == "tiny"]
    assert own[:4] == [
        ["2", "2", "lost at 16", "1"],
        ["1", "4", "kept", "0"],
        ["3", "64", "kept", "0"],
        ["0", "\u2013", "\u2013", "0"],
    ]
    assert "Of 12 sequences 3 were memorized at some step, 2 at the last." in "".join(
        texts_of(browser, "#sequences p")
    )
    open_sequence(browser, 0, 2)
    slide(browser, 2)
    assert "memorized: greedy decoding" in texts_of(browser, "#fate")[0]
    assert len(texts_of(browser, "#tokens span.right")) == 8
    slide(browser, 5)
    assert "of the continuation 3 tokens are right" in texts_of(browser, "#fate")[0]
    assert len(texts_of(browser, "#tokens span.right")) == 3
    assert len(texts_of(browser, "#tokens span.wrong")) == 1


def test_a_gap_is_told_drawn_open_and_marked(opened: Open, page: Path) -> None:
    browser = opened(page)
    told = " ".join(texts_of(browser, "#summary td"))
    assert "not begun" in told
    assert "failed: ChecksumError" in told
    assert "odd </script>" in told
    assert texts_of(browser, "#curves figcaption")[0] == "2 steps not computed (\u00d7)"
    drawn = run(
        browser,
        "const t = document.querySelector('#curves .plot').data"
        ".filter((e) => e.mode.includes('markers'));"
        "return t.map((e) => [e.y, e.steps, e.connectgaps ?? null, e.yaxis ?? null])",
    )
    line = drawn[1]
    assert line[1] == [0, 1, 2, 4, 8, 16, 32, 64]
    assert [y is None for y in line[0]] == [False, False, False, True, True, False, False, False]
    assert line[2] is False
    assert drawn[2][1] == [4, 8]
    open_sequence(browser, 1, 1)
    slide(browser, 3)
    assert "is missing here: not begun" in texts_of(browser, "#fate")[0]


def test_bands_are_drawn_between_the_gaps_only(opened: Open, page: Path, two_runs: Any) -> None:
    browser = opened(page)
    bands = run(
        browser,
        "return document.querySelector('#curves .plot').data"
        ".filter((e) => e.fill === 'toself').map((e) => [e.run, e.x, e.y])",
    )
    assert [(r, len(x)) for r, x, _ in bands] == [(0, 16), (1, 6), (1, 6)]
    values = [
        row["value"] for row in two_runs[0].table.to_pylist() if row["metric"] == "perplexity"
    ]
    low, high = bands[0][2][:8], bands[0][2][8:][::-1]
    assert low == pytest.approx([value * 0.95 for value in values])
    assert high == pytest.approx([value * 1.05 for value in values])
    assert {"low", "high"} <= set(texts_of(browser, "#results thead th"))
    assert "Bands are 95% confidence intervals" in texts_of(browser, "#curves .hint")[0]


def cells(browser: Any, column: str) -> list[str]:
    script = """
        const texts = (cells) => [...cells].map((e) => e.textContent);
        const at = texts(document.querySelectorAll('#results thead th')).indexOf(arguments[0]);
        const rows = [...document.querySelectorAll('#results tbody tr')];
        return texts(rows.map((row) => row.cells[at]));
    """
    return run(browser, script, column)


def search(browser: Any, words: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    box = browser.find_element(By.CSS_SELECTOR, "#results input[type=search]")
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(Keys.DELETE, words)


def test_the_table_sorts_and_filters(opened: Open, page: Path) -> None:
    browser = opened(page)
    search(browser, "metric=perplexity step>=16 run=tiny")
    assert cells(browser, "step") == ["16", "32", "64"]
    assert texts_of(browser, "#results .count") == ["3 of 28 rows"]
    script = (
        "[...document.querySelectorAll('#results thead button')]"
        ".find((b) => b.textContent === 'value').click();"
        "return [...document.querySelectorAll('#results thead th')]"
        ".find((b) => b.textContent === 'value').getAttribute('aria-sort')"
    )
    assert run(browser, script) == "ascending"
    rising = [float(each) for each in cells(browser, "value")]
    assert rising == sorted(rising)
    assert run(browser, script) == "descending"
    assert [float(each) for each in cells(browser, "value")] == rising[::-1]
    search(browser, "no such thing")
    assert texts_of(browser, "#results .count") == ["0 of 28 rows"]
    search(browser, "")
    assert texts_of(browser, "#results .count") == ["28 rows"]
    assert len(cells(browser, "step")) == 20
    assert "commit" not in texts_of(browser, "#results thead th")
    run(browser, "document.getElementById('origins').click()")
    assert "weights_sha256" in texts_of(browser, "#results thead th")


def test_a_run_is_hidden_everywhere_at_once_and_the_axis_changes(opened: Open, page: Path) -> None:
    browser = opened(page)
    drawn = "return document.querySelector('#curves .plot').data"
    lines = drawn + ".filter((e) => e.mode.includes('markers')).map((e) => e.run)"
    assert run(browser, lines) == [0, 1, 1]
    run(browser, "document.querySelector('#controls input[data-run=\"1\"]').click()")
    assert run(browser, lines) == [0]
    assert set(cells(browser, "run")) == {"tiny"}
    places = drawn + ".find((e) => e.mode.includes('markers')).x"
    assert run(browser, places)[-1] == pytest.approx(1.8129, abs=1e-3)  # log10(65)
    run(browser, "document.querySelector('#controls input[value=linear]').click()")
    assert run(browser, places) == [0, 1, 2, 4, 8, 16, 32, 64]
    assert errors(browser) == []


def test_the_rows_found_are_saved_as_csv(opened: Open, page: Path) -> None:
    browser = opened(page)
    search(browser, "metric=memorization step=64")
    saved = browser.execute_async_script(
        """
        const done = arguments[arguments.length - 1];
        const real = URL.createObjectURL;
        URL.createObjectURL = (blob) => {
          blob.text().then(done);
          return real.call(URL, blob);
        };
        HTMLAnchorElement.prototype.click = () => {};
        [...document.querySelectorAll('#results button')]
          .find((b) => b.textContent === 'Save as CSV').click();
        """
    )
    rows = list(csv.reader(io.StringIO(saved)))
    assert rows[0][:4] == ["run", "model", "step", "metric"]
    assert [row[2:4] for row in rows[1:]] == [["64", "memorization"]] * 2
    assert rows[2][0].startswith("</script><script>")


def test_play_goes_over_the_steps_and_pauses(opened: Open, page: Path) -> None:
    browser = opened(page)
    press = "document.querySelector('.slide button').click()"
    step = "return Number(document.getElementById('slider').value)"
    slide(browser, 7)
    run(browser, press)
    assert run(browser, step) == 0
    end_s = time.monotonic() + 20
    while run(browser, step) < 2:
        assert time.monotonic() < end_s
        time.sleep(0.05)
    run(browser, press)
    assert texts_of(browser, ".slide button") == ["Play"]
    at = run(browser, step)
    time.sleep(0.8)
    assert run(browser, step) == at


def test_on_paper_it_is_light_and_all_provenance_is_open(opened: Open, page: Path) -> None:
    browser = opened(page)
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    axis = (
        "return document.querySelector('#curves .plot').layout.font.color.toLowerCase()"
        " + [...document.querySelectorAll('details')].every((e) => e.open)"
    )
    try:
        run(browser, "dispatchEvent(new Event('beforeprint'))")
        assert run(browser, axis) == "#000000true"
        run(browser, "dispatchEvent(new Event('afterprint'))")
        assert run(browser, axis) == "#e9e8e4true"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    told = run(browser, "return document.getElementById('provenance').innerText")
    assert "run hash" in told
    assert "0123456789abcdef" * 4 in told
    assert "pythia-fast sweep" in told


def test_every_control_has_a_name_and_texts_can_be_read(opened: Open, page: Path) -> None:
    browser = opened(page)
    unnamed = run(
        browser,
        """
        const named = (e) =>
          e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length;
        return [...document.querySelectorAll('input, select, button')]
          .filter((e) => !named(e)).map((e) => e.outerHTML.slice(0, 80));
        """,
    )
    assert unnamed == []
    contrast = """
        const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        const light = ([r, g, b]) => 0.05 + 0.2126 * linear(r / 255)
          + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
        const rgb = (name) => {
          const probe = document.body.appendChild(document.createElement('i'));
          probe.style.color = `var(${name})`;
          const found = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(Number);
          probe.remove();
          return found;
        };
        const most = Number(getComputedStyle(document.documentElement).getPropertyValue('--most'));
        const page = rgb('--page');
        const dyed = page.map((v, i) => v + ([213, 94, 0][i] - v) * most);
        const ratio = (a, b) => Math.max(light(a) / light(b), light(b) / light(a));
        const inks = ['--text', '--quiet', '--link', '--mark'].map(rgb);
        return [...inks.map((ink) => ratio(ink, page)), ratio(inks[0], dyed)];
    """
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        assert min(run(browser, contrast)) >= 4.5, scheme
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_on_a_narrow_screen_nothing_sticks_out(browser: Any, opened: Open, page: Path) -> None:
    size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        opened(page)
        outside = run(
            browser,
            """
            const out = (e) => e.getBoundingClientRect().right > innerWidth + 1;
            return [...document.querySelectorAll('body *')]
              .filter((e) => out(e) && !e.closest('.scroll, svg, .skip'))
              .map((e) => e.outerHTML.slice(0, 90));
            """,
        )
        assert outside == []
        assert run(browser, "return document.documentElement.scrollWidth") <= 400
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
