"""Reports in a headless browser, where playwright and Chromium are installed: nothing runs, nothing is loaded."""

import pytest
from open_in_chromium import chromium

from moco.report.contents import report_of_run
from moco.text import one_line
from moco.train.report_contents import read_contents
from moco.train.report_run import write_files
from tests.report.payloads import PAYLOADS
from tests.report.report_pages import make_pictures_of_page, make_run

pytestmark = pytest.mark.slow
COUNT = "document.getElementsByTagName('*').length"


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


def write_page(folder, *, text=""):
    run, pictures = make_run(folder, text=text, full=True), make_pictures_of_page(text=text)
    write_files(run / "report.html", report_of_run(read_contents(run), pictures), pictures.images)
    return run / "report.html"


class Watched:
    """A page of the browser, and all that it has tried."""

    def __init__(self, browser, **options):
        self.page = browser.new_context(offline=True, **options).new_page()
        self.requests, self.messages = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: self.messages.append(dialog.message))

    def open(self, file):
        self.requests.clear()
        self.messages.clear()
        self.page.goto(file.as_uri())
        self.page.evaluate("document.querySelectorAll('svg[tabindex]').forEach((one) => one.focus())")
        self.page.hover("svg")
        return [url for url in self.requests if not url.startswith("data:image/webp")]


def test_payloads_are_text_and_nothing_runs_or_is_loaded(browser, tmp_path):
    watched = Watched(browser)
    watched.open(write_page(tmp_path / "MARK", text="MARK"))
    count, failed = watched.page.evaluate(COUNT), []
    for number, payload in enumerate(PAYLOADS):
        file = write_page(tmp_path / str(number), text=payload)
        requests = watched.open(file)
        text, lines = watched.page.evaluate("[window.hit === undefined, document.body.textContent]")
        as_text = f"DataError: {one_line(payload)}" in lines
        if not (text and as_text and requests == [file.as_uri()] and not watched.messages) or (
            watched.page.evaluate(COUNT) != count
        ):
            failed.append((payload, text, as_text, requests, list(watched.messages)))
    assert failed == []


def test_a_script_that_was_put_into_the_page_is_refused_by_its_policy(browser, tmp_path):
    """So the tests above would see it, and an escaping that failed would still do no harm."""
    file, watched = write_page(tmp_path / "run"), Watched(browser)
    file.write_text(
        file.read_text().replace("</main>", "<script>window.hit=1</script><img src=http://127.0.0.1:9/x></main>")
    )
    watched.open(file)
    assert watched.page.evaluate("window.hit === undefined")
    assert any("Content Security Policy" in message for message in watched.messages)


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_part_is_wider_than_the_screen(browser, tmp_path, width):
    watched = Watched(browser, viewport={"width": width, "height": 800})
    watched.open(write_page(tmp_path / "run"))
    assert watched.page.evaluate("document.documentElement.scrollWidth") == width


def test_all_pictures_are_shown_and_a_curve_gives_its_values(browser, tmp_path):
    watched = Watched(browser)
    watched.open(write_page(tmp_path / "run"))
    page = watched.page
    page.evaluate("Promise.all([...document.images].map((one) => { one.loading = 'eager'; return one.decode(); }))")
    assert page.evaluate("[...document.images].every((one) => one.naturalWidth > 0) && document.images.length > 50")
    page.focus("figure.chart svg")
    page.keyboard.press("Home")
    assert page.text_content("figure.chart .readout") == "9 nats at epoch 0.1"  # 8 + 1 / step
