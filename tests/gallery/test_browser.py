"""The page in real headless Chromium: every interaction, nothing from a network, nothing in the console."""

from pathlib import Path

import gallery_samples as samples
import pytest
from headless_browser import SIZES, TIMEOUT_MS, low_contrast

from d2rnet.gallery.build import write_gallery
from d2rnet.gallery.pictures import radiograph_pictures
from d2rnet.gallery.settings import PageSettings
from d2rnet.gallery.studies import Answer, Study

COUNT = 12


def build(folder: Path, studies: list[Study], *, images: int = 0, **meta) -> Path:
    images_of = folder / "images" if images else None
    if images_of:
        samples.draw_images(images_of, images)
    write_gallery(
        studies,
        radiograph_pictures([study.entry for study in studies], images_of, PageSettings(), workers=1),
        output=folder / "out",
        meta=samples.meta(**meta),
        known=len(studies),
        how="",
        settings=PageSettings(),
    )
    return folder / "out" / "index.html"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory) -> Path:
    """A gallery of twelve studies, its page alone in a folder of awkward name."""
    page = build(tmp_path_factory.mktemp("made"), samples.studies(COUNT), images=COUNT)
    return page.rename(tmp_path_factory.mktemp("a gallery #1") / "moved.html")


@pytest.fixture
def open_page(open_file):
    """Open a page and wait until a study is drawn."""

    def opened(page: Path, size: str = "desktop", **options):
        tab = open_file(page, size, **options)
        ready(tab)
        return tab

    return opened


def ready(tab) -> None:
    """Wait until the study is drawn."""
    tab.wait_for_function("view.record || listed.length === 0")


def shown_name(tab) -> str:
    """Heading of the study, once it is drawn."""
    ready(tab)
    return tab.inner_text("#name")


def listed(tab) -> list[str]:
    return [text.split()[0] for text in tab.locator(".row-id").all_inner_texts()]


def lit(tab, what: str) -> list[str]:
    """Boxes ("pseudo0") or sentences ("1.0": text, sentence) that are lit."""
    name = "n.dataset.kind + n.dataset.index" if what == "box" else "n.dataset.key"
    return tab.locator(f".{what}.lit").evaluate_all(f"nodes => nodes.map((n) => {name})")


def visible_boxes(tab) -> list[str]:
    return [box.get_attribute("aria-label") for box in tab.locator(".box:visible").all()]


def test_first_study_with_picture_boxes_texts_scores_and_notice(open_page, gallery):
    tab = open_page(gallery)
    assert tab.inner_text("#name") == "Study si0" and tab.inner_text("#place") == "1 of 12"
    assert tab.eval_on_selector(".frame img", "image => image.decode().then(() => image.naturalWidth)") == samples.WIDTH
    assert "Do not publish" in tab.inner_text(".notice") and "protected health information" in tab.inner_text(".notice")
    assert "section findings" in tab.inner_text("#protocol") and "n 4" in tab.inner_text("#protocol")
    assert visible_boxes(tab) == [
        "true box: Pleural effusion",
        "pseudo box and its score: Cardiomegaly 0.90",
        "pseudo box and its score: Pleural effusion 0.60",
    ]
    assert tab.locator(".text.reference mark.missed").inner_text().startswith("heart is enlarged")
    assert tab.locator(".text.generated mark.match").inner_text() == "pleural effusion"
    assert "0.500" in tab.inner_text("#scores") and "ROUGE-L" in tab.inner_text("#scores")
    rows = [[cell.strip() for cell in row.split("\t")] for row in tab.locator("#findings tbody tr").all_inner_texts()]
    assert [row[0] for row in rows] == ["Cardiomegaly", "Pleural effusion"]
    assert "missed" in rows[0][2] and rows[1][1] == "present, left" and rows[1][-1] == "1"


def test_boxes_lie_where_the_data_says(open_page, gallery):
    tab = open_page(gallery)
    frame, box = (tab.locator(selector).bounding_box() for selector in (".frame", ".box[data-kind=pseudo][data-index='1']"))
    scale = frame["width"] / samples.WIDTH
    assert frame["height"] / samples.HEIGHT == pytest.approx(scale, rel=0.01)
    assert [(box["x"] - frame["x"]) / scale, (box["y"] - frame["y"]) / scale] == pytest.approx([100, 120], abs=0.5)
    assert [box["width"] / scale, box["height"] / scale] == pytest.approx([40, 60], abs=0.5)


