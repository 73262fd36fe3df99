"""How values are shown to people and read from callers: durations, chances, brief quotations, integers and flags."""

import re

from pow.errors import InvalidArgument

MINUTE, HOUR, DAY, YEAR = 60.0, 3600.0, 86400.0, 365.25 * 86400.0
_UNITS = (
    ("ns", 1e-9),
    ("µs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("min", MINUTE),
    ("h", HOUR),
    ("days", DAY),
    ("years", YEAR),
)

# Whole for a hash in quotes.
_LONGEST_QUOTATION = 80


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best, with three digits: "412 ms", "1.50 min", "2,280 years"."""
    name, size = _UNITS[0]
    for larger, its_size in _UNITS[1:]:
        # Two days, but 24 hours.
        if seconds >= its_size * (2 if its_size >= DAY else 0.9995):
            name, size = larger, its_size
    value = seconds / size
    if value >= 1e6 or 0 < value < 0.01:
        return f"{value:.1e} {name}"
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{decimals}f} {name}"


def percentage(chance: float) -> str:
    """A chance in percent with one decimal; never 0 or 100 for what is possible and not certain."""
    if chance < 0.0005:
        return "< 0.1 %"
    if chance >= 0.9995:
        return "> 99.9 %"
    return f"{100 * chance:.1f} %"


def quote(value: object) -> str:
    """A value as error messages quote it: escaped, since it may come from strangers and go to terminals, and brief."""
    text = ascii(value)
    return text if len(text) <= _LONGEST_QUOTATION else f"{text[:_LONGEST_QUOTATION]}…"


_DECIMAL = re.compile(r"\s*[0-9]{1,20}\s*")


def integer(name: str, value: object, high: int) -> int:
    """An integer from 1 to `high`; agents send them as strings and as 21.0 too.

    Raises:
        InvalidArgument: it is none; says what was given and what is allowed.
    """
    number = value
    if isinstance(value, str):
        number = int(value) if _DECIMAL.fullmatch(value) else None
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= high:
        raise InvalidArgument(f"{name} must be an integer from 1 to {high}, not {quote(value)}")
    return number


def flag(name: str, value: object) -> bool:
    """A truth value, false for None; agents send them as strings too.

    Raises:
        InvalidArgument: it is neither true nor false.
    """
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidArgument(f"{name} must be true or false, not {quote(value)}")
