import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# Where a built package keeps what a checkout has elsewhere.
MOVED = {"callbacks": "sztrain/callbacks", "configs": "sztrain/configs"}


def code_files(*suffixes):
    """Files of the package as the checkout has them, by their path in the built package."""
    for folder, place in {"sztrain": "sztrain", **MOVED}.items():
        for path in sorted((ROOT / folder).rglob("*")):
            inside = path.relative_to(ROOT / folder)
            linked = folder == "sztrain" and inside.parts[0] in MOVED
            if path.suffix in suffixes and not linked and "__pycache__" not in inside.parts:
                yield f"{place}/{inside.as_posix()}"


@pytest.mark.parametrize("name", MOVED)
def test_the_links_point_at_the_folders_beside_the_package(name):
    link = ROOT / "sztrain" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..", name)
    assert (link / "__init__.py").samefile(ROOT / name / "__init__.py")


def test_every_code_package_is_listed():
    found = {path.rpartition("/")[0] for path in code_files(".py")}
    assert found == {name.replace(".", "/") for name in PROJECT["tool"]["setuptools"]["packages"]}
    for package in found:
        assert f"{package}/__init__.py" in set(code_files(".py"))


def test_the_folders_of_the_mapping_are_those_that_are_linked():
    mapping = PROJECT["tool"]["setuptools"]["package-dir"]
    moved = {f"sztrain.{name}": name for name in MOVED}
    assert mapping == {"sztrain": "sztrain", **moved}


def test_both_commands_are_installed():
    scripts = {script.name: script.value for script in entry_points(group="console_scripts")}
    assert scripts["sztrain-train"] == "sztrain.cli:train_main"
    assert scripts["sztrain-evaluate"] == "sztrain.cli:evaluate_main"
    assert PROJECT["project"]["scripts"].items() <= scripts.items()


def test_the_package_itself_is_light():
    """Neither `import sztrain` nor the command line loads torch before it has something to do."""
    code = "import sys, sztrain.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of a copy: building leaves folders behind that a checkout should not have."""
    folder = tmp_path_factory.mktemp("build")
    copy = folder / "checkout"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    skipped = shutil.ignore_patterns("__pycache__")
    for name in ("sztrain", *MOVED, "tests"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=skipped)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, copy]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = set(code_files(".py", ".yaml", ".csv", ".jinja", ".safetensors")) | {
        "sztrain/py.typed"
    }
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == expected
    assert len([name for name in expected if name.endswith(".safetensors")]) == 5
    assert {name.partition("/")[0] for name in inside} == {"sztrain"}


@pytest.mark.slow
def test_what_the_wheel_installs_works_from_another_folder(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    script = shutil.copy(ROOT / "tests" / "packaging" / "check_installed.py", tmp_path)
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stdout
