"""What all scripts do alike when they fail or are stopped: one line, no traceback."""

import ast
import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from tf_synflow.checks import first_line

ROOT = Path(__file__).parents[2]
# Those that can be called. The others are what they import.
SCRIPTS = sorted(
    path
    for path in (ROOT / "scripts" / "benchmarks").glob("*.py")
    if "def main(" in path.read_text("utf-8")
)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_script_ends_with_one_line(path):
    """Its main function is decorated."""
    body = ast.parse(path.read_text("utf-8")).body
    (main,) = (n for n in body if isinstance(n, ast.FunctionDef) and n.name == "main")
    assert [ast.unparse(d) for d in main.decorator_list] == ["in_one_line"]
    imports = [
        ast.unparse(n) for n in body if isinstance(n, ast.Import | ast.ImportFrom)
    ]
    assert "from tf_synflow.commands.plain_errors import in_one_line" in imports


# A program without TensorFlow.
PROGRAM = """
import os, signal, sys
sys.path.insert(0, ".")
sys.argv[0] = "program.py"
from tf_synflow.commands.plain_errors import in_one_line
assert "tensorflow" not in sys.modules  # which takes seconds to import
if sys.argv[1] == "import":
    os.kill(os.getpid(), signal.SIGINT)
@in_one_line
def main(argv):
    if argv[1] == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
    raise {"value": ValueError, "file": OSError, "bug": IndexError}[argv[1]]("no luck")
if __name__ == "__main__":
    main(sys.argv)
"""


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        ("import", -signal.SIGINT, "program.py: stopped by Ctrl-C\n"),
        ("interrupt", -signal.SIGINT, "program.py: stopped by Ctrl-C\n"),
        ("value", 1, "program.py: no luck\n"),
        ("file", 1, "program.py: no luck\n"),
        ("bug", 1, None),
    ],
)
def test_one_line_for_what_is_no_mistake_in_the_program(kind, code, said, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py", kind],
        cwd=ROOT,
        capture_output=True,
        text=True,
        # A process in the background is begun with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.returncode == code
    if said is None:
        assert "Traceback" in done.stderr and "IndexError: no luck" in done.stderr
    else:
        assert done.stderr == said


@pytest.fixture
def in_one_line(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    logger = logging.getLogger("tensorflow")
    monkeypatch.setattr(logger, "level", logger.level)
    from tf_synflow.commands import plain_errors

    return plain_errors.in_one_line


def write_events_into(path):
    """A folder for TensorBoard that cannot be made, because there is a file."""
    path.write_text("mine")
    tf.summary.create_file_writer(str(path / "events"))


def read_record(path):
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"x" * 100)
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)
    list(tf.data.TFRecordDataset(str(path)))


def decode(path):
    image = tf.data.Dataset.from_tensors(b"sun")
    list(image.map(tf.io.decode_jpeg))


def compiled(path):
    @tf.function
    def read():
        return tf.io.read_file(str(path / "none"))

    read()


def traced(path):
    @tf.function
    def step():
        with tf.init_scope():
            return tf.io.read_file(str(path / "none"))

    step()


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        (write_events_into, "{path} is not a directory"),
        (read_record, "corrupted record at 12"),
        (decode, "Unknown image file format. One of JPEG"),
        (compiled, "{path}/none; No such file or directory"),
        (traced, "{path}/none; No such file or directory"),
    ],
)
def test_errors_of_tensorflow_are_one_line(fail, said, in_one_line, tmp_path):
    @in_one_line
    def main(argv):
        fail(tmp_path / "place")

    with pytest.raises(SystemExit) as ended:
        main([])
    said = said.format(path=tmp_path / "place")
    assert ended.value.code.startswith(f"test_plain_errors.py: TensorFlow says: {said}")
    assert len(ended.value.code.splitlines()) == 1 and "{{" not in ended.value.code


def test_a_process_that_died_is_looked_for_where_it_is_listed(in_one_line, monkeypatch):
    """The text is TensorFlow's own, when a worker of two was killed in training."""
    node = "{{function_node __wrapped__CollectiveBcastSend_device_/device:CPU:0}} "
    text = (
        'in user code:\n\n    File "a.py", line 1370, in run_step  *\n        outputs '
        '= model.train_step(data)\n    File "b.py", line 214, in build\n        var = '
        f"tf.Variable(\n\n    UnavailableError: {node}Collective ops is aborted by: "
        "Error reported from /job:worker/task:1: The following tasks are unhealthy "
        "(stopped sending heartbeats):\n/job:worker/replica:0/task:1\n"
    )
    error = tf.errors.UnavailableError(None, None, text)
    assert first_line(error).startswith("Collective ops is aborted by: Error reported")

    @in_one_line
    def main(argv):
        raise error

    monkeypatch.setenv("TF_CONFIG", "{}")
    with pytest.raises(SystemExit, match="task:1.*that TF_CONFIG lists"):
        main([])
