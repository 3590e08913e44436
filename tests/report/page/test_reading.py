"""The reader of the page: texts, losses by token, a slider over the steps."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Open = Callable[..., Any]


def test_hostile_text_stays_text(opened: Open, page: Path) -> None:
    browser = opened(page)
    assert browser.driver.title != "owned"
    assert (
        browser.run("return document.querySelectorAll('main img, main b b, .plot img').length") == 0
    )
    assert browser.run("return document.scripts.length") == 3
    browser.open_sequence(0, 1)
    shown = browser.run("return document.getElementById('tokens').textContent")
    assert shown.startswith("</script><script>document.title='owned'</script>\"><img src=x")
    browser.open_sequence(0, 2)
    shown = browser.run("return document.getElementById('tokens').textContent")
    assert shown.startswith(
        "[U+202E]gnp.exe[U+202C] a\u2400b\u241b[31m [U+200B]&amp;<b>bold</b> <!-- -->"
    )
    assert "onerror" in "".join(browser.texts_of("#summary td"))
    legend = "".join(browser.texts_of("#curves .legendtext"))
    assert "<script>document.title='owned'" in legend
    assert browser.errors() == []


def test_a_cut_character_is_shown_whole_and_line_ends_are_seen(opened: Open, page: Path) -> None:
    browser = opened(page)
    browser.open_sequence(0, 0)
    shown = browser.run("return document.getElementById('tokens').textContent")
    assert shown.startswith(
        "It was the best of times, it was the worst of times.\u21b5\n\u21e5caf\u00e9 "
    )
    # A byte a token: 64 of them, the first of the two bytes of é an empty one.
    assert len(browser.texts_of("#tokens span")) == 64
    assert len(browser.texts_of("#tokens span.part")) >= 1


def test_the_slider_changes_the_colours_with_the_losses(opened: Open, page: Path, two_runs) -> None:
    browser = opened(page)
    browser.open_sequence(0, 1)
    assert browser.slide(0) == "step 0"
    first = browser.backgrounds()
    assert browser.slide(7) == "step 64"
    last = browser.backgrounds()
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
    browser.open_sequence(0, 1)
    slider = browser.driver.find_element(By.ID, "slider")
    slider.send_keys(Keys.HOME)
    slider.send_keys(Keys.ARROW_RIGHT)
    assert browser.texts_of(".slide output") == ["step 1"]
    tokens = browser.driver.find_element(By.ID, "tokens")
    tokens.send_keys(Keys.END)
    assert "Token 64" in browser.texts_of("#readout")[0]
    tokens.send_keys(Keys.ARROW_LEFT)
    told = browser.texts_of("#readout")[0]
    assert "Token 63" in told
    assert "nats: the model gives it" in told
    assert "chosen token" in "".join(browser.texts_of("#reader .legendtext"))
    assert browser.errors() == []


def test_what_is_memorized_says_when_it_was_and_when_no_more(opened: Open, page: Path) -> None:
    browser = opened(page)
    heads = browser.texts_of("#list thead th")
    rows = browser.run(
        "return [...document.querySelectorAll('#list tbody tr')]"
        ".map((r) => [...r.cells].map((c) => c.textContent))",
    )
    assert heads[:5] == ["run", "sequence", "memorized at", "at the end", "times lost"]
    own = [row[1:5] for row in rows if row[0] == "tiny"]
    assert own[:4] == [
        ["2", "2", "lost at 16", "1"],
        ["1", "4", "kept to 64", "0"],
        ["3", "64", "kept to 64", "0"],
        ["0", "\u2013", "\u2013", "0"],
    ]
    assert (
        "Of 12 sequences 3 were memorized at some step, 2 at step 64, the last (memorization: "
        in "".join(browser.texts_of("#sequences p"))
    )
    browser.open_sequence(0, 2)
    browser.slide(2)
    assert "memorized: greedy decoding" in browser.texts_of("#fate")[0]
    assert len(browser.texts_of("#tokens span.right")) == 8
    browser.slide(5)
    assert "of the continuation 3 tokens are right" in browser.texts_of("#fate")[0]
    assert len(browser.texts_of("#tokens span.right")) == 3
    assert len(browser.texts_of("#tokens span.wrong")) == 1


def test_play_goes_over_the_steps_and_pauses(opened: Open, page: Path) -> None:
    browser = opened(page)
    press = "document.querySelector('.slide button').click();"
    step = "return Number(document.getElementById('slider').value)"
    browser.slide(7)
    assert browser.run(press + step) == 0  # in one script: nothing passes between the two
    end_s = time.monotonic() + 20
    while browser.run(step) < 2:
        assert time.monotonic() < end_s
        time.sleep(0.05)
    at = browser.run(press + step)
    assert browser.texts_of(".slide button") == ["Play"]
    time.sleep(0.8)
    assert browser.run(step) == at