def test_a_sentence_lights_its_boxes_and_a_box_its_sentences(open_page, gallery):
    tab = open_page(gallery)
    tab.hover(".text.reference li:nth-child(2) .sentence")
    assert lit(tab, "box") == ["pseudo0"] and tab.locator(".box.dim").count() == 2
    assert tab.inner_text("#box-count") == "This sentence has 1 box, 0 hidden."
    tab.hover(".text.generated .sentence")
    assert sorted(lit(tab, "box")) == ["pseudo1", "true0"]
    tab.hover(".box[data-kind=pseudo][data-index='1'] ", position={"x": 3, "y": 3})
    assert lit(tab, "sentence") == ["0.0", "1.0"]
    tab.hover("#name")
    assert lit(tab, "sentence") == lit(tab, "box") == [] and tab.locator(".box.dim").count() == 0


def test_brackets_are_evidence_or_absent_and_what_is_attended_is_grey(open_page, gallery):
    tab = open_page(gallery)
    assert tab.inner_text(".text.generated .sentence") == "there is a left pleural effusion . [Pleural effusion 0.60]"
    tab.evaluate("show(3)")  # the heart is enlarged; the model looked at the effusion
    sentence = tab.locator(".text.generated .sentence")
    assert sentence.inner_text() == "the heart is enlarged . [Cardiomegaly 0.90] attended: Pleural effusion 0.60"
    assert tab.locator(".text.reference small").count() == 0
    sentence.hover()
    assert lit(tab, "box") == ["pseudo0"]
    attended = tab.locator(".box.attended")
    assert attended.evaluate_all("nodes => nodes.map((n) => n.dataset.index)") == ["1"]
    assert attended.evaluate("node => getComputedStyle(node).borderTopColor") == "rgb(180, 188, 196)"
    assert tab.inner_text("#box-count") == "This sentence has 1 box, 0 hidden. Grey: 1 more attended, not proof."
    tab.hover(".box[data-kind=pseudo][data-index='1'] ", position={"x": 3, "y": 3})
    assert lit(tab, "sentence") == [], "to attend is not to speak of it"
    tab.evaluate("show(2)")
    said = tab.locator(".text.generated .sentence").all_inner_texts()
    assert said[0].endswith("is seen . [Pleural effusion 0.60]") and said[1] == "lungs are clear ."
    assert "attended, not proof" in tab.inner_text(".words .hint")


def test_a_click_keeps_light_until_escape_or_another_click(open_page, gallery):
    tab = open_page(gallery)
    sentence = tab.locator(".text.generated .sentence")
    sentence.click()
    tab.hover("#name")
    assert tab.locator(".box.lit").count() == 2 and sentence.get_attribute("aria-pressed") == "true"
    tab.keyboard.press("Escape")
    assert tab.locator(".box.lit").count() == 0 and sentence.get_attribute("aria-pressed") == "false"
    sentence.focus()
    tab.keyboard.press("Enter")
    tab.locator("#name").hover()
    assert tab.locator(".box.lit").count() == 2
    tab.click(".legend-item >> text=Cardiomegaly")
    assert tab.locator(".box.lit").evaluate_all("nodes => nodes.map((n) => n.dataset.category)") == ["3"]
    tab.click(".legend-item >> text=Cardiomegaly")
    tab.hover("#name")
    assert tab.locator(".box.lit").count() == 0


def test_slider_and_switches_hide_boxes_and_say_so(open_page, gallery):
    tab = open_page(gallery)
    assert tab.inner_text("#box-count") == "2 of 2 pseudo boxes, 1 of 1 true boxes shown."
    tab.fill("#score", "0.7")
    assert visible_boxes(tab) == ["true box: Pleural effusion", "pseudo box and its score: Cardiomegaly 0.90"]
    assert tab.inner_text("#box-count") == "1 of 2 pseudo boxes, 1 of 1 true boxes shown."
    assert tab.inner_text("#score-value") == "0.70"
    tab.uncheck("#true")
    tab.uncheck("#pseudo")
    assert visible_boxes(tab) == []
    tab.click("#next")
    ready(tab)
    assert visible_boxes(tab) == [], "the switches hold for the next study"


