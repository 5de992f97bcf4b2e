"""The page of the server: its policy, its parts, and a run of it in a real browser."""

import asyncio
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.server.conftest import Held, Running

Serving = Callable[..., Running]
CHROMIUM = shutil.which("chromium")


class Parts(HTMLParser):
    """The tags of a page with their attributes, and the ids that labels and descriptions name."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, name: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(name))]


def test_the_page_loads_only_what_is_its_own(server: Running) -> None:
    page = server.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    parts = Parts(page.text)
    assert {*parts.all("src"), *parts.all("href")} == {"page.css", "page.js", "data:,", "docs", "#"}
    assert not [name for _, attributes in parts.tags for name in attributes if name.startswith("on") or name == "style"]
    assert not any(tag == "style" for tag, _ in parts.tags)
    assert server.get("/page.js").headers["content-type"].startswith("text/javascript")
    assert server.get("/page.css").headers["content-type"].startswith("text/css")


def test_the_docs_describe_every_field_route_and_error_without_a_script(server: Running) -> None:
    page, api = server.get("/docs"), server.get("/openapi.json").json()
    assert "unsafe" not in page.headers["content-security-policy"]
    parts = Parts(page.text)
    assert not any(tag in ("script", "style") for tag, _ in parts.tags)
    assert {*parts.all("src"), *parts.all("href")} == {"page.css", "data:,", "openapi.json", ".", "#Own"}
    assert {*parts.all("aria-labelledby"), "Own"} <= {*parts.all("id")}
    schemas = api["components"]["schemas"]
    fields = schemas["RerankRequest"]["properties"] | schemas["Own"]["properties"]
    assert {"query", "documents", "texts", "rankr1", "deadline"} <= fields.keys()
    assert all(field.get("description") for field in fields.values())
    names = {*fields, *(f"{method.upper()} {path}" for path, methods in api["paths"].items() for method in methods)}
    for name in names | api["paths"]["/v1/rerank"]["post"]["responses"].keys():
        assert f"<code>{name}</code>" in page.text
    assert f"curl {server.url}/v1/rerank" in page.text
    assert "Bearer KEY" not in page.text


def test_the_script_writes_no_html(server: Running) -> None:
    script = server.get("/page.js").text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|localStorage", script)


def test_every_field_of_the_page_has_a_label(server: Running) -> None:
    parts = Parts(server.get("/").text)
    ids, labels = {*parts.all("id")}, {*parts.all("for")}
    fields = {attributes["id"] for tag, attributes in parts.tags if tag in ("input", "textarea")}
    assert fields == labels
    assert {*parts.all("aria-labelledby"), *parts.all("aria-describedby")} <= ids
    used = set(re.findall(r'\$\("([\w-]+)"\)', server.get("/page.js").text))
    assert used <= ids


def test_the_page_shows_the_model_and_asks_for_a_key_if_one_is_needed(serving: Serving, tmp_path: Any) -> None:
    (tmp_path / "keys").write_text("key-of-a-page-1234\n")
    hidden = [
        attributes for _, attributes in Parts(serving().get("/").text).tags if attributes.get("id") == "key-field"
    ]
    shown = serving(keys=tmp_path / "keys").get("/")
    assert "hidden" in hidden[0]
    assert shown.status_code == 200
    assert "hidden" not in next(one for _, one in Parts(shown.text).tags if one.get("id") == "key-field")
    assert "scripted" in shown.text


HOSTILE = '<img src=x onerror="document.title=\'broken\'"></p><script>document.title="broken"</script> \u202e number 0'


@pytest.fixture
def browser() -> Iterator[Any]:
    """A page of the system's Chromium; `errors` are what it logged."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("chromium is not on PATH")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page()
        page.errors = []
        page.on("console", lambda message: message.type == "error" and page.errors.append(message.text))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        yield page
        chromium.close()


def fill(page: Any, server: Running, passages: list[str]) -> None:
    page.goto(server.url)
    page.get_by_label("Query").fill("which is least?")
    page.get_by_label("Passages", exact=False).first.fill("\n".join(passages))


