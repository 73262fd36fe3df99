"""Settings: their defaults, their names in the environment, and the sentence that a bad value gets."""

from dataclasses import replace

import pytest

from pow.errors import SettingsError
from pow.settings import Settings

NAMES = [
    "WaitBudgetSeconds",
    "MiningDifficulty",
    "MaxDifficulty",
    "MaxBlocks",
    "MiningThreads",
    "TASKHUB_NAME",
    "DURABLE_TASK_SCHEDULER_CONNECTION_STRING",
]


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.wait_budget_seconds == 20.0
    assert settings.mining_difficulty == 21
    assert settings.max_difficulty == 40
    assert settings.max_blocks == 64
    assert settings.mining_threads is None
    assert settings.taskhub_name == "default"
    assert settings.scheduler_connection_string is None
    assert settings.default_blocks == 4


@pytest.mark.parametrize("blank", ["", " ", "\t\n"], ids=repr)
def test_a_blank_setting_counts_as_absent(blank: str) -> None:
    assert Settings.from_environment(dict.fromkeys(NAMES, blank)) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("WaitBudgetSeconds", "0", replace(Settings(), wait_budget_seconds=0.0)),
        ("WaitBudgetSeconds", "2.5", replace(Settings(), wait_budget_seconds=2.5)),
        ("WaitBudgetSeconds", "3600", replace(Settings(), wait_budget_seconds=3600.0)),
        ("MiningDifficulty", "1", replace(Settings(), mining_difficulty=1)),
        ("MiningDifficulty", "40", replace(Settings(), mining_difficulty=40)),
        ("MaxDifficulty", "21", replace(Settings(), max_difficulty=21)),
        ("MaxDifficulty", "256", replace(Settings(), max_difficulty=256)),
        ("MaxBlocks", "1", replace(Settings(), max_blocks=1)),
        ("MaxBlocks", "1000", replace(Settings(), max_blocks=1000)),
        ("MiningThreads", "1", replace(Settings(), mining_threads=1)),
        ("MiningThreads", "1024", replace(Settings(), mining_threads=1024)),
        ("AllowedHosts", "Pow.example.com, [::1],", replace(Settings(), allowed_hosts=("pow.example.com", "[::1]"))),
        ("TASKHUB_NAME", "mine", replace(Settings(), taskhub_name="mine")),
        (
            "DURABLE_TASK_SCHEDULER_CONNECTION_STRING",
            "Endpoint=http://localhost:8080;Authentication=None",
            replace(Settings(), scheduler_connection_string="Endpoint=http://localhost:8080;Authentication=None"),
        ),
    ],
)
def test_each_setting_is_read_under_its_name(name: str, value: str, expected: Settings) -> None:
    assert Settings.from_environment({name: value}) == expected
    assert Settings.from_environment({name: f" {value}\n"}) == expected


def test_all_settings_are_read_together() -> None:
    values = ["1.5", "12", "30", "8", "2", "hub", "Endpoint=x"]
    assert Settings.from_environment(dict(zip(NAMES, values, strict=True))) == Settings(
        wait_budget_seconds=1.5,
        mining_difficulty=12,
        max_difficulty=30,
        max_blocks=8,
        mining_threads=2,
        taskhub_name="hub",
        scheduler_connection_string="Endpoint=x",
    )


def test_without_an_argument_the_process_s_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MaxBlocks", "7")
    assert Settings.from_environment() == replace(Settings(), max_blocks=7)


INTEGERS = [
    ("MiningDifficulty", "an integer from 1 to 40 (MaxDifficulty is the upper end)", "0", "41"),
    ("MaxDifficulty", "an integer from 1 to 256", "0", "257"),
    ("MaxBlocks", "an integer from 1 to 1000", "0", "1001"),
    ("MiningThreads", "an integer from 1 to 1024", "0", "1025"),
]
# "²" and the Arabic "٣" are digits to Python; the last one has more digits than int() takes.
NO_INTEGERS = ["-1", "+5", "2.0", "1e1", "0x10", "1_0", "five", "5 5", "²", "٣", "9" * 5000]


@pytest.mark.parametrize(
    ("name", "allowed", "value"),
    [(name, allowed, value) for name, allowed, low, high in INTEGERS for value in (low, high, *NO_INTEGERS)],
)
def test_a_bad_integer_is_refused_with_its_name_value_and_range(name: str, allowed: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({name: value})
    assert str(caught.value) == f"setting {name} must be {allowed}, not {value!r}"


@pytest.mark.parametrize("value", ["https://x", "*", "a/b", "x:8443", "::1", "a b"])
def test_a_bad_name_of_a_host_is_refused(value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"AllowedHosts": f"pow.example.com,{value}"})
    assert str(caught.value) == (
        f"setting AllowedHosts must be names of hosts, comma-separated, such as pow.example.com, not {value!r}"
    )


