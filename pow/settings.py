"""Settings from the environment, under the names that the Functions sample made known."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pow.errors import SettingsError
from pow.limits import DEFAULT_BLOCKS, MAX_DIFFICULTY, MAX_FAN_OUT, MAX_THREADS

# Where the server listens unless the command line says otherwise: the Functions host's own port.
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7071

SCHEDULER_SETTING = "DURABLE_TASK_SCHEDULER_CONNECTION_STRING"

# Keeps a finished chain, some 250 bytes a block, far below the 1 MB that the scheduler takes.
_MAX_BLOCKS_LIMIT = 1000
_MAX_BUDGET_SECONDS = 3600.0
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_GUID_OR_DOMAIN = re.compile(rf"{_GUID.pattern}|[0-9a-zA-Z-]{{1,63}}(\.[0-9a-zA-Z-]{{1,63}}){{1,8}}")
_HOST_NAME = re.compile(r"[0-9a-z_-]{1,63}(\.[0-9a-z_-]{1,63}){0,16}|\[[0-9a-f:.]{2,45}\]")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the host may tune. The environment's name for each is in `from_environment`."""

    wait_budget_seconds: float = 20.0
    mining_difficulty: int = 21
    max_difficulty: int = 40
    max_blocks: int = 64
    mining_threads: int | None = None
    mining_fan_out: int = 1
    allowed_hosts: tuple[str, ...] = ()
    taskhub_name: str = "default"
    scheduler_connection_string: str | None = None
    on_behalf_of_tenant_id: str | None = None
    on_behalf_of_client_id: str | None = None
    on_behalf_of_identity_client_id: str | None = None

    def waiting_at_most(self, seconds: float) -> "Settings":
        """The same settings, with a budget of so many seconds at most."""
        return replace(self, wait_budget_seconds=min(self.wait_budget_seconds, seconds))

    @property
    def default_blocks(self) -> int:
        """Blocks of a chain when the caller doesn't say."""
        return min(DEFAULT_BLOCKS, self.max_blocks)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read the settings; those that are absent or blank keep their defaults.

        Raises:
            SettingsError: a value isn't allowed; names the setting, the value and what is.
        """
        read = _Reader(environment)
        default = cls()
        max_difficulty = read.integer("MaxDifficulty", default.max_difficulty, 1, MAX_DIFFICULTY)
        read.check_all_or_none("OnBehalfOfTenantId", "OnBehalfOfClientId", "OnBehalfOfIdentityClientId")
        return cls(
            wait_budget_seconds=read.seconds("WaitBudgetSeconds", default.wait_budget_seconds),
            mining_difficulty=read.integer(
                "MiningDifficulty",
                min(default.mining_difficulty, max_difficulty),
                1,
                max_difficulty,
                "MaxDifficulty is the upper end",
            ),
            max_difficulty=max_difficulty,
            max_blocks=read.integer("MaxBlocks", default.max_blocks, 1, _MAX_BLOCKS_LIMIT),
            mining_threads=read.integer("MiningThreads", 0, 1, MAX_THREADS) or None,
            mining_fan_out=read.integer("MiningFanOut", default.mining_fan_out, 1, MAX_FAN_OUT),
            allowed_hosts=read.host_names("AllowedHosts"),
            taskhub_name=read.text("TASKHUB_NAME") or default.taskhub_name,
            scheduler_connection_string=read.text(SCHEDULER_SETTING) or None,
            on_behalf_of_tenant_id=read.matching("OnBehalfOfTenantId", _GUID_OR_DOMAIN, "a GUID or a domain"),
            on_behalf_of_client_id=read.matching("OnBehalfOfClientId", _GUID, "a GUID"),
            on_behalf_of_identity_client_id=read.matching("OnBehalfOfIdentityClientId", _GUID, "a GUID"),
        )


@dataclass(frozen=True, slots=True)
class _Reader:
    environment: Mapping[str, str]

    def text(self, name: str) -> str:
        return self.environment.get(name, "").strip()

    def integer(self, name: str, default: int, low: int, high: int, hint: str = "") -> int:
        text = self.text(name)
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
            allowed = f"an integer from {low} to {high}" + (f" ({hint})" if hint else "")
            raise SettingsError(f"setting {name} must be {allowed}, not {text!r}")
        return int(text)

    def seconds(self, name: str, default: float) -> float:
        text = self.text(name)
        if not text:
            return default
        value = float(text) if _DECIMAL.fullmatch(text) else -1.0
        if not 0 <= value <= _MAX_BUDGET_SECONDS:
            raise SettingsError(
                f"setting {name} must be a number of seconds from 0 to {_MAX_BUDGET_SECONDS:.0f}, not {text!r}"
            )
        return value

    def host_names(self, name: str) -> tuple[str, ...]:
        names = [part.strip().lower() for part in self.text(name).split(",") if part.strip()]
        for part in names:
            if not _HOST_NAME.fullmatch(part):
                raise SettingsError(
                    f"setting {name} must be names of hosts, comma-separated, such as pow.example.com, not {part!r}"
                )
        return tuple(names)

    def matching(self, name: str, pattern: re.Pattern[str], allowed: str) -> str | None:
        text = self.text(name)
        if text and not pattern.fullmatch(text):
            raise SettingsError(f"setting {name} must be {allowed}, not {text!r}")
        return text or None

    def check_all_or_none(self, *names: str) -> None:
        present = [name for name in names if self.text(name)]
        absent = [name for name in names if not self.text(name)]
        if present and absent:
            raise SettingsError(
                f"settings {', '.join(names)} must be set all or none, but {', '.join(absent)} "
                f"{'is' if len(absent) == 1 else 'are'} absent"
            )
