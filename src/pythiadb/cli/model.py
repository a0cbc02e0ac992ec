"""`pythia model load | export | list | show | drop`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
from rich.progress import Progress as Bar
from rich.text import Text

from pythiadb.cli.display import cell, console, error_console, print_json, print_table, progress_bar, size
from pythiadb.cli.target import current_target, target_options
from pythiadb.models.export import export_augmented, export_files
from pythiadb.models.hub import is_hub_name, repository_name
from pythiadb.models.loading import Connection, Progress, load_model, stored_package
from pythiadb.models.package import FUNCTIONS

LOADED = """
SELECT d.model_name, d.function, d.dimensions, jsonb_array_length(nullif(m.spec -> 'labels', 'null')) AS labels,
       d.attributes, d.inmemory, d.model_size AS size
FROM pythia.model_details d JOIN pythia.model m USING (id)
WHERE m.relation = ANY (SELECT to_regclass(n) FROM unnest(%s::text[]) AS n) ORDER BY d.id
"""


@click.group()
def model() -> None:
    """Models in the database."""


@model.command()
@click.argument("source", metavar="PATH|HUB-NAME")
@click.argument("name", required=False)
@click.option(
    "--function", type=click.Choice(FUNCTIONS), help="What the model is for, where that cannot be found out."
)
@click.option("--prompt", help="The folder's prompt to put before every text, by its name: query, passage, …")
@click.option(
    "--metadata", help="Oracle's metadata as JSON; needed for ONNX files that do not follow the conventions."
)
@click.option("--inmemory", is_flag=True, help="Let all sessions share one copy of the weights.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@target_options
def load(
    *,
    source: str,
    name: str | None,
    function: str | None,
    prompt: str | None,
    metadata: str | None,
    inmemory: bool,
    as_json: bool,
) -> None:
    """Load a Hugging Face folder, a name on its hub, or an ONNX file.

    NAME is by default the file's or folder's name. A CLIP folder makes two models: NAME_text and NAME_image.
    """
    name = name or _default_name(source)
    with current_target().connect() as connection, progress_bar() as bar:
        made = load_model(
            connection, source, name,
            metadata=metadata, function=function, prompt=prompt, inmemory=inmemory,
            progress=_megabytes(bar, f"loading {name}"),
        )  # fmt: skip
        cursor = connection.execute(LOADED, (made,))
        columns = [column.name for column in cursor.description or ()]
        models = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
    if as_json:
        print_json(models)
        return
    for found in models:
        facts = [f"{found['dimensions']} dimensions" if found["dimensions"] else found["function"]]
        facts += [f"{found['labels']} labels"] if found["labels"] else []
        facts += [
            f"attribute{'s' * (len(found['attributes']) > 1)} {', '.join(found['attributes'])}",
            size(found["size"]),
        ]
        console.print(Text(f"loaded model {found['model_name']}: {', '.join(facts)}"), soft_wrap=True)


@model.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--augmented", is_flag=True, help="Write one ONNX file with the tokenizer inside, as Oracle's tools do."
)
@target_options
def export(name: str, folder: Path, augmented: bool) -> None:
    """Write a model's files into FOLDER, for `pythia model load`.

    With --augmented it is one file NAME.onnx that takes text, for DBMS_VECTOR.LOAD_ONNX_MODEL. Only a model's owner may export it.
    """
    with tempfile.TemporaryDirectory(prefix="pythia-export-") as work:
        with current_target().connect(autocommit=True) as connection, progress_bar() as bar:
            package = stored_package(
                connection, name, Path(work), progress=_megabytes(bar, f"exporting {name}")
            )
            file = folder / f"{_file_name(connection, name)}.onnx"
        if augmented:
            differing = export_augmented(package, file)
        else:
            differing = ()
            export_files(package, folder)
    console.print(Text(f"exported model {name} to {file if augmented else folder}"), soft_wrap=True)
    if differing:
        error_console.print(
            Text(f"WARNING:  the file gives other vectors than the model for: {', '.join(differing)}"),
            soft_wrap=True,
        )


def _megabytes(bar: Bar, title: str) -> Progress:
    """Return what moves a bar by bytes sent and bytes in all; it counts mebibytes."""
    task = bar.add_task(title, total=None)
    return lambda done, total: bar.update(task, completed=done >> 20, total=total >> 20)


def _file_name(connection: Connection, name: str) -> str:
    """Return a model's bare name with nothing in it that a file name should not have."""
    (found,) = connection.execute(
        "SELECT relname FROM pg_class WHERE oid = to_regclass(%s)", (name,)
    ).fetchone()
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in found)


def _default_name(source: str) -> str:
    """Turn the name of a file, a folder or a repository into an identifier that needs no quotes."""
    path = Path(source).expanduser()
    on_hub = not path.exists() and is_hub_name(source)
    path = Path(source.partition("@")[0]) if on_hub else path.resolve()
    stem = path.stem if path.suffix == ".onnx" else repository_name(path) or path.name
    letters = "".join(c if c.isascii() and c.isalnum() else "_" for c in stem.lower())
    return letters if letters[:1].isalpha() else f"m_{letters}"


@model.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@target_options
def list_models(as_json: bool) -> None:
    """List the models that you may use."""
    columns = ["model", "function", "dimensions", "max tokens", "size", "loaded", "in memory"]
    with current_target().connect(autocommit=True) as connection:
        rows = connection.execute(
            "SELECT model_name, function, dimensions, max_tokens, model_size, created_at, inmemory "
            "FROM pythia.model_details ORDER BY 1"
        ).fetchall()
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns[:6], [(*r[:4], size(r[4]), f"{r[5]:%Y-%m-%d %H:%M}") for r in rows])


@model.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@target_options
def show(name: str, as_json: bool) -> None:
    """Show all that is known of a model."""
    with current_target().connect(autocommit=True) as connection:
        cursor = connection.execute(
            "SELECT * FROM pythia.model_details WHERE model_name = to_regclass(%s)::text", (name,)
        )
        row = cursor.fetchone()
        assert cursor.description is not None
        columns = [c.name for c in cursor.description]
    if row is None:
        raise click.ClickException(f'model "{name}" does not exist. Run: pythia model list')
    if as_json:
        print_json(dict(zip(columns, row, strict=True)))
    else:
        print_table(["", ""], [(column, cell(value)) for column, value in zip(columns, row, strict=True)])


@model.command()
@click.argument("name")
@target_options
def drop(name: str) -> None:
    """Drop a model; fails while views or generated columns use it."""
    with current_target().connect(autocommit=True) as connection:
        connection.execute("CALL dbms_vector.drop_onnx_model(%s)", (name,))
    console.print(Text(f"dropped model {name}"), soft_wrap=True)