def test_weak_boxes_are_shown_where_the_report_speaks_of_them_or_when_asked(open_page, tmp_path):
    """A weak effusion: named by the first report, looked at by the fourth, and nothing to the second."""
    studies = samples.studies(4)
    for study in studies:
        study.entry["scores"][1] = 0.3
    studies[1].answers[0].sentences[0].update(boxes=[], text="there is a right pneumothorax .")
    tab = open_page(build(tmp_path, studies, images=4))
    sure, weak = "pseudo box and its score: Cardiomegaly 0.90", "pseudo box and its score: Pleural effusion 0.30"
    assert tab.input_value("#score") == "0.5" and tab.inner_text("#score-value") == "0.50"
    for number, expected in enumerate(([sure, weak], [sure], [sure, weak], [sure, weak])):
        tab.evaluate(f"show({number})")
        tab.uncheck("#true")
        assert visible_boxes(tab) == expected, number
    tab.evaluate("show(1)")
    assert tab.inner_text("#box-count") == "1 of 2 pseudo boxes, 0 of 1 true boxes shown."
    assert "Pleural effusion (4)" in tab.inner_text("#class"), "in texts, true boxes"
    tab.fill("#score", "0.2")
    assert visible_boxes(tab) == [sure, weak], "asked for"
    tab.evaluate("show(0)")
    tab.fill("#score", "0.6")
    assert visible_boxes(tab) == [sure], "sure ones alone were asked for"


def test_a_box_just_below_the_least_score_is_hidden_though_both_read_alike(open_page, tmp_path):
    studies = samples.studies(2)
    studies[1].answers[0].sentences[0].update(boxes=[], text="there is a right pneumothorax .")
    studies[1].entry["scores"][1] = 0.4996
    tab = open_page(build(tmp_path, studies, images=2))
    tab.evaluate("show(1)")
    tab.uncheck("#true")
    assert visible_boxes(tab) == ["pseudo box and its score: Cardiomegaly 0.90"]


def test_filters_by_class_error_and_id(open_page, gallery):
    tab = open_page(gallery)
    assert len(listed(tab)) == COUNT and tab.inner_text("#count") == "12 radiographs of 12 studies"
    tab.check("#error-wrong_side")
    assert listed(tab) == ["si2", "si6", "si10"] and tab.inner_text("#count") == "3 of 12 radiographs, 3 of 12 studies"
    assert tab.inner_text("#name") == "Study si2"
    tab.check("#error-invented")
    assert listed(tab) == ["si1", "si2", "si5", "si6", "si9", "si10"]
    tab.select_option("#class", label="Pneumothorax (3)")
    assert listed(tab) == ["si1", "si5", "si9"]
    tab.uncheck("#error-invented")
    assert listed(tab) == [] and tab.inner_text("#message") == "No study fits the filters."
    tab.uncheck("#error-wrong_side")
    assert listed(tab) == ["si1", "si5", "si9"] and not tab.is_visible("#message")
    tab.fill("#find", "I9")
    assert listed(tab) == ["si9"] and tab.inner_text("#name") == "Study si9"


def test_orders(open_page, gallery):
    tab = open_page(gallery)
    tab.select_option("#sort", "rouge_l")
    assert listed(tab)[:2] == ["si0", "si1"]
    tab.click("#direction")
    assert listed(tab)[:2] == ["si11", "si10"] and tab.inner_text("#direction") == "highest first"
    assert tab.locator(".row-value").first.inner_text() == "0.917"
    tab.select_option("#sort", "errors")
    assert listed(tab)[-3:] == ["si3", "si7", "si11"]
    tab.select_option("#sort", "id")
    assert listed(tab)[:3] == ["si11", "si10", "si9"]


def test_keyboard(open_page, gallery):
    tab = open_page(gallery)
    tab.keyboard.press("k")
    assert shown_name(tab) == "Study si0" and tab.is_disabled("#previous")
    for key, expected in (("j", "si1"), ("ArrowRight", "si2"), ("k", "si1"), ("G", "si11"), ("j", "si11"), ("g", "si0")):
        tab.keyboard.press(key)
        assert shown_name(tab) == f"Study {expected}", key
    tab.focus("#list")
    for key, expected in (("ArrowDown", "si1"), ("End", "si11"), ("Home", "si0")):
        tab.keyboard.press(key)
        assert shown_name(tab) == f"Study {expected}", key
    tab.keyboard.press("b")
    assert not tab.is_checked("#pseudo")
    tab.keyboard.press("t")
    assert not tab.is_checked("#true")
    tab.keyboard.press("]")
    tab.keyboard.press("]")
    tab.keyboard.press("[")
    assert tab.inner_text("#score-value") == "0.55"
    tab.keyboard.press("/")
    tab.keyboard.type("jjb")
    assert tab.input_value("#find") == "jjb", "keys are letters while something is typed"
    tab.fill("#find", "")
    tab.keyboard.press("Escape")
    tab.keyboard.press("j")
    assert shown_name(tab) == "Study si1"


