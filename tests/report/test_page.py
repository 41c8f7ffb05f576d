"""The page: parses, needs no network, says whether the certificate passed, and trusts no name."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from actisketch.pipeline.report import PointReport, ReportData, WorkRow, certified
from actisketch.pipeline.report.overview import tall_overview, wide_overview
from actisketch.pipeline.report.page import Drawn, page_chunks, section, settings_rows
from actisketch.pipeline.report.point_figures import point_figures
from actisketch.pipeline.report.verdict import certificate_notes, summary, verdict
from actisketch.storage.errors import InputError

VOID = {"meta", "link", "img", "input", "br"}
HOSTILE = '"><script>alert(1)</script><img src=http://evil.example/x onerror=alert(1)>'


class Page(HTMLParser):
    """Collects elements and text; fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html.replace("<wbr>", ""))  # where a line may be broken
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, tag: str | None = None) -> str:
        return " ".join(text for inside, text in self.texts if tag in (None, inside))


def drawn_of(point: PointReport) -> Drawn:
    pictures = {f"001-x-{figure.kind}": figure.picture for figure in point_figures(point, nonzero=True)}
    return Drawn(pictures=pictures, name="001-x", pdf=b"%PDF")


def render(report: ReportData) -> str:
    sections = (
        section(number, point, drawn_of(point), nonzero=report.nonzero)
        for number, point in enumerate(report.points, start=1)
    )
    overview, tall = None, None
    if report.points:
        overview = Drawn(pictures={"overview": wide_overview(report)}, name="overview", pdf=b"%PDF")
        tall = tall_overview(report)
    return "".join(page_chunks(report, overview=overview, tall=tall, sections=sections))


def certificate_of(names: list[str], **changes: Any) -> dict[str, Any]:
    """Return the JSON form of the normaliser's certificate."""
    point = {
        "factor": None,
        "max_residual": 3e-7,
        "rms_residual": 1e-8,
        "allowed": 1e-5,
        "saturation": 0.0007,
        "n_channels": 7,
        "n_dead_channels": 2,
        "pinned": False,
        "passed": True,
    }
    return {
        "actisketch_certificate": 1,
        "passed": True,
        "tolerance": 1e-5,
        "n_samples": 29,
        "points": [{"name": name, **point} for name in names],
        "outputs": [{"name": "softmax", "class_agreement": 1.0, "passed": True}],
        "notes": ["folded bn1 into conv1"],
        "groups": [["conv1", "conv2"]],
        "pinned": [{"name": "softmax", "type": "Softmax", "reason": "it is not homogeneous"}],
        **changes,
    }


def test_the_page_is_well_formed_and_its_links_lead_somewhere(small_report: ReportData) -> None:
    page = Page(render(small_report))
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    links = {str(attributes["href"]) for attributes in page.all("a")}
    files = {
        link
        for link in links
        if "download" in dict.fromkeys(a for each in page.all("a") if each["href"] == link for a in each)
    }

    assert max(ids.values()) == 1
    assert links - files <= {f"#{each}" for each in ids}
    assert all(link.startswith(("data:", "figures/")) for link in files)
    assert {f"#layer-{number}" for number in (1, 2, 3)} <= links


def test_the_page_refers_to_nothing_outside_itself(small_report: ReportData) -> None:
    html = render(small_report)
    page = Page(html)
    sources = [
        value
        for _, attributes in page.elements
        for key, value in attributes.items()
        if key in ("src", "href")
    ]

    assert not re.search(r"https?://|\"//|@import|url\(", html.replace("http://www.w3.org/2000/svg", ""))
    # The links to the figures as files are the only ones that lead out, and nothing loads them.
    assert all(str(source).startswith(("data:", "#", "figures/")) for source in sources)
    assert "srcset" not in html


def test_the_content_policy_forbids_all_but_our_script(small_report: ReportData) -> None:
    html = render(small_report)
    (policy,) = [each["content"] for each in Page(html).all("meta") if each.get("http-equiv")]
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"'sha256-{digest}'" in policy


