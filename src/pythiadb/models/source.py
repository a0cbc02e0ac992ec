"""A model folder on disk, and what the caller says about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pythiadb.errors import InvalidModel, InvalidParameter
from pythiadb.models.metadata import parse_metadata
from pythiadb.models.package import Attribute, Package, Spec
from pythiadb.models.pooling import read_json
from pythiadb.models.preparing import check_defaults


@dataclass(frozen=True, slots=True)
class Source:
    """A folder to import, an empty folder `work` for files that have to be made, and the caller's wishes.

    `config` is the folder's config.json, empty when there is none. `given` is the metadata as the caller wrote it. `function`
    overrides what the folder seems to be for; `prompt` names one of the folder's prompts.
    """

    folder: Path
    work: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    function: str | None = None
    prompt: str | None = None

    def has(self, name: str) -> bool:
        """Tell whether the folder holds a file of that name."""
        return (self.folder / name).is_file()

    def optional(self, name: str) -> dict[str, Any]:
        """Return a JSON file of the folder, empty when it is not there."""
        return read_json(self.folder / name) if self.has(name) else {}

    def attributes(self, default: tuple[str, ...], most: int) -> tuple[str, ...]:
        """Return the attribute names of the metadata's input map in order, else `default`.

        Tensor names do not matter: the tensors of a folder are known. Raise InvalidParameter for more than `most` names.
        """
        groups = self.given.get("input")
        names = tuple(name for group in groups.values() for name in group) if groups else default
        if len(names) > most:
            raise InvalidParameter(
                f"the model takes {most} attribute{'s' * (most > 1)}, the metadata names {len(names)}"
            )
        return names

    def longest(self) -> tuple[int, ...]:
        """Return the metadata's maxSequenceLength, if it is there; raise InvalidParameter unless it is a number from 1."""
        given = self.given.get("maxSequenceLength")
        if given is None:
            return ()
        if not 1 <= given < math.inf:
            raise InvalidParameter(f'metadata key "maxSequenceLength" must be a number from 1, not {given}')
        return (int(given),)

    def package(self, spec: Spec, files: Mapping[str, Path], facts: Mapping[str, Any]) -> Package:
        """Return a package whose metadata are Oracle's keys for `spec`, then `facts`, then what the caller gave.

        The caller's defaults for NULL become the specification's. Raise InvalidParameter for one of an attribute that the model does
        not have, FeatureNotSupported for one of a picture.
        """
        spec = replace(spec, default_on_null=self.given.get("defaultOnNull", {}))
        check_defaults(spec, {})
        return Package(spec, files, {**described(spec), **facts, **self.given})


def open_source(
    folder: Path,
    work: Path,
    metadata: str | Mapping[str, Any] | None = None,
    *,
    function: str | None = None,
    prompt: str | None = None,
) -> Source:
    """Read a folder's config.json and check the caller's metadata.

    Raise InvalidParameter when `function` contradicts the metadata, InvalidModel when config.json is malformed.
    """
    given: Mapping[str, Any] = {}
    if metadata is not None:
        given = parse_metadata(metadata).raw
        if function not in (None, given["function"]):
            raise InvalidParameter(
                f'function "{function}" contradicts the metadata, which say "{given["function"]}"'
            )
        function = given["function"]
    elif function is not None:
        function = parse_metadata({"function": function}).function
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    return Source(folder, work, config, given, function, prompt)


def described(spec: Spec) -> dict[str, Any]:
    """Return the metadata keys, as Oracle writes them, that say the same as `spec`."""
    keys = {
        "embedding": "embeddingOutput",
        "regression": "regressionOutput",
        "probability": "classificationProbOutput",
    }
    found: dict[str, Any] = {"function": spec.function}
    found |= {keys[role]: tensor for role, tensor in spec.outputs.items() if role in keys}
    # A string input is what Oracle knows; the tensors behind it are the package's own affair.
    single = len(spec.attributes) == 1
    found["input"] = {
        "input" if single else name: [attribute.name]
        for name, attribute in zip(("first_input", "second_input"), spec.attributes, strict=False)
    }
    if spec.labels is not None:
        found |= {"labels": list(spec.labels), "normalizeProb": spec.normalize_prob}
    return found


def text_attributes(names: tuple[str, ...]) -> tuple[Attribute, ...]:
    """Return text attributes of these names."""
    return tuple(Attribute(name, "text") for name in names)


def whole(value: object, name: str) -> int:
    """Return a JSON number as a positive integer; raise InvalidModel naming the key otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidModel(f'invalid value for "{name}": {value!r}')
    return value
