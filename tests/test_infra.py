"""The Bicep files, and the settings that they, the samples and the documentation name.

The functions below check what a compiler would say of names, parameters, outputs and modules. Each of them is
tried on a copy with a fault in it.
"""

import ast
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from deployment import (
    HANDLER_PLATFORM,
    INFRA_PLATFORM,
    LOCAL_PLATFORM,
    ROOT,
    bicep_files,
    body,
    local_modules,
    local_settings,
    parameter_values,
)

from pow.identity.callers import Identities
from pow.settings import Settings

# Azure's built-in roles that the app may have, by their ids, which are the same in every tenant.
ROLES = {
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": "storageBlobDataOwner",
    "974c5e8b-45b9-4653-ba55-5f855dd0fb88": "storageQueueDataContributor",
    "3913510d-42f4-4e42-8a64-420c390055eb": "monitoringMetricsPublisher",
    "0ad04412-c4d5-4796-b79c-f76d14c8d402": "durableTaskDataContributor",
}

# The modules of the public registry that are used, and what each can't do without.
REGISTRY_MODULES = {
    "avm/res/insights/component": {"name", "workspaceResourceId", "disableLocalAuth", "disableIpMasking"},
    "avm/res/managed-identity/user-assigned-identity": {"name"},
    "avm/res/network/private-dns-zone": {"name", "virtualNetworkLinks"},
    "avm/res/network/private-endpoint": {
        *("name", "subnetResourceId", "privateLinkServiceConnections", "privateDnsZoneGroup"),
    },
    "avm/res/network/virtual-network": {"name", "addressPrefixes", "subnets"},
    "avm/res/operational-insights/workspace": {"name", "forceCmkForQuery"},
    "avm/res/storage/storage-account": {
        *("name", "skuName", "allowSharedKeyAccess", "allowBlobPublicAccess", "publicNetworkAccess", "networkAcls"),
    },
    "avm/res/web/serverfarm": {"name", "sku", "reserved"},
    "avm/res/web/site": {
        *("name", "kind", "serverFarmResourceId", "managedIdentities", "functionAppConfig", "tags"),
        *("appSettingsKeyValuePairs", "virtualNetworkSubnetId", "basicPublishingCredentialsPolicies"),
    },
}
# What the source reads from the environment and nobody sets for it in Azure.
NOT_SETTINGS = {
    "LOCALAPPDATA": "where the self-hosted server keeps its journal on Windows",
    "XDG_STATE_HOME": "where the self-hosted server keeps its journal elsewhere",
    "WEBSITE_AUTH_ENABLED": "says that App Service's authentication is on; the platform's own, where it is there",
}

