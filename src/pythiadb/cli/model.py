"""`pythia model load | export | list | show | drop`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from pythiadb.cli.display import cell, console, print_json, print_table, progress_bar, size
from pythiadb.cli.target import current_target, target_options
from pythiadb.models.export import export_augmented, export_files
from pythiadb.models.loading import load_model, read_packages, stored_package
from pythiadb.models.package import FUNCTIONS, Package


@click.group()
def model() -> None:
    """Models in the database."""


@model.command()
@click.argument("path", metavar="PATH|NAME")
@click.option("--as", "--name", "name", help="Name of the model; by default the file's or folder's name.")
@click.option(
    "--prompt", help="Prompt of the folder that is put before every text, as it names it: query, passage, …"
)
@click.option(
    "--function",
    type=click.Choice(FUNCTIONS),
    help="What the model is for, where it cannot be found out.",
)
@click.option(
    "--metadata", help="Oracle's metadata as JSON; needed for ONNX files that do not follow the conventions."
)
@target_options
def load(path: str, name: str | None, prompt: str | None, function: str | None, metadata: str | None) -> None:
    """Load a Hugging Face folder, a name on its hub, or an ONNX file.

    A CLIP folder makes two models: NAME_text and NAME_image.
    """
    name = name or _default_name(path)
    with current_target().connect() as connection, progress_bar() as bar:
        task = bar.add_task(f"loading {name}", total=None)
        made = load_model(
            connection, path, name,
            metadata=metadata,
            function=function,
            prompt=prompt,
            progress=lambda sent, total: bar.update(task, completed=sent >> 20, total=total >> 20),
        )  # fmt: skip
        rows = connection.execute(
            "SELECT relation::text, function, spec ->> 'dimensions', jsonb_array_length(nullif(spec -> 'labels', 'null')), size "
            "FROM pythia.model WHERE relation = ANY (SELECT to_regclass(n) FROM unnest(%s::text[]) AS n) ORDER BY id",
            (made,),
        ).fetchall()
    for relation, kind, dimensions, labels, stored in rows:
        what = f"{dimensions} dimensions" if dimensions else kind
        if labels:
            what += f", {labels} labels"
        console.print(f"loaded model {relation}: {what}, {size(stored)}")


@model.command()
@click.argument("source", metavar="NAME|PATH")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--augmented",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write one ONNX file with the tokenizer inside.",
)
@target_options
def export(source: str, folder: Path | None, augmented: Path | None) -> None:
    """Write a model of the database, or what a folder would make, into FOLDER.

    With --augmented the result is Oracle's form: one ONNX file that takes text. Only a model's owner may export it.
    """
    if (folder is None) == (augmented is None):
        raise click.UsageError("Give either FOLDER or --augmented FILE.")
    with tempfile.TemporaryDirectory(prefix="pythia-export-") as work:
        package = _package(source, Path(work))
        if augmented is not None:
            export_augmented(package, augmented)
        elif folder is not None:
            export_files(package, folder)
    console.print(f"exported {source} to {augmented or folder}")


def _package(source: str, work: Path) -> Package:
    if not Path(source).exists():
        with current_target().connect(autocommit=True) as connection:
            return stored_package(connection, source, work)
    packages = read_packages(source, work)
    if len(packages) > 1:
        raise click.ClickException(f"{source} makes {len(packages)} models. Load it and export one of them.")
    return packages[""]


def _default_name(source: str) -> str:
    """Turn a file name into an identifier that needs no quotes."""
    path = Path(source)
    path = path.resolve() if path.exists() else Path(source.partition("@")[0])
    stem = path.stem if path.suffix == ".onnx" else path.name
    letters = "".join(c if c.isalnum() else "_" for c in stem.lower())
    return letters if letters[:1].isalpha() else f"m_{letters}"


@model.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@target_options
def list_models(as_json: bool) -> None:
    """List the models that you may use."""
    columns = ["model", "function", "dimensions", "max tokens", "size", "loaded"]
    with current_target().connect(autocommit=True) as connection:
        rows = connection.execute(
            "SELECT model_name, function, dimensions, max_tokens, model_size, created_at FROM pythia.model_details ORDER BY 1"
        ).fetchall()
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, [(*r[:4], size(r[4]), f"{r[5]:%Y-%m-%d %H:%M}") for r in rows])


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
    console.print(f"dropped model {name}")
