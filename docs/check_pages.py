"""Checks a built site: links, pictures, formulas, names of the API, and the network.

python docs/check_pages.py build/docs

It reads the pages with the standard library alone, names everything that is wrong, and
then exits with 1.
"""

import html.parser
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import tf_synflow

# What a browser would fetch by itself, against links that a reader may follow.
_FETCHED = {"img": "src", "script": "src", "link": "href", "source": "src"}


class _Page(html.parser.HTMLParser):
    """The links, the ids and the fetched files of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.formulas = 0
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found[key] for key in ("id", "name") if key in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in _FETCHED and _FETCHED[tag] in found:
            self.fetched.append(found[_FETCHED[tag]])
        self.formulas += tag == "math"


def problems(root: Path) -> list[str]:
    """What is wrong with the site in a folder, in words."""
    pages = {path.resolve(): _Page(path) for path in root.rglob("*.html")}
    found = []
    for path, page in pages.items():
        name = path.relative_to(root.resolve())
        for target in page.fetched:
            if urlsplit(target).scheme not in ("", "data") or target.startswith("//"):
                found.append(f"{name} fetches {target}")
        for target in page.links + page.fetched:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if to.is_dir():
                to /= "index.html"
            if not to.is_file():
                found.append(f"{name}: there is no {target}")
            elif to in pages and parts.fragment:
                if unquote(parts.fragment) not in pages[to].ids:
                    found.append(f"{name}: {target} has no such place")
    api = pages.get((root / "api.html").resolve())
    for public in tf_synflow.__all__:
        place = f"tf_synflow.{public}"
        inside = api and any(i == place or i.startswith(f"{place}.") for i in api.ids)
        if not inside and not _module_is_there(api, public):
            found.append(f"api.html does not have {place}")
    if not any(page.formulas for page in pages.values()):
        found.append("no page has a formula")
    return found


def _module_is_there(api: _Page | None, public: str) -> bool:
    return api is not None and f"module-tf_synflow.pruning.{public}" in api.ids


def main() -> None:
    """Checks the folder that the command line names."""
    root = Path(sys.argv[1])
    found = problems(root)
    print("\n".join(found) or f"{len(list(root.rglob('*.html')))} pages, nothing wrong")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
