"""What `azd` and the Functions host read: the Bicep files, the settings, and the files that name them.

There is no Bicep compiler on the package index, so pycep-parser checks the syntax and the functions below what a
compiler would say of names, parameters, outputs and modules. Each of them is tried on a copy with a fault in it.
"""

import ast
import http.client
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml
from pycep import BicepParser
from python_process import HANG_SECONDS

from pow import __version__
from pow.errors import SettingsError
from pow.settings import Settings
from pow.tools import INSTRUCTIONS

ROOT = Path(__file__).parents[1]

# Azure's built-in roles that the app may have, by their ids, which are the same in every tenant.
ROLES = {
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": "storageBlobDataOwner",
    "974c5e8b-45b9-4653-ba55-5f855dd0fb88": "storageQueueDataContributor",
    "3913510d-42f4-4e42-8a64-420c390055eb": "monitoringMetricsPublisher",
    "0ad04412-c4d5-4796-b79c-f76d14c8d402": "durableTaskDataContributor",
}

# The modules of the public registry that are used, and what each can't do without.
REGISTRY_MODULES = {
    "avm/res/insights/component": {"name", "workspaceResourceId", "disableLocalAuth"},
    "avm/res/managed-identity/user-assigned-identity": {"name"},
    "avm/res/network/private-dns-zone": {"name", "virtualNetworkLinks"},
    "avm/res/network/private-endpoint": {
        *("name", "subnetResourceId", "privateLinkServiceConnections", "privateDnsZoneGroup"),
    },
    "avm/res/network/virtual-network": {"name", "addressPrefixes", "subnets"},
    "avm/res/operational-insights/workspace": {"name"},
    "avm/res/storage/storage-account": {
        *("name", "allowSharedKeyAccess", "allowBlobPublicAccess", "publicNetworkAccess", "networkAcls"),
    },
    "avm/res/web/serverfarm": {"name", "sku", "reserved"},
    "avm/res/web/site": {
        *("name", "kind", "serverFarmResourceId", "managedIdentities", "functionAppConfig", "tags"),
        *("appSettingsKeyValuePairs", "virtualNetworkSubnetId"),
    },
}

STORAGE = "where the host and the blob bindings keep their things"
TELEMETRY = "where the host sends telemetry, and as whom"
AUTHENTICATION = "read by App Service's authentication, before a request reaches the app"
# What infra/ sets beside what the app reads: who reads it.
INFRA_PLATFORM = {
    "AzureWebJobsStorage__accountName": STORAGE,
    "AzureWebJobsStorage__credential": STORAGE,
    "AzureWebJobsStorage__clientId": STORAGE,
    "APPLICATIONINSIGHTS_CONNECTION_STRING": TELEMETRY,
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": TELEMETRY,
    "AzureFunctionsJobHost__extensions__mcp__system__webhookAuthorizationLevel": "overrides host.json: key or Entra",
    "WEBSITE_AUTH_PRM_DEFAULT_WITH_SCOPES": AUTHENTICATION,
    "WEBSITE_AUTH_AAD_ALLOWED_TENANTS": AUTHENTICATION,
    "OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID": AUTHENTICATION,
}
DURABLE_BACKEND = "overrides host.json: Azure Storage keeps the workflows, so Azurite is enough"
LOCAL_PLATFORM = {
    "FUNCTIONS_WORKER_RUNTIME": "which worker Core Tools starts; Flex Consumption forbids it in Azure",
    "AzureWebJobsStorage": STORAGE,
    "AzureFunctionsJobHost__extensions__durableTask__storageProvider__type": DURABLE_BACKEND,
    "AzureFunctionsJobHost__extensions__durableTask__storageProvider__connectionStringName": DURABLE_BACKEND,
}
HANDLER_PLATFORM = {
    "FUNCTIONS_WORKER_RUNTIME": "which worker Core Tools starts",
    "AzureWebJobsFeatureFlags": "switches the preview of self-hosted MCP servers on",
}
# What the source reads from the environment and nobody sets for it in Azure.
NOT_SETTINGS = {
    "LOCALAPPDATA": "where the self-hosted server keeps its journal on Windows",
    "XDG_STATE_HOME": "where the self-hosted server keeps its journal elsewhere",
}

