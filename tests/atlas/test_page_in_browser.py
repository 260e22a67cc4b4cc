"""The atlas in a browser: map, lasso, lists, search by example, text of others, a server's uploads."""

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from matplotlib.path import Path as Polygon
from open_in_chromium import chromium, opened, until
from PIL import Image
from sample_pictures import make_pictures

import moco
from moco.atlas import layout as layout_module
from moco.atlas.collection import normalize_rows
from moco.atlas.contents import compact
from moco.atlas.search import combine
from moco.atlas.serve import make_server
from moco.recipe import Recipe
from moco.weights.encoder_folder import save_encoder
from tests.atlas.samples import clustered, make_embedded
from tests.evaluate.samples import DATA, SPEC, trained_encoder

N = 400
PAYLOADS = (
    "<script>window.hit=1<script>", "<img src=x onerror=window.hit=1>", "\"><svg onload=window.hit=1>",
    "' onmouseover='window.hit=1", "{{ 7 * 7 }}", "{% include 'x' %}", "<!--", "-->", "javascript:window.hit=1",
    "<iframe srcdoc='<img src=x onerror=parent.hit=1>'>", "<style>*{display:none}", "&lt;b&gt;", "]]><b>",
    "\u202egnp.exe", "\u2066x", "\u2028x", "a\nb", "<base href=x>",
    "<math><mi xlink:href=javascript:window.hit=1>", "${window.hit=1}", "\\u003cimg src=x onerror=window.hit=1>",
    "'+(window.hit=1)+'", "__proto__", "constructor", "%3Cscript%3E",
)  # fmt: skip


class Atlas(NamedTuple):
    url: str
    x: np.ndarray  # features of length 1
    paths: list[str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def without_pacmap() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_module, "_import_pacmap", lambda: None)
        yield


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """Of 400 pictures in six colours; number 50 and 60 are near-duplicates of 20."""
    folder, x = tmp_path_factory.mktemp("atlas"), clustered(N)
    x[50], x[60] = x[20], normalize_rows(x[20] + 0.002)
    file, data = make_embedded(folder, N, x=x)
    moco.write_atlas(file, data, folder / "a.html", clusters=6)
    return Atlas((folder / "a.html").as_uri(), x, [str(data / f"class{i % 6}/{i:05d}.png") for i in range(N)])


@pytest.fixture
def page(browser: Any, atlas: Atlas) -> Iterator[Any]:
    size = {"width": 1200, "height": 800}
    with opened(browser, atlas.url, viewport=size, accept_downloads=True) as found:
        yield found


def downloaded(page: Any, button: str) -> list[str]:
    """The lines of the file that a button gives."""
    with page.expect_download() as waiting:
        page.get_by_role("button", name=button, exact=True).click()
    return Path(waiting.value.path()).read_text().splitlines()


def places(page: Any) -> np.ndarray:
    """Of the images on the map, in CSS pixels."""
    return np.array(page.evaluate("Array.from(SX, (x, i) => [x, SY[i]])"))


def in_the_page(x: np.ndarray) -> np.ndarray:
    """The features that a page has."""
    return normalize_rows(compact(x).astype(np.float32))


def nearest(scores: np.ndarray, without: set[int], count: int) -> list[int]:
    return [i for i in np.argsort(-scores, kind="stable").tolist() if i not in without][:count]


def click_on(page: Any, row: int) -> None:
    """Click the image on the map, zoomed so that nothing is over it."""
    page.evaluate(f"goTo({row}); zoomAt(SX[{row}], SY[{row}], 3000); draw()")
    x, y = places(page)[row]
    page.locator("#map").click(position={"x": x, "y": y})


def tiles(page: Any) -> list[str]:
    return page.locator("#tiles .open").evaluate_all("nodes => nodes.map((one) => one.title)")


def test_the_page_says_what_it_shows(page: Any):
    assert page.locator("h1").inner_text() == "x.npy"
    assert page.locator("#about").inner_text().startswith("400 images")
    assert page.locator("#map").bounding_box()["width"] > 600


def test_a_lasso_selects_the_images_inside_as_a_grid_and_as_a_list(page: Any, atlas: Atlas):
    box = page.locator("#map").bounding_box()
    outline = [(0.1, 0.1), (0.6, 0.15), (0.7, 0.5), (0.4, 0.45), (0.35, 0.9), (0.12, 0.8)]
    points = [(x * box["width"], y * box["height"]) for x, y in outline]
    page.get_by_role("button", name="Lasso").click()
    page.mouse.move(box["x"] + points[0][0], box["y"] + points[0][1])
    page.mouse.down()
    for x, y in points[1:]:
        page.mouse.move(box["x"] + x, box["y"] + y)
    page.mouse.up()
    expected = [atlas.paths[i] for i in np.flatnonzero(Polygon(points).contains_points(places(page)))]
    assert 20 < len(expected) < N - 20
    assert downloaded(page, "Download list") == expected
    assert tiles(page) == expected[:120]
    assert page.locator("#what").inner_text() == f"{len(expected)} images"


