"""The MCP App: the page that hosts show beside the mining tools (extension `io.modelcontextprotocol/ui`).

The page is built from `ui/` into one file. It speaks to its host only, and asks for no network at all.
"""

from pathlib import Path
from typing import Any

from mcp.server.apps import Apps, ResourceCsp

MINING_APP_URI = "ui://pow-mcp/mining-app"

# Of the tools that the page belongs to: start_mining and get_mining_result.
MINING_APP_META: dict[str, Any] = {"ui": {"resourceUri": MINING_APP_URI}}

UI_FOLDER = Path(__file__).with_name("ui")


def mining_app() -> Apps:
    """The extension that tells clients of the page and serves it."""
    apps = Apps()
    apps.add_html_resource(
        MINING_APP_URI,
        (UI_FOLDER / "mining_app.html").read_text("utf-8"),
        name="mining-app",
        title="Proof-of-work mining",
        description="Shows a chain while it is mined: its blocks, their zero bits, the rate and the odds.",
        csp=ResourceCsp(connect_domains=[], resource_domains=[], frame_domains=[], base_uri_domains=[]),
        prefers_border=True,
    )
    return apps
