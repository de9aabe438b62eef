"""Faults to order for the test hub: each answers one request for a file (or a listing) in its own bad way."""

from __future__ import annotations

from typing import Any

from hub_server import Fault


def status(code: int, message: str = "", **headers: str) -> Fault:
    """Answer with a status, and headers given as Retry_After="1"."""

    def fault(handler: Any, data: bytes) -> bool:
        handler.answer(message.encode(), code, {name.replace("_", "-"): value for name, value in headers.items()})
        return True

    return fault


def cut(share: float = 0.5) -> Fault:
    """Promise everything, send a share, close the connection."""

    def fault(handler: Any, data: bytes) -> bool:
        handler.send_file(data, stop_after=int(len(data) * share))
        handler.hang_up()
        return True

    return fault


def corrupt(handler: Any, data: bytes) -> bool:
    """The right length, another content."""
    handler.send_file(bytes(255 - byte for byte in data))
    return True


def hang(handler: Any, data: bytes) -> bool:
    """Take the request and say nothing more."""
    handler.server.hub.closing.wait(60)
    handler.hang_up()
    return True


def stall(share: float = 0.5) -> Fault:
    """Send a share, then nothing more."""

    def fault(handler: Any, data: bytes) -> bool:
        handler.send_file(data, stop_after=int(len(data) * share))
        return hang(handler, data)

    return fault


def longer(handler: Any, data: bytes) -> bool:
    """More bytes than the listing says."""
    handler.answer(data + b"and more", 200)
    return True


def redirect(target: str) -> Fault:
    return status(302, Location=target)


def circle(handler: Any, data: bytes) -> bool:
    """A redirect to the same address."""
    return redirect(handler.path)(handler, data)
