"""The scan backends as `pow-mcp backends` shows them: a table for people, and JSON."""

from collections.abc import Iterable, Sequence
from typing import Any

from pow.scanning.backends import active_backend, all_backends, measured_rates

# The table's columns: heading, alignment, and width.
_COLUMNS = {
    "backend": "<12",
    "compiled": "<8",
    "supported": "<9",
    "self-test": "<9",
    "million hashes/s": ">16",
    "active": "",
}


def as_rows() -> list[dict[str, Any]]:
    """Every backend, the fastest first, then those that can't be used here; one object of the JSON each.

    `rate` is in nonces a second on one thread, None where the backend can't be used.

    Raises:
        BackendError: POW_BACKEND names a backend that is unknown or can't be used here.
    """
    active = active_backend().name
    rates = measured_rates()
    backends = all_backends()
    return [
        {
            "name": name,
            "compiled": backends[name].compiled,
            "supported": backends[name].supported,
            "self_test": backends[name].self_test,
            "rate": rates.get(name),
            "active": name == active,
        }
        for name in (*rates, *(name for name in backends if name not in rates))
    ]


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """The same as a table; the active backend's line ends with a star."""
    return "\n".join(_line(cells) for cells in (_COLUMNS, *(_cells(row) for row in rows)))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        "yes" if row["compiled"] else "no",
        "yes" if row["supported"] else "no",
        "-" if not row["supported"] else "passed" if row["self_test"] else "FAILED",
        "-" if row["rate"] is None else f"{row['rate'] / 1e6:,.1f}",
        "*" if row["active"] else "",
    )


def _line(cells: Iterable[str]) -> str:
    return "  ".join(format(cell, form) for cell, form in zip(cells, _COLUMNS.values(), strict=True)).rstrip()
