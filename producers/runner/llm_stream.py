"""Streamed answers that survive a break: the call is repeated under its key and the delivered part
is skipped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import httpx

REPLAY_BYTES_MAX: Final = 8 * 1024 * 1024
"""How much of a stream is kept to compare a repetition with; a longer one is not repeated."""
BREAKS_MAX: Final = 20


class _Delivered:
    """What the user's code has got so far, and how much of it a repetition still has to repeat."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.position = 0
        self.breaks = 0

    def fresh(self, chunk: bytes) -> bytes | None:
        """The part of the chunk that is new; None when a repetition differs from what was
        delivered.
        """
        repeated = min(len(self.bytes) - self.position, len(chunk))
        if self.bytes[self.position : self.position + repeated] != chunk[:repeated]:
            return None
        self.position += len(chunk)
        new = chunk[repeated:]
        self.bytes += new
        return new

    def may_repeat(self) -> bool:
        """Whether the stream can be taken up again after a break."""
        self.breaks += 1
        self.position = 0
        return self.breaks <= BREAKS_MAX and len(self.bytes) <= REPLAY_BYTES_MAX


class SyncReplayStream:
    """The body of a streamed response; combined with the byte stream class of httpx or httpx2."""

    def __init__(
        self,
        response: httpx.Response,
        again: Callable[[], httpx.Response],
        broken: type[Exception],
    ) -> None:
        self._stream = response.stream
        self._again = again
        self._broken = broken

    def __iter__(self) -> Iterator[bytes]:
        delivered = _Delivered()
        while True:
            try:
                for chunk in self._stream:  # type: ignore[union-attr]  # A sync client's stream is sync.
                    fresh = delivered.fresh(chunk)
                    if fresh is None:
                        raise ValueError("the repeated answer differs from the delivered beginning")
                    if fresh:
                        yield fresh
                return
            except self._broken:
                if not delivered.may_repeat():
                    raise
                self.close()
                response = self._again()
                if not response.is_success:
                    raise
                self._stream = response.stream

    def close(self) -> None:
        self._stream.close()  # type: ignore[union-attr]


class AsyncReplayStream:
    """`SyncReplayStream` for asyncio."""

    def __init__(
        self,
        response: httpx.Response,
        again: Callable[[], Awaitable[httpx.Response]],
        broken: type[Exception],
    ) -> None:
        self._stream = response.stream
        self._again = again
        self._broken = broken

    async def __aiter__(self) -> AsyncIterator[bytes]:
        delivered = _Delivered()
        while True:
            try:
                async for chunk in self._stream:  # type: ignore[union-attr]
                    fresh = delivered.fresh(chunk)
                    if fresh is None:
                        raise ValueError("the repeated answer differs from the delivered beginning")
                    if fresh:
                        yield fresh
                return
            except self._broken:
                if not delivered.may_repeat():
                    raise
                await self.aclose()
                response = await self._again()
                if not response.is_success:
                    raise
                self._stream = response.stream

    async def aclose(self) -> None:
        await self._stream.aclose()  # type: ignore[union-attr]
