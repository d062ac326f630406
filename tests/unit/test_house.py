"""What may import what."""

import ast
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "trialbook"
MODULES = sorted(SOURCE.rglob("*.py"))
STANDARD_ONLY = (
    *("trial.py", "errors.py", "space.py", "search/loop.py", "executors.py", "testing.py"),
    *("interrupts.py", "waiting.py"),
)
HEAVY = {"keras", "tensorflow", "keras_tuner"}
# Modules that stand for a library may import it: these only inside functions, and those of Keras Tuner at the top.
INSIDE_FUNCTIONS = {
    *("allowed.py", "builders.py", "data/catalogues.py", "epochs.py", "estimator.py", "keras_files.py", "models.py"),
    *("serving.py", "model_files.py"),
}
# Mends a mistake of Keras's, and does without where it cannot.
EXCEPTIONS = {("keras_files.py", "keras.src.backend.common.global_state")}
AT_THE_TOP = {"search/keras_tuner.py", "search/hyperparameters.py"}


def imported(path, *, top_level_only=False):
    """The packages a module imports; imports for type checking do not count."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("name", STANDARD_ONLY)
def test_the_vocabulary_imports_the_standard_library_only(name):
    assert imported(SOURCE / name) <= set(sys.stdlib_module_names) | {"trialbook", "__future__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_keras_is_imported_where_it_is_used_and_late(path):
    name = str(path.relative_to(SOURCE))
    if name not in INSIDE_FUNCTIONS | AT_THE_TOP:
        assert not imported(path) & HEAVY
    if name not in AT_THE_TOP:
        assert not imported(path, top_level_only=True) & HEAVY


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_module_imports_the_private_parts_of_a_library(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("trialbook"):
            if (path.name, node.module) in EXCEPTIONS:
                continue
            assert not any(
                part.startswith("_") or part == "src" for part in node.module.split(".") if part != "__future__"
            )
