"""The compiled extension: its self-tests and what a failed one leads to, the GIL, the buffers that it borrows."""

import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from pow import scanning
from pow.errors import BackendError
from pow.scanning import active_backend, scan, supported_backends

native = pytest.importorskip("pow._native")

NAMES = [name for name, _ in native.backends()]
each_native = pytest.mark.parametrize("backend", [name for name in supported_backends() if name != "hashlib"])


@pytest.fixture
def patient_interpreter() -> Iterator[None]:
    """A thread that has the GIL keeps it until it gives it away of its own accord."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(3600)
    yield
    sys.setswitchinterval(usual)


def test_the_extension_offers_the_portable_kernel_first_and_everywhere() -> None:
    assert native.backends()[0] == ("portable", True)
    assert len(set(NAMES)) == len(NAMES)
    assert "hashlib" not in NAMES


def test_backends_are_preferred_in_the_reverse_of_the_extension_s_order() -> None:
    assert list(scanning.all_backends()) == [*reversed(NAMES), "hashlib"]


@each_native
def test_every_backend_knows_its_known_answers(backend: str) -> None:
    assert native.self_test(NAMES.index(backend)) is True
    assert scanning.all_backends()[backend].usable


@each_native
def test_a_backend_that_fails_its_self_test_is_disabled_with_a_warning(
    backend: str, fresh_backends: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POW_BACKEND", raising=False)
    liar = SimpleNamespace(
        backends=native.backends,
        self_test=lambda which: NAMES[which] != backend and native.self_test(which),
        scan=native.scan,
    )
    monkeypatch.setattr(scanning, "_native", liar)
    with pytest.warns(RuntimeWarning) as warned:
        usable = supported_backends()
    message = f"scan backend '{backend}' gave a wrong known answer on this machine and is disabled"
    assert [str(warning.message) for warning in warned] == [message]
    assert backend not in usable
    assert "hashlib" in usable
    assert active_backend().name != backend
    assert scanning.all_backends()[backend].supported
    with pytest.raises(BackendError, match=f"^backend '{backend}' failed its self-test; valid here: auto"):
        scan(b"1:GENESIS:", 0, 1, 0, backend=backend)
    assert scan(b"1:GENESIS:", 0, 1_000, 8) == 251


@each_native
@pytest.mark.usefixtures("patient_interpreter")
def test_other_threads_run_during_a_scan(backend: str) -> None:
    stop_flag = bytearray(1)
    scanning_starts = threading.Event()

    def stop_the_scan() -> None:
        scanning_starts.wait()
        stop_flag[0] = 1

    helper = threading.Thread(target=stop_the_scan)
    helper.start()
    scanning_starts.set()
    # From here on the helper gets the GIL only if the scan gives it away. The range has an end so that
    # a scan that doesn't makes a failure, not a hang that no guard could break.
    found = scan(b"1:GENESIS:", 0, 3 * 10**8, 256, backend=backend, stop_flag=stop_flag)
    stopped_during_the_scan = stop_flag[0]
    helper.join()
    assert found is None
    assert stopped_during_the_scan


@each_native
def test_a_stop_flag_is_given_back_after_the_scan(backend: str) -> None:
    for difficulty, found in ((8, 251), (256, None)):
        stop_flag = bytearray(1)
        assert scan(b"1:GENESIS:", 0, 1_000, difficulty, backend=backend, stop_flag=stop_flag) == found
        # A bytearray that somebody still borrows can't grow.
        stop_flag.append(0)


@each_native
def test_a_stop_flag_cannot_be_freed_under_a_running_scan(backend: str) -> None:
    stop_flag = bytearray(1)
    scanning_starts = threading.Event()
    results: list[int | None] = []

    def search() -> None:
        scanning_starts.set()
        results.append(scan(b"1:GENESIS:", 0, 2**64, 256, backend=backend, stop_flag=stop_flag))

    thread = threading.Thread(target=search, daemon=True)
    usual = sys.getswitchinterval()
    # The scanning thread keeps the GIL from its signal until it is inside the kernel.
    sys.setswitchinterval(3600)
    try:
        thread.start()
        scanning_starts.wait()
    finally:
        sys.setswitchinterval(usual)
    with pytest.raises(BufferError):
        stop_flag.append(0)
    stop_flag[0] = 1
    thread.join()
    assert results == [None]


@pytest.mark.parametrize("nonce", [-1, 2**64])
def test_nonces_beyond_64_bits_do_not_wrap_around(nonce: int) -> None:
    for first, last in ((nonce, 2**64 - 1), (0, nonce)):
        with pytest.raises(OverflowError):
            native.scan(0, b"1:GENESIS:", first, last, 0, None)


@pytest.mark.parametrize("prefix", ["1:GENESIS:", bytearray(b"1:GENESIS:"), None], ids=["text", "bytearray", "none"])
def test_the_binding_takes_only_bytes_for_a_prefix(prefix: object) -> None:
    with pytest.raises(TypeError):
        native.scan(0, prefix, 0, 1, 0, None)
