"""What a model's configuration may name, entry by entry."""

import json

import numpy as np
import pytest
import tensorflow as tf
from nets import layers, residual_net

import tf_synflow
from tf_synflow.checks.saved_models import UntrustedFileError
from tf_synflow.keras2.imports import keras, tfmot
from tf_synflow.keras2.trust import Trust, check_config


def function(module, name, alias=None):
    return {
        "class_name": "function",
        "module": module,
        "config": name,
        "registered_name": alias or name,
    }


def instance(module, name, alias=None, **config):
    return {
        "class_name": name,
        "module": module,
        "config": config,
        "registered_name": alias,
    }


def operator(symbol):
    module = "keras.src.layers.core.tf_op_layer"
    return instance(module, "TFOpLambda", "TFOpLambda", function=symbol)


HOSTILE = [
    function("os", "system"),
    function("builtins", "eval"),
    function("builtins", "relu", "exec"),
    function("keras.utils", "get_file"),
    function("keras.models", "load_model"),
    function("keras.activations", "relu", "os.system"),
    function("keras.src.saving.saving_lib", "os.system"),
    function("tf_keras.src.saving.saving_lib", "zipfile"),
    function("keras_evil.activations", "relu"),
    function(None, "system"),
    function("os", ["system"]),
    instance("subprocess", "Popen"),
    instance("keras_evil", "Dense"),
    instance("tf_synflow_evil", "Dense"),
    instance("keras.utils", "get_file"),
    instance("keras.utils", "nothing", "get_file"),
    instance("keras.src.saving.saving_lib", "zipfile"),
    instance("keras.src.saving.saving_lib", "zipfile.ZipFile"),
    instance("keras.src.utils.data_utils", "closing"),
    instance(None, "get_file"),
    instance("tensorflow.python.ops.init_ops_v2", "constant_op"),
    instance("keras.layers", "Lambda", function="os"),
    instance(None, "Lambda", function="os"),
    instance("keras.src.engine.base_layer", "TensorFlowOpLayer", node_def="x"),
    instance("keras.src.layers.core.tf_op_layer", "ClassMethod", cls_ref="x"),
    instance("keras.src.layers.core.tf_op_layer", "InstanceMethod", attr_name="x"),
    instance("keras.layers", "StringLookup", vocabulary="/etc/passwd"),
    instance("keras.layers", ["Dense"]),
    {"class_name": "__lambda__", "config": {"value": ["4wEA", None, None]}},
    {"class_name": "ResidualWrapper", "config": {"residual_fn_type": "lambda"}},
    {
        "class_name": "__typespec__",
        "spec_name": "Popen",
        "module": "subprocess",
        "config": [],
        "registered_name": None,
    },
    operator("io.write_file"),
    operator("raw_ops.WriteFile"),
    operator("io.gfile.rmtree"),
    operator("print"),
    operator("py_function"),
    operator("load_op_library"),
    operator("keras.utils.get_file"),
    operator("keras.models.load_model"),
    operator("compat.v1.gfile.DeleteRecursively"),
    operator("summary.create_file_writer"),
    operator("no.such.thing"),
    operator(None),
]


@pytest.mark.parametrize("entry", HOSTILE, ids=str)
def test_what_could_do_harm_is_refused_wherever_it_stands(entry):
    trust = Trust({}, (), by_module=True)
    for config in (entry, {"config": {"layers": [{"deep": [entry]}]}}):
        with pytest.raises(UntrustedFileError):
            check_config(json.loads(json.dumps(config)), trust)


@pytest.mark.parametrize(
    "entry",
    [
        instance(None, "Lambda", function="os"),
        instance("keras.layers", "Lambda", "Twice"),  # older formats go by class_name
        instance(None, "deserialize"),
        instance(None, "os.system"),
        operator("io.write_file"),
        {"class_name": "ResidualWrapper", "config": {"residual_fn_type": "lambda"}},
    ],
    ids=str,
)
def test_older_formats_are_looked_through_by_their_rules(entry):
    trust = Trust({"Twice": layers.Dense}, (), by_module=False)
    with pytest.raises(UntrustedFileError):
        check_config(json.loads(json.dumps(entry)), trust)


def many_kinds():
    """A net of operators, wrappers, cells, functions by name, policies and specs."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(
        4,
        3,
        activation=tf.nn.silu,
        kernel_regularizer=keras.regularizers.L1L2(1e-3, 1e-3),
        kernel_constraint=keras.constraints.MaxNorm(2),
        kernel_initializer=keras.initializers.Constant(np.ones((3, 3, 3, 4))),
        dtype="mixed_bfloat16",
    )(inputs)
    x = tf.cast(x, tf.float32)
    x = tf.nn.relu(x[:, 1:] + 2 * x[:, :-1]) - tf.math.reduce_mean(x, -1, True)[:, 1:]
    x = keras.backend.abs(tf.image.resize(x, (4, 4)))
    x = tf.reshape(x, (-1, tf.shape(x)[1], 16))
    x = tf.transpose(tf.concat([x, tf.zeros_like(x)], -1), (0, 2, 1))
    x = layers.TimeDistributed(layers.Dense(5, keras.activations.gelu))(x)
    x = layers.Bidirectional(layers.SimpleRNN(2))(x)
    x = layers.Dense(4, kernel_initializer=tf.constant_initializer(0.1))(x)
    x = layers.Normalization(mean=[0.0] * 4, variance=[1.0] * 4)(x)
    return keras.Model(inputs, keras.Sequential([layers.Dense(2)])(x))


@pytest.mark.filterwarnings("ignore:.*keras.initializers.serialize")
def test_what_keras_and_tfmot_write_is_allowed():
    pruned = tf_synflow.prune(residual_net(), 2, criterion="random")
    for model in (many_kinds(), pruned):
        model.compile(
            keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 5)),
            keras.losses.binary_crossentropy,
            [keras.metrics.AUC(), "mae"],
        )
        with tfmot.sparsity.keras.prune_scope():
            config = keras.saving.serialize_keras_object(model)
            check_config(json.loads(json.dumps(config)), Trust({}, (), by_module=True))
            check_config(json.loads(model.to_json()), Trust({}, (), by_module=False))
