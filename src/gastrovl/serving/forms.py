"""A multipart form in memory to its fields: an image of a patient must not reach a temporary file on its way."""

from __future__ import annotations

from typing import Any

from gastrovl.serving.refusals import RefusedError

MOST_PARTS = 8


def read_form(body: bytes, content_type: str) -> dict[str, str | bytes]:
    """Fields of text, and files as bytes, by their names.

    Raises:
        RefusedError: It is no whole form, has too many parts, one name twice, or text that is no UTF-8.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= 70:  # RFC 2046, section 5.1.1
        raise _refusal("its boundary is missing or too long")
    collector = _Collector()
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise _refusal("it is not well formed") from None
    if not collector.is_whole:
        raise _refusal("it is cut off")
    found: dict[str, str | bytes] = {}
    for disposition, content in collector.parts:
        options = parse_options_header(disposition)[1]
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name in found:
            raise _refusal("it has a field twice")
        if b"filename" in options:
            found[name] = bytes(content)
        else:
            try:
                found[name] = content.decode("utf-8")
            except UnicodeDecodeError:
                raise _refusal("a field is no UTF-8 text") from None
    return found


def _refusal(why: str) -> RefusedError:
    return RefusedError(400, "invalid_form", f"the form cannot be read: {why}")


class _Collector:
    """The parts of a form as the parser meets them: (Content-Disposition, content)."""

    def __init__(self) -> None:
        self.parts: list[tuple[bytes, bytearray]] = []
        self.is_whole = False
        self._name, self._value, self._disposition = bytearray(), bytearray(), b""

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) == MOST_PARTS:
            raise _refusal(f"it has more than {MOST_PARTS} parts")
        self._disposition = b""

    def _end_header(self) -> None:
        if bytes(self._name).lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def _end_headers(self) -> None:
        self.parts.append((self._disposition, bytearray()))

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1][1].extend(data[start:end])

    def _end(self) -> None:
        self.is_whole = True
