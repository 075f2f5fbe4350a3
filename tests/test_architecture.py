"""The plan of the house, as tests: who imports whom, where heavy libraries live, what never enters the repository."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "src" / "gastrovl"
MODULES = sorted(PACKAGE.rglob("*.py"))
CODE = sorted(
    path for folder in ("src", "tests", "benchmarks", "examples") for path in (REPOSITORY / folder).rglob("*.py")
)

STAGES = {"core", "clinical", "data", "model", "training", "inference", "evaluation", "serving"}
# Besides itself, a layer may import these layers. "pipeline" is the one module that chains all stages.
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "clinical": {"core"},
    "data": {"core", "clinical"},
    "evaluation": {"core", "clinical"},
    "model": {"core"},
    "training": {"core", "model"},
    "inference": {"core", "clinical", "model"},
    "serving": {"core", "clinical", "inference"},
    "pipeline": STAGES,
    "cli": STAGES | {"pipeline"},
    "__main__": {"cli"},
}
FOUNDATION = {"numpy", "pydantic", "yaml"}
LIBRARIES: dict[str, set[str]] = {
    "core": FOUNDATION | {"PIL", "matplotlib"},
    "clinical": FOUNDATION,
    "data": FOUNDATION | {"PIL", "jinja2", "openpyxl", "defusedxml", "av", "pydicom", "pyarrow", "ray"},
    "evaluation": FOUNDATION
    | {"PIL", "jinja2", "sacrebleu", "rouge_score", "nltk", "bert_score", "torch", "transformers"},
    "model": FOUNDATION | {"PIL", "torch", "transformers", "tokenizers", "peft", "safetensors", "bitsandbytes"},
    "training": FOUNDATION
    | {"PIL", "torch", "transformers", "accelerate", "safetensors", "wandb", "mlflow", "huggingface_hub"},
    "inference": FOUNDATION | {"PIL", "torch", "transformers", "llguidance", "safetensors"},
    "serving": FOUNDATION
    | {"PIL", "fastapi", "starlette", "anyio", "uvicorn", "prometheus_client", "python_multipart", "limits"},
    "pipeline": FOUNDATION,
    "cli": {"typer", "rich"},
}
# An optional library has one home in a layer, so that one file says what is lost without it.
HOME_OF: dict[str, tuple[str, ...]] = {
    "openpyxl": ("data/formats/tables.py",),
    "defusedxml": ("data/formats/tables.py",),  # openpyxl uses it when it is there
    "av": ("data/frames/video.py",),
    "pydicom": ("data/frames/dicom.py",),
    "matplotlib": ("core/figures.py",),
    "bitsandbytes": ("model/quantise.py",),
    "llguidance": ("inference/decoding/jsonreply.py",),
    "pyarrow": ("data/exporters/parquet.py",),
    "ray": ("data/rayengine.py",),
    "jinja2": ("evaluation/showing/templating.py", "data/audit/page.py"),
    "sacrebleu": ("evaluation/measures/language.py",),
    "rouge_score": ("evaluation/measures/language.py",),
    "nltk": ("evaluation/measures/language.py",),  # comes with rouge_score
    "bert_score": ("evaluation/measures/bertscore.py",),
    "wandb": ("training/watching/trackers.py",),
    "mlflow": ("training/watching/trackers.py",),
    "huggingface_hub": ("training/publishing/hub.py",),
    "uvicorn": ("serving/run.py",),
    "prometheus_client": ("serving/metrics.py",),
    "limits": ("serving/limits.py",),
    "python_multipart": ("serving/forms.py",),
}
# The one file of a torch-free layer that runs a model, in a function.
RUNS_A_MODEL = {"evaluation": "evaluation/measures/bertscore.py"}
TORCH_FREE = {"core", "clinical", "data", "evaluation", "cli"}
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
MAX_LINES = 450
NAMES_THAT_SAY_NOTHING = {"utils.py", "helpers.py", "misc.py", "common.py"}


def layer_of(path: Path) -> str:
    """The first folder below the package, or a top-level module's own name."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import of a file, also inside functions and by `import_module("...")`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            # `from gastrovl import data` imports a layer, `from gastrovl.core import files` a module of one
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node).endswith(("import_module", "__import__")) and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield node.lineno, name.value


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else ""


def _true_flags(node: ast.Call) -> set[str | None]:
    return {key.arg for key in node.keywords if isinstance(key.value, ast.Constant) and key.value.value is True}


def _at(path: Path, line: int) -> str:
    return f"{path.relative_to(REPOSITORY)}:{line}"


def _third_party(path: Path) -> Iterator[tuple[int, str]]:
    for line, name in dict.fromkeys((line, name.partition(".")[0]) for line, name in imports_of(path)):
        if name and name != "gastrovl" and name not in sys.stdlib_module_names:
            yield line, name


def test_every_folder_of_the_package_has_its_rules():
    folders = {layer_of(path) for path in MODULES} - {"__init__", "__main__"}
    assert folders <= set(MAY_IMPORT), "add the new layer to MAY_IMPORT and LIBRARIES, and say why in docs/decisions/"


def test_imports_flow_one_way():
    found = []
    for path in MODULES:
        layer = layer_of(path)
        for line, name in imports_of(path):
            if name.startswith("."):
                found.append(f"{_at(path, line)}: {name} is relative; write the whole name")
            if not name.startswith("gastrovl.") or name == "gastrovl.__version__":
                continue
            target = name.split(".")[1]
            if layer == "__init__" or target not in MAY_IMPORT.get(layer, set()) | {layer}:
                found.append(f"{_at(path, line)}: {layer} may not import {target}")
    assert not found, "\n".join(found)