KEYWORDS = {
    *("targetScope", "extension", "param", "var", "resource", "module", "output", "existing", "if", "for", "in"),
    *("true", "false", "null", "string", "int", "bool", "object", "array"),
}
FUNCTIONS = {
    *("description", "allowed", "metadata", "minLength", "maxLength", "minValue", "maxValue"),
    *("subscription", "environment", "tenant", "subscriptionResourceId", "guid", "uniqueString"),
    *("contains", "empty", "fail", "filter", "map", "split", "string", "toLower", "trim", "union"),
}


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
            # Tags are how azd, and whoever pays, finds what belongs to the environment. By default each module would
            # tell its authors that it was deployed.
            needed = {"location", "tags", "enableTelemetry"} | REGISTRY_MODULES[detail["path"]]
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
        found = set(re.findall(rf"(?<![\w.]){name}(?:\[\w+\]|!)?\.outputs\.(\w+)", file.code))
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
        variable, default = given.get(name, ("", None))
        # azd fills in those that begin with AZURE_, and asks for others that are blank and have no default.
        may_be_blank = name in given and default is None and not variable.startswith("AZURE_")
        if parameter["default"] != ("" if may_be_blank else None):
            faults.append(f"{name} has the default {parameter['default']!r} in main.bicep")
        decorators = {decorator["type"]: decorator["argument"] for decorator in parameter["decorators"]}
        if default is None:
            continue
        kinds = {"int": r"\d+", "bool": "true|false", "string": ".+"}
        if not re.fullmatch(kinds[parameter["type"]], default):
            faults.append(f"the default {default!r} of {name} is no {parameter['type']}")
        elif default not in {str(allowed) for allowed in decorators.get("allowed", [default])}:
            faults.append(f"the default {default!r} of {name} is not allowed")
    variables = Counter(variable for variable, _ in given.values())
    return faults + [f"{count} parameters are read from {name}" for name, count in variables.items() if count > 1]


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
    wanted = {
        name: "none" if default is None else default
        for name, default in parameter_values(root).values()
        if not name.startswith("AZURE_")
    }
    shown = {name: default.strip("`") for name, default in _table(text, "### Parameters")}
    # Said in words: nobody knows the id by heart.
    if "AUTHORIZED_CLIENT_IDS" in shown:
        shown["AUTHORIZED_CLIENT_IDS"] = wanted["AUTHORIZED_CLIENT_IDS"]
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
    assert not Identities(None, environment).tell_callers_apart
    sources = [*(root / "pow").rglob("*.py"), *root.glob("function_app.py")]
    read_directly = {name for source in sources for name in _environment_reads(ast.parse(source.read_text()))}
    return (environment.asked | read_directly) - NOT_SETTINGS.keys()


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
        (undeclared_faults, "infra/app/entra.bicep", "${scopeUri}/", "${identifierUri}/"),
        (undeclared_faults, "infra/app/scheduler.bicep", "union(", "onion("),
        (module_faults, "infra/main.bicep", "./app/network.bicep", "./app/vnet.bicep"),
        (module_faults, "infra/main.bicep", "    sku: schedulerSku\n", ""),
        (module_faults, "infra/main.bicep", "    sku: schedulerSku\n", "    sku: schedulerSku\n    capacity: 1\n"),
        (module_faults, "infra/app/function-app.bicep", "web/site:0.15.1", "web/site:latest"),
        (module_faults, "infra/app/storage.bicep", "    allowSharedKeyAccess: false\n", ""),
        (module_faults, "infra/app/network.bicep", "    tags: tags\n", ""),
        (module_faults, "infra/app/monitoring.bicep", "    enableTelemetry: false\n", ""),
        (output_faults, "infra/main.bicep", "scheduler.outputs.endpoint", "scheduler.outputs.name"),
        (output_faults, "infra/main.bicep", "scheduler.outputs.endpoint", "scheduler.outputs.url"),
        (output_faults, "infra/main.bicep", "network!.outputs.appSubnetId", "network!.outputs.subnetId"),
        (output_faults, "infra/main.bicep", "output CONSENT_URL", "output CONSENT_ADDRESS"),
        (deployment_name_faults, "infra/app/network.bicep", "name: 'virtual-network'", "name: 'network'"),
        (parameter_file_faults, "infra/main.parameters.json", '"maxBlocks"', '"mostBlocks"'),
        (parameter_file_faults, "infra/main.parameters.json", "MAX_BLOCKS=64", "MAX_DIFFICULTY=40"),
        (parameter_file_faults, "infra/main.parameters.json", "=2048}", "=1024}"),
        (parameter_file_faults, "infra/main.bicep", "param maxBlocks int", "param maxBlocks int = 64"),
        (parameter_file_faults, "infra/main.bicep", "param allowedHosts string = ''", "param allowedHosts string"),
        (role_faults, "infra/app/roles.bicep", "b7e6dc6d-", "b24988ac-"),
        (role_faults, "infra/app/roles.bicep", "scope: insights", "scope: storageAccount"),
        (role_faults, "infra/app/roles.bicep", "      roleIds.monitoringMetricsP", "      roleIds.durableTaskP"),
        (role_faults, "infra/app/roles.bicep", "    principalType: 'ServicePrincipal'\n", ""),
        (role_faults, "infra/app/roles.bicep", "principalId: deployerPrincipalId", "principalId: appPrincipalId"),
        (role_faults, "infra/app/scheduler.bicep", "  parent: scheduler", "  // roleAssignments\n  parent: scheduler"),
        (setting_faults, "infra/app/function-app.bicep", "  POW_BACKEND: 'auto'\n", ""),
        (setting_faults, "infra/app/function-app.bicep", "MiningFanOut:", "MiningFanout:"),
        (setting_faults, "local.settings.json", '    "MaxBlocks": "64",\n', ""),
        (documentation_faults, "docs/deploy.md", "| `MAX_BLOCKS` | 64 |", "| `MAX_BLOCKS` | 65 |"),
        (documentation_faults, "docs/deploy.md", "| `MiningFanOut` |", "| `MiningFanout` |"),
        (documentation_faults, "infra/main.parameters.json", "SCHEDULER_SKU", "SCHEDULER_TIER"),
        (setting_faults, "pow/scanning/backends.py", 'os.environ.get("POW_BACKEND"', 'os.environ.get("POW_KERNEL"'),
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
