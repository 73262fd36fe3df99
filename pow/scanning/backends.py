"""Find the first nonce of a range that meets a difficulty: the choice of a backend, and `scan`.

The native kernels where the extension is built, hashlib otherwise; the same signature and the same
answers. This is the one module that imports `pow._native`.
"""

import functools
import os
import time
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import NamedTuple

from pow.errors import BackendError, InvalidArgument
from pow.limits import NONCE_STOP, check_difficulty
from pow.scanning import hashlib_backend

_native: ModuleType | None
try:
    from pow import _native
except ImportError:
    _native = None

AUTO = "auto"
HASHLIB = "hashlib"
MAX_PREFIX_BYTES = 4096

StopFlag = bytearray | memoryview
"""A buffer whose first byte another thread makes nonzero to end a scan."""

Kernel = Callable[[bytes, int, int, int, StopFlag | None], int | None]
"""(prefix, first, last, difficulty, stop_flag) -> the smallest hit in [first, last], or None."""


Counter = Callable[[bytes, int, int], list[int]]
"""(prefix, first, last) -> how many digests of [first, last] have 0, 1, … 256 leading zero bits."""

# The work by which backends are compared: a batch or two of 10-digit nonces behind a block's prefix. The best
# of a few runs is taken, since whatever else the machine does only ever slows one down.
_TRIAL_PREFIX = b"12:" + b"0123456789ABCDEF" * 4 + b":"
_TRIAL_START = 10**9
_TRIAL_NONCES_PER_LANE = 200
_TRIALS = 3
_IMPOSSIBLE = 256


class Backend(NamedTuple):
    """One way to scan: what it is called, whether it can run here, and whether it proved itself.

    `lanes` is how many nonces it hashes side by side; 0 where this build doesn't have it.
    """

    name: str
    compiled: bool
    supported: bool
    self_test: bool
    lanes: int
    kernel: Kernel
    counter: Counter

    @property
    def usable(self) -> bool:
        """Whether `scan` may use it."""
        return self.supported and self.self_test

    @property
    def releases_gil(self) -> bool:
        """Whether threads that scan with it run side by side."""
        return self.name != HASHLIB


@functools.cache
def all_backends() -> Mapping[str, Backend]:
    """Every backend that pow-mcp has, by name; each native one that this machine supports has run its self-test."""
    backends = {
        HASHLIB: Backend(
            HASHLIB,
            compiled=True,
            supported=True,
            self_test=True,
            lanes=1,
            kernel=hashlib_backend.scan,
            counter=hashlib_backend.count_zero_bits,
        )
    }
    if _native is not None:
        for which, (name, compiled, supported, lanes) in enumerate(_native.backends()):
            passed = supported and _native.self_test(which)
            if supported and not passed:
                warnings.warn(
                    f"scan backend {name!r} gave a wrong known answer on this machine and is disabled",
                    RuntimeWarning,
                    stacklevel=2,
                )
            backends[name] = Backend(
                name,
                compiled,
                supported,
                passed,
                lanes,
                functools.partial(_native.scan, which),
                functools.partial(_native.count_zero_bits, which),
            )
    return backends


@functools.cache
def measured_rates() -> Mapping[str, float]:
    """Nonces a second of each usable backend on one thread, the fastest first; a millisecond or two, once.

    Measured rather than listed, since the order isn't the same on all processors. It is a short look, good
    for choosing: `pow-mcp calibrate` measures for longer.
    """
    rates = {backend.name: _measure(backend) for backend in all_backends().values() if backend.usable}
    return dict(sorted(rates.items(), key=lambda item: item[1], reverse=True))


def _measure(backend: Backend) -> float:
    nonces = backend.lanes * _TRIAL_NONCES_PER_LANE
    best = float("inf")
    for _ in range(_TRIALS):
        began = time.perf_counter()
        backend.kernel(_TRIAL_PREFIX, _TRIAL_START, _TRIAL_START + nonces - 1, _IMPOSSIBLE, None)
        best = min(best, time.perf_counter() - began)
    return nonces / best