def test_hostile_names_are_text_everywhere(
    point_of: Callable[..., PointReport], report_of: Callable[..., ReportData]
) -> None:
    certificate = certificate_of([HOSTILE], notes=[HOSTILE], groups=[[HOSTILE]])
    report = report_of(
        (
            point_of(HOSTILE, layer_type=HOSTILE, activation=HOSTILE, notes=(HOSTILE,)),
            point_of("other", method=HOSTILE, q=None),
        ),
        title=HOSTILE,
        model_name=HOSTILE,
        settings={HOSTILE: {HOSTILE: [HOSTILE]}},
        facts={HOSTILE: HOSTILE},
        program=HOSTILE,
        certificate=certificate,
        about={HOSTILE: HOSTILE},
        groups=((HOSTILE, "other"),),
        links={HOSTILE: "../factors.json"},
        downloads={HOSTILE: HOSTILE, "job.toml": HOSTILE},
        command=HOSTILE,
        work=(WorkRow(stage=HOSTILE, began=HOSTILE, wall=HOSTILE, cpu=HOSTILE, memory=HOSTILE),),
    )

    page = Page(render(report))

    assert len(page.all("script")) == 1
    assert page.all("img") == []
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert page.text("h1") == HOSTILE
    assert HOSTILE in page.text("h3")


def test_a_path_of_layers_is_broken_between_two_of_them(
    point_of: Callable[..., PointReport], report_of: Callable[..., ReportData]
) -> None:
    html = render(report_of((point_of("encoder/block_1/query"), point_of("a<b>/c"))))

    assert html.count("encoder/<wbr>block_1/<wbr>query") == 3  # contents of the page, table, heading
    assert html.count("a&lt;b&gt;/<wbr>c") == 3


