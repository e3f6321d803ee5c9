"""Glance as uWSGI serves it here, with its SQLite file locked the way a database server locks rows.

oslo.db begins every transaction with a read, and SQLite refuses at once (`database is locked`, answered as 500) when
two such transactions want to write. Begun as writers, they wait for each other. Nothing else of Glance is changed.
"""

from typing import Any

from glance.wsgi.api import application  # pyright: ignore[reportMissingImports]
from sqlalchemy import event  # pyright: ignore[reportMissingImports]
from sqlalchemy.engine import Engine  # pyright: ignore[reportMissingImports]

__all__ = ["application"]


@event.listens_for(Engine, "before_cursor_execute", retval=True)
def begin_as_a_writer(
    _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
) -> tuple[str, Any]:
    return ("BEGIN IMMEDIATE" if statement == "BEGIN" else statement), parameters
