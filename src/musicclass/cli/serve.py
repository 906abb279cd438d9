"""`musicclass serve`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from musicclass.cli.options import MemoryOption, MinimumOption, ModelOption, TimeoutOption, WorkersOption
from musicclass.errors import import_optional
from musicclass.saved_model import DEFAULT_MODEL

LibraryOption = Annotated[Path | None, typer.Option(help="A table made by `library`, to browse and correct.")]
WriteTagsOption = Annotated[
    bool, typer.Option("--write-tags", help="Let the library's page write genres into the tags of files.")
]
HostOption = Annotated[str, typer.Option(help="Address to listen on; any but this machine's requires --token.")]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any free one.")]
TokenOption = Annotated[
    str | None, typer.Option(envvar="MUSICCLASS_TOKEN", help="Access token that every request must send.")
]
OriginOption = Annotated[
    list[str] | None, typer.Option(help="Site whose pages may use the API, such as https://example.org.")
]
OpenOption = Annotated[bool, typer.Option("--open/--no-open", help="Open the web UI in a browser.")]
UploadOption = Annotated[float, typer.Option(min=0.001, help="Largest request, in MB.")]
RootOption = Annotated[str, typer.Option(help="Path under which a reverse proxy serves it, such as /music.")]
ShutdownOption = Annotated[int, typer.Option(min=0, help="Seconds for open requests when the server stops.")]
AccessLogOption = Annotated[bool, typer.Option(help="Log each request, without tokens and names of files.")]
DurationOption = Annotated[float, typer.Option(min=0.1, help="Minutes of a file that are decoded.")]
QueueOption = Annotated[int, typer.Option(min=1, help="Files that may be queued; further requests get status 503.")]


def serve(
    library: LibraryOption = None,
    write_tags: WriteTagsOption = False,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    token: TokenOption = None,
    root_path: RootOption = "",
    allow_origin: OriginOption = None,
    open_browser: OpenOption = True,
    model: ModelOption = DEFAULT_MODEL,
    workers: WorkersOption = None,
    timeout: TimeoutOption = 60.0,
    worker_memory_gb: MemoryOption = 1.0,
    max_upload_mb: UploadOption = 200.0,
    max_duration: DurationOption = 120.0,
    queue_size: QueueOption = 100,
    shutdown_timeout: ShutdownOption = 3,
    access_log: AccessLogOption = True,
    min_confidence: MinimumOption = None,
) -> None:
    """Serve the web UI and the HTTP API."""
    for module in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        import_optional(module, "web")
    if write_tags:
        import_optional("mutagen", "tags")
        if not library:
            raise typer.BadParameter("--write-tags needs --library")
    if wrong := [site for site in allow_origin or () if not re.fullmatch(r"https?://[^/]+", site)]:
        raise typer.BadParameter(f"--allow-origin {wrong[0]}: origins look like https://example.org")
    from musicclass.server.app import serve as run_server
    from musicclass.server.settings import ServerSettings
    from musicclass.workers import usable_cores

    settings = ServerSettings(
        model=model,
        min_confidence=min_confidence,
        library=library,
        write_tags=write_tags,
        host=host,
        port=port,
        token=token,
        root_path=root_path,
        access_log=access_log,
        shutdown_timeout=shutdown_timeout,
        origins=tuple(allow_origin or ()),
        workers=workers or usable_cores(),
        timeout=timeout,
        worker_memory=worker_memory_gb * 1e9,
        max_seconds=max_duration * 60,
        max_upload=int(max_upload_mb * 1e6),
        queue_size=queue_size,
    )
    run_server(settings, open_browser)
