"""What the OpenStack of tox -e openstack says where it cannot be."""

import os

import pytest

from stack import lab, packages


def test_without_root_it_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert packages.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "needs root" in line
    assert "needs root" in lab.is_possible()
