"""Lock on the creation of tables in a PostgreSQL database.

Optuna and MLflow create their tables when they first use a database, and do not expect another process that does the
same. The lock belongs to the database, so that it holds for processes on all machines.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["is_postgresql", "lock_schema"]

CONNECT_SECONDS = 10


def is_postgresql(url: str) -> bool:
    """Return whether a URL is that of a PostgreSQL database."""
    return url.startswith(("postgresql:", "postgresql+", "postgres:"))


@contextmanager
def lock_schema(url: str) -> Iterator[None]:
    """Be the only process that may create tables in a database within this context; no-op unless it is PostgreSQL.

    Args:
        url: URL of the database.

    Raises:
        sqlalchemy.exc.DBAPIError: If the database does not answer.
    """
    if not is_postgresql(url):
        yield
        return
    from sqlalchemy import create_engine, text  # takes 0.2 s to import
    from sqlalchemy.pool import NullPool

    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_SECONDS})
    with engine.begin() as connection:  # the end of the transaction releases the lock
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('clinie-schema', 0))"))
        yield
