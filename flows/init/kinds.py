"""What kind of thing a file is, told by its name and its first bytes."""

from __future__ import annotations

from ladm.tasks.manifest import SourceFile
from ladm.tasks.reading.readers import FORMATS
from ladm.tasks.reading.streams import CLAIMS
from ladm.tasks.storage.file_systems import io_errors, opened

PROSE = "Text"
LANGUAGES = {
    "Assembly": "asm s",
    "C": "c h",
    "C++": "cc cpp cxx hh hpp hxx",
    "C#": "cs",
    "CSS": "css scss sass less",
    "CUDA": "cu cuh",
    "Clojure": "clj cljs",
    "Dart": "dart",
    "Elixir": "ex exs",
    "Erlang": "erl hrl",
    "Fortran": "f f77 f90 f95 f03",
    "Go": "go",
    "HTML": "htm html xhtml",
    "Haskell": "hs lhs",
    "Java": "java",
    "JavaScript": "cjs js jsx mjs",
    "Julia": "jl",
    "Kotlin": "kt kts",
    "Lisp": "el lisp lsp scm",
    "Lua": "lua",
    "Markdown": "markdown md mdx",
    "OCaml": "ml mli",
    "Org": "org",
    "PHP": "php",
    "Perl": "pl pm",
    "Python": "py pyi pyx",
    "R": "r rmd",
    "Ruby": "rb",
    "Rust": "rs",
    "SQL": "sql",
    "Scala": "scala",
    "Shell": "bash sh zsh",
    "Swift": "swift",
    "TeX": "cls sty tex",
    "TypeScript": "cts mts ts tsx",
    "Verilog": "sv v vhd",
    "Zig": "zig",
    "reStructuredText": "rst",
    PROSE: "adoc asc text txt",
}
"""Language → the extensions of its files."""
OF_EXTENSION = {extension: language for language, all_of in LANGUAGES.items() for extension in all_of.split()}
DOCUMENTS = {"Markdown", "Org", "reStructuredText", "HTML", "TeX", PROSE}
"""Those that people write for people: by themselves they make no source tree."""
DATA = {name: kind for name, kind in FORMATS.items() if kind != "txt"}
"""Extension → format, of files that hold many records."""
TABLES = {"csv", "tsv", "psv"}
"""Extensions of tables: text, and no documents."""
HEAD_BYTES = 8192


def extension_of(name: str) -> tuple[str, str]:
    """The extension of a name, in lower case and without its dot, and the suffix of compression behind it."""
    base = name.rsplit("/", 1)[-1]
    suffix = next((one for one in CLAIMS if base.lower().endswith(one)), "")
    stem = base[: len(base) - len(suffix)]
    return stem.rpartition(".")[2].lower() if "." in stem.lstrip(".") else "", base[len(stem) :]


def ending_of(name: str) -> str:
    """The end of a name as it stands there, from the extension's dot on: `.JSONL.gz`; empty where there is none."""
    extension, suffix = extension_of(name)
    size = len(extension) + len(suffix) + bool(extension)
    return name[-size:] if size else ""


def is_text(file: SourceFile) -> bool:
    """Whether a file's beginning is text: UTF-8 without zero bytes."""
    try:
        with opened(file.uri) as stream:
            head = stream.read(HEAD_BYTES)
    except io_errors(ValueError):
        return False
    if b"\0" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:  # a character may be cut off at the end
        return bool(head) and error.start > len(head) - 4 and len(head) == HEAD_BYTES
    return True
