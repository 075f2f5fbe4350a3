"""Conversations to the replies of a model behind an OpenAI-compatible server, several at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gastrovl.core.endpoint import ChatEndpoint, EndpointOptions, Pace, UnusableReplyError, image_part, text_part
from gastrovl.core.errors import ConfigError
from gastrovl.core.types import Conversation, Prediction, Usage
from gastrovl.inference.others.description import Asked, ModelDescription, ask_in_form, counts_pixels, open_shown


class Served:
    """Asks a server one conversation at a time; an `Answerer`, to be called by `workers` threads.

    Args:
        labels: Names for {labels} of its prompts.

    Raises:
        ConfigError: The address may not be sent images to, or the key's variable is not set.
    """

    def __init__(self, description: ModelDescription, labels: Sequence[str]) -> None:
        server = description.server
        if server is None:
            raise ConfigError(f"{description.name}: has no server; expected kind openai with `server`")
        self._description, self._labels, self._options = description, labels, _options(description)
        self._pace = Pace(server.requests_per_minute)
        self.name, self.workers = description.name, server.workers
        self.batch_size: int | None = 1
        self.fingerprint = description.fingerprint(labels)
        self.settings: dict[str, Any] | None = description.model_dump(mode="json", exclude_defaults=True)
        self.currency = description.prices.currency if description.prices else None

    def answers(self, batch: Sequence[Conversation], folder: Path) -> Iterator[Prediction]:
        """The server's reply to each conversation, or a prediction that says why there is none.

        Raises:
            EndpointError: Nobody listens, no such model or address, or the key is wrong.
            ImageError: An image is broken.
        """
        description = self._description
        endpoint = ChatEndpoint(replace(self._options, most_tokens=description.room(batch[0].task)), self._pace)
        for conversation in batch:
            image = open_shown(folder / conversation.image.path, description)
            asked = ask_in_form(conversation, image.size, description, self._labels)
            begin = time.monotonic()
            try:
                reply = endpoint.chat(messages(asked, description.system, image_part(image)))
            except UnusableReplyError as error:
                yield self._failed(conversation, asked, str(error), time.monotonic() - begin)
                continue
            yield Prediction(
                conversation_id=conversation.id,
                text=reply.text,
                model=self.name,
                seconds=reply.seconds,
                stop_reason="length" if reply.is_cut else "end",
                usage=description.usage(reply.attempts, reply.prompt_tokens, reply.completion_tokens),
                form=description.form,
                image_wh=asked.image_wh if counts_pixels(description.form) else None,
            )

    def _failed(self, conversation: Conversation, asked: Asked, why: str, seconds: float) -> Prediction:
        """An empty reply, which counts as unread and can be asked for again."""
        form = self._description.form
        return Prediction(
            conversation_id=conversation.id,
            text="",
            model=self.name,
            seconds=seconds,
            stop_reason="failed",
            usage=Usage(attempts=self._options.attempts),
            failure=why,
            form=form,
            image_wh=asked.image_wh if counts_pixels(form) else None,
        )


def messages(asked: Asked, system: str | None, image: Any) -> list[dict[str, Any]]:
    """A conversation in OpenAI's form; `image` is the part that stands before its first words."""
    found: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for number, (role, text) in enumerate(asked.turns):
        found.append({"role": role, "content": [image, text_part(text)] if number == 0 else text})
    return found


def _options(description: ModelDescription) -> EndpointOptions:
    server = description.server
    assert server is not None
    return EndpointOptions(
        url=server.url,
        model=server.model,
        attempts=server.attempts,
        timeout_s=server.timeout_s,
        seed=description.seed,
        allows_remote=server.allow_remote,
        api_key=server.key(),
    )
