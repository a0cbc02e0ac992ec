"""The standard library of the running Python as data: its modules, and what they define and document.

Nothing here knows of a database: `collect()` returns plain objects that `demo.py` puts into tables.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

# Modules that are safe to import, by what they are good for. An object that several modules offer counts for the first.
AREAS = {
    "language": """
        builtins abc ast contextlib copy dataclasses dis enum functools importlib importlib.metadata
        importlib.resources importlib.util inspect itertools keyword operator symtable sys tokenize types
        typing warnings weakref""",
    "numbers": """
        math array bisect cmath collections decimal fractions graphlib heapq numbers random secrets
        statistics hashlib hmac""",
    "text": """
        string codecs difflib gettext locale pprint re reprlib stringprep textwrap unicodedata html
        html.parser""",
    "time": """
        datetime calendar sched time timeit zoneinfo""",
    "files": """
        pathlib os.path bz2 filecmp fileinput fnmatch glob gzip io linecache lzma mmap shutil tarfile
        tempfile zipfile zlib""",
    "data formats": """
        json json.decoder json.encoder base64 binascii configparser csv marshal mimetypes pickle pickletools
        plistlib shelve sqlite3 struct tomllib xml.dom.minidom xml.dom.pulldom xml.etree.ElementTree xml.sax
        xml.sax.handler xml.sax.saxutils xml.sax.xmlreader""",
    "system": """
        subprocess os argparse atexit cmd ctypes errno getpass grp logging logging.config logging.handlers
        platform pwd resource runpy shlex signal stat sysconfig syslog venv""",
    "concurrency": """
        threading asyncio concurrent.futures contextvars multiprocessing multiprocessing.connection
        multiprocessing.managers multiprocessing.pool multiprocessing.queues multiprocessing.shared_memory
        queue selectors""",
    "internet": """
        urllib.request urllib.parse urllib.error urllib.robotparser email email.charset email.contentmanager
        email.generator email.header email.headerregistry email.message email.parser email.policy
        email.utils ftplib http http.client http.cookiejar http.cookies http.server imaplib ipaddress
        mailbox netrc poplib smtplib socket socketserver ssl uuid webbrowser wsgiref.handlers
        wsgiref.headers wsgiref.simple_server wsgiref.util xmlrpc.client xmlrpc.server""",
    "testing": """
        unittest unittest.mock bdb cProfile code codeop doctest faulthandler gc pdb profile pstats trace
        traceback tracemalloc""",
}
LONGEST = 300  # characters of documentation that are kept
_CALLS = re.compile(
    r"\A([\w.]+\(.*\)( -+> [\w ]+)?(\s*\n\s*|$))+"
)  # such as "sleep(seconds)" on a line before
_SAYS_NOTHING = re.compile(r"Alias for field number|An enumeration|A generic version of|(\S+\s?){,2}$")


@dataclass(frozen=True, slots=True)
class Module:
    """A module: its name, the area of the library it belongs to, what its documentation says first."""

    name: str
    area: str
    doc: str


@dataclass(frozen=True, slots=True)
class Item:
    """Something that a module offers, under its full name, such as `pathlib.Path.glob`."""

    module: str
    name: str
    kind: str
    signature: str
    doc: str


def collect() -> tuple[list[Module], list[Item]]:
    """Return the modules and what they document: functions, classes, exceptions, methods, properties."""
    modules: list[Module] = []
    items: dict[tuple[str, str], Item] = {}
    for area, names in AREAS.items():
        for name, module in _import(names.split()):
            modules.append(Module(name, area, _first_words(module)))
            for item in _items(name, module):
                short_name = item.name.rpartition(".")[2]
                items.setdefault((short_name, item.doc), item)  # not again what is inherited or re-exported
    return modules, list(items.values())


def _import(names: list[str]) -> Iterator[tuple[str, ModuleType]]:
    """Import the modules that this Python has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for name in names:
            with contextlib.suppress(ImportError):
                yield name, importlib.import_module(name)


def _items(module_name: str, module: ModuleType) -> Iterator[Item]:
    """Find what a module documents: its functions and classes first, then what the classes define."""
    classes = []
    for name, value in _public(module):
        if inspect.isclass(value):
            classes.append((name, value))
        kind = _kind(value)
        if kind and (doc := _first_words(value)):
            yield Item(module_name, f"{module_name}.{name}", kind, _signature(value), doc)
    for class_name, cls in classes:
        for name, value in vars(cls).items():
            kind = "property" if inspect.isdatadescriptor(value) else "method" if _is_method(value) else None
            if kind and not name.startswith("_") and (doc := _first_words(value)):
                yield Item(module_name, f"{module_name}.{class_name}.{name}", kind, _signature(value), doc)


def _public(module: ModuleType) -> list[tuple[str, Any]]:
    """Return what a module offers: what `__all__` names or, without it, what was defined there. Aliases are left out."""
    homes = module.__name__, f"_{module.__name__}"  # the second is the part written in C
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) in homes]
    values = ((name, getattr(module, name, None)) for name in getattr(module, "__all__", own))
    public = ((name, value) for name, value in values if not name.startswith("_"))
    return [(name, value) for name, value in public if getattr(value, "__name__", None) == name]


def _kind(value: object) -> str | None:
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if inspect.isroutine(value) else None


def _is_method(value: object) -> bool:
    return inspect.isroutine(value) or isinstance(value, classmethod | staticmethod)


def _first_words(value: object) -> str:
    """Return the first paragraph of the documentation on one line, shortened; nothing where it says nothing."""
    doc = getattr(value, "__doc__", None)
    paragraph = _CALLS.sub("", inspect.cleandoc(doc), 1).partition("\n\n")[0] if isinstance(doc, str) else ""
    return "" if _SAYS_NOTHING.match(paragraph) else textwrap.shorten(paragraph, LONGEST, placeholder=" …")


def _signature(value: object) -> str:
    """Return how to call it; nothing where Python cannot tell."""
    try:
        return re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(getattr(value, "__func__", value))))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
