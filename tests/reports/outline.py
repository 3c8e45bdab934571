"""Reads a page as a browser would, as far as a test wants to know."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "input", "br", "link", "hr"}


class Outline(HTMLParser):
    """Checks that tags close in order, and collects ids, links and everything that would be fetched."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.ids, self.links, self.fetched = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"][1:]] if found.get("href", "").startswith("#") else []
        self.fetched += [v for k, v in attrs if k in {"src", "srcset", "href", "poster"} and v and v[0] != "#"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"{tag} closes out of order"
