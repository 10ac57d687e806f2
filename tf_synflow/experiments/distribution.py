"""Chooses the devices and processes that train together, and the precision."""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tf_synflow.checks import check_choice
from tf_synflow.keras2.imports import keras

DISTRIBUTIONS = ("auto", "none", "mirrored", "multi_worker")

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def strategy(name: str, batch_size: int) -> Any:
    """Makes a strategy of `tf.distribute`.

    Args:
      name: "none": one device. "mirrored": all GPUs of this machine, or all logical CPU
        devices if there are none. "auto": "mirrored" if there are several GPUs, else
        "none". "multi_worker": the processes that the environment variable `TF_CONFIG`
        lists. This process is one of them; all should be started with the same command.
      batch_size: Number of images in a step, over all replicas.

    Raises:
      ValueError: There is no strategy of that name; `TF_CONFIG` is not set or cannot be
        read; or the replicas cannot share the batch evenly.
    """
    check_choice("distribute", name, DISTRIBUTIONS)
    if name == "multi_worker":
        _check_cluster()
        # This must come before any other use of TensorFlow, even a list of devices.
        found = tf.distribute.MultiWorkerMirroredStrategy()
    else:
        found = _on_this_machine(name)
    replicas = found.num_replicas_in_sync
    if batch_size % replicas:
        raise ValueError(
            f"{replicas} replicas cannot share a batch of {batch_size} images evenly: "
            f"choose a multiple of {replicas}"
        )
    return found


def _on_this_machine(name: str) -> Any:
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")
    if len(devices) > 1 and (name == "mirrored" or (name == "auto" and gpus)):
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def is_chief(strategy: Any) -> bool:
    """Whether this process is the one of its cluster that writes files."""
    cluster = strategy.cluster_resolver
    if not cluster or not cluster.task_type:
        return True
    if cluster.task_type == "worker" and "chief" not in cluster.cluster_spec().jobs:
        return cluster.task_id == 0
    return cluster.task_type == "chief"


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Sets Keras's precision policy for the layers that are made in this context.

    The precision does not change weights, masks and scores: weights stay float32.

    Args:
      name: One of `PRECISIONS`.

    Raises:
      ValueError: There is no precision of that name.
    """
    check_choice("precision", name, PRECISIONS)
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def _check_cluster() -> None:
    text = os.environ.get("TF_CONFIG")
    wrong = _wrong_with(text)
    if wrong is not None:
        raise ValueError(
            f"multi_worker follows the environment variable TF_CONFIG, which is "
            f"{text!r}: {wrong}. Expected JSON such as "
            '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, '
            '"task": {"type": "worker", "index": 0}}'
        )


def _wrong_with(text: str | None) -> str | None:
    """What is wrong with a description of a cluster; None if nothing is."""
    if text is None:
        return "it is not set"
    try:
        config = json.loads(text)
    except ValueError as error:
        return f"it is no JSON ({error})"
    cluster = config.get("cluster") if isinstance(config, dict) else None
    if not isinstance(cluster, dict) or not cluster:
        return "it has no 'cluster'"
    for kind, addresses in cluster.items():
        if not isinstance(addresses, list) or not addresses:
            return f"the cluster's {kind!r} is no list of addresses"
        for address in addresses:
            host, _, port = str(address).rpartition(":")
            if not (host and port.isdecimal() and 0 < int(port) < 65536):
                return f"the address {address!r} is not host:port"
    every = [address for addresses in cluster.values() for address in addresses]
    if len(set(every)) < len(every):
        return "an address is given twice"
    task = config.get("task")
    if not isinstance(task, dict) or task.get("type") not in cluster:
        return f"its 'task' has no 'type' that is among {sorted(cluster)}"
    index, count = task.get("index"), len(cluster[task["type"]])
    if type(index) is not int or not 0 <= index < count:
        return f"its 'task' has the 'index' {index!r}, not one from 0 to {count - 1}"
    return None
