"""What is in the .charm that IMAGEWRIGHT_TEST_CHARM names (`tests/tox -e pack` packs and names it)."""

import os
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml

from charm_stories.charm_tree import packed, unpack
from harness.servers import REPO

PROGRAMS = ("imagewright", "imagewright-worker")


@pytest.fixture(scope="module")
def archive() -> zipfile.ZipFile:
    """The .charm."""
    path = packed()
    assert path, "IMAGEWRIGHT_TEST_CHARM does not name a .charm: run tests/tox -e pack"
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def charm(archive: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .charm unpacked, as Juju does."""
    folder = tmp_path_factory.mktemp("charm")
    unpack(Path(archive.filename or ""), folder)
    return folder


@pytest.mark.parametrize("name", PROGRAMS)
def test_both_programs_are_there_and_run(charm: Path, name: str) -> None:
    path = charm / "workload/bin" / name
    assert os.access(path, os.X_OK)
    assert path.read_bytes()[:4] == b"\x7fELF"
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == name


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_programs_are_optimised_builds(charm: Path, name: str) -> None:
    assert (charm / "workload/bin" / name).stat().st_size < 40_000_000, "debug builds are three times as large"


def test_the_code_is_the_repositorys_byte_for_byte(charm: Path) -> None:
    source = REPO / "charm/src"
    wanted = {path.relative_to(source): path for path in source.rglob("*") if path.is_file()}
    wanted = {name: path for name, path in wanted.items() if "__pycache__" not in name.parts}
    assert {name: path.read_bytes() for name, path in wanted.items()} == {
        name: (charm / "src" / name).read_bytes() for name in wanted
    }


def test_dispatch_is_executable_and_its_libraries_are_there(charm: Path) -> None:
    assert os.access(charm / "dispatch", os.X_OK)
    assert "src/charm.py" in (charm / "dispatch").read_text()
    names = {path.name for path in (charm / "venv").glob("lib/python3*/site-packages/*")}
    assert {"ops", "cosl", "pydantic", "yaml"} <= names
    assert "pytest" not in names


def test_metadata_options_and_actions_are_those_that_were_declared(charm: Path) -> None:
    declared = yaml.safe_load((REPO / "charm/charmcraft.yaml").read_text())
    metadata = yaml.safe_load((charm / "metadata.yaml").read_text())
    assert {key: metadata[key] for key in ("name", "requires", "provides", "peers")} == {
        key: declared[key] for key in ("name", "requires", "provides", "peers")
    }
    assert yaml.safe_load((charm / "config.yaml").read_text()) == declared["config"]
    assert yaml.safe_load((charm / "actions.yaml").read_text()) == declared["actions"]
    manifest = yaml.safe_load((charm / "manifest.yaml").read_text())
    assert [(base["name"], base["channel"]) for base in manifest["bases"]] == [("ubuntu", "24.04")]


def test_licences_of_the_project_and_of_every_crate_are_there(charm: Path) -> None:
    assert (charm / "LICENSE").read_bytes() == (REPO / "LICENSE").read_bytes()
    assert (charm / "icon.svg").exists()
    index = (charm / "licences/index.txt").read_text()
    for crate in ("lapin", "tokio", "rustls", "rusqlite"):
        assert f"\n{crate} " in index
        (folder,) = (charm / "licences").glob(f"{crate}-[0-9]*")
        assert list(folder.iterdir()), f"{crate} came without a text"


def test_nothing_else_is_in_it(archive: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in archive.namelist()}
    known = {"LICENSE", "actions.yaml", "charmcraft.yaml", "config.yaml", "dispatch", "icon.svg", "licences"}
    known |= {"manifest.yaml", "metadata.yaml", "src", "venv", "workload", "README.md"}
    assert tops <= known, tops - known
    assert not [name for name in archive.namelist() if "__pycache__" in name and name.startswith("src/")]
