"""The name of a template to the template itself; this file is where jinja2 is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gastrovl.core.errors import MissingExtraError


def template(name: str) -> Any:
    """A page of this folder's templates/; what is put into it is escaped, and a missing value is an error.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError(
            'jinja2 is not installed; result pages need it: pip install "gastrovl[evaluate]"'
        ) from error
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name)