def test_help_names_every_key_and_closes(open_page, gallery):
    tab = open_page(gallery)
    tab.keyboard.press("?")
    assert tab.is_visible("#help")
    shown = set(tab.locator("#help kbd").all_inner_texts())
    keys = {"ArrowRight": "\u2192", "ArrowLeft": "\u2190", "Escape": "Esc"}
    assert {keys.get(key, key) for key in tab.evaluate("Object.keys(KEYS)")} - {"?"} <= shown
    tab.keyboard.press("j")
    assert tab.inner_text("#name") == "Study si0", "keys do nothing behind the help"
    tab.keyboard.press("Escape")
    assert not tab.is_visible("#help")
    tab.click("#help-open")
    tab.click("#help button")
    assert not tab.is_visible("#help")


def test_tab_reaches_controls_then_study_in_reading_order(open_page, gallery):
    tab = open_page(gallery)
    seen = []
    for _ in range(30):
        tab.keyboard.press("Tab")
        seen.append(tab.evaluate("document.activeElement.id || document.activeElement.className.split(' ')[0]"))
    wanted = [
        "skip",
        "theme",
        "help-open",
        "find",
        "class",
        "sort",
        "list",
        "next",
        "pseudo",
        "true",
        "score",
        "box",
        "sentence",
    ]
    assert [name for name in dict.fromkeys(seen) if name in wanted] == wanted


def test_labels_of_controls(open_page, gallery):
    tab = open_page(gallery)
    unnamed = tab.evaluate(
        "[...document.querySelectorAll('input, select, button')]"
        ".filter((c) => !(c.labels?.length || c.getAttribute('aria-label') || c.textContent.trim())).map((c) => c.id)"
    )
    assert unnamed == []
    assert tab.locator("[aria-live=polite]").count() >= 3


def test_the_address_names_the_study(open_page, gallery):
    tab = open_page(gallery, address="#i7")
    assert tab.inner_text("#name") == "Study si7"
    tab.keyboard.press("j")
    assert tab.url.endswith("#i8")
    tab.evaluate("location.hash = '#i3'")
    tab.wait_for_function("document.getElementById('name').textContent === 'Study si3'")