KEYWORDS = {
    *("targetScope", "extension", "param", "var", "resource", "module", "output", "existing", "if", "for", "in"),
    *("true", "false", "null", "string", "int", "bool", "object", "array"),
}
FUNCTIONS = {
    *("description", "allowed", "metadata", "minLength", "maxLength", "minValue", "maxValue"),
    *("subscription", "environment", "tenant", "subscriptionResourceId", "guid", "uniqueString"),
    *("empty", "filter", "map", "split", "string", "toLower", "trim", "union"),
}


@dataclass(frozen=True)
class BicepFile:
    """A Bicep file: as text, as pycep-parser reads it, and as the names in its code."""

    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @property
    def parsed(self) -> dict[str, Any]:
        return _parse(self.text)

    @cached_property
    def code(self) -> str:
        """The text without comments and without the literal parts of strings."""
        return "".join(_code(iter(self.text)))

    @cached_property
    def names(self) -> Counter[str]:
        """The names that expressions use: no keys of objects, no properties, no functions, no declarations."""
        code = re.sub(r"\b(param|var|output|resource|module)\s+\w+(\s+[a-z]+(\[\])?\s*(?=[=\n]))?", " ", self.code)
        code = re.sub(r"(?<=[{,\n])(\s*)\w+\s*:(?!:)", r"\1", code)
        return Counter(re.findall(r"(?<![\w.@])[A-Za-z_]\w*\b(?!\s*\()", code))

    def declared(self, kind: str) -> dict[str, Any]:
        """The declarations of a kind, such as `parameters`, by their names."""
        found: dict[str, Any] = self.parsed.get(kind, {})
        return found

    @property
    def locals(self) -> set[str]:
        """Names of loops' items and of lambdas' arguments."""
        loops = re.findall(r"\bfor\s+\(?\s*(\w+)(?:\s*,\s*(\w+)\s*\))?\s+in\b", self.code)
        return {name for pair in loops for name in pair if name} | set(re.findall(r"\b(\w+)\s*=>", self.code))


@cache
def _parse(text: str) -> dict[str, Any]:
    document: dict[str, Any] = BicepParser().parse(text=text)  # type: ignore[assignment]
    return document


def _code(characters: Iterator[str], *, nested: bool = False) -> Iterator[str]:
    """Code up to the end of the text or, nested, of a string's ${interpolation}."""
    depth = 0
    slash = False
    for character in characters:
        if slash and character == "/":
            for skipped in characters:
                if skipped == "\n":
                    break
            yield "\n"
            slash = False
            continue
        if slash:
            yield "/"
        slash = character == "/"
        if slash:
            continue
        if character == "'":
            yield " "
            yield from _interpolations(characters)
            yield " "
            continue
        depth += (character == "{") - (character == "}")
        if nested and depth < 0:
            return
        yield character


def _interpolations(characters: Iterator[str]) -> Iterator[str]:
    """The code inside of a string; its opening quote has been read."""
    before = ""
    for character in characters:
        if before == "\\":
            before = ""
            continue
        if character == "'":
            return
        if before == "$" and character == "{":
            yield " "
            yield from _code(characters, nested=True)
            yield " "
        before = character


def bicep_files(root: Path) -> dict[Path, BicepFile]:
    return {path: BicepFile(path) for path in sorted((root / "infra").rglob("*.bicep"))}


