"""The table of all numbers: it sorts, filters and is saved."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

Open = Callable[..., Any]


def test_the_table_sorts_and_filters(opened: Open, page: Path) -> None:
    browser = opened(page)
    browser.search("metric=perplexity step>=16 run=tiny")
    assert browser.cells("step") == ["16", "32", "64"]
    assert browser.texts_of("#results .count") == ["3 of 28 rows"]
    script = (
        "[...document.querySelectorAll('#results thead button')]"
        ".find((b) => b.textContent === 'value').click();"
        "return [...document.querySelectorAll('#results thead th')]"
        ".find((b) => b.textContent === 'value').getAttribute('aria-sort')"
    )
    assert browser.run(script) == "ascending"
    rising = [float(each) for each in browser.cells("value")]
    assert rising == sorted(rising)
    assert browser.run(script) == "descending"
    assert [float(each) for each in browser.cells("value")] == rising[::-1]
    browser.search("no such thing")
    assert browser.texts_of("#results .count") == ["0 of 28 rows"]
    browser.search("")
    assert browser.texts_of("#results .count") == ["28 rows"]
    assert len(browser.cells("step")) == 20
    assert "commit" not in browser.texts_of("#results thead th")
    browser.run("document.getElementById('origins').click()")
    assert "weights_sha256" in browser.texts_of("#results thead th")


def test_the_rows_found_are_saved_as_csv(opened: Open, page: Path) -> None:
    browser = opened(page)
    browser.search("metric=memorization step=64")
    saved = browser.driver.execute_async_script(
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


def test_what_is_shown_is_found_and_what_is_no_number_is_told(opened: Open, page: Path) -> None:
    browser = opened(page)
    shown = browser.cells("value")[0]
    browser.search(f"{shown} run=tiny")
    assert browser.cells("value") == [shown]
    browser.search("value>x")
    (told,) = browser.texts_of("#results .count")
    assert "\u201cx\u201d is no number to compare with" in told
    browser.search("metric>5")
    assert "metric is no number" in browser.texts_of("#results .count")[0]
    browser.search("step>=1,0")
    assert "no number" not in browser.texts_of("#results .count")[0]
    browser.search("")


def test_every_column_has_a_title_and_no_saved_cell_is_a_formula(opened: Open, page: Path) -> None:
    browser = opened(page)
    titles = "return [...document.querySelectorAll('#results thead th')].map((e) => e.title)"
    assert all(browser.run(titles))
    saved = browser.driver.execute_async_script(
        """
        const done = arguments[arguments.length - 1];
        const real = URL.createObjectURL;
        URL.createObjectURL = (blob) => { blob.text().then(done); return real.call(URL, blob); };
        HTMLAnchorElement.prototype.click = () => {};
        saveCsv(["a", "b"], [["=1+1", -2.5], ["@x", "-inf"], ["+1", null], ["-x", "a"]]);
        """
    )
    assert saved.split() == ["a,b", "'=1+1,-2.5", "'@x,-inf", "'+1,", "'-x,a"]
