"""The page as a reader uses it, in a real browser: click, hover, keys, sorting, downloads, a phone,
a hostile file.
"""

from __future__ import annotations

import csv
import shutil
import time

import numpy as np
import pytest
import xarray as xr
from headruns import about, detected, paired, planted, png, recorded
from nnheads.recipes import _app as cli
from test_report import hostile

from nnheads.runs import store

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no browser: apt-get install chromium chromium-driver"
)
FLAGS = (
    "headless no-sandbox disable-gpu disable-dev-shm-usage no-first-run"
    " disable-background-networking"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    folder = tmp_path_factory.mktemp("browser")
    for flag in [
        *FLAGS.split(),
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={folder / 'profile'}",
    ]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.downloads = folder / "downloads"
    driver.downloads.mkdir()
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(driver.downloads)}
    )
    yield driver
    driver.quit()


def report(folder, target, *arguments: str):
    with pytest.raises(SystemExit) as done:
        cli.app(["report", str(folder), "-o", str(target), *arguments])
    assert done.value.code == 0
    return target


def says(text: str, *words: str) -> bool:
    return all(word in text for word in words)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A page of the shipped model with attention, and runs of another by hand."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.raises(SystemExit) as done:
        cli.app(["ioi", "-n", "6", "-q", "-o", str(folder)])
    assert done.value.code == 0
    detected(folder, "induction", planted(3, 4, (1, 2), (2, 0)), model="zoo--other")
    detected(folder, "previous_token", planted(3, 4, (1, 2)), model="zoo--other")
    return report(folder, folder / "page.html", "--attention", "reference")


def opened(browser, file, width=1366, height=768, anchor=""):
    phone = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.get("about:blank")
    browser.get(f"file://{file}{anchor}")
    assert browser.execute_script("return document.documentElement.dataset.ready") == "yes"
    return browser


def one(browser, selector: str):
    return browser.find_element("css selector", selector)


def texts(browser, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)"
    return browser.execute_script(script, selector)


def settled(browser) -> None:
    """What was clicked or scrolled has had its effect."""
    browser.execute_async_script(
        "setTimeout(() => requestAnimationFrame(() => setTimeout(arguments[0], 20)), 20)"
    )


def in_view(browser, element) -> None:
    browser.execute_script("arguments[0].scrollIntoView({ block: 'center' })", element)
    settled(browser)


