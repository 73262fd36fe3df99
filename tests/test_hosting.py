"""What is deployed: settings and their defaults, host.json, azure.yaml, the editor's files, the custom handler."""

import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from deployment import (
    INFRA_PLATFORM,
    LOCAL_PLATFORM,
    ROOT,
    bicep_files,
    body,
    local_settings,
    parameter_values,
)
from python_process import HANG_SECONDS

from pow import __version__
from pow.errors import SettingsError
from pow.settings import Settings
from pow.tools.mining import INSTRUCTIONS

SETTINGS_OF_PARAMETERS = {
    "waitBudgetSeconds": "WaitBudgetSeconds",
    "miningDifficulty": "MiningDifficulty",
    "maxDifficulty": "MaxDifficulty",
    "maxBlocks": "MaxBlocks",
    "miningFanOut": "MiningFanOut",
}


def test_what_azd_deploys_without_being_told_otherwise_are_the_defaults() -> None:
    values = parameter_values(ROOT)
    given = {setting: values[name][1] or "" for name, setting in SETTINGS_OF_PARAMETERS.items()}
    assert Settings.from_environment(given) == Settings()


@pytest.mark.parametrize("folder", [ROOT, ROOT / "hosting" / "custom-handler"], ids=["functions", "custom handler"])
def test_the_sample_settings_are_the_defaults(folder: Path) -> None:
    settings = Settings.from_environment(local_settings(folder))
    assert replace(settings, scheduler_connection_string=None) == Settings()


@pytest.mark.parametrize(("parameter", "setting"), SETTINGS_OF_PARAMETERS.items())
def test_a_parameter_is_bounded_as_its_setting_is(parameter: str, setting: str) -> None:
    declared = bicep_files(ROOT)[ROOT / "infra" / "main.bicep"].declared("parameters")[parameter]
    bounds = {one["type"]: one["argument"] for one in declared["decorators"]}
    # Whatever the caller's default, the most that may be asked for is no less.
    others = {"MaxDifficulty": "256"} if setting == "MiningDifficulty" else {"MiningDifficulty": "1"}

    def accepts(value: int) -> bool:
        try:
            Settings.from_environment({**others, setting: str(value)})
        except SettingsError:
            return False
        return True

    assert accepts(bounds["min_value"])
    assert accepts(bounds["max_value"])
    assert not accepts(bounds["min_value"] - 1)
    # Azure ends an HTTP call at 230 s, so there the budget is bounded more tightly than here.
    assert accepts(bounds["max_value"] + 1) == (setting == "WaitBudgetSeconds")


def test_no_sample_holds_a_secret() -> None:
    for path in (ROOT / "local.settings.json", ROOT / "hosting" / "custom-handler" / "local.settings.json"):
        assert not re.search(r"AccountKey=|SharedAccess|[A-Za-z0-9+/]{40,}", path.read_text()), path


def test_storage_takes_no_keys_the_app_no_passwords_and_telemetry_no_strangers() -> None:
    files = bicep_files(ROOT)
    account = body(files[ROOT / "infra" / "app" / "storage.bicep"].declared("modules")["account"])["params"]
    assert account["allowSharedKeyAccess"] is False
    assert account["allowBlobPublicAccess"] is False
    app = body(files[ROOT / "infra" / "app" / "function-app.bicep"].declared("modules")["app"])["params"]
    passwords = {policy["name"]: policy["allow"] for policy in app["basicPublishingCredentialsPolicies"]}
    assert passwords == {"ftp": False, "scm": False}
    component = body(files[ROOT / "infra" / "app" / "monitoring.bicep"].declared("modules")["component"])["params"]
    assert component["disableLocalAuth"] is True
    assert component["disableIpMasking"] is False


# --- host.json ---


@pytest.fixture(scope="module")
def host() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / "host.json").read_text())
    return document


def test_the_functions_host_introduces_the_server_as_the_self_hosted_one_does(host: dict[str, Any]) -> None:
    assert host["extensions"]["mcp"] == {
        "serverName": "pow-mcp",
        "serverVersion": __version__,
        "instructions": INSTRUCTIONS,
    }


def test_the_functions_host_runs_one_slice_at_a_time_on_the_scheduler_and_traces_it(host: dict[str, Any]) -> None:
    assert host["extensions"]["durableTask"] == {
        "hubName": "%TASKHUB_NAME%",
        "storageProvider": {
            "type": "azureManaged",
            "connectionStringName": "DURABLE_TASK_SCHEDULER_CONNECTION_STRING",
        },
        # A slice fills the cores; orchestrations only decide what is next.
        "maxConcurrentActivityFunctions": 1,
        "maxConcurrentOrchestratorFunctions": 10,
        "tracing": {"distributedTracingEnabled": True, "Version": "V2"},
    }
    assert host["extensionBundle"] == {
        "id": "Microsoft.Azure.Functions.ExtensionBundle",
        "version": "[4.36.0, 5.0.0)",
    }