def body(module: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in a module's or resource's braces, whether it has a condition, a loop, or neither."""
    config: dict[str, Any] = module["config"]
    while isinstance(config.get("config"), dict):
        config = config["config"]
    return config


def local_modules(files: Mapping[Path, BicepFile]) -> Iterator[tuple[BicepFile, str, dict[str, Any], Path]]:
    """Every use of a module of this repository: by whom, under which name, how, and which file."""
    for file in files.values():
        for name, module in file.declared("modules").items():
            if module["type"] == "local":
                yield file, name, module, (file.path.parent / module["detail"]["path"]).resolve()


# --- checks: each gives the faults that it finds, as sentences ---


def syntax_faults(root: Path) -> list[str]:
    faults = []
    for path, file in bicep_files(root).items():
        try:
            assert file.parsed
        except Exception as error:
            faults.append(f"{path.name} does not parse: {error}")
    return faults


def unused_faults(root: Path) -> list[str]:
    return [
        f"{path.name} declares {name} in its {kind} and never uses it"
        for path, file in bicep_files(root).items()
        for kind in ("parameters", "variables")
        for name in file.declared(kind)
        if not file.names[name]
    ]


def undeclared_faults(root: Path) -> list[str]:
    faults = []
    for path, file in bicep_files(root).items():
        known = KEYWORDS | file.locals | set(file.declared("extensions"))
        for kind in ("parameters", "variables", "resources", "modules"):
            known |= set(file.declared(kind))
        faults += [f"{path.name} uses {name}, which is not declared" for name in file.names if name not in known]
        called = set(re.findall(r"(?<![\w])([A-Za-z]\w*)\(", file.code))
        faults += [f"{path.name} calls {name}, which is no known function" for name in called - FUNCTIONS]
    return faults


def module_faults(root: Path) -> list[str]:
    files = bicep_files(root)
    faults = []
    for path, file in files.items():
        for name, module in file.declared("modules").items():
            if module["type"] == "local":
                continue
            detail = module["detail"]
            if not re.fullmatch(r"\d+\.\d+\.\d+", detail.get("tag", "")):
                faults.append(f"{path.name}: the version of module {name} is not pinned: {detail['full']}")
            # Tags are how azd, and whoever pays, finds what belongs to the environment.
            needed = {"location", "tags"} | REGISTRY_MODULES[detail["path"]]
            faults += [f"{path.name}: module {name} needs {one}" for one in needed - set(body(module)["params"])]
    used = {root / "infra" / "main.bicep"}
    for file, name, module, target in local_modules(files):
        if target not in files:
            faults.append(f"{file.path.name}: module {name} has no file {target}")
            continue
        used.add(target)
        parameters = files[target].declared("parameters")
        passed = set(body(module).get("params", {}))
        needed = {parameter for parameter, value in parameters.items() if value["default"] is None}
        faults += [f"{file.path.name}: module {name} takes no {one}" for one in sorted(passed - set(parameters))]
        faults += [f"{file.path.name}: module {name} needs {one}" for one in sorted(needed - passed)]
    faults += [f"no module is made of {path.name}" for path in files if path not in used]
    return faults


def output_faults(root: Path) -> list[str]:
    files = bicep_files(root)
    faults = []
    wanted: dict[Path, set[str]] = {path: set() for path in files}
    for file, name, _, target in local_modules(files):
        found = set(re.findall(rf"(?<![\w.]){name}(?:\[\w+\])?\.outputs\.(\w+)", file.code))
        missing = found - set(files[target].declared("outputs"))
        faults += [f"{file.path.name} uses {name}.outputs.{one}, which {target.name} doesn't have" for one in missing]
        wanted[target] |= found
    main = root / "infra" / "main.bicep"
    # azd keeps the main file's outputs as variables of its environment, for hooks and for whoever reads the docs.
    readers = [root / "docs" / "deploy.md", root / "azure.yaml", *(root / "infra" / "hooks").glob("prepackage.*")]
    text = "\n".join(reader.read_text() for reader in readers if reader.exists())
    wanted[main] |= {name for name in files[main].declared("outputs") if re.search(rf"\b{name}\b", text)}
    for path, file in files.items():
        faults += [f"nobody uses output {one} of {path.name}" for one in set(file.declared("outputs")) - wanted[path]]
    return faults


def deployment_name_faults(root: Path) -> list[str]:
    """All deployments are in one resource group, where one may not run inside of another of the same name."""
    names = Counter(
        body(module)["name"] for file in bicep_files(root).values() for module in file.declared("modules").values()
    )
    return [f"{count} deployments are named {name}" for name, count in names.items() if count > 1]


def parameter_file_faults(root: Path) -> list[str]:
    declared = bicep_files(root)[root / "infra" / "main.bicep"].declared("parameters")
    given = parameter_values(root)
    faults = [f"main.parameters.json has no {name}" for name in declared.keys() - given.keys()]
    faults += [f"main.bicep takes no {name}" for name in given.keys() - declared.keys()]
    for name, parameter in declared.items():
        if parameter["default"] is not None:
            faults.append(f"{name} has a default in main.bicep too")
        decorators = {decorator["type"]: decorator["argument"] for decorator in parameter["decorators"]}
        default = given.get(name, ("", None))[1]
        if default is None:
            continue
        kinds = {"int": r"\d+", "bool": "true|false", "string": ".+"}
        if not re.fullmatch(kinds[parameter["type"]], default):
            faults.append(f"the default {default!r} of {name} is no {parameter['type']}")
        elif default not in {str(allowed) for allowed in decorators.get("allowed", [default])}:
            faults.append(f"the default {default!r} of {name} is not allowed")
    variables = Counter(variable for variable, _ in given.values())
    return faults + [f"{count} parameters are read from {name}" for name, count in variables.items() if count > 1]


def parameter_values(root: Path) -> dict[str, tuple[str, str | None]]:
    """By parameter: the variable of azd's environment that it is read from, and the default."""
    document = json.loads((root / "infra" / "main.parameters.json").read_text())
    found = {}
    for name, entry in document["parameters"].items():
        match = re.fullmatch(r"\$\{([A-Z_]+)(?:=(.*))?\}", entry["value"])
        assert match, f"{name} is not read from the environment: {entry}"
        found[name] = (match[1], match[2])
    return found


def role_faults(root: Path) -> list[str]:
    file = bicep_files(root)[root / "infra" / "app" / "roles.bicep"]
    roles: dict[str, str] = file.declared("variables")["roleIds"]["value"]
    faults = [f"{name} is not the role {role}" for name, role in roles.items() if ROLES.get(role) != name]
    given = []
    for name, resource in file.declared("resources").items():
        if resource["type"] != "Microsoft.Authorization/roleAssignments":
            continue
        config = body(resource)
        by_name = list(config["name"]["function"]["parameters"].values())
        properties = config["properties"]
        definition = properties.get("roleDefinitionId", {}).get("function", {}).get("parameters", {})
        role = by_name[2]["operator"]["operands"]["operand_2"]
        given.append(role)
        # Assignments with equal names are one, so the name has to have all that makes them differ.
        if by_name[0]["operator"]["operands"]["operand_1"] != config.get("scope"):
            faults.append(f"{name} is not named by its scope")
        if by_name[1] != properties.get("principalId"):
            faults.append(f"{name} is not named by its principal")
        if by_name[2] != definition.get("resource_name_1"):
            faults.append(f"{name} is not named by its role")
        kinds = {"appPrincipalId": "ServicePrincipal", "deployerPrincipalId": "deployerPrincipalType"}
        if properties.get("principalType") != kinds.get(by_name[1]):
            faults.append(f"{name} does not say what its principal is")
    faults += [f"nobody is given {name}" for name in roles.keys() - set(given)]
    everything = "".join(other.text for path, other in bicep_files(root).items() if path != file.path)
    if "roleAssignments" in everything:
        faults.append("roles are given outside of roles.bicep")
    return faults


def setting_faults(root: Path) -> list[str]:
    """Whether the app reads what infra/ and the samples set, and they set what it reads."""
    read = settings_that_the_app_reads(root)
    variables = bicep_files(root)[root / "infra" / "app" / "function-app.bicep"].declared("variables")
    places = {
        "infra/": ({*variables["appSettings"]["value"], *variables["entraSettings"]["value"]}, INFRA_PLATFORM),
        "local.settings.json": (set(local_settings(root)), LOCAL_PLATFORM),
        "hosting/custom-handler/local.settings.json": (
            set(local_settings(root / "hosting" / "custom-handler")),
            HANDLER_PLATFORM,
        ),
    }
    faults = []
    for place, (present, platform) in places.items():
        faults += [f"{place} sets {name}, which nobody reads" for name in present - read - platform.keys()]
        faults += [f"{place} does not set {name}" for name in (read | platform.keys()) - present]
    return faults


def documentation_faults(root: Path) -> list[str]:
    """Whether docs/deploy.md has the parameters, with their defaults, and the settings."""
    text = (root / "docs" / "deploy.md").read_text()
    # azd fills in those that begin with AZURE_.
    wanted = {name: default for name, default in parameter_values(root).values() if not name.startswith("AZURE_")}
    shown = {name: default.strip("`") for name, default in _table(text, "### Parameters")}
    # Said in words: nobody knows the id by heart.
    if "AUTHORIZED_CLIENT_IDS" in shown:
        shown["AUTHORIZED_CLIENT_IDS"] = wanted["AUTHORIZED_CLIENT_IDS"] or ""
    faults = [
        f"docs/deploy.md has {name} wrong: {shown.get(name)}" for name in wanted if shown.get(name) != wanted[name]
    ]
    faults += [f"docs/deploy.md has the parameter {name}, which is none" for name in shown.keys() - wanted.keys()]
    settings = {name for name, _ in _table(text, "### Settings")}
    faults += [f"docs/deploy.md lacks or invents {name}" for name in settings ^ settings_that_the_app_reads(root)]
    return faults


def _table(text: str, heading: str) -> list[tuple[str, str]]:
    """The first two columns of the table under a heading, where the first has a name."""
    section = text.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]
    return re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, flags=re.MULTILINE)