def test_every_image_has_an_alternative_text_and_every_header_a_scope(small_report: ReportData) -> None:
    page = Page(render(small_report))

    pictures = [each for each in page.all("svg") if each["role"] == "img"]
    assert len(pictures) == len(page.all("svg")) == 2 + 3 + 2 + 3
    assert all(picture["aria-label"] for picture in pictures)
    assert all(header["scope"] in ("row", "col") for header in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("label")[0]["for"] == page.all("input")[0]["id"]


def test_the_contents_and_the_table_list_every_layer(
    point_of: Callable[..., PointReport], report_of: Callable[..., ReportData]
) -> None:
    point = point_of()
    names = [f"layer_{number}" for number in range(150)]
    points = tuple(
        PointReport(name=name, shape=(7,), before=point.before, percentile=point.percentile) for name in names
    )

    page = Page(render(report_of(points)))

    listed = [text.strip() for inside, text in page.texts if inside == "a"]
    assert [text for text in listed if text in names] == names * 2
    assert len([item for item in page.all("tr") if "data-layer" in item]) == 150


@pytest.mark.parametrize(
    ("passed", "headline", "kind"),
    [
        (True, "Certificate passed", "passed"),
        (False, "Certificate FAILED", "failed"),
        (None, "No certificate", "unchecked"),
    ],
)
def test_the_verdict_is_the_first_thing_said(
    small_report: ReportData,
    report_of: Callable[..., ReportData],
    passed: bool | None,
    headline: str,
    kind: str,
) -> None:
    certificate = None if passed is None else {"passed": passed, "tolerance": 1e-5}
    report = report_of(small_report.points, certificate=certificate)

    page = Page(render(report))

    assert next(text for inside, text in page.texts if inside == "h2") == headline
    assert {"verdict", kind} in [set((each.get("class") or "").split()) for each in page.all("section")]


def test_a_failed_certificate_names_the_layers_and_says_not_to_use_the_network(
    point_of: Callable[..., PointReport], report_of: Callable[..., ReportData]
) -> None:
    names = [f"conv{number}" for number in range(7)]
    certificate = certificate_of(names, passed=False)
    for item in certificate["points"]:
        item.update(passed=False, max_residual=0.5)
    report = report_of(tuple(point_of(name) for name in names), certificate=certificate)

    sentence = verdict(report).sentence

    assert "layer conv0, layer conv1" in sentence
    assert "and 2 more" in sentence
    assert "Do not use" in sentence
    assert "0.5 !" in render(report)


def test_a_certificate_fills_in_what_it_says_of_each_point(point_of: Callable[..., PointReport]) -> None:
    certificate = certificate_of(["conv1"])
    certificate["points"][0]["max_residual"] = None

    first, second = certified(
        [point_of("conv1", residual=None), point_of("other", residual=None)], certificate
    )

    assert math.isinf(first.residual or 0.0)
    assert (first.allowed, first.saturation, first.n_dead) == (1e-5, 0.0007, 2)
    assert second.residual is None


def test_the_factor_in_use_is_shown_and_the_one_asked_for_is_noted(
    point_of: Callable[..., PointReport],
) -> None:
    certificate = certificate_of(["conv1", "conv2", "channels"])
    for item, factor in zip(certificate["points"], (2.5, 1.5, 7.0), strict=True):
        item["factor"] = factor
    asked = [
        point_of("conv1", factor=1.5),
        point_of("conv2", factor=1.5),
        point_of("channels", factor=(1.0, 3.0)),
    ]

    tied, same, channels = certified(asked, certificate)

    assert tied.factors == (2.5,)
    assert "asked for was 1.5, the one in use is 2.5" in tied.notes[0]
    assert (same.factors, same.notes) == ((1.5,), ())
    assert channels.factors == (1.0, 3.0)
    assert "largest in use is 7" in channels.notes[0]
    assert certified([tied], certificate)[0].factors == (2.5,)


def test_a_residual_that_is_not_a_number_is_said_and_drawn(
    point_of: Callable[..., PointReport], report_of: Callable[..., ReportData]
) -> None:
    report = report_of((point_of(residual=math.inf, allowed=1e-5),), certificate={"passed": False})

    assert "not a number" in verdict(report).sentence
    assert "not finite !" in render(report)


def test_notes_groups_and_pinned_layers_of_the_certificate_are_listed(
    report_of: Callable[..., ReportData],
) -> None:
    notes = certificate_notes(report_of((), certificate=certificate_of([])))

    assert notes == [
        "folded bn1 into conv1",
        "One factor is shared by conv1, conv2.",
        "The input of softmax (Softmax) keeps scale one: it is not homogeneous.",
    ]


def test_accuracy_is_not_rounded_up_to_perfection(report_of: Callable[..., ReportData]) -> None:
    html = render(report_of((), accuracy_before=0.99999, accuracy_after=None))

    assert "below 100.00 %" in html
    assert "not measured" in html


@pytest.mark.parametrize(
    ("nonzero", "words"), [(True, "of the non-zero activations"), (False, "of the activations")]
)
def test_the_summary_says_which_percentile(
    small_report: ReportData, report_of: Callable[..., ReportData], nonzero: bool, words: str
) -> None:
    assert f"99.9th percentile {words}" in summary(report_of(small_report.points, nonzero=nonzero))


def test_a_report_without_points_says_so(report_of: Callable[..., ReportData]) -> None:
    assert "No layer was recorded." in Page(render(report_of((), settings={}))).text()


def test_nested_settings_become_dotted_rows() -> None:
    rows = settings_rows({"a": {"b": {"c": None}, "empty": {}}, "path": "x\ny"})

    assert rows == [("a.b.c", "null"), ("a.empty", "{}"), ("path", r"x\ny")]


def test_points_of_the_same_name_are_refused(
    point_of: Callable[..., PointReport], report_of: Callable[..., ReportData]
) -> None:
    with pytest.raises(InputError, match="conv1"):
        report_of((point_of("conv1"), point_of("conv1")))


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf, (1.0, 0.0), ()])
def test_factors_that_cannot_divide_are_refused(point_of: Callable[..., PointReport], factor: Any) -> None:
    with pytest.raises(InputError, match="positive"):
        point_of(factor=factor)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
def test_no_column_of_the_table_is_cut_off_on_a_common_screen(
    point_of: Callable[..., PointReport], report_of: Callable[..., ReportData], tmp_path: Path
) -> None:
    names = [f"block{i}_a_layer_with_a_name" for i in range(12)]
    points = tuple(point_of(name, scale=1.1e-11, shape=(128, 128, 512)) for name in names)
    page = "".join(page_chunks(report_of(points), overview=None, tall=None, sections=[]))
    # The page's own policy lets no other script measure it.
    page = page.replace("script-src 'sha256-", "script-src 'unsafe-inline'; unused 'sha256-")
    measure = "const s = document.querySelector('.tall'); document.title = s.scrollWidth - s.clientWidth"
    (tmp_path / "p.html").write_text(page.replace("</body>", f"<script>{measure}</script></body>"))
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900"]
    answer = subprocess.run(
        [*browser, "--dump-dom", f"file://{tmp_path}/p.html"], capture_output=True, text=True, check=True
    )

    assert "<title>0</title>" in answer.stdout
