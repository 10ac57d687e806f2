"""Flag files and published numbers, found by name: they travel in the package."""

from collections.abc import Sequence
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def resource_folder(name: str) -> Path:
    """The folder of files that are part of the library.

    Args:
      name: "configs" (flag files) or "published" (numbers of the papers).
    """
    # In a wheel, the folders lie inside the package; in a clone, beside it.
    inside = _PACKAGE / name
    beside = _PACKAGE.parent / ("docs/published" if name == "published" else name)
    return inside if inside.is_dir() else beside


def flag_file(name: str) -> str:
    """The path of a flag file.

    Args:
      name: A path; or the name of a flag file of this library, such as "quickstart",
        "cpu/resnet20_cifar10" or "configs/quickstart.flags".

    Returns:
      The path in the library; or `name` itself, if a file `name` exists or if the
      library has no flag file of that name.
    """
    short = name.removeprefix("configs/").removesuffix(".flags")
    found = resource_folder("configs") / f"{short}.flags"
    return str(found) if not Path(name).exists() and found.is_file() else name


def with_named_flag_files(argv: Sequence[str]) -> list[str]:
    """The words of a command line, with the names of flag files replaced by paths."""
    words: list[str] = []
    for word in argv:
        option, is_one, value = word.partition("=")
        if option.lstrip("-") == "flagfile" and is_one:
            word = f"{option}={flag_file(value)}"
        elif words and words[-1].lstrip("-") == "flagfile":
            word = flag_file(word)
        words.append(word)
    return words
