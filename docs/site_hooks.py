"""What the site (`make docs`) needs beside the pages: those that lie outside docs/.

The pages are written to be read in the repository, so they link to `../SECURITY.md` and the like.
Here whatever they link to outside docs/ becomes part of the site, and links are changed to match.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\]\()((?!https?:|#|mailto:)[^)#\s]+)")
WHOLE_LINK = re.compile(r"\[([^\]]+)\]\(((?!https?:|#|mailto:)[^)#\s]+)\)")
# In the navigation whether or not a page leads to them.
ALWAYS = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")


def _place(target: str, page: str) -> str:
    """Where a link of `page` leads, both from the repository's root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


def _outside() -> set[str]:
    """Files outside docs/ that pages of the site lead to, in however many steps."""
    found: set[str] = set()
    waiting = [*ALWAYS, *(p.relative_to(ROOT).as_posix() for p in ROOT.glob("docs/**/*.md"))]
    while waiting:
        page = waiting.pop()
        if not page.startswith("docs/"):
            found.add(page)
        if page.endswith(".md"):
            linked = {_place(link, page) for _, link in LINK.findall((ROOT / page).read_text())}
            files = {place for place in linked if (ROOT / place).is_file()}
            waiting += [p for p in files - found if not p.startswith("docs/")]
    return found


def on_files(files: Files, config: Any) -> Files:
    for place in sorted(_outside()):
        files.append(File.generated(config, place, abs_src_path=str(ROOT / place)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    place = page.file.src_uri
    source = place if page.file.generated_by else f"docs/{place}"

    def mend(link: re.Match[str]) -> str:
        target = _place(link[2], source).removeprefix("docs/")
        return link[1] + posixpath.relpath(target, posixpath.dirname(place) or ".")

    def text_of_folder(link: re.Match[str]) -> str:
        """A site has no page for a folder: its name stands there without a link."""
        return link[1] if (ROOT / _place(link[2], source)).is_dir() else link[0]

    return LINK.sub(mend, WHOLE_LINK.sub(text_of_folder, markdown))
