"""Why a request gets no answer, as an exception that knows its HTTP status and OpenAI's error form."""

from __future__ import annotations

from typing import Any

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    408: "timeout_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class RefusedError(Exception):
    """A request that gets no answer.

    Attributes:
        status: Of HTTP, 400-599.
        code: What happened, in one snake_case word for programs.
        message: The same for people; never with a path, a traceback, or what an image holds.
        param: The field of the request it is about.
        retry_after_s: When it is worth another try; None where that would end alike.
    """

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.param, self.retry_after_s = param, retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        """The error as OpenAI's clients expect it."""
        kind = _KINDS.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        found = {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}
        return found | ({"www-authenticate": "Bearer"} if self.status == 401 else {})


def queue_full() -> RefusedError:
    return RefusedError(429, "queue_full", "too many questions are waiting; ask again in a moment", retry_after_s=1)


def closing() -> RefusedError:
    return RefusedError(503, "shutting_down", "the server is shutting down; ask again later", retry_after_s=10)


def timed_out(seconds: float) -> RefusedError:
    return RefusedError(
        504, "timeout", f"no answer within {seconds:g} s (waiting and computing); ask for fewer tokens, or again later"
    )


def broken() -> RefusedError:
    return RefusedError(500, "internal_error", "the server failed at this question; its log says where, by request id")
