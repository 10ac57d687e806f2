"""What the errors of other libraries say, in one line."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, 300 characters of it at most; or nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else ""