def test_a_function_may_run_longer_than_the_longest_budget(host: dict[str, Any]) -> None:
    hours, minutes, seconds = map(int, host["functionTimeout"].split(":"))
    parameters = bicep_files(ROOT)[ROOT / "infra" / "main.bicep"].declared("parameters")
    [longest] = [one["argument"] for one in parameters["waitBudgetSeconds"]["decorators"] if one["type"] == "max_value"]
    time_out = 3600 * hours + 60 * minutes + seconds
    # Calls end after 80 % of it, lest the host restarts the worker. Flex Consumption's own limit is half an hour.
    assert longest < 0.8 * time_out <= 0.8 * 1800


def test_the_sample_overrides_what_host_json_has(host: dict[str, Any]) -> None:
    prefix = "AzureFunctionsJobHost__"
    names = [name for name in (*LOCAL_PLATFORM, *INFRA_PLATFORM) if name.startswith(prefix)]
    # The one that host.json leaves at the extension's default.
    known = {**host, "extensions": {**host["extensions"], "mcp": {"system": {"webhookAuthorizationLevel": "System"}}}}
    for name in names:
        value: Any = known
        for part in name.removeprefix(prefix).split("__"):
            value = value[part]
        assert isinstance(value, str)
    values = local_settings(ROOT)
    assert values[f"{prefix}extensions__durableTask__storageProvider__connectionStringName"] in values


# --- azure.yaml, .vscode ---


def test_azd_deploys_the_package_to_the_app_that_is_tagged_for_it() -> None:
    document = yaml.safe_load((ROOT / "azure.yaml").read_text())
    [(name, service)] = document["services"].items()
    assert f"'azd-service-name': '{name}'" in (ROOT / "infra" / "app" / "function-app.bicep").read_text()
    assert service["remoteBuild"] is False
    for script in service["hooks"]["prepackage"].values():
        assert (ROOT / script["run"]).is_file(), script


@pytest.mark.parametrize("path", sorted((ROOT / ".vscode").glob("*.json")), ids=lambda path: path.name)
def test_a_file_of_the_editor_is_plain_json(path: Path) -> None:
    assert json.loads(path.read_text())


def test_the_editor_asks_for_what_its_servers_need_and_knows_the_tasks_that_it_starts() -> None:
    servers = (ROOT / ".vscode" / "mcp.json").read_text()
    assert set(re.findall(r"\$\{input:(\w+)\}", servers)) == {one["id"] for one in json.loads(servers)["inputs"]}
    tasks = json.loads((ROOT / ".vscode" / "tasks.json").read_text())["tasks"]
    launches = json.loads((ROOT / ".vscode" / "launch.json").read_text())["configurations"]
    wanted = {one["preLaunchTask"] for one in launches}
    for task in tasks:
        before = task.get("dependsOn", [])
        wanted |= {before} if isinstance(before, str) else set(before)
    assert wanted <= {task["label"] for task in tasks}


# --- the custom handler ---


def test_the_functions_host_starts_the_self_hosted_server_as_its_custom_handler() -> None:
    document = json.loads((ROOT / "hosting" / "custom-handler" / "host.json").read_text())
    assert document["configurationProfile"] == "mcp-custom-handler"
    handler = document["customHandler"]
    # Whoever deploys it without Entra in front has to bring a key.
    assert handler["http"] == {"DefaultAuthorizationLevel": "function"}
    description = handler["description"]
    assert description["defaultExecutablePath"] == "python"
    # The host puts the values of the variables in, as here.
    values = {"%FUNCTIONS_CUSTOMHANDLER_PORT%": "0", "%WEBSITE_HOSTNAME%": "func-pow.example.net"}
    arguments = [values.get(argument, argument) for argument in description["arguments"]]
    with subprocess.Popen(
        [sys.executable, *arguments, "--ephemeral"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)/mcp", process.stdout.readline())
            assert found
            with functions_host(int(found[1])) as port:
                assert _initialize(port, "func-pow.example.net", "/mcp") == 200
                assert _initialize(port, "elsewhere.example.net", "/mcp") == 421
                # The Functions app's endpoint, which a custom handler never hears of.
                assert _initialize(port, "func-pow.example.net", "/runtime/webhooks/mcp") == 404
        finally:
            process.terminate()
            process.communicate(timeout=HANG_SECONDS)


@contextmanager
def functions_host(handler: int) -> Iterator[int]:
    """The Functions host in front of a custom handler on this port: it keeps `/runtime` to itself; its own port."""

    class Front(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path.startswith("/runtime/"):
                self.send_error(404)
                return
            connection = http.client.HTTPConnection("127.0.0.1", handler, timeout=HANG_SECONDS)
            with closing(connection):
                connection.request("POST", self.path, body, dict(self.headers))
                self.send_response(connection.getresponse().status)
                self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Front) as front:
        serving = Thread(target=front.serve_forever)
        serving.start()
        try:
            yield front.server_port
        finally:
            front.shutdown()
            serving.join()


def _initialize(port: int, host: str, path: str) -> int:
    """The status of a client's first request, when the URL that it knows has this host and path."""
    request = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_SECONDS)
    headers = {
        "Host": host,
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
    }
    try:
        connection.request("POST", path, json.dumps(request), headers)
        return connection.getresponse().status
    finally:
        connection.close()
