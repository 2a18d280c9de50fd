"""The HTML report in a browser: what it draws, and what its controls change."""

from __future__ import annotations

import base64
import io
import itertools
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import kxai
from kxai.plots import heatmap_rgb, overlay
from kxai.plots.color import diverging
from kxai.plots.scale import limit

CI = os.environ.get("CI") == "true"
ARTIFACTS = Path(os.environ.get("KXAI_TEST_ARTIFACTS", Path(__file__).parents[2] / "test_artifacts"))
RNG = np.random.default_rng(11)
NASTY = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'>"
METHODS = ("lrp.epsilon", "gradient_x_input", "grad_cam", "attention_rollout")


def absent(what):
    if CI:
        pytest.fail(f"{what} is not installed; continuous integration needs it")
    pytest.skip(f"{what} is not installed: nothing can be shown in a browser")


@pytest.fixture(scope="module")
def browser():
    try:
        from selenium import webdriver
    except ImportError:
        absent("selenium")
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    for name, path in programs.items():
        if path is None:
            absent(name)
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "force-device-scale-factor=1",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs["chromedriver"]))
    yield driver
    driver.quit()


class Page:
    """A report in the browser."""

    def __init__(self, browser, path, width=1400, height=900, dark=False):
        self.browser = browser
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        browser.get_log("browser")  # what earlier pages said
        browser.get(Path(path).as_uri())
        self.settle()

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def all(self, selector):
        from selenium.webdriver.common.by import By

        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.all(selector)[0]

    def settle(self):
        """Waits until what was asked for is drawn: in the next frame, or in the one after what came into view."""
        self.browser.execute_async_script(
            "const done = arguments[0]; let left = 5;"
            "const frame = () => (left-- ? requestAnimationFrame(frame) : setTimeout(done));"
            "frame();"
        )

    def choose(self, name, value):
        from selenium.webdriver.support.ui import Select

        Select(self.one(f"#{name}")).select_by_value(value)
        self.settle()

    def press(self, selector, *keys):
        for key in keys:
            self.one(selector).send_keys(key)
        self.settle()

    def stage(self, sample, method):
        cells = f"[data-sample='{sample}'] .cells > figure:nth-child({method + 1})"
        return self.one(f"{cells} .stage")

    def pixels(self, sample, method):
        """The pixels of a heatmap's canvas, uint8 (height, width, 3)."""
        stage = self.stage(sample, method)
        self.run("arguments[0].scrollIntoView({block: 'center'})", stage)
        self.settle()
        text = self.run("return arguments[0].querySelector('canvas').toDataURL('image/png').split(',')[1]", stage)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))

    def order(self):
        return [int(row.get_attribute("data-sample")) for row in self.all("section.sample")]

    def scales(self, method):
        for row in self.all("section.sample"):  # what is far from the screen is not drawn
            self.run("arguments[0].scrollIntoView()", row)
            self.settle()
        shown = self.run(
            "return [...document.querySelectorAll('.cells')].map((row) => row.children[arguments[0]].innerText)", method
        )
        return [float(text.split("±")[1].split()[0]) for text in shown]

    def hover(self, sample, method, row, column, size):
        """Moves the pointer over a value; returns the number that is shown, as text, and the whole tip."""
        from selenium.webdriver.common.action_chains import ActionChains

        stage = self.stage(sample, method)
        self.run("arguments[0].scrollIntoView({block: 'center'})", stage)
        box = stage.rect
        x = (column + 0.5) / size[1] * box["width"] - box["width"] / 2
        y = (row + 0.5) / size[0] * box["height"] - box["height"] / 2
        ActionChains(self.browser).move_to_element_with_offset(stage, round(x), round(y)).perform()
        self.settle()
        return self.tip()

    def tip(self):
        tip = self.one("#tip")
        if not tip.is_displayed():
            return None, ""
        return self.one("#tip [data-value]").text, tip.text

    def complaints(self):
        return [entry for entry in self.browser.get_log("browser") if "favicon" not in entry["message"]]

    def shoot(self, name):
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        self.browser.save_screenshot(str(ARTIFACTS / f"{name}.png"))