def test_copied_paths_are_in_the_clipboard(page: Any, atlas: Atlas):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#find").fill("/0000")
    page.get_by_role("button", name="Copy list").click()
    page.get_by_text("The paths are in the clipboard").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").splitlines() == atlas.paths[:10]


def test_a_click_on_an_image_lists_those_most_similar_to_it(page: Any, atlas: Atlas):
    click_on(page, 33)
    x = in_the_page(atlas.x)
    expected = nearest(x @ x[33], {33}, 120)
    assert tiles(page) == [atlas.paths[i] for i in expected]
    note = page.locator("#tiles .note").first.inner_text()
    assert float(note) == pytest.approx(float(x[33] @ x[expected[0]]), abs=6e-4)
    assert page.locator("#detail .path").inner_text() == atlas.paths[33]


def test_more_examples_and_not_this_make_the_query_of_rocchio(page: Any, atlas: Atlas):
    click_on(page, 33)
    x, like, unlike = in_the_page(atlas.x), [33], list[int]()
    for kind, rows in ((".like", like), (".not", unlike)):
        chosen = page.locator("#tiles .tile").nth(5)
        rows.append(atlas.paths.index(chosen.locator(".open").get_attribute("title")))
        chosen.hover()
        chosen.locator(kind).click()
        scores = x @ combine(x[like], x[unlike])
        assert tiles(page) == [atlas.paths[i] for i in nearest(scores, {*like, *unlike}, 120)]
    assert page.locator("#examples .chip").count() == 3
    page.locator("#examples .chip.not").click()  # takes it back
    assert tiles(page) == [atlas.paths[i] for i in nearest(x @ combine(x[like]), {*like}, 120)]


def test_near_duplicates_are_a_list_and_what_to_keep_another(page: Any, atlas: Atlas):
    page.get_by_role("tab", name="Near-duplicates").click()
    assert tiles(page) == [atlas.paths[i] for i in (20, 50, 60)]
    assert page.locator("#tiles .note").all_inner_texts() == ["keep", "1.000", "1.000"]
    assert downloaded(page, "Download list") == [atlas.paths[i] for i in (50, 60)]
    assert downloaded(page, "Download what to keep") == [p for i, p in enumerate(atlas.paths) if i not in (50, 60)]


def test_outliers_are_those_least_similar_to_their_five_nearest(page: Any, atlas: Atlas):
    page.get_by_role("tab", name="Outliers").click()
    similarities = atlas.x @ atlas.x.T - 2 * np.eye(N)
    mean = -np.sort(-similarities, axis=1)[:, :5].mean(axis=1)
    notes = page.locator("#tiles .note").all_inner_texts()
    assert len(notes) == 100
    shown = [atlas.paths.index(path) for path in tiles(page)]
    np.testing.assert_allclose([float(note) for note in notes], mean[shown], atol=6e-4)


def test_a_name_in_the_legend_selects_its_images(page: Any, atlas: Atlas):
    assert page.locator("#colour option").all_inner_texts() == ["label", "file size", "date of file", "cluster"]
    entries = page.locator("#legend button")
    counts = np.bincount(np.arange(N) % 6)
    assert sorted(map(int, page.locator("#legend small").all_inner_texts())) == sorted(counts.tolist())
    entries.filter(has_text="class2").click()
    assert downloaded(page, "Download list") == atlas.paths[2::6]


@pytest.mark.parametrize("name", ["file size", "date of file"])
def test_a_number_colours_from_its_least_to_its_greatest(page: Any, name: str):
    page.locator("#colour").select_option(label=name)
    assert page.locator("#legend .ends span").count() == 2
    codes = page.evaluate("Array.from(codes)")
    numbers = np.array(page.evaluate(f"Array.from(PROPERTIES.find((one) => one.name === '{name}').numbers)"))
    assert min(codes) == 0
    assert max(codes) == (31 if np.ptp(numbers) else 0)
    assert (np.diff(np.array(codes)[np.argsort(numbers)]) >= 0).all()


def test_thumbnails_appear_when_the_map_is_zoomed(page: Any):
    page.evaluate("zoomAt(SX[7], SY[7], 3000); draw()")
    until(page, "drawn.includes(7) && sheets.size > 0")
    page.evaluate("draw()")
    x, y = places(page)[7]
    shown = np.asarray(Image.open(io.BytesIO(page.locator("#map").screenshot())).convert("RGB")).astype(int)
    colours = np.random.default_rng(1).integers(0, 256, (6, 3))  # as of make_embedded
    assert np.abs(shown[round(y), round(x)] - colours[7 % 6]).max() < 12  # WebP loses some


