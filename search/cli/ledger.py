"""Commands for the ledger's database."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli.options import console

app = typer.Typer(help="Serve the ledger's database.", no_args_is_help=True)

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 13000,
) -> None:
    """Serve the database of CLINIE_LEDGER to machines without access to it, by Optuna's gRPC proxy.

    There, set CLINIE_LEDGER to grpc://HOST:PORT. The proxy has no authentication and no encryption: every user who can
    connect to its port can read and change all studies.
    """
    import os

    from clinie_core.errors import fail
    from search.ledger.database import open_database
    from search.ledger.proxy import serve_ledger
    from search.storage.home import LEDGER_VARIABLE

    url = os.environ.get(LEDGER_VARIABLE, "")
    if not url or url.startswith("grpc://"):
        fail(LEDGER_VARIABLE, "no database to serve", allowed="for example postgresql://user@host/database")
    storage = open_database(url)
    out = console()
    out.print(f"serving {storage.shown} at grpc://{host}:{port}; Ctrl-C ends it", soft_wrap=True, markup=False)
    if host not in LOOPBACK:
        note = f"every user who can connect to {host}:{port} can read and change all studies: it has no authentication"
        out.print(f"[yellow]warning[/yellow] {note}", soft_wrap=True)
    serve_ledger(storage, host, port)


app.command(name="serve")(serve)
