"""It opens without errors or requests, stays text, and can be read on any screen and paper."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Open = Callable[..., Any]


def test_it_opens_without_an_error_and_without_a_request(opened: Open, page: Path) -> None:
    browser = opened(page)
    assert browser.errors() == []
    assert browser.requests() == {page.as_uri()}
    assert len(browser.texts_of(".plot .main-svg")) >= 4
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")


def test_the_policy_lets_nothing_out_and_no_other_script_run(opened: Open, page: Path) -> None:
    browser = opened(page)
    blocked = browser.driver.execute_async_script(
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
    assert title.startswith("tiny, </script>")
    assert title.endswith(": what the sweeps found")
    assert {"connect-src", "img-src", "script-src-elem"} <= set(directives)
    browser.errors()  # the three refusals are in the log, as they should be


def test_on_paper_it_is_light_and_all_provenance_is_open(opened: Open, page: Path) -> None:
    browser = opened(page)
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    axis = (
        "return document.querySelector('#curves .plot').layout.font.color.toLowerCase()"
        " + [...document.querySelectorAll('details')].every((e) => e.open)"
    )
    try:
        browser.run("dispatchEvent(new Event('beforeprint'))")
        assert browser.run(axis) == "#000000true"
        browser.run("dispatchEvent(new Event('afterprint'))")
        assert browser.run(axis) == "#e9e8e4true"
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    told = browser.run("return document.getElementById('provenance').innerText")
    assert "run hash" in told
    assert "0123456789abcdef" * 4 in told
    assert "pythia-fast sweep" in told


def test_every_control_has_a_name_and_texts_can_be_read(opened: Open, page: Path) -> None:
    browser = opened(page)
    unnamed = browser.run(
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
    # What is no text is seen at 3 to 1 (WCAG 2.2, 1.4.11): borders of inputs, icons of the charts.
    edges = contrast.replace(
        "return [...inks",
        """
        const parts = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
        const box = document.querySelector('#results input[type=search]');
        const icon = document.querySelector('.modebar-btn:not(.active) path');
        return [getComputedStyle(box).borderTopColor, getComputedStyle(icon).fill]
          .map((text) => ratio(parts(text), page));
        return [...inks""",
    )
    try:
        for scheme in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": scheme}
            browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            assert min(browser.run(contrast)) >= 4.5, scheme
            assert min(browser.run(edges)) >= 3, scheme
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_on_a_narrow_screen_nothing_sticks_out(driver: Any, opened: Open, page: Path) -> None:
    size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser = opened(page)
        outside = browser.run(
            """
            const out = (e) => e.getBoundingClientRect().right > innerWidth + 1;
            return [...document.querySelectorAll('body *')]
              .filter((e) => out(e) && !e.closest('.scroll, svg, .skip'))
              .map((e) => e.outerHTML.slice(0, 90));
            """,
        )
        assert outside == []
        assert browser.run("return document.documentElement.scrollWidth") <= 400
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