@pytest.fixture(scope="module")
def photos():
    """A model of colour images, some inputs and their pixels."""
    keras.utils.set_random_seed(5)
    layers = [
        keras.Input((20, 24, 3)),
        keras.layers.Conv2D(6, 5, activation="relu"),
        keras.layers.Conv2D(6, 5, strides=2, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(
            5, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(stddev=3, seed=2)
        ),
    ]
    down, across = np.mgrid[0:20, 0:24] / 20
    waves = [np.sin(6 * (a * across + b * down))[..., None] * [1.0, c, -a] for a, b, c in RNG.normal(size=(4, 3))]
    pixels = np.rint(127.5 + 120 * np.stack(waves) / np.abs(waves).max()).astype(np.uint8)
    x = (pixels / 255).astype(np.float32)
    model = keras.Sequential(layers, name="waves")
    logits = keras.Model(model.inputs, model.layers[-2].output).predict(x, verbose=0) @ model.get_weights()[-2]
    model.layers[-1].set_weights([model.get_weights()[-2], -logits.mean(axis=0)])  # for predictions that differ
    return model, x, pixels


@pytest.fixture(scope="module")
def report(photos, tmp_path_factory):
    model, x, pixels = photos
    path = tmp_path_factory.mktemp("report") / "report.html"
    labels = ["ripple", NASTY, "swell", "surf", "tide"]
    names = ["b.png", "a.png", NASTY, "c.png"]
    made = kxai.report(model, x, METHODS, images=pixels, names=names, labels=labels, path=path, title=f"Waves {NASTY}")
    assert list(made.errors) == ["attention_rollout"]
    return path


@pytest.fixture(scope="module")
def explained(photos):
    model, x, _ = photos
    return [kxai.explain(model, x, method) for method in METHODS[:3]]


@pytest.fixture
def page(browser, report):
    page = Page(browser, report)
    yield page
    assert page.complaints() == []  # after every test


def test_heatmaps_are_those_of_the_plots(page, photos, explained):
    _, _, pixels = photos
    for method in (0, 1):
        heatmap = explained[method].heatmap()
        for sample in range(4):
            np.testing.assert_array_equal(page.pixels(sample, method), overlay(pixels[sample], heatmap[sample]))
    page.press("#over", " ")
    for method in range(3):
        np.testing.assert_array_equal(page.pixels(1, method), heatmap_rgb(explained[method].heatmap()[1]))


def test_sliders_change_pixels(page, photos, explained):
    _, _, pixels = photos
    heatmap = explained[0].heatmap()[0]
    before = page.pixels(0, 0)
    page.press("#opacity", *["\ue012"] * 45)  # arrow to the left
    np.testing.assert_array_equal(page.pixels(0, 0), overlay(pixels[0], heatmap, opacity=0.40))
    page.press("#clip", *["\ue012"] * 95)
    assert page.one("label output[for='clip']").text == "90"
    np.testing.assert_array_equal(page.pixels(0, 0), overlay(pixels[0], heatmap, opacity=0.40, clip=90.0))
    page.press("#clip", "\ue010")  # end
    assert page.one("label output[for='clip']").text == "maximum"
    after = page.pixels(0, 0)
    np.testing.assert_array_equal(after, overlay(pixels[0], heatmap, opacity=0.40, clip=100))
    assert (before != after).any()


def test_channels(page, explained):
    page.press("#over", " ")
    relevance = explained[0].relevance
    seen = []
    for value, expected in [
        *((str(channel), relevance[..., channel]) for channel in range(3)),
        ("abs_max", explained[0].heatmap(reduce="abs_max")),
        ("sum", explained[0].heatmap()),
    ]:
        page.choose("channel", value)
        np.testing.assert_array_equal(page.pixels(2, 0), heatmap_rgb(expected[2]))
        seen.append(page.pixels(2, 0).tobytes())
    assert len(set(seen)) == 5
    page.choose("channel", "1")  # a map of one number per position has none
    np.testing.assert_array_equal(page.pixels(2, 2), heatmap_rgb(explained[2].heatmap()[2]))


def test_shared_scales(page, explained):
    heatmaps = [one.heatmap() for one in explained]
    close = {"rtol": 1e-2}  # three digits are shown
    np.testing.assert_allclose(page.scales(0), [limit(one) for one in heatmaps[0]], **close)
    page.choose("scale", "method")
    for method in range(3):
        np.testing.assert_allclose(page.scales(method), [limit(heatmaps[method])] * 4, **close)
    page.press("#over", " ")
    np.testing.assert_array_equal(page.pixels(3, 1), heatmap_rgb(heatmaps[1][3], bound=limit(heatmaps[1])))
    page.choose("scale", "report")
    bound = limit(np.concatenate([one.ravel() for one in heatmaps]))
    np.testing.assert_allclose(page.scales(0), [bound] * 4, **close)
    np.testing.assert_array_equal(page.pixels(3, 1), heatmap_rgb(heatmaps[1][3], bound=bound))


def test_sorting(page, explained, photos):
    model, x, _ = photos
    outputs = model.predict(x, verbose=0)
    residuals = [np.abs(one.residual) for one in explained]
    keys = {
        "given": np.arange(4),
        "value": outputs.max(axis=1),
        "predicted": outputs.argmax(axis=1),
        "score:0": explained[0].score,
        "residual:1": residuals[1],
        "residual": np.max(residuals, axis=0),
    }
    assert len(np.unique(keys["predicted"])) > 1
    for value, key in keys.items():
        page.choose("sort", value)
        assert page.order() == np.argsort(key, kind="stable").tolist(), value
        page.one("#direction").click()
        assert page.order() == np.argsort(-key.astype(float), kind="stable").tolist(), value
        page.one("#direction").click()
    page.choose("sort", "name")
    assert page.order() == [2, 1, 0, 3]
    page.choose("sort", "agreement")
    order = page.order()
    page.one("#direction").click()
    assert page.order() == order[::-1]


def test_the_pointer_reads_the_numbers(page, explained, photos):
    _, x, _ = photos
    heatmap = explained[0].heatmap()
    for sample, row, column in [(0, 0, 0), (1, 13, 7), (3, 19, 23)]:
        number, tip = page.hover(sample, 0, row, column, (20, 24))
        assert np.float32(number) == heatmap[sample, row, column]
        assert f"row {row}, column {column}" in tip
        lines = tip.splitlines()
        channels = lines[lines.index("by channel") + 1].split(", ")
        np.testing.assert_array_equal(np.array(channels, np.float32), explained[0].relevance[sample, row, column])
        others = lines[lines.index(METHODS[1]) + 1]
        assert np.float32(others) == explained[1].heatmap()[sample, row, column]
        values = lines[lines.index("input") + 1].split(", ")
        np.testing.assert_array_equal(np.array(values, np.float32), x[sample, row, column])
        assert len([mark for mark in page.all(f"[data-sample='{sample}'] .mark") if mark.is_displayed()]) == 3
    page.choose("channel", "2")
    number, _ = page.hover(2, 1, 4, 5, (20, 24))
    assert np.float32(number) == explained[1].relevance[2, 4, 5, 2]


def test_the_keyboard_reads_the_numbers(page, explained):
    heatmap = explained[0].heatmap()[0]
    stage = page.stage(0, 0)
    assert page.tip()[0] is None
    page.one("#size").send_keys("\t")  # from the last control on
    assert page.browser.switch_to.active_element == stage
    stage.send_keys("\ue014")  # the first arrow starts in the middle
    assert np.float32(page.tip()[0]) == heatmap[10, 12]
    stage.send_keys("\ue014", "\ue014", "\ue015", "\ue012", "\ue013", "\ue013")  # right, right, down, left, up, up
    assert np.float32(page.tip()[0]) == heatmap[9, 13]
    stage.send_keys("\ue011")  # home
    assert np.float32(page.tip()[0]) == heatmap[0, 0]
    stage.send_keys("\ue012", "\ue013")  # not over the edge
    assert np.float32(page.tip()[0]) == heatmap[0, 0]
    stage.send_keys("\ue010")  # end
    assert np.float32(page.tip()[0]) == heatmap[19, 23]
    stage.send_keys("\ue00c")  # escape
    assert page.tip()[0] is None
    for control in ("sort", "direction", "channel", "scale", "clip", "opacity", "over", "size"):
        page.run("arguments[0].focus()", page.one(f"#{control}"))
        assert page.browser.switch_to.active_element.get_attribute("id") == control


def test_everything_has_a_name(page):
    nameless = page.run(
        "return [...document.querySelectorAll('select, input, button, canvas[role], .stage')]"
        ".filter((one) => !(one.ariaLabel || one.labels?.length || one.title)).map((one) => one.outerHTML)"
    )
    assert nameless == []
    assert page.run("return document.documentElement.lang") == "en"


def test_texts_are_only_texts(page):
    assert page.run("return window.pwned") is None
    assert page.one("h1").text == f"Waves {NASTY}"
    assert page.one("[data-sample='2'] h2").text == NASTY
    assert page.run("return document.querySelectorAll('img, iframe, link, object').length") == 0


def test_a_refusal_is_told(page):
    refused = page.one("[data-sample='0'] .refused")
    assert refused.text.startswith("attention_rollout")
    error = page.one("#method-3 .error")
    page.run("document.getElementById('method-3').open = false")
    assert not error.is_displayed()
    page.one("[data-sample='0'] .refused a").click()
    page.settle()
    assert error.is_displayed()
    assert "attention" in error.text


def test_plan_and_residuals_are_told(page, photos, explained):
    model, _, _ = photos
    page.run("document.querySelectorAll('details').forEach((one) => one.open = true)")
    tables = page.run(
        "return [...document.querySelectorAll('#method-0 table')].map((table) =>"
        " [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent)))"
    )
    residuals, settings, plan = tables
    assert [float(row[4]) for row in residuals] == pytest.approx(explained[0].residual.tolist(), rel=1e-5)
    assert ["epsilon", "0.000001"] not in settings
    assert plan == [list(row) for row in kxai.plan(model, "lrp.epsilon").rows]
    assert f"kxai {kxai.__version__}" in page.one("#details").text


def test_the_network_is_closed(browser, report):
    page = Page(browser, report)
    assert page.run("return performance.getEntriesByType('resource').length") == 0
    blocked = browser.execute_async_script(
        "const done = arguments[0];"
        "document.addEventListener('securitypolicyviolation', (event) => done(event.effectiveDirective));"
        "fetch('http://127.0.0.1:9/').catch(() => setTimeout(() => done('nothing'), 20000));"
    )
    assert blocked == "connect-src"
    assert page.complaints()  # the browser says that it refused


def test_half_precision_is_shown_as_such(browser, photos, explained, tmp_path):
    model, x, pixels = photos
    full = kxai.report(model, x, ["lrp.epsilon"], images=pixels)
    made = kxai.report(
        model, x, ["lrp.epsilon"], images=pixels, max_megabytes=(len(full.html) - 9) / 1e6, path=tmp_path / "half.html"
    )
    assert made.precision == "half"
    page = Page(browser, tmp_path / "half.html")
    number, _ = page.hover(1, 0, 13, 7, (20, 24))
    assert number.startswith("≈ ")
    exact = explained[0].relevance[1, 13, 7].astype(float)
    # Every channel is known to within 2**-11; four digits of the sum are shown.
    assert abs(float(number[2:]) - exact.sum()) <= 2**-11 * np.abs(exact).sum() + 5e-4 * abs(exact.sum())
    small = kxai.report(
        model, x, ["lrp.epsilon"], images=pixels, max_megabytes=(len(made.html) - 9) / 1e6, path=tmp_path / "maps.html"
    )
    assert small.precision == "maps"
    page = Page(browser, tmp_path / "maps.html")
    number, tip = page.hover(1, 0, 13, 7, (20, 24))
    np.testing.assert_allclose(float(number[2:]), explained[0].heatmap()[1, 13, 7], rtol=1e-3)
    assert "by channel" not in tip
    page.choose("channel", "abs_max")
    number, _ = page.hover(1, 0, 13, 7, (20, 24))
    np.testing.assert_allclose(float(number[2:]), explained[0].heatmap(reduce="abs_max")[1, 13, 7], rtol=1e-3)
    assert page.run("return document.getElementById('channel').length") == 2
    assert page.complaints() == []


def test_words_bars_and_sequences(browser, tmp_path):
    keras.utils.set_random_seed(6)
    ids, row, series = (
        keras.Input((6,), name="ids", dtype="int32"),
        keras.Input((30,), name="row"),
        keras.Input((9, 2), name="series"),
    )
    joined = [
        keras.layers.Flatten()(keras.layers.Embedding(9, 4)(ids)),
        row,
        keras.layers.Flatten()(keras.layers.Conv1D(4, 3, activation="relu")(series)),
    ]
    model = keras.Model([ids, row, series], keras.layers.Dense(2)(keras.layers.Concatenate()(joined)), name="mixed")
    x = [
        RNG.integers(0, 9, (2, 6)),
        RNG.normal(size=(2, 30)).astype("float32"),
        RNG.normal(size=(2, 9, 2)).astype("float32"),
    ]
    tokens = [["not", "b", "##ad", NASTY], ["fine", "."]]
    features = [f"feature {i}" for i in range(30)]
    kxai.report(
        model, x, ["lrp.epsilon", "gradient_x_input"], tokens={"ids": tokens}, feature_names=features,
        path=tmp_path / "mixed.html",
    )  # fmt: skip
    page = Page(browser, tmp_path / "mixed.html", height=1000)
    page.shoot("mixed")
    words_, bars_, steps_ = kxai.explain(model, x, "lrp.epsilon").relevance
    words = page.all("[data-sample='0'] figure:first-child .word")
    assert [word.text for word in words] == ["not", "b", "ad", NASTY]
    share = np.clip(words_[0] / limit(words_[0]), -1, 1)
    for word, color in zip(words, diverging(share), strict=False):
        assert word.value_of_css_property("background-color") == f"rgba({', '.join(map(str, color))}, 1)"
    assert "after the last token" in page.one("[data-sample='0'] .stage.text").text
    bars = page.all("[data-sample='1'] figure:first-child .bar")
    assert len(bars) == 20
    shown = [int(bar.get_attribute("data-at")) for bar in bars]
    numbers = [float(bar.text.split()[-1]) for bar in bars]
    np.testing.assert_allclose(numbers, bars_[1][shown], rtol=1e-2)
    assert np.abs(bars_[1]).argmax() in shown
    rest = bars_[1].sum() - bars_[1][shown].sum()
    said = page.one("[data-sample='1'] figure:first-child .stage.table small").text
    assert said.startswith("the other 10 add up to ")
    np.testing.assert_allclose(float(said.split()[-1]), rest, rtol=1e-2)
    stage = page.one("[data-sample='1'] figure:first-child .stage.sequence")
    page.run("arguments[0].focus()", stage)
    stage.send_keys("\ue011", "\ue014")
    assert np.float32(page.tip()[0]) == np.float32(steps_[1, 1].astype(float).sum())
    assert "step 1" in page.tip()[1]
    assert page.complaints() == []


CONTRAST = """
const linear = (value) => (value <= 10.31 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4);
const light = (color) => color.match(/\\d+/g).slice(0, 3).map(Number).map(linear)
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0.05);
return [...document.querySelectorAll('.word')].map((word) => {
    const style = getComputedStyle(word);
    const both = [light(style.color), light(style.backgroundColor)];
    return Math.max(...both) / Math.min(...both);
});
"""


@pytest.mark.parametrize("width", [1400, 390])
def test_long_words_stay_inside_and_all_are_readable(browser, tmp_path, width):
    keras.utils.set_random_seed(6)
    model = keras.Sequential([keras.Input((200,)), keras.layers.Dense(2)])
    weights = np.linspace(-1, 1, 200)[:, None] * [1, -1]
    model.set_weights([weights, np.zeros(2)])
    long = "w" * 400
    path = tmp_path / "long.html"
    tokens = [["\u0645\u0631\u062d\u0628\u0627", long] + ["word"] * 198]
    x = np.ones((1, 200), np.float32)
    kxai.report(model, x, ["gradient"], tokens=tokens, names=[long], labels=[long, long + "2"], title=long, path=path)
    page = Page(browser, path, width=width)
    out = "return [...document.querySelectorAll('body *')].filter((one) => !one.closest('.skip, .scroll') &&"
    out += " one.getBoundingClientRect().right > window.innerWidth).map((one) => one.outerHTML.slice(0, 80))"
    assert page.run(out) == []
    assert page.run("return document.querySelector('.card').scrollWidth <= document.querySelector('.card').clientWidth")
    page.run("document.querySelector('.stage').scrollIntoView()")
    page.settle()
    contrast = page.run(CONTRAST)
    assert len(contrast) == 200
    assert min(contrast) >= 4.5  # what WCAG asks of texts
    assert page.run("return getComputedStyle(document.querySelector('.stage.text')).direction") == "rtl"
    assert page.complaints() == []


def test_printing_draws_everything(browser, report):
    page = Page(browser, report, height=300)
    pdf = base64.b64decode(browser.print_page())
    assert pdf.startswith(b"%PDF")
    blank = page.run(
        "return [...document.querySelectorAll('.stage canvas')].filter((canvas) =>"
        " !canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value)).length"
    )
    assert blank == 0
    # On paper all is dark on light, whatever the screen is like; the colours have their legend, controls are gone.
    scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": scheme})
    style = "getComputedStyle(document.documentElement)"
    colors = page.run(f"return ['--ink', '--meter'].map((name) => {style}.getPropertyValue(name).trim())")
    assert colors == ["#000", "#dddde1"]
    assert page.one(".legend").is_displayed()
    assert not page.one("#sort").is_displayed()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    (ARTIFACTS / "report.pdf").write_bytes(pdf)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("kind", "width"), [("wide", 1400), ("narrow", 390)])