@pytest.mark.parametrize("value", ["-1", "-0.001", "3600.1", "1e9", "nan", "inf", "-inf", "soon", "20s", "1,5", "0x1"])
def test_a_bad_wait_budget_is_refused_with_its_name_value_and_range(value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"WaitBudgetSeconds": value})
    assert str(caught.value) == (f"setting WaitBudgetSeconds must be a number of seconds from 0 to 3600, not {value!r}")


def test_a_difficulty_above_the_maximum_is_refused() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"MiningDifficulty": "25", "MaxDifficulty": "24"})
    assert str(caught.value) == (
        "setting MiningDifficulty must be an integer from 1 to 24 (MaxDifficulty is the upper end), not '25'"
    )
    settings = Settings.from_environment({"MiningDifficulty": "24", "MaxDifficulty": "24"})
    assert (settings.mining_difficulty, settings.max_difficulty) == (24, 24)


@pytest.mark.parametrize(("maximum", "default"), [("1", 1), ("20", 20), ("21", 21), ("22", 21)])
def test_the_default_difficulty_is_lowered_to_a_smaller_maximum(maximum: str, default: int) -> None:
    assert Settings.from_environment({"MaxDifficulty": maximum}).mining_difficulty == default


@pytest.mark.parametrize(("maximum", "default"), [("1", 1), ("3", 3), ("4", 4), ("5", 4)])
def test_the_default_number_of_blocks_is_lowered_to_a_smaller_maximum(maximum: str, default: int) -> None:
    assert Settings.from_environment({"MaxBlocks": maximum}).default_blocks == default


TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "aaaaaaaa-BBBB-cccc-DDDD-eeeeeeeeeeee"
IDENTITY = "01234567-89ab-cdef-0123-456789abcdef"
ON_BEHALF_OF = {
    "OnBehalfOfTenantId": TENANT,
    "OnBehalfOfClientId": CLIENT,
    "OnBehalfOfIdentityClientId": IDENTITY,
}


@pytest.mark.parametrize("tenant", [TENANT, "contoso.onmicrosoft.com", "contoso.com"])
def test_the_on_behalf_of_settings_are_read_together(tenant: str) -> None:
    assert Settings.from_environment({**ON_BEHALF_OF, "OnBehalfOfTenantId": f" {tenant}\n"}) == replace(
        Settings(),
        on_behalf_of_tenant_id=tenant,
        on_behalf_of_client_id=CLIENT,
        on_behalf_of_identity_client_id=IDENTITY,
    )
    assert Settings.from_environment(dict.fromkeys(ON_BEHALF_OF, " ")) == Settings()


@pytest.mark.parametrize(
    ("present", "absent"),
    [
        (["OnBehalfOfTenantId"], "OnBehalfOfClientId, OnBehalfOfIdentityClientId are absent"),
        (["OnBehalfOfTenantId", "OnBehalfOfClientId"], "OnBehalfOfIdentityClientId is absent"),
        (["OnBehalfOfClientId", "OnBehalfOfIdentityClientId"], "OnBehalfOfTenantId is absent"),
    ],
    ids=str,
)
def test_the_on_behalf_of_settings_are_refused_when_some_are_absent(present: list[str], absent: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({name: ON_BEHALF_OF[name] for name in present})
    assert str(caught.value) == (
        "settings OnBehalfOfTenantId, OnBehalfOfClientId, OnBehalfOfIdentityClientId must be set all or none, "
        f"but {absent}"
    )


@pytest.mark.parametrize(
    ("name", "allowed", "value"),
    [
        ("OnBehalfOfTenantId", "a GUID or a domain", "common"),
        ("OnBehalfOfTenantId", "a GUID or a domain", "contoso.com/x"),
        ("OnBehalfOfTenantId", "a GUID or a domain", "contoso."),
        ("OnBehalfOfClientId", "a GUID", "contoso.com"),
        ("OnBehalfOfClientId", "a GUID", CLIENT.replace("-", "")),
        ("OnBehalfOfClientId", "a GUID", f"{{{CLIENT}}}"),
        ("OnBehalfOfIdentityClientId", "a GUID", f"{IDENTITY}0"),
    ],
)
def test_a_bad_on_behalf_of_setting_is_refused_with_its_name_and_value(name: str, allowed: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({**ON_BEHALF_OF, name: value})
    assert str(caught.value) == f"setting {name} must be {allowed}, not {value!r}"
