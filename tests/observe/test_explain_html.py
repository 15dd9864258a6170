"""The page: nothing from outside, nothing of the guest's unescaped, pictures within their frames."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from belljar.observe.explain import explain
from belljar.observe.explain_html import explain_page
from belljar.observe.explain_model import Explanation
from belljar.observe.pictures import MAX_ARROWS, MAX_BANDS, Picture, memory_map, table_tree, timeline

SAMPLES = ["hello-real", "hello-compat", "hello-long", "mmio", "fault", "triple-fault", "ping-pong", "spin"]
VOID = {"meta", "rect", "line", "path", "br", "link"}
FORBIDDEN = {"script", "img", "iframe", "object", "embed", "link", "image", "use", "foreignobject"}


class Page(HTMLParser):
    """Checks that elements nest, and gathers what they are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(params=SAMPLES)
def found(request: pytest.FixtureRequest, kvm: object) -> Explanation:
    """Each sample's explanation."""
    return explain(request.param, timeout=0.2)


def test_page_is_well_formed_and_self_contained(found: Explanation) -> None:
    page = Page(explain_page(found))
    assert "svg" in page.seen
    assert not page.seen & FORBIDDEN
    assert not {name for name in page.attributes if name.startswith("on") or name in ("src", "href")}


def test_page_shows_what_the_explanation_says(found: Explanation) -> None:
    text = explain_page(found)
    for place in found.places:
        assert f"{place.gpa:#x}" in text
        assert f"{place.hva:#x}" in text
    for vcpu in found.vcpus:
        assert f"{vcpu.run_page_hva:#x}" in text


def pictures(found: Explanation) -> list[Picture]:
    """All of a page's pictures."""
    drawn = [memory_map(found), timeline(found), *(table_tree(paging) for paging in found.paging)]
    return [picture for picture in drawn if picture is not None]


def test_pictures_stay_in_their_frames(found: Explanation) -> None:
    for picture in pictures(found):
        for box in picture.boxes:
            assert 0 <= box.x <= box.x + box.width <= picture.width
            assert 0 <= box.y <= box.y + box.height <= picture.height
        for line in picture.lines:
            assert all(0 <= x <= picture.width for x in (line.x1, line.x2))
            assert all(0 <= y <= picture.height for y in (line.y1, line.y2))
        for label in picture.labels:
            assert 0 <= label.x <= picture.width
            assert 0 <= label.y <= picture.height


def test_what_the_guest_printed_is_escaped(kvm: object) -> None:
    text = b"</pre><script>alert(1)</script>\0\x1b[31m\xff&amp;"
    code = b"".join(b"\xb0" + bytes([c]) + b"\xe6\xe9" for c in text) + b"\xf4"  # mov al, c; out 0xe9, al; ...; hlt
    found = replace(explain(code), guest="<img src=x onerror=alert(2)>")
    page = Page(explain_page(found))
    assert not page.seen & FORBIDDEN
    assert any("<script>alert(1)</script>" in piece for piece in page.text)


def test_large_explanations_make_bounded_pictures(kvm: object) -> None:
    code = bytes.fromhex("b9 e8 03 00 00 b0 78 e6 e9 ff c9 75 fa f4")  # 1000 times out 0xe9, al; hlt
    found = explain(code, mode="protected", limit=1000)
    found = replace(found, places=found.places * 100)
    assert len(memory_map(found).boxes) <= 2 * MAX_BANDS + 2
    drawn = timeline(found)
    assert drawn is not None
    assert len(drawn.lines) <= 2 * MAX_ARROWS + 2
    assert "941" in drawn.left_out