def test_light_dark_and_the_system_s_choice(open_page, gallery):
    tab = open_page(gallery, color_scheme="dark")
    theme = "document.documentElement.dataset.theme"
    assert tab.evaluate(theme) == "dark"
    tab.click("#theme")
    assert tab.evaluate(theme) == "light"
    tab.reload()
    assert tab.evaluate(theme) == "light", "the choice is remembered"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_legible_and_within_the_width(open_page, gallery, size, scheme, tmp_path):
    tab = open_page(gallery, size, color_scheme=scheme)
    tab.locator(".text.reference .sentence").first.click()
    tab.hover("#name")
    assert low_contrast(tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    assert tab.locator(".frame").bounding_box()["width"] > 250
    picture = tab.screenshot(path=tmp_path / "page.png")
    assert len(picture) > 20_000
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert background > 200 if scheme == "light" else background < 50


def test_phone_list_opens_and_closes_with_a_choice(open_page, gallery):
    tab = open_page(gallery, "phone", has_touch=True)
    assert not tab.is_visible("#list")
    tab.tap("#drawer")
    assert tab.is_visible("#list") and tab.get_attribute("#drawer", "aria-expanded") == "true"
    tab.tap(".row >> nth=2")
    ready(tab)
    assert not tab.is_visible("#list") and tab.inner_text("#name") == "Study si2"
    tab.tap(".text.generated .sentence")
    assert tab.locator(".box.lit").count() == 2
    next_button = tab.locator("#next").bounding_box()
    assert next_button["height"] >= 44 and next_button["y"] + next_button["height"] <= SIZES["phone"][1]


def test_reduced_motion(open_page, gallery):
    duration = "getComputedStyle(document.querySelector('.box')).transitionDuration"
    assert open_page(gallery, reduced_motion="reduce").evaluate(duration) == "0s"
    assert open_page(gallery, reduced_motion="no-preference").evaluate(duration) != "0s"


def test_hostile_text_is_shown_not_run(open_page, tmp_path):
    page = build(tmp_path, samples.studies(2, text=samples.HOSTILE))
    tab = open_page(page)
    assert tab.evaluate("window.hacked") is None and tab.locator(".texts img, .texts script").count() == 0
    assert "</script><script>window.hacked = 1</script> <img src=x" in tab.inner_text(".text.generated")
    assert "Texts only" in tab.inner_text("#pictures") and tab.inner_text("#box-count") == ""


def test_policy_refuses_the_network(browser, gallery):
    context = browser.new_context()
    tab = context.new_page()
    tab.set_default_timeout(TIMEOUT_MS)
    requests = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(gallery.as_uri())
    ready(tab)
    tab.evaluate(
        "window.refused = []; document.addEventListener('securitypolicyviolation', (e) => refused.push(e.effectiveDirective));"
        "document.body.append(Object.assign(new Image(), { src: 'http://127.0.0.1:9/a.png' }));"
        "fetch('http://127.0.0.1:9/b').catch(() => {});"
        "document.head.append(Object.assign(document.createElement('script'), { src: 'http://127.0.0.1:9/c.js' }));"
        "document.head.append(Object.assign(document.createElement('script'), { src: 'beside.js' }));"
    )
    tab.wait_for_function("refused.length >= 4")
    assert sorted(tab.evaluate("refused")) == ["connect-src", "img-src", "script-src-elem", "script-src-elem"]
    context.close()
    assert [url for url in requests if not url.startswith(("file:", "data:", "http://127.0.0.1:9/"))] == []


def test_thousands_of_studies_keep_the_page_small(open_page, tmp_path):
    studies = [Study(f"i{row}", f"s{row}", "no effusion .", (Answer("clear .", (), {"bleu_4": 0.1}),)) for row in range(3000)]
    tab = open_page(build(tmp_path, studies))
    assert tab.inner_text("#place") == "1 of 3,000" and tab.locator(".row").count() < 40
    tab.keyboard.press("G")
    tab.wait_for_selector("#row-2999[aria-selected=true]")
    assert tab.locator(".row").count() < 40
    assert tab.evaluate("(() => { const t = performance.now(); relist(); return performance.now() - t; })()") < 1000
    assert tab.inner_text(".text.reference .sentence") == "no effusion ."


def test_several_images_of_a_study(open_page, tmp_path):
    study = samples.studies(1)[0]
    study.entry.update(
        image_path=["i0.png", "gone.png"], heights=[samples.HEIGHT] * 2, widths=[samples.WIDTH] * 2, box_image=[0, 1]
    )
    tab = open_page(build(tmp_path, [study], images=1))
    assert tab.locator("figure").count() == 2 and tab.locator("figcaption").last.inner_text() == "Radiograph 2 of 2"
    assert (
        tab.locator("figure").nth(1).locator(".box").get_attribute("aria-label")
        == "pseudo box and its score: Pleural effusion 0.60"
    )
    assert "gone.png" in tab.inner_text(".no-image")
    assert tab.inner_text("#left-out") == "1 radiograph cannot be shown."


def test_labels_of_boxes_do_not_cover_one_another(open_page, tmp_path):
    study = samples.studies(1)[0]
    study.entry.update(
        boxes=[[30.0, 60.0, 60.0, 50.0]] * 4, scores=[0.9] * 4, labels=["Cardiomegaly", "ILD", "Edema", "Edema"]
    )
    tab = open_page(build(tmp_path, [study], images=1))
    assert tab.locator(".box-label").count() >= 4
    for width in (1440, 700):
        tab.set_viewport_size({"width": width, "height": 900})
        tab.wait_for_function(
            "() => { const r = [...document.querySelectorAll('.box-label')].map((label) => label.getBoundingClientRect());"
            " return r.every((a, i) => r.every((b, j) => i === j || a.right <= b.left || b.right <= a.left"
            " || a.bottom <= b.top + 0.5 || b.bottom <= a.top + 0.5)); }"
        )


def test_two_runs_beside_each_other(open_page, tmp_path):
    studies = [
        Study(
            study.name,
            study.study_id,
            study.reference,
            (study.answers[0], Answer(study.reference, (), {"rouge_l": 1.0, "bleu_4": 0.2})),
            study.entry,
            None,
        )
        for study in samples.studies(8)
    ]
    page = build(
        tmp_path,
        studies,
        images=8,
        mode="compare",
        systems=["A: one", "B: two"],
        sort="size:rouge_l",
        corpus=[["rouge_l", "ROUGE-L", [[0.5, None], [0.6, None]]]],
    )
    tab = open_page(page)
    assert listed(tab)[:2] == ["si0", "si1"] and tab.locator(".row-value").first.inner_text() == "1.000"
    assert tab.locator(".text h3").all_inner_texts() == ["Reference", "Run A", "Run B"]
    assert (
        tab.locator(".text.reference mark.differs").get_attribute("title")
        == "Cardiomegaly: present - Run A missed, Run B agrees"
    )
    assert "-1.000" in tab.inner_text("#scores") and not tab.is_visible("#true-label")
    tab.check("#differs")
    assert listed(tab) == ["si0", "si1", "si2", "si4", "si5", "si6"]
    tab.select_option("#sort", "difference:bleu_4")
    assert tab.locator(".row-value").first.inner_text() == "0.300"
