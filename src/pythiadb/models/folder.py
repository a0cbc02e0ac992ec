"""Packages from a Hugging Face or sentence-transformers folder: what the folder is for is found out here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pythiadb.errors import InvalidParameter
from pythiadb.models.clip import clip_packages, is_clip
from pythiadb.models.image_folder import PREPROCESSOR, image_package
from pythiadb.models.package import Package
from pythiadb.models.source import Source, open_source
from pythiadb.models.static import is_static, static_package
from pythiadb.models.text_folder import text_package
from pythiadb.models.towers import has_towers, tower_packages


def packages_from_folder(
    folder: Path,
    work: Path,
    metadata: str | Mapping[str, Any] | None = None,
    *,
    function: str | None = None,
    prompt: str | None = None,
) -> dict[str, Package]:
    """Return the packages of a model folder by the suffix of their names; most folders make one, without a suffix.

    Files that have to be made are written to the folder `work`. Metadata and `function` that are left out are derived from the
    folder; `prompt` names an entry of its config_sentence_transformers.json. Raise InvalidModel for a folder that is
    incomplete or malformed, FeatureNotSupported for what is not served, InvalidParameter for wishes that do not fit the folder.
    """
    source = open_source(folder, work, metadata, function=function, prompt=prompt)
    return _packages(source)


def package_from_folder(
    folder: Path,
    work: Path,
    metadata: str | Mapping[str, Any] | None = None,
    *,
    function: str | None = None,
    prompt: str | None = None,
) -> Package:
    """Return the package of a folder that makes one; see `packages_from_folder`."""
    packages = packages_from_folder(folder, work, metadata, function=function, prompt=prompt)
    if len(packages) > 1:
        raise InvalidParameter(f'model folder "{folder.name}" makes {len(packages)} models')
    (package,) = packages.values()
    return package


def _packages(source: Source) -> dict[str, Package]:
    if has_towers(source):
        return tower_packages(source)
    if is_clip(source.config):
        return clip_packages(source)
    if is_static(source):
        return {"": static_package(source)}
    if source.has(PREPROCESSOR):
        return {"": image_package(source)}
    return {"": text_package(source)}
