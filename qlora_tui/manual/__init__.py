"""The manual: its Markdown pages, their sections, and the topics by which a section is found.

A section begins with a heading of level 2 or 3. It is found by its heading and by the words of a comment in the next
line: `<!-- topics: stop, save -->`. Such a comment below the heading of a page is about the whole page.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ORDER = (
    "install", "quickstart", "data", "templates", "memory", "training", "runs", "evaluation", "arena", "workbench",
    "configuration", "scripting", "troubleshooting", "speed",
)  # fmt: skip
"""Names of the pages, in reading order."""

_HEADING = re.compile(r"^(##+) +(.+)\n(?:<!-- topics: (.+) -->\n)?", re.MULTILINE)
_TOPICS = re.compile(r"^<!-- topics: .+ -->\n", re.MULTILINE)


@dataclass(frozen=True)
class Section:
    """A heading and its text, up to the next heading of the same or a higher level."""

    heading: str
    topics: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    name: str
    source: str
    """The file as it is."""

    @property
    def title(self) -> str:
        """Heading of the page."""
        return self.source.partition("\n")[0].removeprefix("# ")

    @property
    def topics(self) -> tuple[str, ...]:
        """Topics of the page, then those of its sections."""
        _, comment = self.source.split("\n", 2)[:2]
        own = comment.removeprefix("<!-- topics: ").removesuffix(" -->") if _TOPICS.match(f"{comment}\n") else ""
        return (*_words(own), *(topic for section in self.sections() for topic in section.topics))

    @property
    def text(self) -> str:
        """The page without the comments that list topics."""
        return _TOPICS.sub("", self.source)

    def sections(self) -> Iterator[Section]:
        """Return the sections of levels 2 and 3 in order."""
        found = [*_HEADING.finditer(self.source)]
        for number, match in enumerate(found):
            following = (later.start() for later in found[number + 1 :] if len(later[1]) <= len(match[1]))
            text = self.source[match.start() : next(following, len(self.source))]
            yield Section(match[2].strip(), _words(match[3] or ""), _TOPICS.sub("", text).rstrip() + "\n")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


@cache
def pages() -> tuple[Page, ...]:
    """Return all pages in reading order."""
    folder = Path(__file__).parent
    return tuple(Page(name, (folder / f"{name}.md").read_text(encoding="utf-8")) for name in ORDER)


def find(topic: str) -> str:
    """Return the page or the first section with this name, topic or heading, as Markdown.

    Raises NotFoundError with the nearest topic.
    """
    from qlora_tui.errors import NotFoundError, nearest

    sections = [section for page in pages() for section in page.sections()]
    known = {topic.lower(): page.text for page in reversed(pages()) for topic in page.topics}
    known |= {section.heading.lower(): section.text for section in reversed(sections)}
    known |= {topic.lower(): section.text for section in reversed(sections) for topic in section.topics}
    known |= {page.name: page.text for page in pages()}
    found = known.get(topic.strip().lower())
    if found is None:
        raise NotFoundError(f"no help on {topic!r}", hint=nearest(topic.lower(), list(known)))
    return found
