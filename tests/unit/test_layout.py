"""Guards: `token/` never shadows the standard library, and the import rules of docs/architecture.md hold."""

import ast
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Who may import what of ours, by the longest matching prefix. Everybody may import from their own package.
PURE = {"mover.errors", "mover.location", "mover.model", "mover.states", "mover.naming", "mover.policy"}
ALLOWED: dict[str, set[str]] = {
    "mover.errors": set(),
    "mover.location": PURE,
    "mover.model": PURE,
    "mover.states": PURE,
    "mover.naming": PURE,
    "mover.policy": PURE,
    "mover.config": PURE | {"mover.tables", "mover.recoconfig"},
    "mover.tables": PURE,
    "mover.recoconfig": PURE | {"mover.tables", "mover.reco.contract", "mover.reco.software"},
    "mover.ports": PURE,
    "mover.bundle": PURE,
    "mover.durable": {"mover.errors"},
    "mover.gridtls": set(),
    "mover.catalogue": PURE | {"mover.bundle", "mover.durable"},
    "mover.certificate": PURE | {"mover.catalogue", "proxyagent.client"},
    "mover.agentstate": set(),
    "mover.credential": PURE | {"mover.agentstate", "proxyagent.client"},
    "mover.storage": PURE | {"mover.ports", "mover.durable", "mover.gridtls"},
    "mover.storage.gfalcopy_process": {"proxyagent.client"},
    "mover.steps": PURE | {"mover.ports", "mover.config", "mover.recoconfig", "mover.bundle", "mover.catalogue"},
    "mover.alarms": PURE | {"mover.agentstate", "mover.ports", "mover.config", "mover.catalogue", "mover.steps"},
    "mover.metrics": PURE | {"mover.agentstate", "mover.alarms", "mover.config", "mover.catalogue", "mover.steps"},
    "mover.why": PURE
    | {"mover.agentstate", "mover.ports", "mover.config", "mover.recoconfig", "mover.catalogue", "mover.steps"},
    "mover.configwatch": PURE | {"mover.config"},
    "mover.releaser": PURE
    | {"mover.ports", "mover.config", "mover.configwatch", "mover.catalogue", "mover.steps", "mover.lane"},
    "mover.audit": PURE
    | {"mover.htmlpage", "mover.pace", "mover.ports", "mover.config", "mover.bundle", "mover.catalogue", "mover.steps"},
    "mover.htmlpage": set(),
    "mover.breaker": PURE | {"mover.config"},
    "mover.pace": set(),
    "mover.lane": PURE
    | {"mover.breaker", "mover.pace", "mover.ports", "mover.config", "mover.catalogue", "mover.steps"},
    "mover.headlog": PURE | {"mover.ports", "mover.catalogue"},
    "mover.engine": PURE
    | {
        "mover.ports",
        "mover.config",
        "mover.configwatch",
        "mover.catalogue",
        "mover.steps",
        "mover.lane",
        "mover.releaser",
        "mover.headlog",
    },
    "mover.batch": PURE | {"mover.ports", "mover.durable", "mover.gridtls", "proxyagent.client"},
    "mover.reco": PURE
    | {
        "mover.htmlpage",
        "mover.ports",
        "mover.config",
        "mover.configwatch",
        "mover.recoconfig",
        "mover.bundle",
        "mover.catalogue",
        "mover.steps",
        "mover.lane",
    },
    "mover.reco.contract": PURE | {"mover.tables"},
    "mover.reco.limits": set(),
    "mover.reco.unpack": PURE | {"mover.bundle", "mover.reco.limits"},
    "mover.reco.look_process": set(),
    "mover.reco.logscan": {"mover.reco.look_process"},
    "mover.reco.rootfile": {"mover.reco.look_process"},
    "mover.reco.look": PURE | {"mover.reco.limits"},
    "mover.reco.proof": PURE
    | {"mover.bundle", "mover.reco.contract", "mover.reco.limits", "mover.reco.look", "mover.reco.unpack"},
    "mover.reco.events": PURE | {"mover.bundle"},
    "mover.reco.jobdescription": PURE | {"mover.tables"},
    "mover.reco.software": PURE | {"mover.tables"},
    "mover.reco.releases": PURE | {"mover.reco.software"},
    "mover.reco.releases_process": set(),
    "mover.wiring": PURE
    | {
        "mover.agentstate",
        "mover.ports",
        "mover.config",
        "mover.tables",
        "mover.recoconfig",
        "mover.credential",
        "mover.storage",
        "mover.batch",
    },
    "mover.sandbox": PURE | {"mover.bundle.date"},
    "mover.cli": {"mover"},
    "mover.cli.daemon": {"proxyagent.client"},
    "mover.__main__": {"mover.cli.main"},
    "proxyagent": set(),
}

#: Third-party modules that only one place may import.
CONFINED = {
    "gfal2": {"mover.storage.gfal", "mover.storage.gfalerrors", "mover.storage.gfalcopy_process"},
    "pkcs11": {"proxyagent"},
    "M2Crypto": {"proxyagent"},
    "prometheus_client": {"mover.metrics"},
    # It makes and runs code from what a file says of its classes.
    "uproot": {"mover.reco.rootfile"},
}


def _modules() -> Iterator[tuple[str, Path]]:
    for source, package in ((ROOT, "mover"), (ROOT / "token", "proxyagent")):
        for path in sorted((source / package).rglob("*.py")):
            parts = path.relative_to(source).with_suffix("").parts
            if "files" not in parts:  # programs that the sandbox copies out
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _within(name: str, prefixes: set[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _rule(module: str) -> tuple[str, set[str]]:
    own = max((prefix for prefix in ALLOWED if _within(module, {prefix})), key=len, default=None)
    assert own is not None, f"{module} has no import rule: add one"
    return own, ALLOWED[own] | {own}


@pytest.mark.parametrize(
    ("module", "path"), [pytest.param(*item, id=item[0]) for item in _modules() if item[0] != "mover"]
)
def test_modules_import_only_what_they_may(module: str, path: Path) -> None:
    _, allowed = _rule(module)
    for imported in _imports(path):
        if _within(imported, {"mover", "proxyagent"}):
            assert _within(imported, allowed), f"{module} imports {imported}"
        library = imported.split(".")[0]
        if library in CONFINED:
            assert _within(module, CONFINED[library]), f"{module} imports {library}"


def test_the_import_rules_would_notice_a_breach() -> None:
    _, allowed = _rule("mover.steps.transfer")
    assert not _within("mover.storage.root", allowed)
    _, allowed = _rule("mover.credential")
    assert not _within("proxyagent.proxy", allowed)
    assert _within("proxyagent.client.obtain_proxy", allowed)


def test_import_token_from_the_root_is_the_standard_library() -> None:
    for arguments in (["-c"], ["-m", "timeit", "-n1", "-r1"]):
        code = "import token, tokenize, sys; sys.stdout.write(token.__file__)"
        done = subprocess.run(
            [sys.executable, *arguments, code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout.startswith(str(Path(sysconfig.get_path("stdlib")) / "token.py"))


def test_nothing_makes_token_a_package_or_shadows_it() -> None:
    assert not list((ROOT / "token").glob("*.py"))
    assert not (ROOT / "tests" / "token").exists()
    assert [entry.name for entry in (ROOT / "token").iterdir() if entry.name != "__pycache__"] == ["proxyagent"]