def test_at_first_all_images_are_on_the_map_beside_the_legend(page: Any):
    box, legend = page.locator("#map").bounding_box(), page.locator("#legend").bounding_box()
    xy = places(page)
    assert xy[:, 0].min() > legend["x"] - box["x"] + legend["width"]
    assert xy[:, 0].max() < box["width"]
    assert xy[:, 1].min() > 0
    assert xy[:, 1].max() < box["height"]


def test_the_map_moves_zooms_and_comes_back(page: Any):
    before, box = places(page), page.locator("#map").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 70, box["y"] + 50)
    page.mouse.up()
    page.evaluate("draw()")
    np.testing.assert_allclose(places(page) - before, np.broadcast_to([50, 30], (N, 2)), atol=0.01)
    page.mouse.wheel(0, -500)
    until(page, "view.scale > 1.5 * fitScale()")
    page.get_by_role("button", name="All").click()
    page.evaluate("draw()")
    np.testing.assert_allclose(places(page), before, atol=0.01)


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1400, "dark")])
def test_no_part_of_the_page_is_wider_than_the_screen(browser: Any, atlas: Atlas, width: int, scheme: str):
    options = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme, "has_touch": width < 500}
    with opened(browser, atlas.url, **options) as page:
        click_on(page, 33)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (np.mean([int(v) for v in background[4:-1].split(",")]) < 60) == (scheme == "dark")


def test_names_of_others_are_text(browser: Any, tmp_path: Path):
    names = [f"{i % 3}{payload}/{payload}.png" for i, payload in enumerate(PAYLOADS)]
    names = [name.replace("</", "<") if name.count("/") > 1 else name for name in names]
    file, data = make_embedded(tmp_path, len(names), names=names, x=clustered(len(names)))
    (tmp_path / "x.names.txt").write_text("".join(name.replace("\n", "\\n") + "\n" for name in names))
    moco.write_atlas(file, data, tmp_path / "a.html")
    with opened(browser, (tmp_path / "a.html").as_uri()) as page:
        page.locator("#find").fill("png")
        page.locator("#tiles .tile").first.wait_for()
        assert page.locator("#tiles .tile").count() == len(names)
        for row in range(len(names)):
            page.evaluate(f"openImage({row})")
        for k in range(page.locator("#colour option").count()):
            page.locator("#colour").select_option(index=k)
        page.wait_for_timeout(100)
        assert page.evaluate("window.hit") is None
        assert page.locator("body > script").count() == 4  # data, features, one sheet, the script
        assert page.locator("img, iframe, svg, base, math").count() == 0
        page.evaluate("showList('selected')")
        shown = page.locator("#tiles .name").all_inner_texts()
        assert shown[:2] == ["<script>window.hit=1<script>.png", "<img src=x onerror=window.hit=1>.png"]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Callable[[int], str]]]:
    save_encoder(tmp_path / "run", trained_encoder(), recipe=Recipe(name="r", encoder=SPEC, data=DATA), facts={})
    photos = make_pictures(tmp_path / "photos", 12, classes=3)
    server = make_server(tmp_path / "run", photos, device="cpu", workers=0)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.url, server.answers.contents.collection.path
    server.shutdown()
    server.server_close()


def test_a_file_that_is_dropped_in_is_encoded_and_its_neighbours_are_listed(browser: Any, served: Any, tmp_path: Path):
    url, path = served
    Image.open(path(4)).convert("RGB").save(tmp_path / "query.bmp")
    with opened(browser, url) as page:
        page.locator("#file").set_input_files(tmp_path / "query.bmp")
        page.locator("#tiles .tile").first.wait_for()
        assert tiles(page)[0] == path(4)
        assert page.locator("#tiles .note").first.inner_text() == "1.000"
        page.locator("#tiles .open").nth(2).click()  # the search goes on from a found image
        until(page, "document.querySelectorAll('#tiles .tile').length === 11")
        until(page, "[...document.querySelectorAll('#tiles img')].every((one) => one.naturalWidth > 0)")


def test_a_file_that_is_no_picture_is_named_in_the_page(browser: Any, served: Any, tmp_path: Path):
    (tmp_path / "query.png").write_text("no picture")
    context = browser.new_context()
    page = context.new_page()  # a refused request is an error in the console
    page.goto(served[0])
    page.locator("#file").set_input_files(tmp_path / "query.png")
    page.get_by_text("this file cannot be read as an image: not a").wait_for()
    context.close()
