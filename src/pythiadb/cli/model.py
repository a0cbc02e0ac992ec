"""`pythia model load | list | show | drop`."""

from __future__ import annotations

from pathlib import Path

import click

from pythiadb.cli.display import cell, console, print_json, print_table, progress_bar, size
from pythiadb.cli.target import current_target, target_options
from pythiadb.models.loading import load_model


@click.group()
def model() -> None:
    """Models in the database."""


@model.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the model; by default the file's or folder's name.")
@click.option(
    "--metadata", help="Oracle's metadata as JSON; needed for ONNX files that do not follow the conventions."
)
@target_options
def load(path: Path, name: str | None, metadata: str | None) -> None:
    """Load a Hugging Face folder, or an ONNX file that takes strings."""
    name = name or _default_name(path)
    with current_target().connect() as connection, progress_bar() as bar:
        task = bar.add_task(f"loading {name}", total=None)
        load_model(
            connection, path, name,
            metadata=metadata,
            progress=lambda sent, total: bar.update(task, completed=sent >> 20, total=total >> 20),
        )  # fmt: skip
        row = connection.execute(
            "SELECT relation::text, spec ->> 'dimensions', size FROM pythia.model WHERE relation = to_regclass(%s)",
            (name,),
        ).fetchone()
    assert row is not None
    console.print(f"loaded model {row[0]}: {row[1]} dimensions, {size(row[2])}")


def _default_name(path: Path) -> str:
    """Turn a file name into an identifier that needs no quotes."""
    stem = path.resolve().stem if path.suffix == ".onnx" else path.resolve().name
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
