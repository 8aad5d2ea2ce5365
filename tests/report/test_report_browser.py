"""The report in a real, headless Chromium: it draws, sorts, filters, works by keyboard, and asks for nothing.

Runs where Debian's `chromium` and `chromium-driver` (or others of these names) are installed.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Corpus
from report_corpus import HOSTILE_TITLE, second_run

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if BROWSER is None or DRIVER is None:
    pytest.skip("no chromium and chromedriver: apt-get install chromium chromium-driver", allow_module_level=True)

from selenium.webdriver import Chrome, ChromeOptions  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402

Cli = Callable[..., Answer]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture
def report(place: Path, corpus: Corpus, ladm: Cli) -> Path:
    """A report with everything in it (made once)."""
    path = place / "report.html"
    if not path.exists():
        second_run(place, corpus, ladm)
        assert ladm("report", "--store", place / "store", "--heatmaps", "1", "--out", path).code == 0
    return path


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(executable_path=str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def opened(chromium: Chrome, report: Path) -> Iterator[Chrome]:
    """The page in a window of 1,280 pixels; afterwards: no console message and no request that left the page."""
    chromium.get("about:blank")  # the browser's own start page asks for much
    chromium.get_log("browser"), chromium.get_log("performance")
    emulate(chromium, 1280, "light")
    chromium.get(report.as_uri())
    yield chromium
    assert chromium.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    requested = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert {url for url in requested if not url.startswith("data:")} == {report.as_uri()}
    assert chromium.title.startswith("ladm run ")


def emulate(chromium: Chrome, width: int, scheme: str) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def column(chromium: Chrome, table: str, heading: str) -> list[str]:
    """What a column shows, top to bottom, in the rows that are shown."""
    cells: list[str] = chromium.execute_script(
        """const table = document.getElementById(arguments[0]);
        const column = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent === arguments[1]);
        return [...table.tBodies[0].rows].filter(row => row.offsetParent).map(row => row.cells[column].textContent);""",
        table,
        heading,
    )
    return cells


def button(chromium: Chrome, table: str, heading: str) -> WebElement:
    return chromium.find_element(By.XPATH, f"//table[@id='{table}']//th/button[text()='{heading}']")


def luminance(colour: str) -> float:
    """WCAG's relative luminance of `rgb(r, g, b)`."""
    channels = [int(found) / 255 for found in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


CHARTS = """return [...document.querySelectorAll("figure svg")].map(svg => {
    const box = svg.getBoundingClientRect();
    const style = (element, name) => getComputedStyle(element)[name];
    const texts = [...svg.querySelectorAll("text")].filter(text => text.textContent.trim());
    return {
        width: box.width, height: box.height, label: svg.getAttribute("aria-label"),
        shapes: svg.querySelectorAll("path, image, rect").length,
        fills: [...new Set(texts.map(text => style(text, "fill")))],
        smallest: Math.min(...texts.map(text => text.getBoundingClientRect().height)),
        outside: texts.filter(text => {
            const own = text.getBoundingClientRect();
            return own.left < box.left - 1 || own.right > box.right + 1;
        }).map(text => text.textContent),
    };
});"""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_are_drawn_and_text_can_be_read(opened: Chrome, width: int, scheme: str) -> None:
    emulate(opened, width, scheme)
    charts: list[dict[str, Any]] = opened.execute_script(CHARTS)
    assert len(charts) > 6
    ground, ink = opened.execute_script(
        "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color];"
    )
    assert (luminance(ground) > 0.5) == (scheme == "light")
    assert contrast(ground, ink) > 7
    for chart in charts:
        assert chart["width"] > 250, chart
        assert chart["height"] > 100, chart
        assert chart["shapes"] > 3, chart
        assert chart["smallest"] > 8, chart
        assert chart["outside"] == [], chart
        assert all(contrast(fill, ground) > 4.5 for fill in chart["fills"]), chart
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width


def test_a_heading_sorts_its_column_and_again_the_other_way(opened: Chrome) -> None:
    for heading, key in (("score", lambda text: float(text.replace(",", ""))), ("domain", str.lower)):
        before = column(opened, "documents-table", heading)
        button(opened, "documents-table", heading).click()
        ascending = column(opened, "documents-table", heading)
        assert ascending == sorted(before, key=key)
        cell = button(opened, "documents-table", heading).find_element(By.XPATH, "..")
        assert cell.get_attribute("aria-sort") == "ascending"
        button(opened, "documents-table", heading).click()
        assert [key(text) for text in column(opened, "documents-table", heading)] == [
            key(text) for text in reversed(ascending)
        ]
        assert cell.get_attribute("aria-sort") == "descending"
    sorted_by = opened.find_elements(By.CSS_SELECTOR, "#documents-table th[aria-sort$='ending']")
    assert [cell.text.split()[0] for cell in sorted_by] == ["domain"]


def test_filtering_leaves_the_rows_with_all_words(opened: Chrome) -> None:
    field = opened.find_element(By.CSS_SELECTOR, "input[aria-controls='documents-table']")
    count = field.find_element(By.XPATH, "../following-sibling::output")
    domains = column(opened, "documents-table", "domain")
    assert count.text == f"{len(domains)} of {len(domains)} rows"
    field.send_keys("poems BEST")
    left = column(opened, "documents-table", "domain")
    assert left == [domain for domain in domains if domain == "Poems"]
    assert 0 < len(left) < len(domains)
    assert count.text == f"{len(left)} of {len(domains)} rows"
    button(opened, "documents-table", "rank").click()
    assert column(opened, "documents-table", "domain") == left
    field.clear()
    field.send_keys("nothing has this")
    assert column(opened, "documents-table", "domain") == []


def test_by_keyboard(opened: Chrome) -> None:
    def focused() -> WebElement:
        return opened.switch_to.active_element

    keys = ActionChains(opened)
    keys.send_keys(Keys.TAB).perform()
    assert focused().get_attribute("href").endswith("#main")
    assert focused().rect["x"] >= 0
    reached = []
    for _ in range(300):
        keys.send_keys(Keys.TAB).perform()
        element = focused()
        if element.tag_name == "body":
            break
        reached.append((element.tag_name, element.text or element.get_attribute("aria-controls")))
        if element.tag_name == "button" and element.text == "score":
            keys.send_keys(Keys.ENTER).perform()
            assert element.find_element(By.XPATH, "..").get_attribute("aria-sort") == "ascending"
    tags = [tag for tag, _ in reached]
    assert ("input", "documents-table") in reached
    assert ("button", "score") in reached
    assert tags.count("div") >= 5  # tables can be scrolled by the arrow keys
    assert "summary" in tags


def test_a_hostile_title_stays_text(opened: Chrome) -> None:
    assert HOSTILE_TITLE in column(opened, "documents-table", "title")
    assert opened.execute_script("return document.querySelectorAll('script').length") == 1
    assert opened.execute_script("return document.querySelectorAll('iframe, img, body b, body i').length") == 0
    # and what a page of its own could do is forbidden by the policy: a script put in is not run
    opened.execute_script(
        "const s = document.createElement('script'); s.text = 'document.title = `taken`'; document.body.append(s);"
    )
    assert opened.title.startswith("ladm run ")
    complaints = opened.get_log("browser")
    assert len(complaints) == 1
    assert "Content Security Policy" in complaints[0]["message"]
