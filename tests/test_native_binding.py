"""The compiled extension: its self-tests and what a failed one leads to, the GIL, the buffers that it borrows."""

import platform
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from pow.errors import BackendError
from pow.scanning import backends as scanning
from pow.scanning.backends import active_backend, scan, supported_backends

native = pytest.importorskip("pow._native")

NAMES = [name for name, *_ in native.backends()]
each_native = pytest.mark.parametrize("backend", [name for name in supported_backends() if name != "hashlib"])


@pytest.fixture
def patient_interpreter() -> Iterator[None]:
    """A thread that has the GIL keeps it until it gives it away of its own accord."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(3600)
    yield
    sys.setswitchinterval(usual)


def test_the_extension_offers_the_portable_kernel_first_and_everywhere() -> None:
    name, compiled, supported, lanes = native.backends()[0]
    assert (name, compiled, supported) == ("portable", True, True)
    # One where the compiler has no vectors.
    assert lanes in (1, 4)
    assert len(set(NAMES)) == len(NAMES)
    assert "hashlib" not in NAMES


def test_kernels_for_other_processors_stay_listed_though_this_build_has_them_not() -> None:
    compiled = {name for name, compiled, *_ in native.backends() if compiled}
    kinds = [{"armv8"}, {"avx2", "shani", "avx512", "shani_avx512"}]
    assert set(NAMES) == {"portable"}.union(*kinds)
    # No build is for two kinds of processor.
    assert any(not kind & compiled for kind in kinds)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="of builds for x86-64 only")
def test_a_build_for_x86_64_has_no_kernel_for_arm() -> None:
    listed = {name: tuple(rest) for name, *rest in native.backends()}
    assert listed["armv8"] == (False, False, 0)
    assert listed["avx2"][0] is True
    armv8 = scanning.all_backends()["armv8"]
    assert (armv8.compiled, armv8.supported, armv8.self_test, armv8.usable) == (False, False, False, False)


def test_what_is_not_compiled_is_not_supported_and_has_no_lanes() -> None:
    for name, compiled, supported, lanes in native.backends():
        assert (name, compiled) == (name, lanes > 0)
        assert (name, compiled or not supported) == (name, True)


def test_every_native_backend_is_known_with_its_lanes_beside_hashlib() -> None:
    backends = scanning.all_backends()
    assert set(backends) == {*NAMES, "hashlib"}
    assert {name: backends[name].lanes for name in NAMES} == {name: lanes for name, _, _, lanes in native.backends()}
    assert backends["hashlib"].lanes == 1


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
        count_zero_bits=native.count_zero_bits,
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
@pytest.mark.usefixtures("patient_interpreter")
def test_other_threads_run_while_digests_are_counted(backend: str) -> None:
    counting_starts, noticed = threading.Event(), threading.Event()

    def notice() -> None:
        counting_starts.wait()
        noticed.set()

    helper = threading.Thread(target=notice)
    helper.start()
    counting_starts.set()
    # Long enough for any system to let the helper run meanwhile.
    native.count_zero_bits(NAMES.index(backend), b"1:GENESIS:", 0, 5 * 10**6)
    noticed_during_the_count = noticed.is_set()
    helper.join()
    assert noticed_during_the_count


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
        with pytest.raises(OverflowError):
            native.count_zero_bits(0, b"1:GENESIS:", first, last)


@pytest.mark.parametrize("prefix", ["1:GENESIS:", bytearray(b"1:GENESIS:"), None], ids=["text", "bytearray", "none"])
def test_the_binding_takes_only_bytes_for_a_prefix(prefix: object) -> None:
    with pytest.raises(TypeError):
        native.scan(0, prefix, 0, 1, 0, None)
    with pytest.raises(TypeError):
        native.count_zero_bits(0, prefix, 0, 1)
