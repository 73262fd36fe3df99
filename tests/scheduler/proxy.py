"""A TCP proxy between an engine and its scheduler, which tests cut and stall as networks do."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Proxy:
    """Passes everything on to a port of loopback while it is open. A context manager; it starts open.

    - `cut`: all connections are closed, and new ones refused.
    - `stall`: connections stay, and new ones are taken, but nothing passes.
    - `open`: everything passes again, after a stall also what was sent meanwhile.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._passes = threading.Event()
        self._listener: socket.socket | None = None
        self.port = 0
        self.open()

    def open(self) -> None:
        """Let everything pass."""
        self._passes.set()
        if self._listener is None:
            # On the same port as before: its old connections are in TIME_WAIT.
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self.port = self._listener.getsockname()[1]
            self._start(self._accept, self._listener)

    def stall(self) -> None:
        """Let nothing pass, without a sign of it."""
        self._passes.clear()

    def cut(self) -> None:
        """Close and refuse connections."""
        listener, self._listener = self._listener, None
        if listener is not None:
            _close(listener)
        with self._lock:
            connections, self._connections = self._connections, []
        for connection in connections:
            _close(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.cut()
        self._passes.set()
        for thread in self._threads:
            thread.join()

    def _start(self, target: object, *sockets: socket.socket) -> None:
        thread = threading.Thread(target=target, args=sockets, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._connections += [near, far]
            self._start(self._pass_on, near, far)
            self._start(self._pass_on, far, near)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while received := source.recv(65536):
                self._passes.wait()
                target.sendall(received)
        _close(source)
        _close(target)


def _close(connection: socket.socket) -> None:
    # Closing alone doesn't wake a thread that waits for it.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
