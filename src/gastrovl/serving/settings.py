"""How a server is run: where it listens, who may ask, and how much of everything."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from gastrovl.core.config import Config
from gastrovl.core.endpoint import is_loopback
from gastrovl.core.errors import ConfigError
from gastrovl.core.images import MAX_PIXELS

LEAST_KEY = 16  # characters; shorter ones are guessed


class ServerSettings(Config):
    """Everything about a server but the models.

    Attributes:
        host, port: Where it listens; port 0 takes any that is free.
        keys: Any one of them opens the API; none: whoever reaches the port may ask, on this machine only.
        open_paths: What needs no key: a path, or with a final "/" all below it.
        has_page: Whether the web page is there, at "/"; its files need no key, what it asks for does.
        max_queue, max_batch: Questions waiting for one model, and answered together.
        timeout_s: From a question to its whole answer. body_timeout_s: For a request to arrive.
        max_body_bytes: Of a request. max_pixels: Of an image. max_queued_pixels: Of all waiting images of a model.
        max_new_tokens: Of a reply, whatever is asked for. max_characters: Of all messages of a request.
        rate: Requests of one key, or of one address where there are no keys: e.g. "120/minute"; None: any number.
        grace_s: To finish what was begun, when the server is told to stop.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    keys: tuple[SecretStr, ...] = ()
    open_paths: tuple[str, ...] = ("/healthz", "/readyz")
    has_page: bool = True
    max_queue: int = Field(default=64, ge=1)
    max_batch: int = Field(default=8, ge=1)
    timeout_s: float = Field(default=60.0, gt=0)
    body_timeout_s: float = Field(default=30.0, gt=0)
    max_body_bytes: int = Field(default=16 * 2**20, ge=1024)
    max_pixels: int = Field(default=25_000_000, ge=1, le=MAX_PIXELS)
    max_queued_pixels: int = Field(default=200_000_000, ge=1)
    max_new_tokens: int = Field(default=768, ge=1)
    max_characters: int = Field(default=20_000, ge=1)
    rate: str | None = None
    grace_s: float = Field(default=20.0, ge=0)

    @field_validator("keys")
    @classmethod
    def _long_enough(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(key.get_secret_value()) < LEAST_KEY for key in keys):
            raise ValueError(f"an API key has fewer than {LEAST_KEY} characters; take e.g. `openssl rand -hex 32`")
        return keys

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if not self.is_local and not self.keys:
            raise ValueError(
                f"host {self.host!r} lets other machines ask, and no API key is set; put one into an environment "
                "variable and pass --api-key-env NAME (or --api-key-file FILE), or listen on 127.0.0.1"
            )
        return self

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    def is_open(self, path: str) -> bool:
        """Whether a path needs no key."""
        if self.has_page and (path == "/" or path.startswith("/page/")):
            return True
        return any(path == one or (one.endswith("/") and path.startswith(one)) for one in self.open_paths)

    @property
    def key_digests(self) -> tuple[bytes, ...]:
        """SHA-256 of each key: of equal length, so that comparing them tells nothing of the keys."""
        return tuple(hashlib.sha256(key.get_secret_value().encode()).digest() for key in self.keys)


def read_keys(variable: str | None, file: Path | None) -> tuple[SecretStr, ...]:
    """API keys of an environment variable (one, or several separated by commas) and of a file (one a line, # comments).

    Raises:
        ConfigError: The variable is not set, or the file cannot be read or holds no key.
    """
    found: list[str] = []
    if variable is not None:
        said = os.environ.get(variable, "")
        found += [key.strip() for key in said.split(",") if key.strip()]
        if not found:
            raise ConfigError(f"--api-key-env: environment variable {variable} is not set; put the key there")
    if file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--api-key-file {file}: cannot be read ({error}); expected one key a line") from error
        keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not keys:
            raise ConfigError(f"--api-key-file {file}: holds no key; expected one a line")
        found += keys
    return tuple(SecretStr(key) for key in dict.fromkeys(found))
