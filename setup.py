"""Packaging of tf_synflow: all metadata lives here."""

import re
from pathlib import Path

from setuptools import find_packages, setup

DEMO = [
    "matplotlib>=3.8,<4",
    "scikit-learn>=1.4,<2",
    "scipy>=1.11,<2",
]
DOCS = [
    *DEMO,
    "furo>=2024.8.6",
    "latex2mathml>=3.77",
    "myst-parser>=4",
    "sphinx>=8",
    "sphinx-copybutton>=0.5",
    "sphinx-gallery>=0.18",
]
TEST = [
    *DEMO,
    "hypothesis>=6.100",
    "pytest>=8",
    "pytest-xdist>=3.8",
    "ruff>=0.6",
]

# What Keras 3 can run on beside TensorFlow, in the versions that were tried.
# JAX 0.10 has no build for Python 3.10.
JAX = ["jax>=0.10,<0.11; python_version >= '3.11'"]
ONNX = [
    "onnx>=1.23,<2",
    "onnxruntime>=1.23,<2",
    "onnxscript>=0.7,<1",
    "tf2onnx>=1.17,<2",
]
TORCH = ["torch>=2.13,<2.14"]

# Where the repository can be read by everybody. The README's links lead to its own
# folders; on the package index they need an address. Change it here alone.
HOME = "https://example.org/tf_synflow"


def long_description() -> str:
    """The README, with the addresses of its links and pictures whole."""
    text = Path(__file__).with_name("README.md").read_text("utf-8")
    return re.sub(r"\]\((?!https?://|#)", f"]({HOME}/blob/main/", text).replace(
        f"{HOME}/blob/main/docs/quickstart.png", f"{HOME}/raw/main/docs/quickstart.png"
    )


setup(
    name="tf_synflow",
    version="0.2.0",
    description=(
        "Prune Keras networks before training, without data, by iteratively "
        "conserving synaptic flow"
    ),
    long_description=long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    url=HOME,
    project_urls={"Changelog": f"{HOME}/blob/main/CHANGELOG.md"},
    keywords="pruning sparsity SynFlow Keras TensorFlow JAX PyTorch TFLite",
    python_requires=">=3.10,<3.14",
    # Flag files and the papers' numbers travel in the package. In a clone they lie
    # where people look for them, and `commands.flag_files` finds them in both places.
    packages=[
        *find_packages(include=["tf_synflow", "tf_synflow.*"]),
        "tf_synflow.configs",
        "tf_synflow.published",
    ],
    package_dir={
        "tf_synflow.configs": "configs",
        "tf_synflow.published": "docs/published",
    },
    package_data={
        "tf_synflow": ["py.typed", "reporting/page/*"],
        "tf_synflow.configs": ["*.flags", "*/*.flags"],
        "tf_synflow.published": ["*.csv", "*.md"],
    },
    entry_points={"console_scripts": ["tf-synflow = tf_synflow.commands:main"]},
    install_requires=[
        "absl-py>=1.4",
        # tensorflow-datasets 4.9.10 imports importlib_resources undeclared.
        "importlib_resources>=6",
        "h5py>=3.10",
        # What TensorFlow brings along as tf.keras. 3.12 is the last for Python 3.10;
        # 3.10 has not got all that is needed.
        "keras>=3.12,<4",
        "numpy>=1.26,<3",
        # TensorFlow 2.21 no longer brings TensorBoard along.
        "tensorboard>=2.18,<2.22",
        "tensorflow>=2.18,<2.22",
        "tensorflow-datasets>=4.9.4,<5",
        "tensorflow-model-optimization>=0.8.1,<0.9",
        "tf_keras>=2.18,<2.22",
        "tqdm>=4.66",
    ],
    extras_require={
        "demo": DEMO,
        "docs": DOCS,
        "jax": JAX,
        "onnx": ONNX,
        "test": TEST,
        "torch": TORCH,
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Typing :: Typed",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
