"""What the errors of other libraries say, in one line."""

import re

# What TensorFlow puts around its words: where in a graph they were said, and by whom.
_AROUND = re.compile(
    r"^(\{\{.*?\}\} *)+|^\(\d+\) [A-Z_]+: +|( *\[Op:\w*\])?( name: *)?$"
    r"|Error in user-defined function passed to .*?: (Iterator::\S+: )?"
)
_NO_WORDS = re.compile(
    r"Graph execution error|Detected at node|<stack traces|File \"|\d+ root error|\[\["
)
# An error while a graph was made comes after all the lines of code that led to it.
_AFTER_CODE = re.compile(r"in user code:.*?\n *\w+Error: *", re.DOTALL)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, 300 characters of it at most; or nothing.

    From TensorFlow's errors, which are long, it is the first that says what happened.
    """
    text = _AFTER_CODE.sub("", str(error).strip(), count=1)
    lines = (line.strip() for line in text.splitlines())
    said = [_AROUND.sub("", line) for line in lines if not _NO_WORDS.match(line)]
    return next((line[:300].rstrip(" :") for line in said if line), "")