def supported_backends() -> tuple[str, ...]:
    """The names of the backends that this machine can use, the fastest first."""
    return tuple(measured_rates())


def active_backend(name: str | None = None) -> Backend:
    """The backend of that name; for None or "auto", the one of POW_BACKEND, else the fastest.

    Raises:
        BackendError: the name is unknown, or its backend can't be used here.
    """
    source = "backend"
    if name is None or name == AUTO:
        source, name = "POW_BACKEND", os.environ.get("POW_BACKEND", "").strip() or AUTO
    if name == AUTO:
        return all_backends()[supported_backends()[0]]
    backend = all_backends().get(name)
    if backend is None or not backend.usable:
        valid = ", ".join((AUTO, *supported_backends()))
        raise BackendError(f"{source} {name!r} {_why_not(backend)}; valid here: {valid}")
    return backend


def _why_not(backend: Backend | None) -> str:
    if backend is None:
        return "is not known"
    if not backend.compiled:
        return "is not part of this build, which is for another kind of processor"
    return "failed its self-test" if backend.supported else "is not supported on this machine"


def check_prefix(prefix: bytes) -> None:
    """Let bytes of a length that can be scanned pass.

    Raises:
        InvalidArgument: the prefix is something else, or too long.
    """
    if not isinstance(prefix, bytes) or len(prefix) > MAX_PREFIX_BYTES:
        got = f"{len(prefix)} bytes" if isinstance(prefix, bytes) else type(prefix).__name__
        raise InvalidArgument(f"prefix must be bytes, at most {MAX_PREFIX_BYTES} of them, not {got}")


def check_range(start: int, stop: int) -> None:
    """Let [start, stop) pass if it is a range of 64-bit nonces.

    Raises:
        InvalidArgument: it isn't.
    """
    for name, value in (("start", start), ("stop", stop)):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= NONCE_STOP:
            raise InvalidArgument(f"{name} must be an integer from 0 to 2**64, not {value!r}")
    if start > stop:
        raise InvalidArgument(f"start must not be past stop, but {start} > {stop}")


def native_missing() -> bool:
    """Whether this installation has no native kernels at all."""
    return _native is None


def scan(
    prefix: bytes,
    start: int,
    stop: int,
    difficulty: int,
    *,
    backend: str | None = None,
    stop_flag: StopFlag | None = None,
) -> int | None:
    """Find the smallest nonce n with start <= n < stop whose digest meets the difficulty.

    The digest is SHA-256(prefix + decimal n), n without padding. Native backends release the GIL.

    Args:
        prefix: 0 to 4096 bytes, hashed before the nonce.
        start: first nonce, 0 to 2**64.
        stop: one past the last nonce, start to 2**64.
        difficulty: leading zero bits that the digest must have at least, 0 to 256.
        backend: a name out of `supported_backends()`; None or "auto" for POW_BACKEND, else the fastest.
        stop_flag: a buffer whose first byte another thread makes nonzero to end the scan, which then
            returns None within a millisecond or so.

    Returns:
        The nonce, or None when the range holds none or the scan was stopped.

    Raises:
        InvalidArgument: an argument is out of range or of the wrong kind.
        BackendError: the backend is unknown or can't be used here.
    """
    check_prefix(prefix)
    check_range(start, stop)
    check_difficulty(difficulty)
    if stop_flag is not None:
        stop_flag = _checked_flag(stop_flag)
    kernel = active_backend(backend).kernel
    if start == stop:
        return None
    return kernel(prefix, start, stop - 1, difficulty, stop_flag)


def _checked_flag(stop_flag: StopFlag) -> memoryview:
    try:
        flag = memoryview(stop_flag)
    except TypeError:
        raise InvalidArgument(f"stop_flag must be a buffer such as bytearray(1), not {stop_flag!r}") from None
    if flag.nbytes < 1:
        raise InvalidArgument("stop_flag must be a buffer of at least one byte, not an empty one")
    if not flag.contiguous:
        raise InvalidArgument("stop_flag must be a contiguous buffer, not one with gaps")
    return flag
