"""How Sphinx builds the site: `make site`.

Pages that are not committed are written into docs/methods and docs/project before Sphinx looks for its sources. The committed pages are
those that one reads on GitHub: their links to files outside docs lead to the pages of these files here.
"""

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS))

from longreach import __version__  # noqa: E402
from longreach.core.catalogue import catalogue  # noqa: E402
from longreach.core.kinds import kinds  # noqa: E402
from longreach.reports.evidence import read  # noqa: E402
from method_pages import method_pages, place, source  # noqa: E402 (docs is no package)

project = "longreach"
release = version = __version__
extensions = ["myst_parser"]
html_theme = "furo"
html_title = f"longreach {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
nitpicky = True
myst_heading_anchors = 4
exclude_patterns = ["evidence"]  # rows

PROJECT_FILES = {"project/contributing.md": "CONTRIBUTING.md", "project/changelog.md": "CHANGELOG.md"}  # page -> what it shows
TREES = {  # what stands below a page in the navigation, which GitHub would show as code
    "index": (
        "guide-*",
        "methods",
        "api",
        "evidence",
        "agreement",
        "eviction",
        "tasks",
        "workflows",
        "peers",
        "shared",
        "debias",
        "project/contributing",
        "project/changelog",
    ),
    "methods": tuple(f"methods/{kind}/index" for kind in kinds()),
}
entries = catalogue()
pages_of = {
    "README.md": "index.md",
    **{name: page for page, name in PROJECT_FILES.items()},
    **{source(entry): place(entry) for entry in entries},
}


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", adapt)


def write_pages(app: Any) -> None:
    """Write the pages that are not committed; take away those of methods that are gone."""
    pages = method_pages(entries, read(DOCS / "evidence"))
    pages |= {page: (ROOT / name).read_text(encoding="utf-8") for page, name in PROJECT_FILES.items()}
    for old in [*DOCS.glob("methods/*/*.md"), *DOCS.glob("project/*.md")]:
        if old.relative_to(DOCS).as_posix() not in pages:
            old.unlink()
    for name, text in pages.items():
        path = DOCS / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # what has not changed is not built anew
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def adapt(app: Any, name: str, content: list[str]) -> None:
    """Let links to files outside docs, and all links of files outside docs, lead to their pages here, and add the navigation."""
    shown = PROJECT_FILES.get(f"{name}.md", f"docs/{name}.md")  # the file that the links were written in

    def led(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(shown), link[0]))
        if target in pages_of:
            return f"/{pages_of[target]}"
        return f"/{target.removeprefix('docs/')}" if target.startswith("docs/") else link[0]

    content[0] = re.sub(r"(?<=\]\()[^)#:\s]+(?=[)#])", led, content[0])
    if name in TREES:
        content[0] += "\n".join(["\n```{toctree}", ":hidden:", ":glob:", *TREES[name], "```\n"])