class RecordingEnvironment(Mapping[str, str]):
    """An empty environment that knows what was asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def settings_that_the_app_reads(root: Path) -> set[str]:
    environment = RecordingEnvironment()
    Settings.from_environment(environment)
    sources = [*(root / "pow").rglob("*.py"), *root.glob("function_app.py")]
    read_directly = {name for source in sources for name in _environment_reads(ast.parse(source.read_text()))}
    return environment.asked | read_directly - NOT_SETTINGS.keys()


def _environment_reads(tree: ast.AST) -> Iterator[str]:
    """The names in os.environ.get("NAME"), os.getenv("NAME") and os.environ["NAME"]."""
    for node in ast.walk(tree):
        name: ast.expr | None = None
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.environ.get", "os.getenv") and node.args:
            name = node.args[0]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
            name = node.slice
        if isinstance(name, ast.Constant):
            yield str(name.value)


def local_settings(folder: Path) -> dict[str, str]:
    values: dict[str, str] = json.loads((folder / "local.settings.json").read_text())["Values"]
    return values


CHECKS = (
    syntax_faults,
    unused_faults,
    undeclared_faults,
    module_faults,
    output_faults,
    deployment_name_faults,
    parameter_file_faults,
    role_faults,
    setting_faults,
    documentation_faults,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_repository_has_no(check: Callable[[Path], list[str]]) -> None:
    assert check(ROOT) == []


@pytest.mark.parametrize(
    ("check", "file", "old", "new"),
    [
        (syntax_faults, "infra/app/storage.bicep", "tags: tags", "tags tags"),
        (syntax_faults, "infra/main.bicep", "\n}\n", "\n"),
        (unused_faults, "infra/main.bicep", "    maxBlocks: maxBlocks\n", ""),
        (unused_faults, "infra/app/function-app.bicep", "string(maxBlocks)", "'64'  // maxBlocks"),
        (unused_faults, "infra/app/function-app.bicep", "entraEnabled ? entraSettings : {}", "{}"),
        (undeclared_faults, "infra/app/network.bicep", "location: location", "location: region"),
        (undeclared_faults, "infra/app/entra.bicep", "${registrationUri}/", "${identifierUri}/"),
        (undeclared_faults, "infra/app/scheduler.bicep", "union(", "onion("),
        (module_faults, "infra/main.bicep", "./app/network.bicep", "./app/vnet.bicep"),
        (module_faults, "infra/main.bicep", "    sku: schedulerSku\n", ""),
        (module_faults, "infra/main.bicep", "    sku: schedulerSku\n", "    sku: schedulerSku\n    capacity: 1\n"),
        (module_faults, "infra/app/function-app.bicep", "web/site:0.15.1", "web/site:latest"),
        (module_faults, "infra/app/storage.bicep", "    allowSharedKeyAccess: false\n", ""),
        (module_faults, "infra/app/network.bicep", "    tags: tags\n", ""),
        (output_faults, "infra/main.bicep", "scheduler.outputs.endpoint", "scheduler.outputs.name"),
        (output_faults, "infra/main.bicep", "scheduler.outputs.endpoint", "scheduler.outputs.url"),
        (output_faults, "infra/main.bicep", "output CONSENT_URL", "output CONSENT_ADDRESS"),
        (deployment_name_faults, "infra/app/network.bicep", "name: 'virtual-network'", "name: 'network'"),
        (parameter_file_faults, "infra/main.parameters.json", '"maxBlocks"', '"mostBlocks"'),
        (parameter_file_faults, "infra/main.parameters.json", "MAX_BLOCKS=64", "MAX_DIFFICULTY=40"),
        (parameter_file_faults, "infra/main.parameters.json", "=2048}", "=1024}"),
        (parameter_file_faults, "infra/main.bicep", "param maxBlocks int", "param maxBlocks int = 64"),
        (role_faults, "infra/app/roles.bicep", "b7e6dc6d-", "b24988ac-"),
        (role_faults, "infra/app/roles.bicep", "scope: insights", "scope: storageAccount"),
        (role_faults, "infra/app/roles.bicep", "', roleIds.monitoringMetricsP", "', roleIds.durableTaskP"),
        (role_faults, "infra/app/roles.bicep", "    principalType: 'ServicePrincipal'\n", ""),
        (role_faults, "infra/app/roles.bicep", "principalId: deployerPrincipalId", "principalId: appPrincipalId"),
        (role_faults, "infra/app/scheduler.bicep", "  parent: scheduler", "  // roleAssignments\n  parent: scheduler"),
        (setting_faults, "infra/app/function-app.bicep", "  POW_BACKEND: 'auto'\n", ""),
        (setting_faults, "infra/app/function-app.bicep", "MiningFanOut:", "MiningFanout:"),
        (setting_faults, "local.settings.json", '    "MaxBlocks": "64",\n', ""),
        (documentation_faults, "docs/deploy.md", "| `MAX_BLOCKS` | 64 |", "| `MAX_BLOCKS` | 65 |"),
        (documentation_faults, "docs/deploy.md", "| `MiningFanOut` |", "| `MiningFanout` |"),
        (documentation_faults, "infra/main.parameters.json", "SCHEDULER_SKU", "SCHEDULER_TIER"),
        (setting_faults, "pow/scanning.py", 'os.environ.get("POW_BACKEND"', 'os.environ.get("POW_KERNEL"'),
    ],
)
def test_a_fault_is_found(check: Callable[[Path], list[str]], file: str, old: str, new: str, checkout: Path) -> None:
    path = checkout / file
    text = path.read_text()
    assert old in text
    before = check(checkout)
    path.write_text(text.replace(old, new, 1))
    assert set(check(checkout)) - set(before)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the checks read."""
    for name in ("infra", "docs", "hosting", "pow"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("azure.yaml", "local.settings.json"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


# --- what the app says of its settings ---

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


def test_storage_takes_no_keys_and_telemetry_no_strangers() -> None:
    files = bicep_files(ROOT)
    account = body(files[ROOT / "infra" / "app" / "storage.bicep"].declared("modules")["account"])["params"]
    assert account["allowSharedKeyAccess"] is False
    assert account["allowBlobPublicAccess"] is False
    component = body(files[ROOT / "infra" / "app" / "monitoring.bicep"].declared("modules")["component"])["params"]
    assert component["disableLocalAuth"] is True


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
    # Flex Consumption's own limit is half an hour.
    assert longest < 3600 * hours + 60 * minutes + seconds <= 1800


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
            assert _initialize(int(found[1]), "func-pow.example.net") == 200
            assert _initialize(int(found[1]), "elsewhere.example.net") == 421
        finally:
            process.terminate()
            process.communicate(timeout=HANG_SECONDS)


def _initialize(port: int, host: str) -> int:
    """The status of a client's first request, when the URL that it knows has this host."""
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
        connection.request("POST", "/runtime/webhooks/mcp", json.dumps(request), headers)
        return connection.getresponse().status
    finally:
        connection.close()
