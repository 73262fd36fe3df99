"""Which backend scans: the one that is asked for, POW_BACKEND's, or the fastest by a measurement made once.

No test here waits, or depends on how fast this machine is: rates are those of fakes, by a clock that they move.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from pow.errors import BackendError
from pow.scanning import backends as scanning
from pow.scanning import hashlib_backend
from pow.scanning.backends import Backend, Kernel, StopFlag, active_backend, measured_rates, scan, supported_backends

each_backend = pytest.mark.parametrize("backend", supported_backends())

GENESIS = b"1:GENESIS:"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the backends whose kernels were called, in order."""
    names: list[str] = []
    # Measured before, so that only scans are recorded.
    measured_rates()

    def recording(backend: Backend) -> Backend:
        def kernel(prefix: bytes, first: int, last: int, difficulty: int, stop_flag: StopFlag | None) -> int | None:
            names.append(backend.name)
            return backend.kernel(prefix, first, last, difficulty, stop_flag)

        spy: Kernel = kernel
        return backend._replace(kernel=spy)

    recorded: Mapping[str, Backend] = {name: recording(backend) for name, backend in scanning.all_backends().items()}
    monkeypatch.setattr(scanning, "all_backends", lambda: recorded)
    return names


class FakeNative:
    """An extension of backends that take a set time per nonce, on a clock that only they move."""

    def __init__(self, **seconds_per_nonce: float) -> None:
        self.seconds_per_nonce = seconds_per_nonce
        self.lanes = dict.fromkeys(seconds_per_nonce, 4)
        self.unsupported: set[str] = set()
        self.failing: set[str] = set()
        self.calls: list[str] = []
        self.nonces: dict[str, int] = {}
        # What each call takes longer than it should, in order; then nothing.
        self.disturbances: list[float] = []
        self._now = 0.0

    def perf_counter(self) -> float:
        return self._now

    def backends(self) -> list[tuple[str, bool, bool, int]]:
        return [(name, True, name not in self.unsupported, self.lanes[name]) for name in self._natives()]

    def self_test(self, which: int) -> bool:
        return self._natives()[which] not in self.failing

    def scan(self, which: int, *work: object) -> None:
        self._run(self._natives()[which], *work)

    def count_zero_bits(self, *_: object) -> list[int]:
        raise AssertionError("counting is no part of the choice")

    def hashlib_scan(self, *work: object) -> None:
        self._run("hashlib", *work)

    def _natives(self) -> list[str]:
        return [name for name in self.seconds_per_nonce if name != "hashlib"]

    def _run(self, name: str, prefix: object, first: object, last: object, *_: object) -> None:
        assert isinstance(first, int)
        assert isinstance(last, int)
        self.calls.append(name)
        self.nonces[name] = last + 1 - first
        self._now += (last + 1 - first) * self.seconds_per_nonce[name]
        self._now += self.disturbances.pop(0) if self.disturbances else 0.0


@pytest.fixture
def fake(fresh_backends: None, monkeypatch: pytest.MonkeyPatch) -> FakeNative:
    """An extension whose fastest backend stands in the middle of its table."""
    native = FakeNative(slow=1e-7, fast=1e-8, middling=5e-8, hashlib=1e-6)
    monkeypatch.delenv("POW_BACKEND", raising=False)
    monkeypatch.setattr(scanning, "_native", native)
    monkeypatch.setattr(hashlib_backend, "scan", native.hashlib_scan)
    monkeypatch.setattr(scanning, "time", SimpleNamespace(perf_counter=native.perf_counter))
    return native


# --- the choice


