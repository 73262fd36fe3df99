"""function_app.py: what it declares to the host, under both lines of the SDK, and that its deployed package mines.

The line of azure-functions for Python 3.13 and later comes with the package that azd deploys: it runs on a Python 3.13
of its own here, with nothing of this environment.
"""

import ast
import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from functions_process import FunctionsProcess, declared_functions, missing
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from wheel_builds import HANG_SECONDS, ROOT, run, wheel

from pow.longwork.engines.embedded import EmbeddedEngine
from pow.mining.pool import MinerPool
from pow.settings import Settings
from pow.tools.chain_store import FolderChains
from pow.tools.composition import mining_house
from pow.tools.declarations import Tool
from pow.tools.mining import mining_work

Bindings = dict[str, list[dict[str, Any]]]

APP = ROOT / "function_app.py"


def declared_tools() -> dict[str, Tool]:
    """The tools as a self-hosted server has them; nobody calls them."""
    with MinerPool(1) as pool:
        work = mining_work(pool, Settings())
        house = mining_house(work, EmbeddedEngine(work), Settings(), FolderChains(Path("unused")))
    return {tool.name: tool for tool in house.tools}


TOOLS = declared_tools()

# What the extension reads of a trigger: the settable properties of its McpToolTriggerAttribute and
# McpPromptTriggerAttribute. It passes over any other without a word, one that is misspelt included.
TOOL_PROPERTIES: dict[str, type] = {
    "toolName": str,
    "description": str,
    "toolProperties": str,
    "metadata": str,
    "inputSchema": str,
    "outputSchema": str,
    "useResultSchema": bool,
    "useWorkerInputSchema": bool,
}
PROMPT_PROPERTIES: dict[str, type] = {
    "promptName": str,
    "title": str,
    "description": str,
    "promptArguments": str,
    "metadata": str,
    "icons": str,
    "useResultSchema": bool,
}

RESOURCE_PROPERTIES: dict[str, type] = {
    "uri": str,
    "resourceName": str,
    "title": str,
    "description": str,
    "mimeType": str,
    "size": int,
    "metadata": str,
    "icons": str,
    "useResultSchema": bool,
}

CLIENT = {"type": "durableClient", "direction": "IN", "name": "client"}
# The bindings of every function but the triggers of the extension.
PLAIN: Bindings = {
    "start_mining": [CLIENT],
    "get_mining_result": [CLIENT],
    "cancel_mining": [CLIENT],
    "list_minings": [CLIENT],
    "estimate_mining": [CLIENT],
    "verify_chain": [CLIENT],
    "save_chain": [CLIENT],
    "get_chain": [CLIENT],
    "whoami": [CLIENT],
    "mine_demo_chain": [],
    "mining_app": [],
    "mine_chain": [{"type": "orchestrationTrigger", "direction": "IN", "name": "context"}],
    "mine_block": [CLIENT, {"type": "activityTrigger", "direction": "IN", "name": "request"}],
    "mcp_gateway": [
        CLIENT,
        {
            "type": "httpTrigger",
            "direction": "IN",
            "name": "request",
            "methods": ["POST", "GET", "HEAD", "PUT", "PATCH", "DELETE"],
            "authLevel": "FUNCTION",
            "route": "mcp",
        },
        {"type": "http", "direction": "OUT", "name": "$return"},
    ],
}


@pytest.fixture(scope="module")
def declared() -> Bindings:
    """The bindings of the app in this checkout, with this environment's azure-functions."""
    return declared_functions()


