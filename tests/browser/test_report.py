"""The report in a real browser: it works without a network, sorts, filters, turns its crystals, and fits its window."""

from __future__ import annotations

import base64
import re

import pytest

pytestmark = pytest.mark.browser

ROWS = "#shortlist-table tbody tr"
INK = """
const canvas = document.getElementById('crystal');
const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
let ink = 0, sum = 0;
for (let i = 0; i < pixels.length; i += 4) { if (pixels[i + 3]) { ink++; sum = (sum * 31 + pixels[i] + i) % 1000003; } }
return [ink, sum];
"""
CONTRAST = """
const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
const light = (text) => rgb(text).slice(0, 3).map((v) => v / 255)
  .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (node) => { for (; node; node = node.parentElement) {
  const colour = getComputedStyle(node).backgroundColor;
  if (!colour.endsWith(', 0)') && colour !== 'transparent') return colour; } return 'rgb(255,255,255)'; };
return [...document.querySelectorAll('h1,h2,p,td,th,dt,dd,a,summary,.chip,.badge,svg.chart text')]
  .filter((n) => n.textContent.trim() && n.getClientRects().length).map((node) => {
  const style = getComputedStyle(node);
  const [a, b] = [light(node.closest('svg') ? style.fill : style.color), light(ground(node.closest('figure') || node))];
  return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.tagName + ' ' + node.textContent.slice(0, 40)];
}).filter(([ratio]) => ratio < 4.5);
"""


def cells(page, column: int, visible: bool = True) -> list[str]:
    script = f"return [...document.querySelectorAll('{ROWS}')].filter((r) => !r.hidden || !{str(visible).lower()})"
    return page.execute_script(script + f".map((r) => r.cells[{column}].textContent)")


def click(page, selector: str) -> None:
    page.execute_script(f"document.querySelector({selector!r}).click()")


def head(column: int) -> str:
    return f"#shortlist-table th:nth-child({column + 1}) button"


def test_it_opens_without_errors_or_requests(page, report, requests):
    addresses = requests(page)
    assert [entry for entry in page.get_log("browser") if entry["level"] != "INFO"] == []
    assert {address for address in addresses if not address.startswith("data:")} == {report.as_uri()}


def test_a_column_sorts_up_and_down(page):
    values = lambda: [float(text.replace("−", "-")) for text in cells(page, 7)]  # noqa: E731
    click(page, head(7))
    up = values()
    assert up == sorted(up)
    assert page.execute_script(f"return document.querySelector({head(7)!r}).parentElement.ariaSort") == "ascending"
    click(page, head(7))
    assert values() == sorted(up, reverse=True)


def test_words_sort_as_words_and_empty_cells_stay_last(page):
    click(page, head(3))
    names = cells(page, 3)
    assert names == sorted(
        names, key=lambda text: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text.lower())]
    )
    for _ in range(2):
        click(page, head(8))
        known = [text != "–" for text in cells(page, 8)]
        assert known == sorted(known, reverse=True)
        assert any(known)
        assert not all(known)


def test_the_keyboard_sorts(page):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    before = cells(page, 4)
    page.find_element(By.CSS_SELECTOR, head(4)).send_keys(Keys.ENTER)
    assert [int(text) for text in cells(page, 4)] == sorted(int(text) for text in before)


def test_words_and_elements_filter(page):
    from selenium.webdriver.common.by import By

    box = page.find_element(By.ID, "filter")
    box.send_keys("rocksalt")
    assert set(cells(page, 3)) == {"rocksalt"}
    assert page.find_element(By.ID, "shown").text == f"{len(cells(page, 3))} of 20"
    box.clear()
    box.send_keys(" ")
    click(page, ".chip[data-element=mg]")
    assert 0 < len(cells(page, 2)) < 20
    assert all("Mg" in formula for formula in cells(page, 2))
    click(page, ".chip[data-element=mg]")
    assert len(cells(page, 2)) == 20


def test_the_first_crystal_is_drawn_and_turns(page):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    ink, first = page.execute_script(INK)
    canvas = page.find_element(By.ID, "crystal")
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", canvas)
    assert ink > 5000
    ActionChains(page).drag_and_drop_by_offset(canvas, 60, 25).perform()
    _, dragged = page.execute_script(INK)
    canvas.send_keys(Keys.ARROW_LEFT)
    _, keyed = page.execute_script(INK)
    assert len({first, dragged, keyed}) == 3


def test_another_row_shows_its_crystal(page):
    click(page, f"{ROWS}:nth-child(4)")
    name = page.execute_script("return document.getElementById('crystal-name').textContent")
    row = page.execute_script(f"return document.querySelector('{ROWS}:nth-child(4)').getAttribute('aria-selected')")
    assert row == "true"
    assert cells(page, 3)[3] in name


def test_a_point_of_a_chart_leads_to_its_row_and_says_what_it_is(page):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    point = page.find_element(By.CSS_SELECTOR, "#uncertainty circle[data-row]")
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", point)
    ActionChains(page).move_to_element(point).perform()
    tip = page.find_element(By.ID, "tip")
    assert tip.is_displayed()
    assert "meV/atom" in tip.text
    wanted = point.get_attribute("data-row")
    page.execute_script("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", point)
    chosen = page.execute_script(f"return document.querySelector('{ROWS}[aria-selected=true]').dataset.row")
    assert chosen == wanted


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(page, in_scheme, scheme):
    in_scheme(page, scheme)
    assert page.execute_script(CONTRAST) == []


def test_light_and_dark_differ(page, in_scheme):
    grounds = []
    for scheme in ("light", "dark"):
        in_scheme(page, scheme)
        grounds.append(page.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]


@pytest.mark.parametrize("width", [1360, 800, 500])
def test_the_page_fits_its_window(page, width):
    page.set_window_size(width, 900)
    inner, needed = page.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    assert needed <= inner


def test_no_label_of_a_chart_is_cut(page):
    cut = page.execute_script("""
      return [...document.querySelectorAll('svg.chart')].flatMap((svg) => {
        const frame = svg.closest('section').getBoundingClientRect();
        return [...svg.querySelectorAll('text')].filter((t) => { const box = t.getBoundingClientRect();
          return box.left < frame.left || box.right > frame.right; }).map((t) => t.textContent);
      })""")
    assert cut == []


def test_the_table_shows_all_its_columns_at_a_desktops_width(page):
    needed, there = page.execute_script(
        "const s = document.querySelector('#shortlist-table').parentElement; return [s.scrollWidth, s.clientWidth]"
    )
    assert needed <= there


def test_it_prints(page):
    pdf = page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    content = base64.b64decode(pdf["data"])
    assert content.startswith(b"%PDF")
    assert content.count(b"/Type /Page") > 3