@each_backend
def test_the_backend_that_is_asked_for_is_the_one_that_runs(
    backend: str, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("", "auto", *supported_backends()):
        monkeypatch.setenv("POW_BACKEND", other)
        assert scan(GENESIS, 0, 1_000, 8, backend=backend) == 251
    assert set(ran) == {backend}


@each_backend
@pytest.mark.parametrize("asked", [None, "auto"])
def test_pow_backend_chooses_for_those_who_do_not(
    backend: str, asked: str | None, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POW_BACKEND", f" {backend} ")
    assert active_backend(asked).name == backend
    assert scan(GENESIS, 0, 1_000, 8, backend=asked) == 251
    assert ran == [backend]


@pytest.mark.parametrize("value", [None, "", "  ", "auto"], ids=repr)
def test_without_a_choice_the_backend_measured_fastest_runs(
    value: str | None, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is None:
        monkeypatch.delenv("POW_BACKEND", raising=False)
    else:
        monkeypatch.setenv("POW_BACKEND", value)
    rates = measured_rates()
    assert scan(GENESIS, 0, 1_000, 8) == 251
    assert ran == [max(rates, key=lambda name: rates[name])]


@pytest.mark.parametrize("name", ["avx9", "", "Hashlib", "portable "], ids=repr)
def test_an_unknown_backend_is_refused_with_the_valid_ones(name: str) -> None:
    valid = ", ".join(("auto", *supported_backends()))
    with pytest.raises(BackendError) as caught:
        scan(GENESIS, 0, 1, 0, backend=name)
    assert str(caught.value) == f"backend {name!r} is not known; valid here: {valid}"


@pytest.mark.parametrize("start", [0, 1], ids=["a-range", "an-empty-range"])
def test_an_unknown_pow_backend_is_refused_with_the_valid_ones(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POW_BACKEND", "avx9")
    valid = ", ".join(("auto", *supported_backends()))
    with pytest.raises(BackendError) as caught:
        scan(GENESIS, start, 1, 0)
    assert str(caught.value) == f"POW_BACKEND 'avx9' is not known; valid here: {valid}"


def native_with(*backends: tuple[str, bool, bool, int]) -> SimpleNamespace:
    """An extension with these backends, none of which may run: that could end the process, illegal instruction."""
    return SimpleNamespace(
        backends=lambda: list(backends), self_test=pytest.fail, scan=pytest.fail, count_zero_bits=pytest.fail
    )


@pytest.mark.parametrize(
    ("compiled", "why"),
    [
        (True, "is not supported on this machine"),
        (False, "is not part of this build, which is for another kind of processor"),
    ],
    ids=["compiled", "not-compiled"],
)
def test_a_backend_that_this_processor_lacks_is_listed_and_never_run(
    compiled: bool, why: str, fresh_backends: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "_native", native_with(("wide", compiled, False, 64)))
    assert set(scanning.all_backends()) == {"wide", "hashlib"}
    assert supported_backends() == ("hashlib",)
    with pytest.raises(BackendError) as caught:
        scan(GENESIS, 0, 1, 0, backend="wide")
    assert str(caught.value) == f"backend 'wide' {why}; valid here: auto, hashlib"


def test_a_native_backend_scans_and_counts_with_the_kernel_of_its_own_name(
    fresh_backends: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["first", "second", "third"]
    native = SimpleNamespace(
        backends=lambda: [(name, True, True, 4) for name in names],
        self_test=lambda _which: True,
        scan=lambda which, *_: ("scanned", names[which]),
        count_zero_bits=lambda which, *_: ("counted", names[which]),
    )
    monkeypatch.setattr(scanning, "_native", native)
    for name in names:
        backend: Any = scanning.all_backends()[name]
        assert backend.kernel(GENESIS, 0, 1, 0, None) == ("scanned", name)
        assert backend.counter(GENESIS, 0, 1) == ("counted", name)


def test_without_the_extension_hashlib_answers(fresh_backends: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POW_BACKEND", raising=False)
    monkeypatch.setattr(scanning, "_native", None)
    assert scanning.native_missing()
    assert supported_backends() == ("hashlib",)
    assert active_backend().name == "hashlib"
    assert scan(GENESIS, 0, 1_000, 8) == 251


# --- the measurement


def test_all_usable_backends_and_no_others_have_a_rate() -> None:
    usable = {name for name, backend in scanning.all_backends().items() if backend.usable}
    assert "hashlib" in usable
    assert set(measured_rates()) == set(supported_backends()) == usable
    assert all(rate > 0 for rate in measured_rates().values())


def test_the_usable_backends_are_in_the_order_of_their_rates() -> None:
    rates = measured_rates()
    assert list(rates.values()) == sorted(rates.values(), reverse=True)
    assert supported_backends() == tuple(rates)


def test_rates_are_nonces_per_second_on_the_clock(fake: FakeNative) -> None:
    expected = {"fast": 1e8, "middling": 2e7, "slow": 1e7, "hashlib": 1e6}
    assert scanning.measured_rates() == pytest.approx(expected)
    assert supported_backends() == ("fast", "middling", "slow", "hashlib")


def test_the_active_backend_is_the_fastest_wherever_it_stands_in_the_table(fake: FakeNative) -> None:
    assert active_backend().name == active_backend("auto").name == "fast"


def test_even_hashlib_is_active_where_it_is_the_fastest(fake: FakeNative) -> None:
    fake.seconds_per_nonce["hashlib"] = 1e-9
    assert active_backend().name == "hashlib"


def test_backends_are_measured_once(fake: FakeNative) -> None:
    scanning.measured_rates()
    measured = list(fake.calls)
    assert {name: measured.count(name) for name in measured} == dict.fromkeys(fake.seconds_per_nonce, 3)
    for _ in range(3):
        scanning.measured_rates()
        supported_backends()
        active_backend()
    assert fake.calls == measured


def test_who_names_a_backend_does_not_wait_for_a_measurement(fake: FakeNative, monkeypatch: pytest.MonkeyPatch) -> None:
    assert active_backend("slow").name == "slow"
    monkeypatch.setenv("POW_BACKEND", "middling")
    assert active_backend().name == "middling"
    assert fake.calls == []


def test_what_else_the_machine_does_in_between_changes_no_rate(fake: FakeNative) -> None:
    # Two of the three runs of each backend are disturbed.
    fake.disturbances = [5.0, 0.0, 7.0] * 4
    assert scanning.measured_rates() == pytest.approx({"fast": 1e8, "middling": 2e7, "slow": 1e7, "hashlib": 1e6})


def test_a_backend_of_more_lanes_is_measured_on_more_nonces(fake: FakeNative) -> None:
    fake.lanes["fast"] = 32
    scanning.measured_rates()
    assert fake.nonces["fast"] == 8 * fake.nonces["slow"]


def test_what_cannot_run_is_never_measured(fake: FakeNative) -> None:
    fake.unsupported.add("fast")
    assert supported_backends() == ("middling", "slow", "hashlib")
    assert "fast" not in fake.calls


def test_what_fails_its_self_test_is_never_measured(fake: FakeNative) -> None:
    fake.failing.add("fast")
    with pytest.warns(RuntimeWarning, match="^scan backend 'fast' gave a wrong known answer"):
        assert supported_backends() == ("middling", "slow", "hashlib")
    assert "fast" not in fake.calls
