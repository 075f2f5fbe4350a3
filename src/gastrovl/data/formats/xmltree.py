"""An XML annotation file to a tree whose elements know their line; a document type, and so any entity, is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from gastrovl.core.errors import SourceError
from gastrovl.data.formats.textlines import read_bytes

MAX_DEPTH = 64


@dataclass
class Element:
    """An element of an XML file.

    Attributes:
        where: "file:line" of its opening tag.
        text: The character data directly inside it, without surrounding white space.
    """

    tag: str
    where: str
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def all(self, tag: str) -> Iterator[Element]:
        """The children called `tag`."""
        return (child for child in self.children if child.tag == tag)

    def find(self, tag: str) -> Element | None:
        """The first child called `tag`, or None."""
        return next(self.all(tag), None)

    def child(self, tag: str) -> Element:
        """The first child called `tag`.

        Raises:
            SourceError: There is none.
        """
        found = self.find(tag)
        if found is None:
            raise SourceError(f"{self.where}: <{self.tag}> has no <{tag}>; expected one. Export the annotations again")
        return found

    def text_of(self, tag: str) -> str:
        """The text of the first child called `tag`.

        Raises:
            SourceError: There is none, or it is empty.
        """
        found = self.child(tag)
        if not found.text:
            raise SourceError(f"{found.where}: <{tag}> is empty; expected a text. Export the annotations again")
        return found.text

    def attribute(self, name: str) -> str:
        """The value of an attribute.

        Raises:
            SourceError: It is absent or empty.
        """
        value = self.attributes.get(name, "")
        if not value:
            raise SourceError(
                f"{self.where}: <{self.tag}> has no attribute {name!r}; expected one. Export the annotations again"
            )
        return value


def read_xml(path: Path, root_tag: str) -> Element:
    """The root element of an XML file, which must be called `root_tag`.

    Raises:
        SourceError: The file cannot be read, is not well-formed XML, has a document type (an entity in it could unfold
            without bound or name a file), is nested deeper than MAX_DEPTH, or has another root.
    """
    content = read_bytes(path)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    top = Element("", str(path), {})
    stack = [top]
    texts: list[list[str]] = [[]]

    def start(tag: str, attributes: dict[str, str]) -> None:
        if len(stack) > MAX_DEPTH:
            raise SourceError(
                f"{path}:{parser.CurrentLineNumber}: elements nested deeper than {MAX_DEPTH}; expected annotations"
            )
        element = Element(tag, f"{path}:{parser.CurrentLineNumber}", attributes)
        stack[-1].children.append(element)
        stack.append(element)
        texts.append([])

    def end(_tag: str) -> None:
        stack.pop().text = "".join(texts.pop()).strip()

    def document_type(*_arguments: object) -> None:
        raise SourceError(
            f"{path}:{parser.CurrentLineNumber}: has a document type (<!DOCTYPE>), whose entities are never unfolded; "
            "expected plain XML. Remove the declaration if you trust the file"
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = lambda text: texts[-1].append(text)
    parser.StartDoctypeDeclHandler = document_type
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise SourceError(
            f"{path}:{error.lineno}: not well-formed XML ({expat.ErrorString(error.code)}); copy the file again from "
            "the source"
        ) from error
    except (LookupError, ValueError) as error:  # an encoding that Python does not know, or not as one byte a character
        raise SourceError(f"{path}:1: its encoding cannot be read ({error}); save the file as UTF-8") from error
    root = top.children[0]
    if root.tag != root_tag:
        raise SourceError(
            f"{root.where}: found <{root.tag}>, expected <{root_tag}>; check `format` in the source description"
        )
    return root
