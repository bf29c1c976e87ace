"""Nothing that is read from disk, registry or network is executed; secrets are handled in one place only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("gnn", "flows")
PICKLERS = {
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "shelve",
    "jsonpickle",
    "pandas.io.pickle",
}
EXECUTORS = {
    "torch.load", "torch.jit.load", "torch.hub.load", "torch.package", "pandas.read_pickle", "pd.read_pickle",
    "mlflow.pytorch.load_model", "mlflow.pyfunc.load_model", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "os.system", "os.popen", "eval", "exec", "compile", "__import__",
}  # fmt: skip
IMPORTERS = {"importlib.import_module", "import_module"}
MAY_IMPORT_BY_NAME = {"gnn/potentials/foreign.py", "flows/batch_cluster.py"}
"""Optional packages, by names that these files themselves write down."""
SECRETS = {"SLUICE_AUTH", "SLUICE_DATABASE_URL"}
MAY_NAME_SECRETS = {"flows/services/secrets.py", "flows/services/discover.py"}


def sources(repository: Path) -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((repository / package).rglob("*.py")):
            yield path.relative_to(repository).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def dotted(node: ast.expr) -> str:
    """`a.b.c` as text; nothing for other expressions."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def keyword(call: ast.Call, name: str) -> object:
    for found in call.keywords:
        if found.arg == name and isinstance(found.value, ast.Constant):
            return found.value.value
    return None


def test_nothing_that_unpickles_is_imported(repository: Path) -> None:
    for path, tree in sources(repository):
        for node in ast.walk(tree):
            for name in imported(node):
                assert name.split(".")[0] not in PICKLERS, f"{path}:{node.lineno} imports {name}"  # type: ignore[attr-defined]
                assert name not in EXECUTORS, f"{path}:{node.lineno} imports {name}"  # type: ignore[attr-defined]


def test_nothing_that_executes_data_is_called(repository: Path) -> None:
    for path, tree in sources(repository):
        for name, call in calls(tree):
            assert name not in EXECUTORS, f"{path}:{call.lineno} calls {name}"
            if name in IMPORTERS:
                assert path in MAY_IMPORT_BY_NAME, f"{path}:{call.lineno} imports by name"
            assert keyword(call, "shell") is not True, f"{path}:{call.lineno} gives a shell something"
            assert keyword(call, "weights_only") is not False, f"{path}:{call.lineno}"


def test_arrays_are_read_without_objects(repository: Path) -> None:
    """`numpy.load` unpickles object arrays unless it is told not to; its default has changed before."""
    for path, tree in sources(repository):
        for name, call in calls(tree):
            if name in ("np.load", "numpy.load", "np.memmap.load"):
                assert keyword(call, "allow_pickle") is False, f"{path}:{call.lineno} does not forbid pickles"


def test_results_of_prefect_are_json(repository: Path) -> None:
    """Prefect's default serialiser is a pickle; what is kept on disk and read again must not be one."""
    for path, tree in sources(repository):
        for name, call in calls(tree):
            if name in ("task", "flow", "Task", "Flow") and keyword(call, "persist_result") is True:
                assert keyword(call, "result_serializer") == "json", f"{path}:{call.lineno} keeps pickled results"


def test_secrets_are_named_in_one_place(repository: Path) -> None:
    """Everything else asks flows.services.secrets, which never shows them."""
    for path, tree in sources(repository):
        for name, call in calls(tree):
            if name in ("os.environ.get", "os.getenv", "environ.get"):
                words = {a.value for a in call.args if isinstance(a, ast.Constant)}
                assert not words & SECRETS or path in MAY_NAME_SECRETS, f"{path}:{call.lineno} reads a secret"


def test_secrets_do_not_show_in_representations() -> None:
    from pydantic import SecretStr

    from flows.services.config import ServiceSettings
    from flows.services.database import databases
    from flows.services.probes import Http
    from flows.services.programs import Setting
    from flows.settings import Home

    url = SecretStr("postgresql://ann:hunter22@db/x")
    setting = Setting(Home(Path("x")), ServiceSettings(), SecretStr("ann:hunter22"), databases(url))
    for shown in (repr(setting), str(setting), repr(setting.prefect), repr(Http("http://x", url))):
        assert "hunter22" not in shown


@pytest.mark.parametrize("suffix", ["pkl", "pickle", "pt", "pth", "joblib", "npy"])
def test_no_such_file_is_kept_in_the_repository(repository: Path, suffix: str) -> None:
    import subprocess

    found = subprocess.run(
        ["git", "ls-files", f"*.{suffix}"], cwd=repository, capture_output=True, text=True, check=True
    )
    assert found.stdout == ""


def test_an_audit_stands_in_the_makefile_and_the_instructions(repository: Path) -> None:
    assert "\naudit:" in (repository / "Makefile").read_text()
    assert "make audit" in (repository / "CONTRIBUTING.md").read_text()