def test_heavy_libraries_stay_in_their_layers():
    found = [
        f"{_at(path, line)}: {layer_of(path)} may not import {top}"
        for path in MODULES
        for line, top in _third_party(path)
        if top not in LIBRARIES.get(layer_of(path), set())
    ]
    assert not found, "\n".join(found)


def test_an_optional_library_is_imported_in_its_home_only():
    found = [
        f"{_at(path, line)}: {top} belongs in {' or '.join(HOME_OF[top])}"
        for path in MODULES
        for line, top in _third_party(path)
        if top in HOME_OF and path.relative_to(PACKAGE).as_posix() not in HOME_OF[top]
    ]
    assert not found, "\n".join(found)


def test_a_torch_free_layer_runs_models_in_one_file_only():
    found = [
        f"{_at(path, line)}: {top} belongs in {RUNS_A_MODEL.get(layer_of(path), 'no file of this layer')}"
        for path in MODULES
        if layer_of(path) in TORCH_FREE and path.relative_to(PACKAGE).as_posix() != RUNS_A_MODEL.get(layer_of(path))
        for line, top in _third_party(path)
        if top in ("torch", "transformers")
    ]
    assert not found, "\n".join(found)


def test_optional_libraries_are_imported_inside_functions():
    found = [
        f"{_at(path, node.lineno)}: import it in the function that needs it"
        for path in MODULES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
        if name.partition(".")[0] in HOME_OF
    ]
    assert not found, "\n".join(found)


def test_every_library_that_is_imported_is_declared():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(one for extra in extras.values() for one in extra)]
    declared = {re.split(r"[\[<>=]", one, maxsplit=1)[0].lower().replace("_", "-") for one in wanted}
    declared.add("nltk")  # rouge-score's own word stemmer, which its scorer takes as an argument
    providers = metadata.packages_distributions()
    found = sorted(
        f"{_at(path, line)}: {top}"
        for path in CODE
        for line, top in _third_party(path)
        if not {name.lower().replace("_", "-") for name in providers.get(top, [])} & declared
        and not (path.parent / f"{top}.py").is_file()  # a script's own neighbour
    )
    assert not found, "add to pyproject.toml:\n" + "\n".join(found)


def test_torch_free_layers_import_on_a_machine_without_torch():
    names = [
        ".".join(("gastrovl", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in MODULES
        if layer_of(path) in TORCH_FREE | {"__init__"}
    ]
    script = (
        "import importlib, sys\n"
        "for heavy in ('torch', 'transformers', 'tokenizers', 'accelerate', 'peft', 'safetensors', 'matplotlib',\n"
        "              'jinja2', 'ray', 'sacrebleu', 'rouge_score', 'openpyxl', 'defusedxml', 'av', 'pydicom',\n"
        "              'pyarrow', 'bitsandbytes', 'wandb', 'mlflow', 'huggingface_hub', 'bert_score',\n"
        "              'fastapi', 'starlette', 'uvicorn', 'prometheus_client', 'python_multipart', 'limits',\n"
        "              'llguidance'):\n"
        "    sys.modules[heavy] = None  # an import of it now raises ImportError\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_unpickles_or_runs_foreign_code():
    found = []
    for path in CODE:
        found += [
            f"{_at(path, line)}: {name}" for line, name in imports_of(path) if name.partition(".")[0] in UNPICKLERS
        ]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called, flags = _called(node), _true_flags(node)
                if called in {"torch.load", "torch.jit.load", "eval", "exec"} or flags & {
                    "trust_remote_code",
                    "allow_pickle",
                }:
                    found.append(f"{_at(path, node.lineno)}: {ast.unparse(node)}")
    assert not found, "\n".join(found)


def test_weights_come_from_local_safetensors_only():
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _called(node).endswith(".from_pretrained"):
                is_model = "Model" in _called(node) or "ForConditionalGeneration" in _called(node)
                needed = {"local_files_only"} | ({"use_safetensors"} if is_model else set())
                if missing := needed - _true_flags(node):
                    found.append(f"{_at(path, node.lineno)}: {_called(node)} without {sorted(missing)} set to True")
    assert not found, "\n".join(found)


def test_no_file_is_too_long_for_one_idea():
    long = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in CODE}
    found = [f"{_at(path, count)}: more than {MAX_LINES} lines" for path, count in long.items() if count > MAX_LINES]
    assert not found, "split by idea:\n" + "\n".join(found)


def test_no_file_has_a_name_that_says_nothing():
    found = [str(path.relative_to(REPOSITORY)) for path in CODE if path.name in NAMES_THAT_SAY_NOTHING]
    assert not found, f"name these after their idea: {found}"


def test_every_module_opens_with_a_sentence():
    found = [
        str(path.relative_to(REPOSITORY))
        for path in MODULES
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, f"say in the first line what the module turns into what: {found}"


def repository_texts() -> Iterator[tuple[Path, str]]:
    """Every text file that belongs to the repository; tracked or about to be, since ignored folders are left out."""
    folders = ("src", "tests", "configs", "docs", "benchmarks", "examples", ".ci")
    inside = (
        path for folder in folders for path in (REPOSITORY / folder).rglob("*") if "__pycache__" not in path.parts
    )
    for path in (*REPOSITORY.iterdir(), *inside):
        if path.is_file():
            try:
                yield path, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # an image


def test_no_file_names_a_place_on_one_machine_or_an_open_end():
    slash = "/"  # split, so that this file does not find itself
    places = "|".join(slash + place + slash for place in ("home", "root", "Users", "work", "tmp", "mnt"))
    pattern = re.compile(rf"(?<![\w.~$}}/-])(?:{places})\w|\b[A-Z]:\\\w|\b(?:TO" + r"DO|FIX" + r"ME)\b")
    found = [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:120]}"
        for path, text in repository_texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)
