"""What a server does to lines of JSON: who, what, how long; never an image, a prompt, a reply, a path or a key."""

from __future__ import annotations

import json
import logging
import time
import traceback
import warnings
from datetime import UTC, datetime
from pathlib import PurePath

LOGGER = logging.getLogger("gastrovl.serving")


class JsonLines(logging.Formatter):
    """A record as one JSON object: time, level, event, and the fields given as `extra={"fields": {...}}`.

    Of an exception only its type and the places in code it passed are written: its message may quote a request.
    """

    def format(self, record: logging.LogRecord) -> str:
        content: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage() if record.name == LOGGER.name else record.name,
        }
        content |= getattr(record, "fields", {})
        if record.name != LOGGER.name and not record.exc_info:
            content["message"] = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            content |= places(record.exc_info[1])
        return json.dumps(content, ensure_ascii=True)


def places(error: BaseException) -> dict[str, object]:
    """The type of an exception and the last functions it passed, as file name:line, without folders."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return {
        "error": type(error).__name__,
        "at": [f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames],
    }


def say(event: str, level: int = logging.INFO, **fields: object) -> None:
    """Write one line."""
    LOGGER.log(level, event, extra={"fields": fields})


def write_to_stderr() -> None:
    """Let our own lines, and warnings of the web server, go to standard error as JSON."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # warns of every broken form, with bytes of it
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # tells of broken images, which we refuse ourselves
    warnings.filterwarnings("ignore", module="PIL")  # of odd metadata in images
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for name, level in ((LOGGER.name, logging.INFO), ("uvicorn", logging.WARNING), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate = False
        logger.handlers = [handler] if name != "uvicorn.error" else []
        if name == "uvicorn.error":
            logger.propagate = True


def now() -> int:
    """Unix time in whole seconds, as answers carry it."""
    return int(time.time())
