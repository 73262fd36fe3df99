"""The MCP App: the page that hosts show beside the mining tools (extension `io.modelcontextprotocol/ui`).

The page is built from `ui/` into one file. It speaks to its host only, and asks for no network at all.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pow.tools.mining import MINING_APP_URI

if TYPE_CHECKING:  # the SDK takes a second to import, and the Functions app's triggers do without
    from mcp.server.apps import Apps

UI_FOLDER = Path(__file__).parent.parent / "ui"

MINING_APP_NAME = "mining-app"
MINING_APP_TITLE = "Proof-of-work mining"
MINING_APP_DESCRIPTION = "Shows a chain while it is mined: its blocks, their zero bits, the rate and the odds."
MINING_APP_MIME_TYPE = "text/html;profile=mcp-app"

# Of the page itself: empty lists close the network.
MINING_APP_PAGE_META: dict[str, Any] = {
    "ui": {
        "csp": {"connectDomains": [], "resourceDomains": [], "frameDomains": [], "baseUriDomains": []},
        "prefersBorder": True,
    }
}


def mining_app_html() -> str:
    """The page."""
    return (UI_FOLDER / "mining_app.html").read_text("utf-8")


def mining_app_contents() -> dict[str, Any]:
    """The page as the contents of the resource that it is."""
    return {
        "uri": MINING_APP_URI,
        "mimeType": MINING_APP_MIME_TYPE,
        "text": mining_app_html(),
        "_meta": MINING_APP_PAGE_META,
    }


def mining_app() -> "Apps":
    """The extension of the SDK that tells clients of the page and serves it."""
    from mcp.server.apps import Apps
    from mcp.server.mcpserver.resources import TextResource

    apps = Apps()
    apps.add_resource(
        TextResource(
            uri=MINING_APP_URI,
            name=MINING_APP_NAME,
            title=MINING_APP_TITLE,
            description=MINING_APP_DESCRIPTION,
            mime_type=MINING_APP_MIME_TYPE,
            meta=MINING_APP_PAGE_META,
            text=mining_app_html(),
        )
    )
    return apps
