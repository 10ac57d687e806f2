"""Reads pages of HTML with the standard library alone."""

import html.parser

VOID = {"meta", "img", "link", "br", "input"}


class Page(html.parser.HTMLParser):
    """Elements with their attributes, and the cells of tables; checks the nesting."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.tables, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append([dict(attributes), ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1][1] += data


def fetches_nothing(text, page):
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base"), tag
        assert not {"src", "href", "srcset", "action", "data"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert "@import" not in text and "url(" not in text
    policies = [a for _, a in page.elements if "http-equiv" in a]
    assert policies[0]["content"].startswith("default-src 'none';")