def of_extension(bindings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [binding for binding in bindings if binding["type"].startswith("mcp")]


def trigger(declared: Bindings, function: str, kind: str, properties: dict[str, type]) -> dict[str, Any]:
    """What the one trigger that a function has of the extension says, all of which the extension knows."""
    (binding,) = of_extension(declared[function])
    common = {"type": binding.pop("type"), "direction": binding.pop("direction"), "name": binding.pop("name")}
    assert common == {"type": kind, "direction": "IN", "name": "call"}
    assert {name: type(value) for name, value in binding.items()} == {name: properties.get(name) for name in binding}
    return binding


@pytest.fixture
def copied(declared: Bindings) -> Bindings:
    """What a test may take apart."""
    copy: Bindings = json.loads(json.dumps(declared))
    return copy


# What the app declares


def test_the_app_has_these_functions_with_these_bindings_and_no_others(declared: Bindings) -> None:
    beside_extension = {
        name: [binding for binding in bindings if binding not in of_extension(bindings)]
        for name, bindings in declared.items()
    }

    assert beside_extension == PLAIN
    assert {name for name, bindings in declared.items() if of_extension(bindings)} == {
        *TOOLS,
        "mine_demo_chain",
        "mining_app",
    }


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_is_declared_in_the_extensions_terms(copied: Bindings, tool: str) -> None:
    declared = trigger(copied, tool, "mcpToolTrigger", TOOL_PROPERTIES)

    # toolProperties would be another description of the arguments, which the extension passes over with these flags.
    metadata = {"metadata"} if tool in ("start_mining", "get_mining_result") else set()
    assert declared.keys() == TOOL_PROPERTIES.keys() - {"toolProperties", "metadata"} | metadata
    assert declared["toolName"] == tool
    assert declared["description"] == TOOLS[tool].description
    assert (declared["useWorkerInputSchema"], declared["useResultSchema"]) == (True, True)


@pytest.mark.parametrize("name", ["inputSchema", "outputSchema"])
@pytest.mark.parametrize("tool", TOOLS)
def test_a_schema_of_a_tool_is_one_that_the_extension_takes(copied: Bindings, tool: str, name: str) -> None:
    schema = json.loads(trigger(copied, tool, "mcpToolTrigger", TOOL_PROPERTIES)[name])

    # The extension looks at these three, and clients at all of it.
    assert schema["type"] == "object"
    assert isinstance(schema["properties"], dict)
    assert set(schema.get("required", [])) <= set(schema["properties"])
    Draft202012Validator.check_schema(schema)


def test_the_prompt_is_declared_in_the_extensions_terms(copied: Bindings) -> None:
    declared = trigger(copied, "mine_demo_chain", "mcpPromptTrigger", PROMPT_PROPERTIES)

    assert declared.keys() == {"promptName", "title", "description", "promptArguments"}
    assert (declared["promptName"], declared["title"]) == ("mine_demo_chain", "Mine a demo chain")
    (argument,) = json.loads(declared["promptArguments"])
    assert argument.keys() == {"name", "description", "required"}
    assert (argument["name"], argument["required"]) == ("difficulty", False)


def test_the_page_of_the_mining_tools_is_a_resource_in_the_extensions_terms(copied: Bindings) -> None:
    page = trigger(copied, "mining_app", "mcpResourceTrigger", RESOURCE_PROPERTIES)
    tools = [trigger(copied, name, "mcpToolTrigger", TOOL_PROPERTIES) for name in ("start_mining", "get_mining_result")]

    assert page.keys() == RESOURCE_PROPERTIES.keys() - {"size", "icons", "useResultSchema"}
    # Hosts show no page of another type.
    assert page["mimeType"] == "text/html;profile=mcp-app"
    assert [json.loads(tool["metadata"])["ui"]["resourceUri"] for tool in tools] == [page["uri"]] * 2
    assert json.loads(page["metadata"])["ui"]["csp"]["connectDomains"] == []


# Its source


def imported(source: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the host imports function_app.py by itself, not as a part of a package"
            names.add(str(node.module))
    return names


def test_the_app_is_short_and_imports_only_azure_pow_and_the_standard_library() -> None:
    text = APP.read_text("utf-8")

    assert len(text.splitlines()) < 200
    roots = {name.partition(".")[0] for name in imported(ast.parse(text))}
    assert roots - sys.stdlib_module_names == {"azure", "pow"}


def test_the_app_binds_and_does_not_hash() -> None:
    source = ast.parse(APP.read_text("utf-8"))

    assert not imported(source) & {
        "hashlib",
        "hmac",
        "zlib",
        "pow.mining.chain",
        "pow.scanning.hashlib_backend",
        "pow.scanning.backends",
    }
    identifiers = {
        *(node.id for node in ast.walk(source) if isinstance(node, ast.Name)),
        *(node.attr for node in ast.walk(source) if isinstance(node, ast.Attribute)),
        *(node.arg for node in ast.walk(source) if isinstance(node, ast.arg)),
    }
    assert not [name for name in identifiers if re.search("hash|sha256|digest|nonce", name, re.IGNORECASE)]


# The package that azd deploys, on the Python that it is for

for_target = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="the package is for Linux on x86-64, and runs only there",
)

# Started as the Functions host starts an app: its folder first, then what it depends on, and nothing else.
IMPORT_APP = """
import importlib.metadata, json, sys
folder = sys.argv[1]
sys.path[:0] = [folder, folder + "/.python_packages/lib/site-packages"]
import function_app
import pow.scanning.backends
facts = {
    "python": sys.version.split(".")[:2],
    "azure-functions": importlib.metadata.version("azure-functions").split(".")[0],
    "app": function_app.__file__,
    "pow": pow.__file__,
    "backend": pow.scanning.backends.active_backend().name,
}
print(json.dumps(facts))
"""


@dataclass(frozen=True)
class Deployed:
    """The package, and the command that runs its Python."""

    folder: Path
    site: Path
    python: Path


@pytest.fixture(scope="module")
def python_313() -> str:
    """The words of a shell command that is Python 3.13."""
    found = run(ROOT, ROOT / ".ci" / "python-3.13")
    if found.returncode == 77:
        pytest.skip(found.stderr.strip())
    if found.returncode:
        missing(f".ci/python-3.13 failed: {found.stderr.strip()[-500:]}")
    return found.stdout.strip()


@pytest.fixture(scope="module")
def deployed(python_313: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("deployed")
    wheels, package, python = folder / "wheels", folder / "functionapp", folder / "python"
    wheels.mkdir()
    # Under the name that `make wheel` gives it.
    shutil.copy(wheel(), wheels / wheel().name.replace("-linux_x86_64", "-manylinux_2_28_x86_64"))
    hook = ROOT / "infra" / "hooks" / "prepackage.py"
    made = run(ROOT, sys.executable, hook, "--python-version", "3.13", "--find-links", wheels, "--output", package)
    assert made.returncode == 0, made.stderr
    site = package / ".python_packages" / "lib" / "site-packages"
    python.write_text(
        "#!/usr/bin/env bash\n"
        "unset POW_BACKEND\n"
        # All that the test host imports is there, too: it needs no packages of its own.
        f'export PYTHONNOUSERSITE=1 PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}"{site}\n'
        f'exec {python_313} "$@"\n'
    )
    python.chmod(0o700)
    yield Deployed(package, site, python)
    shutil.rmtree(folder)


@for_target
def test_the_deployed_app_mines_natively_on_python_3_13_with_the_sdk_of_that_line(deployed: Deployed) -> None:
    # -I and -S: nothing but the package.
    ran = subprocess.run(
        [deployed.python, "-I", "-S", "-c", IMPORT_APP, deployed.folder],
        cwd=deployed.folder,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    facts = json.loads(ran.stdout.splitlines()[-1])
    assert facts.pop("backend") != "hashlib"
    assert facts == {
        "python": ["3", "13"],
        "azure-functions": "2",
        "app": str(deployed.folder / "function_app.py"),
        "pow": str(deployed.site / "pow" / "__init__.py"),
    }


@for_target
def test_the_app_declares_the_same_under_both_lines_of_the_sdk(deployed: Deployed, declared: Bindings) -> None:
    assert declared_functions(deployed.folder, deployed.python) == declared


@for_target
@pytest.mark.anyio
async def test_the_deployed_app_serves_a_client_on_python_3_13(
    deployed: Deployed, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    options = ("--site-packages", str(deployed.site))
    # host.json names the first; what is deployed has no local.settings.json.
    settings = {"TASKHUB_NAME": "default", "WaitBudgetSeconds": "60"}
    with FunctionsProcess(deployed.folder, *options, python=deployed.python, state=None, **settings) as host:
        async with host.client() as client:
            result = await client.call_tool("start_mining", {"difficulty": 16})
        log = host.log()

    assert not result.is_error, result.content
    assert (result.structured_content["status"], result.structured_content["chain"]) == ("completed", genesis_chain[16])
    backend = re.search(r"pow-mcp \S+ mines with backend (\S+) on [1-9][0-9]* thread", log)
    assert backend is not None, log
    assert backend[1] != "hashlib"