def test_pictures_of_the_page(browser, report, kind, width, dark):
    page = Page(browser, report, width=width, dark=dark)
    page.shoot(f"report-{kind}-{'dark' if dark else 'light'}")
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth")  # nothing sticks out
    ground = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 128) == dark
    page.run("document.querySelectorAll('details').forEach((one) => one.open = true)")
    page.run("document.getElementById('details').scrollIntoView()")
    page.settle()
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth")
    page.shoot(f"details-{kind}-{'dark' if dark else 'light'}")
    assert page.complaints() == []


def sequence_page(browser, x, path):
    """A report of a model whose relevance is its weights times the input; the weights, (steps, channels)."""
    weights = np.linspace(-1, 1, x[0].size).reshape(x[0].shape) ** 3
    dense = keras.layers.Dense(
        1, use_bias=False, kernel_initializer=keras.initializers.Constant(weights.reshape(-1, 1))
    )
    model = keras.Sequential([keras.Input(x[0].shape), keras.layers.Flatten(), dense])
    kxai.report(model, x.astype(np.float32), ["gradient_x_input"], path=path)
    return Page(browser, path), weights


def test_dense_sequences_show_their_colours(browser, tmp_path):
    x = RNG.normal(size=(1, 2000, 3))
    page, weights = sequence_page(browser, x, tmp_path / "dense.html")
    page.shoot("dense-sequence")
    foot = page.pixels(0, 0)[-20:]
    assert (foot == foot[0]).all()  # no line covers it
    heatmap = (weights * x[0]).sum(axis=1)
    bound = limit(np.abs(heatmap))
    edges = np.arange(601) * 2000 / 600
    cells = [heatmap[int(a) : int(np.ceil(b))] for a, b in itertools.pairwise(edges)]
    found = np.array([cell[np.abs(cell).argmax()] for cell in cells])
    expected = diverging(np.clip(found / bound, -1, 1))
    # float32 relevance may fall into the colour beside.
    assert np.abs(foot[0].astype(int) - expected.astype(int)).max() <= 8
    assert page.complaints() == []