@pytest.mark.slow
def test_a_run_from_paste_to_order(serving: Serving, browser: Any) -> None:
    server = serving(settings={"size": 2})
    fill(browser, server, ["number 2", HOSTILE, "number 1"])
    browser.get_by_role("button", name="Rerank").click()
    browser.get_by_role("heading", name="The order", exact=True).wait_for()
    texts = browser.locator("#cards .text").all_inner_texts()
    assert texts[0].startswith("<img")
    assert texts[1:] == ["number 1", "number 2"]
    assert "0 is the lowest" in browser.locator("#cards blockquote").first.inner_text()
    assert browser.title() == "rankr1: watch a reranker reason"
    assert "Done: 3 passages" in browser.locator("#status").inner_text()
    assert server.get(f"/{browser.locator('#page').get_attribute('href')}").status_code == 200
    assert browser.errors == []


@pytest.mark.slow
def test_a_stopped_run_keeps_its_order_so_far(serving: Serving, held: Held, browser: Any) -> None:
    server = serving(held)
    fill(browser, server, ["a", "b", "c"])
    browser.get_by_role("button", name="Rerank").click()
    browser.locator("#sets li").first.wait_for()
    browser.get_by_role("button", name="Stop").click()
    browser.get_by_role("alert").filter(has_text="Stopped").wait_for()
    server.until(lambda service: held.cancelled and not service.queue.open)
    assert browser.locator("#order li").count() == 3
    assert browser.get_by_role("button", name="Rerank").is_enabled()


@pytest.mark.slow
def test_a_server_that_needs_a_key_says_so(serving: Serving, browser: Any, tmp_path: Any) -> None:
    (tmp_path / "keys").write_text("key-of-a-page-1234\n")
    server = serving(keys=tmp_path / "keys")
    fill(browser, server, ["number 1", "number 0"])
    browser.get_by_role("button", name="Rerank").click()
    browser.get_by_role("alert").filter(has_text="a valid key is needed").wait_for()
    browser.get_by_label("Key of this server", exact=False).fill("key-of-a-page-1234")
    browser.get_by_role("button", name="Rerank").click()
    browser.get_by_role("heading", name="The order", exact=True).wait_for()


@pytest.mark.slow
def test_a_comparison_is_read_with_its_set_and_its_answer(serving: Serving, browser: Any) -> None:
    server = serving(lambda _: "<think>hard to say</think> none of them", settings={"force": "never"})
    fill(browser, server, ["one", "two", "three"])
    browser.get_by_role("button", name="Rerank").click()
    browser.get_by_role("heading", name="The order", exact=True).wait_for()
    summary = browser.locator("#sets summary").last
    assert summary.get_attribute("aria-label") is None
    assert summary.locator(".spoken").text_content() == (
        "Comparison 1, round 1, passages 1, 2, 3. Passage 1 won: one. "
    )
    assert "no clear answer" in summary.locator(".unclear").inner_text()
    assert summary.locator(".number").get_attribute("aria-hidden") == "true"
    assert summary.locator(".chips").get_attribute("aria-hidden") == "true"
    summary.click()
    reasoning = browser.get_by_role("group", name="Reasoning of comparison 1")
    reasoning.focus()
    assert reasoning.evaluate("element => element === document.activeElement")
    assert reasoning.inner_text() == "hard to say"


@pytest.mark.slow
def test_a_page_that_came_too_early_sees_that_the_server_is_ready(serving: Serving, browser: Any) -> None:
    loaded = threading.Event()

    async def loading(_: Any) -> str:
        while not loaded.is_set():
            await asyncio.sleep(0.01)
        return "<answer>[1]</answer>"

    browser.goto(serving(loading, ready=False).url)
    problem = browser.get_by_role("alert").filter(has_text="Not ready yet: the model is loading")
    problem.wait_for()
    browser.wait_for_timeout(3_000)
    assert problem.is_visible()
    loaded.set()
    problem.wait_for(state="hidden", timeout=10_000)


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1200])
def test_the_docs_fit_and_are_styled(server: Running, browser: Any, width: int) -> None:
    browser.set_viewport_size({"width": width, "height": 900})
    browser.goto(f"{server.url}/docs")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.locator("pre").evaluate("element => getComputedStyle(element).overflowX") == "auto"
    assert browser.errors == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_sticks_out(serving: Serving, browser: Any, scheme: str, width: int) -> None:
    server = serving(settings={"size": 4})
    browser.emulate_media(color_scheme=scheme)
    browser.set_viewport_size({"width": width, "height": 900})
    fill(
        browser,
        server,
        [f"number {(7 * i) % 30} {'x' * 300 if i == 3 else 'and more words'} {(7 * i) % 30}" for i in range(30)],
    )
    browser.get_by_role("button", name="Rerank").click()
    browser.get_by_role("heading", name="The order", exact=True).wait_for()
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