def chosen(browser, name: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(one(browser, f"#{name}")).select_by_visible_text(value)


def test_a_click_opens_the_card_and_the_address_remembers_it(browser, file):
    opened(browser, file)
    chosen(browser, "model", "zoo--other main")
    chosen(browser, "what", "induction")
    assert texts(browser, "#coloured") == ["induction: attention mass on the target"]
    flagged = [
        cell.get_attribute("data-head")
        for cell in browser.find_elements("css selector", "#grid .cell.flagged")
    ]
    assert flagged == ["6", "8"] and one(browser, "#about").text.startswith(
        "2 of 12 heads beyond chance. run "
    )
    one(browser, "[data-head='6']").click()
    card = one(browser, "#card").text
    assert card.startswith("L1H2") and says(card, "induction", "previous token", "1/12")
    address = browser.current_url
    assert address.endswith("h=L1H2") and "k=induction" in address
    opened(browser, file, anchor=address[address.index("#") :])
    assert one(browser, "#card h2").text == "L1H2" and texts(browser, "#coloured")[0].startswith(
        "induction"
    )
    chosen(browser, "model", "reference shipped")
    assert (
        texts(browser, "#coloured")[0].startswith("ioi")
        and len(texts(browser, "#grid .cell")) == 32
    )
    assert browser.get_log("browser") == []


def test_hovering_a_head_shows_its_numbers(browser, file):
    from selenium.webdriver import ActionChains

    opened(browser, file)
    chosen(browser, "model", "zoo--other main")
    ActionChains(browser).move_to_element(one(browser, "[data-head='6']")).perform()
    tip = one(browser, "#tip")
    assert tip.is_displayed() and tip.text.startswith("L1H2 0.799 [0.79") and "null 0.0" in tip.text
    assert "beyond chance" in tip.text
    ActionChains(browser).move_to_element(one(browser, "h1")).perform()
    assert not tip.is_displayed()


def test_the_keyboard_alone_reaches_heads_and_cards(browser, file):
    from selenium.webdriver.common.keys import Keys

    opened(browser, file)
    chosen(browser, "model", "reference shipped")
    cell = one(browser, "#grid [tabindex='0']")
    assert (
        len(browser.find_elements("css selector", "#grid [tabindex='0']")) == 1
    )  # one stop for Tab
    browser.execute_script("arguments[0].focus()", cell)

    def press(key: str) -> str:
        browser.switch_to.active_element.send_keys(key)
        return (
            browser.switch_to.active_element.get_attribute("data-head")
            or browser.switch_to.active_element.text
        )

    press(Keys.HOME)
    while browser.switch_to.active_element.get_attribute("data-head") != "0":
        press(Keys.ARROW_UP)
    assert [press(Keys.ARROW_RIGHT), press(Keys.ARROW_DOWN), press(Keys.ARROW_LEFT)] == [
        "1",
        "9",
        "8",
    ]
    assert [press(Keys.ARROW_LEFT), press(Keys.END), press(Keys.HOME)] == ["8", "15", "8"]
    assert "L1H0" in browser.switch_to.active_element.get_attribute("aria-label")
    assert press(Keys.ENTER) == "L1H0" and one(browser, "#card").text.startswith("L1H0")


def test_tables_sort_both_ways_and_leave_the_unknown_last(browser, file):
    opened(browser, file)
    chosen(browser, "model", "zoo--other main")

    def column(number: int) -> list[str]:
        return texts(browser, f"#heads tbody td:nth-child({number})")

    assert column(1)[0] == "L1H2" and texts(browser, "#heads th[aria-sort='descending']") == [
        "value"
    ]
    one(browser, "#heads th:nth-child(1) button").click()
    assert column(1)[:5] == ["L0H0", "L0H1", "L0H2", "L0H3", "L1H0"]
    assert texts(browser, "#heads th[aria-sort='ascending']") == ["head"]
    one(browser, "#heads th:nth-child(4) button").click()
    values = [float(value) for value in column(4)]
    assert values == sorted(values, reverse=True) and len(values) == 12
    one(browser, "#heads th:nth-child(4) button").click()
    assert [float(value) for value in column(4)] == sorted(values)
    one(browser, "#only").click()
    assert set(column(1)) == {"L1H2", "L2H0"}
    order = "return [1, null, -2, 3].sort((a, b) => compare(a, b, arguments[0]))"
    assert browser.execute_script(order, True) == [3, 1, -2, None]
    assert browser.execute_script(order, False) == [-2, 1, 3, None]


def downloaded(browser) -> list[list[str]]:
    for _ in range(200):
        found, *_ = [*browser.downloads.glob("*.csv"), None]
        if found is not None and found.stat().st_size:
            with found.open(newline="") as file:
                rows = list(csv.reader(file))
            found.unlink()
            return rows
        time.sleep(0.05)
    raise AssertionError("nothing was downloaded")


def test_tables_download_as_csv(browser, file):
    opened(browser, file)
    chosen(browser, "model", "zoo--other main")
    one(browser, "#heads .button").click()
    rows = downloaded(browser)
    assert (
        rows[0][:4] == ["head", "rank", "depth", "value"]
        and rows[1][0] == "L1H2"
        and len(rows) == 13
    )
    assert float(rows[1][3]) == pytest.approx(0.8, abs=0.02)
    one(browser, "#heads .button:nth-child(2)").click()
    rows = downloaded(browser)
    assert (
        rows[0][:6] == ["model", "revision", "weights", "layer", "head", "type"]
        and len(rows) == 1 + 4 * 12
    )
    assert (
        rows[1][rows[0].index("command")] == "nnheads detect -n 12"
        and rows[1][-1] == "0123456789" * 4
    )


def test_attention_with_tokens(browser, file):
    from selenium.webdriver import ActionChains

    opened(browser, file)
    chosen(browser, "model", "reference shipped")
    one(browser, "[data-head='0']").click()  # L0H0 looks at the previous token
    line = one(browser, "#card p[role='status']")
    n = len(texts(browser, "#card .token"))
    assert f"({n - 1}): most to" in line.text and f"({n - 2}), 1.00" in line.text
    ActionChains(browser).scroll_to_element(one(browser, "#card .token")).perform()
    ActionChains(browser).move_to_element(
        browser.find_elements("css selector", "#card .token")[5]
    ).perform()
    assert "(5): most to" in line.text and "(4), 1.00" in line.text
    ActionChains(browser).scroll_to_element(one(browser, "#card canvas")).perform()
    ActionChains(browser).move_to_element_with_offset(
        one(browser, "#card canvas"), -40, 40
    ).perform()
    assert " looks at " in one(browser, "#tip").text


def test_where_a_number_comes_from(browser, file):
    opened(browser, file)
    chosen(browser, "model", "reference shipped")
    one(browser, "#about .link").click()
    (run,) = [
        each
        for each in browser.find_elements("css selector", "#runs details")
        if each.get_attribute("open")
    ]
    assert "nnheads ioi -n 6" in run.text and "nnsight" in run.text and "prompts" in run.text


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1366, 768)])
def test_nothing_is_wider_than_the_screen(width, height, browser, file, tmp_path):
    opened(browser, file, width, height)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    one(browser, "[data-head='9']").click()
    card = one(browser, "#card")
    assert (
        card.is_displayed() and card.rect["x"] >= 0 and card.rect["x"] + card.rect["width"] <= width
    )
    assert (
        browser.save_screenshot(str(tmp_path / "page.png"))
        and (tmp_path / "page.png").stat().st_size > 20_000
    )
    if width < 500:
        browser.execute_script("arguments[0].scrollTop = 1e6", card)
        one(browser, "#card .close").click()  # in reach wherever the card is scrolled to
        assert (
            not card.is_displayed()
            and browser.switch_to.active_element.get_attribute("data-head") == "9"
        )