def test_one_hot_steps_are_marked_in_the_row_of_their_channel(browser, tmp_path):
    letters = RNG.integers(4, size=30)
    page, _ = sequence_page(browser, np.eye(4)[letters][np.newaxis], tmp_path / "letters.html")
    page.shoot("one-hot-sequence")
    ink = (page.pixels(0, 0) == 0x22).all(axis=2)
    rows = [int((k + 0.5) * (110 - 26) / 4) for k in range(4)]
    middles = [int((i + 0.5) * 600 / 30) for i in range(30)]
    np.testing.assert_array_equal(ink[np.ix_(rows, middles)], np.arange(4)[:, np.newaxis] == letters)
    assert ink.mean() < 0.06  # the rest is colour
    page.choose("channel", "2")  # one channel: its letters alone
    ink = (page.pixels(0, 0) == 0x22).all(axis=2)
    np.testing.assert_array_equal(ink[np.ix_(rows, middles)], (np.arange(4) == 2)[:, np.newaxis] & (letters == 2))
    assert page.complaints() == []


@pytest.mark.parametrize(("shape", "ratio"), [((4, 200, 3), 4), ((200, 4, 1), 1 / 4), ((20, 30, 3), 1.5)])
def test_images_of_extreme_proportions_can_be_seen(browser, tmp_path, shape, ratio):
    layers = [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(1)]
    kxai.report(keras.Sequential(layers), RNG.uniform(size=(1, *shape)), ["gradient"], path=tmp_path / "odd.html")
    page = Page(browser, tmp_path / "odd.html")
    for canvas in (page.one(".card canvas"), page.one(".stage canvas")):
        assert canvas.rect["width"] / canvas.rect["height"] == pytest.approx(ratio, rel=0.02)  # whole dots
    _, tip = page.hover(0, 0, shape[0] // 2, shape[1] - 1, shape)
    assert f", column {shape[1] - 1}\n" in tip
    assert page.complaints() == []


def test_no_relevance_is_said(browser, tmp_path):
    layers = [keras.Input((3, 3, 1)), keras.layers.Flatten(), keras.layers.Dense(2, kernel_initializer="zeros")]
    kxai.report(keras.Sequential(layers), np.ones((1, 3, 3, 1)), ["gradient"], path=tmp_path / "zero.html")
    page = Page(browser, tmp_path / "zero.html")
    assert "scale ±0 (no relevance)" in page.one(".cells figure").text
    assert page.complaints() == []


def test_a_narrow_window_leaves_room_for_bars(browser, tmp_path):
    layers = [keras.Input((4,)), keras.layers.Dense(3)]
    kxai.report(
        keras.Sequential(layers), np.ones((1, 4)), ["gradient", "gradient_x_input"], labels=["a", "b" * 300, "c"],
        feature_names=["one", "two", "three", "a feature of a long name"], path=tmp_path / "narrow.html",
    )  # fmt: skip
    page = Page(browser, tmp_path / "narrow.html", width=360)
    page.shoot("table-narrow")
    assert all(track.rect["width"] > 80 for track in page.all(".track"))
    assert len({figure.rect["x"] for figure in page.all(".cells figure")}) == 1  # below each other
    # Nothing stands where a picture would, and no name takes the page.
    assert page.one(".predictions").rect["width"] > 200
    label = next(label for label in page.all(".predictions .label") if label.text.startswith("b"))
    assert label.rect["height"] < 70
    assert page.one(f"li[title^='{'b' * 300}: ']")
    assert page.complaints() == []


def test_names_of_methods_break_between_words(browser, tmp_path):
    layers = [keras.Input((3, 3, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
    methods = ["integrated_gradients", "gradient", "lrp.alpha_2_beta_1"]
    kxai.report(keras.Sequential(layers), np.ones((1, 3, 3, 1)), methods, path=tmp_path / "names.html")
    page = Page(browser, tmp_path / "names.html", width=340)
    heads = page.all("figcaption b")
    assert [head.get_property("textContent") for head in heads] == methods
    assert [head.get_property("innerHTML").split("<wbr>") for head in heads] == [
        ["integrated_", "gradients"], ["gradient"], ["lrp.", "alpha_", "2_", "beta_", "1"]
    ]  # fmt: skip


@pytest.mark.slow
def test_a_large_report_stays_quick(browser, tmp_path):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((224, 224, 3)), keras.layers.Conv2D(4, 8, strides=8, activation="relu")]
    model = keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)])
    x = RNG.uniform(size=(20, 224, 224, 3)).astype(np.float32)
    methods = ["gradient", "gradient_x_input", "guided_backprop", "lrp.epsilon", "lrp.flat", "lrp.epsilon_plus"]
    report = kxai.report(model, x, methods, path=tmp_path / "large.html")
    assert report.precision == "half"
    assert (tmp_path / "large.html").stat().st_size < 64e6
    page = Page(browser, tmp_path / "large.html")
    # Milliseconds; about 1000 and 100 on two quiet cores, bounds are for busy machines.
    assert page.run("return performance.getEntriesByType('navigation')[0].domComplete") < 20_000
    seconds = page.browser.execute_async_script(
        "const done = arguments[0], start = performance.now(), slider = document.getElementById('opacity');"
        "slider.value = 0.3; slider.dispatchEvent(new Event('input'));"
        "requestAnimationFrame(() => requestAnimationFrame(() => done((performance.now() - start) / 1000)));"
    )
    assert seconds < 5
    assert page.complaints() == []
