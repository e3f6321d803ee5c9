"""The pages and the module say what charmcraft.yaml and the code say."""

import re
import runpy

import pytest
import yaml
from conftest import CHARM


def test_the_reference_is_current():
    made = runpy.run_path(str(CHARM / "reference.py"))["text"]()
    assert (CHARM.parent / "docs/charm/reference.md").read_text() == made


SOURCE = "".join(path.read_text() for path in sorted((CHARM / "src").glob("*.py")))
STATUSES = re.findall(r'(Blocked|Waiting|Maintenance|Active)Status\(\s*f?"([^"{:;]*)', SOURCE)


@pytest.mark.parametrize(("word", "message"), STATUSES)
def test_every_status_has_its_row(word, message):
    rows = [line for line in (CHARM.parent / "docs/charm/statuses.md").read_text().splitlines() if message in line]
    assert any(row.startswith(f"| {word.lower()} |") for row in rows), message
    assert len(STATUSES) > 12


def test_the_module_names_every_endpoint():
    text = (CHARM / "terraform/outputs.tf").read_text()
    declared = yaml.safe_load((CHARM / "charmcraft.yaml").read_text())
    for endpoint in [*declared["provides"], *declared["requires"]]:
        assert f'{endpoint.replace("-", "_")} = "{endpoint}"' in text
