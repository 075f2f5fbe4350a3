"""The options that name a model server, as `gastrovl data caption` and `gastrovl judge` take them, to its endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gastrovl.core.endpoint import EndpointOptions


def endpoint_options(
    url: str,
    model: str,
    *,
    tries: int,
    timeout_s: float,
    most_tokens: int,
    seed: int,
    allows_remote: bool,
    key_env: str | None,
) -> EndpointOptions:
    """How the server is asked, with the key from the environment.

    Raises:
        ConfigError: The variable is not set, or images must not go to that address.
    """
    from gastrovl.core.endpoint import EndpointOptions, key_of

    return EndpointOptions(
        url=url,
        model=model,
        attempts=tries,
        timeout_s=timeout_s,
        most_tokens=most_tokens,
        seed=seed,
        allows_remote=allows_remote,
        api_key=key_of(key_env, "--api-key-env"),
    )