def test_a_hostile_file_does_nothing(browser, tmp_path):
    hostile(tmp_path)
    opened(
        browser,
        report(tmp_path, tmp_path / "page.html", "--title", "<script>window.hurt = 1</script>"),
    )
    one(browser, "[data-head='0']").click()
    one(browser, "#about .link").click()
    assert one(browser, "h1").text == "<script>window.hurt = 1</script>"
    script = (
        "return [window.hurt ?? null, [...document.querySelectorAll('img')].map((one) =>"
        " one.src.slice(0, 22))]"
    )
    assert browser.execute_script(script) == [None, []]
    one(browser, "#results summary").click()
    settled(browser)
    assert browser.execute_script(script) == [None, ["data:image/png;base64,"]]
    assert "<script>alert(1)</script>" in one(browser, "#results").text
    assert browser.get_log("browser") == []
    assert "onerror=alert(2)" in one(browser, "#card").text
    # what a file says is no formula in a spreadsheet
    script = "return ['=1+1', '@x', '-1', -1, 'a\"b', null].map(field)"
    assert browser.execute_script(script) == ["'=1+1", "'@x", "'-1", "-1", '"a""b"', ""]


def test_markup_that_slips_in_is_not_run(browser, file, tmp_path):
    """The policy in the head, tried: had a script got in, it would not run, and nothing can be
    fetched.
    """
    slipped = (
        "<script>window.hurt = 1</script><img src='https://example.org/x.png' onerror='window.hurt"
        " = 2'></body>"
    )
    (tmp_path / "page.html").write_text(file.read_text().replace("</body>", slipped))
    opened(browser, tmp_path / "page.html")
    assert browser.execute_script("return window.hurt ?? null") is None
    assert "Content Security Policy" in " ".join(
        entry["message"] for entry in browser.get_log("browser")
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Runs by hand of every kind that a page can show: types that share heads, one pair, a curve
    with its picture.
    """
    folder = tmp_path_factory.mktemp("study")
    detected(folder, "induction", planted(2, 6, (1, 2), (0, 5)), model="zoo--grouped", noise=0.2)
    detected(
        folder, "retrieval", planted(2, 6, (1, 2), (1, 4)), model="zoo--grouped", noise=0.2, seed=1
    )
    detected(folder, "sink", planted(2, 6, (0, 0)), model="zoo--grouped", noise=0.2, seed=2)
    paired(folder)
    effect = {
        "effect": [0.0, 2.0, 1.0],
        "effect_low": [-0.5, 1.5, 0.5],
        "effect_high": [0.5, 2.5, 1.5],
    }
    curve = xr.Dataset({name: ("strength", of, {"units": "nat"}) for name, of in effect.items()})
    curve = curve.assign_coords(strength=[-1, 0, 1]).assign(base=0.25)
    place = recorded(folder / "steer", "steer", ["curve.nc", "curve.png"], limit=9)
    store.save(place / "curve.nc", curve.assign_attrs(about("steering", "zoo--grouped", "main")))
    (place / "curve.png").write_bytes(png(640, 400))
    return report(folder, folder / "page.html", "--top", "2")


def test_which_scores_share_heads(browser, study):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    opened(browser, study)
    assert texts(browser, "#overlap tbody th") == ["induction", "retrieval", "sink", "patch"]
    cell = one(browser, "[data-pair='0 1']")
    assert (
        cell.text == one(browser, "[data-pair='1 0']").text == ".24"
    )  # a third, less one in eleven by chance
    in_view(browser, cell)
    ActionChains(browser).move_to_element(cell).perform()
    said = one(browser, "#tip").text.splitlines()
    assert said[:2] == [
        "induction | retrieval",
        "Jaccard of the top 2: 0.33, by chance 0.09: +0.24",
    ]
    assert any(line.startswith("Spearman over all heads: ") for line in said)
    cell.click()
    pair = one(browser, "#pair").text
    assert (
        "in the top 2 of both: L1H2" in pair
        and "of induction alone: L0H5" in pair
        and "L1H4" in pair
    )
    assert texts(browser, "#coloured") == ["induction: attention mass on the target"]
    cell.send_keys(Keys.ARROW_RIGHT)
    assert browser.switch_to.active_element.get_attribute("data-pair") == "0 2"
    browser.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    browser.switch_to.active_element.send_keys(Keys.ARROW_DOWN)  # over the diagonal
    assert browser.switch_to.active_element.get_attribute("data-pair") == "3 2"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert texts(browser, "#coloured") == ["patch: z"] and one(browser, "#pair b").text == "patch"
    assert len(browser.find_elements("css selector", "#overlap [data-pair][tabindex='0']")) == 1
    chosen(browser, "alike", "Spearman over all heads")
    assert one(browser, "[data-pair='0 1']").text != ".24"
    one(browser, "#pair .chip").click()
    assert one(browser, "#card h2").text.startswith("L") and browser.get_log("browser") == []
    one(browser, "#overlap .button").click()
    rows = downloaded(browser)
    assert (
        rows[0][:5] == ["score", "other", "top", "jaccard_top", "jaccard_chance"] and len(rows) == 7
    )
    assert rows[1][:3] == ["retrieval", "induction", "2"] and float(rows[1][3]) == pytest.approx(
        1 / 3, abs=1e-3
    )


def test_whether_other_prompts_name_the_same_heads(browser, study):
    opened(browser, study)
    assert len(texts(browser, "#stability > .tall tbody tr")) == 3
    one(browser, "#stability > .tall th:nth-child(3) button").click()
    lists = [int(text) for text in texts(browser, "#stability > .tall td:nth-child(3)")]
    assert lists == sorted(lists, reverse=True) and lists[-1] >= 1
    heads = texts(browser, "#stability > .tall th button")
    assert "prompts for 0.8" in heads and "rank correlation" in heads
    names = texts(browser, "#stability > .tall td:nth-child(1)")
    browser.find_elements("css selector", "#stability > .tall tbody .link")[-1].click()
    assert one(browser, "#again b").text == names[-1] and texts(browser, "#coloured")[0].startswith(
        names[-1]
    )
    assert (
        one(browser, "#again svg")
        .get_attribute("aria-label")
        .startswith(f"Jaccard of {names[-1]} by prompts")
    )
    browser.find_elements("css selector", "#stability .top .button")[1].click()
    rows = downloaded(browser)
    assert rows[0][:3] == ["score", "top", "n"] and {row[0] for row in rows[1:]} == set(names)
    assert all(float(row[4]) <= float(row[3]) <= float(row[5]) for row in rows[1:])
    assert browser.get_log("browser") == []


def test_more_results_have_pictures_and_tables(browser, study):
    opened(browser, study)
    assert texts(browser, "#results summary b") == ["4. patch", "5. steer"]
    details = one(browser, "#results details[data-results='4']")  # on no map: open at once
    assert (
        details.get_attribute("open")
        and "n = 9" in details.text
        and "nnheads steer -n 12" in details.text
    )
    image = one(browser, "#results img")
    assert (
        image.get_attribute("alt") == "steering heads: curve"
        and image.get_property("naturalWidth") == 640
    )
    one(browser, "#results .picture").click()
    assert (
        image.size["width"] == 640
        and one(browser, "#results .picture").get_attribute("aria-pressed") == "true"
    )
    first = "#results details[data-results='4'] .tall:nth-of-type(3)"
    assert (
        "[1.500, 2.500]" in details.text
        and "effect [nat]" in details.text
        and "base" in details.text
    )
    one(browser, f"{first} th:nth-child(2) button").click()
    assert texts(browser, f"{first} td:nth-child(1)") == ["0", "1", "-1"]
    details.find_element("css selector", "h3 + .button").click()
    assert downloaded(browser) == [
        ["strength", "effect [nat]", "effect_low", "effect_high"],
        ["0", "2", "1.5", "2.5"],
        ["1", "1", "0.5", "1.5"],
        ["-1", "0", "-0.5", "0.5"],
    ]
    assert browser.get_log("browser") == []


def test_key_value_heads_on_the_map(browser, study):
    from selenium.webdriver.common.keys import Keys

    opened(browser, study)
    one(browser, "[data-head='4']").click()
    card = one(browser, "#card").text
    assert card.startswith("L0H4") and says(card, "ITS KEYS AND VALUES", "L0KV2, shared with L0H5")
    chosen(browser, "what", "patch (key/value heads)")
    assert len(texts(browser, "#grid .cell")) == 6
    assert one(browser, "#about").text.startswith(
        "A column is a key/value head. Each is shared by 2 query heads: L0KV0"
    )
    assert (
        one(browser, "#grid [aria-selected='true']").get_attribute("data-head") == "2"
    )  # that of the head on the card
    cell = one(browser, "[data-head='5']")
    assert "keys and values of L1H4, L1H5" in cell.get_attribute("aria-label")
    cell.send_keys(Keys.ARROW_UP)
    assert browser.switch_to.active_element.get_attribute("data-head") == "2"
    cell.click()
    card = one(browser, "#card").text
    assert (
        card.startswith("L1KV2") and "shared by the query heads L1H4 L1H5" in card and "6/6" in card
    )
    assert (
        texts(browser, "#heads td:nth-child(2)")[0] == "L0H0 L0H1"
        and texts(browser, "#heads td")[0] == "L0KV0"
    )
    opened(browser, study, anchor=browser.current_url[browser.current_url.index("#") :])
    assert one(browser, "#card h2").text == "L1KV2" and len(texts(browser, "#grid .cell")) == 6
    browser.find_elements("css selector", "#card p .link")[1].click()
    assert one(browser, "#card h2").text == "L1H5"
    one(browser, "#heads .button:nth-child(2)").click()
    rows = downloaded(browser)
    unit = rows[0].index("unit")
    assert [row[unit] for row in rows[1:]].count("kv_head") == 6 and browser.get_log(
        "browser"
    ) == []


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
def test_all_that_is_new_fits_the_screen(width, height, browser, study):
    opened(browser, study, width, height)
    browser.execute_script(
        "document.querySelectorAll('details').forEach((one) => { one.open = true; })"
    )
    one(browser, "[data-pair='0 1']").click()
    chosen(browser, "what", "patch (key/value heads)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    for selector in ("#overlap", "#stability", "#results img"):
        box = one(browser, selector).rect
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["height"] > 50
    assert browser.get_log("browser") == []


def test_results_without_a_map(browser, tmp_path):
    place = recorded(tmp_path / "steer", "steer", ["curve.nc"], model="m")
    store.save(place / "curve.nc", xr.Dataset({"effect": ("k", [0.0, 1.0])}))
    opened(browser, report(tmp_path, tmp_path / "page.html"))
    assert (
        one(browser, "#results tbody").text.split() == ["0", "0", "1", "1"]
        and browser.get_log("browser") == []
    )
    assert not one(browser, "#grid").is_displayed() and not one(browser, "#overlap").is_displayed()


def test_a_thousand_heads_and_ten_scores_open_at_once(browser, tmp_path):
    generator = np.random.default_rng(0)
    for number in range(10):
        strength = np.where(generator.random((32, 32)) < 0.03, generator.random((32, 32)), 0.02)
        detected(tmp_path, f"kind_{number}", strength, cases=4)
    file = report(tmp_path, tmp_path / "page.html")
    assert file.stat().st_size < 5_000_000
    start = time.perf_counter()
    opened(browser, file)
    assert time.perf_counter() - start < 2
    assert len(browser.find_elements("css selector", "#grid .cell")) == 1024
    assert (
        browser.execute_script(
            "const t = performance.now(); colour(12); return performance.now() - t"
        )
        < 500
    )


def test_revisions_are_drawn_in_the_order_of_their_steps(browser, tmp_path):
    for revision, by in {"step143000": 0.9, "step9000": 0.5, "step100": 0.02}.items():
        detected(tmp_path, "induction", planted(3, 4, (1, 2), (2, 0), by=by), revision=revision)
    opened(browser, report(tmp_path, tmp_path / "page.html"))
    assert texts(browser, "#revisions th button") == ["head", "step100", "step9000", "step143000"]
    row = texts(browser, "#revisions tbody tr:first-child td")
    assert row[0] == "L1H2" and [float(value) for value in row[1:]] == pytest.approx(
        [0.02, 0.5, 0.9], abs=0.02
    )
    assert len(browser.find_elements("css selector", "#revisions path")) == 6
    browser.find_elements("css selector", "#revisions tbody .link")[1].click()
    assert one(browser, "#card h2").text == "L2H0"


def test_one_model_minus_another(browser, tmp_path):
    detected(tmp_path, "induction", planted(3, 4, (1, 2), (2, 0)), model="a--base")
    detected(tmp_path, "induction", planted(3, 4, (1, 2), (0, 3)), model="b--tuned")
    detected(tmp_path, "induction", planted(2, 4, (1, 2)), model="c--small")
    opened(browser, report(tmp_path, tmp_path / "page.html"))
    chosen(browser, "model", "b--tuned main")
    assert texts(browser, "#minus option") == ["nothing", "a--base main"]
    chosen(browser, "minus", "a--base main")
    assert texts(browser, "#coloured")[0].endswith("minus that of a--base main")
    values = dict(
        zip(
            texts(browser, "#heads td:nth-child(1)"),
            map(float, texts(browser, "#heads td:nth-child(4)")),
        )
    )
    assert values["L0H3"] == pytest.approx(0.74, abs=0.02) and values["L2H0"] == pytest.approx(
        -0.74, abs=0.02
    )
    assert abs(values["L1H2"]) < 0.02 and texts(browser, ".bar .ends span")[0].startswith("-0.7")
    opened(
        browser,
        tmp_path / "page.html",
        anchor=browser.current_url[browser.current_url.index("#") :],
    )
    assert one(browser, "#minus").get_attribute("value") == "0" and browser.get_log("browser") == []
    for odd in ("m=0&d=2", "m=0&d=x", "m=-1&k=%3Cb%3E&h=L99H99&d=-1"):
        opened(browser, tmp_path / "page.html", anchor=f"#{odd}")
        assert (
            one(browser, "#minus").get_attribute("value") == "" and browser.get_log("browser") == []
        )
    chosen(browser, "model", "c--small main")
    assert not one(browser, "#minus").is_displayed() and len(texts(browser, "#grid .cell")) == 8


def test_lists_that_were_knocked_out_without_a_map(browser, tmp_path):
    with pytest.raises(SystemExit) as done:
        cli.app(
            ["knockout", "--heads", "1.0,1.1", "-n", "4", "--draws", "2", "-q", "-o", str(tmp_path)]
        )
    assert done.value.code == 0
    opened(browser, report(tmp_path, tmp_path / "page.html"))
    assert browser.get_log("browser") == [] and one(browser, "#knockouts svg").is_displayed()
    assert not one(browser, "#types").is_displayed() and "L1H0" in one(browser, "#knockouts").text
