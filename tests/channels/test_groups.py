import numpy as np
from nets import layers, residual_net

from tf_synflow.channels import needed, reachability, rules
from tf_synflow.channels.groups import Channels
from tf_synflow.frameworks import read
from tf_synflow.keras2.imports import keras


def channels_of(model, names):
    return Channels(read(model), names, rules.rule_of)


def joins_of(channels, model):
    """All channels joined."""
    joins = {}
    for name, (into, out) in channels.kernels.items():
        shape = model.get_layer(name.split("/")[0]).kernel.shape
        joins[name] = np.ones((shape[into], shape[out]), bool)
    return joins


def test_an_add_makes_channels_one_and_a_flatten_repeats_them():
    model = residual_net()
    names = ["conv1/kernel", "conv2/kernel", "conv3/kernel", "fc/kernel"]
    channels = channels_of(model, names)
    (group,) = channels.axes["conv1/kernel"][-1]
    assert channels.axes["conv2/kernel"] == {-2: (group,), -1: (group,)}
    assert channels.axes["conv3/kernel"][-2] == (group,)
    assert channels.axes["bn/gamma"] == {-1: (group,)}
    (last,) = channels.axes["conv3/kernel"][-1]
    assert channels.axes["fc/kernel"][-2] == (last,) * 4
    assert (channels.sizes[group], channels.sizes[last]) == (3, 4)


def test_a_channel_dies_with_its_last_reader_or_its_last_feeder_by_hand():
    inputs = keras.Input((2,))
    x = layers.Dense(3, name="a")(inputs)
    x = layers.Dense(3, name="b")(x)
    model = keras.Model(inputs, layers.Dense(2, name="c")(x))
    names = ["a/kernel", "b/kernel", "c/kernel"]
    channels = channels_of(model, names)
    joins = joins_of(channels, model)
    (first,), (second,) = (channels.axes[name][-1] for name in names[:2])
    joins["c/kernel"][0] = False  # nobody reads b's first channel
    joins["b/kernel"][2] = False  # a's last channel feeds nothing ...
    joins["b/kernel"][1, 1:] = False  # ... and a's second only the one nobody reads
    living = reachability.living(channels, joins, channels.sizes)
    assert living[first].tolist() == [True, False, False]
    assert living[second].tolist() == [False, True, True]


def test_a_channel_of_an_add_lives_while_one_branch_feeds_it():
    model = residual_net()
    names = ["conv1/kernel", "conv2/kernel", "conv3/kernel", "fc/kernel"]
    channels = channels_of(model, names)
    joins = joins_of(channels, model)
    (group,) = channels.axes["conv1/kernel"][-1]
    joins["conv1/kernel"][:, 1] = False
    assert reachability.living(channels, joins, channels.sizes)[group].all()
    joins["conv2/kernel"][:, 1] = False
    assert reachability.living(channels, joins, channels.sizes)[group].tolist() == [
        True,
        False,
        True,
    ]


def test_a_shared_layer_that_feeds_itself_is_followed_round():
    """x -> s -> s -> s -> out: from channel to channel, once each time."""
    shared = layers.Dense(3, name="s")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(1, name="o")(shared(shared(inputs))))
    channels = channels_of(model, ["s/kernel", "o/kernel"])
    joins = joins_of(channels, model)
    living = reachability.living(channels, joins, channels.sizes)
    assert all(flags.all() for flags in living.values())


def test_what_is_not_known_or_not_pruned_holds_its_channels():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(4, 3, name="a")(inputs)
    x = layers.Permute((1, 3, 2))(x)
    x = layers.Conv2D(4, 1, name="excluded")(x)
    x = layers.Conv2D(4, 1, groups=2, name="grouped")(x)
    model = keras.Model(inputs, layers.Dense(2, name="fc")(layers.Flatten()(x)))
    channels = channels_of(model, ["a/kernel", "grouped/kernel", "fc/kernel"])
    joins = joins_of(channels, model)
    assert list(joins) == ["a/kernel", "fc/kernel"]
    for join in joins.values():
        join[:] = False
    living = reachability.living(channels, joins, channels.sizes)
    for axes in channels.axes.values():
        for axis, groups in axes.items():
            if axis == -1 and groups == channels.axes["fc/kernel"][-1]:
                continue  # the logits: fed by nothing any more
            assert all(living[group].all() for group in groups)


def test_a_product_lives_if_all_factors_do_by_hand():
    inputs = keras.Input((2,))
    x, gate = (layers.Dense(4, name=name)(inputs) for name in "xg")
    y = layers.Multiply()([x, gate])
    model = keras.Model(inputs, layers.Dense(2, name="c")(y))
    channels = Channels(
        read(model), ["x/kernel", "g/kernel", "c/kernel"], needed.rule_of
    )
    joins = joins_of(channels, model)
    joins["x/kernel"][:, 0] = joins["g/kernel"][:, 1] = False
    joins["c/kernel"][2] = False
    (one,), (other,) = (channels.axes[f"{name}/kernel"][-1] for name in "xg")
    (both,) = channels.axes["c/kernel"][-2]
    assert {one, other, both} in map(set, channels.bundles)
    fed, reads = reachability.reached(channels, joins, channels.sizes)
    assert fed[both].tolist() == [False, False, True, True]
    assert reads[one].tolist() == [True, False, False, True]
    assert reads[other].tolist() == [False, True, False, True]


def test_synflow_scores_by_groups_without_products():
    """The masks that it finds do not depend on what `shrink` knows."""
    inputs = keras.Input((2,))
    x = layers.Dense(4, name="x")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="c")(x * layers.Dense(4)(x)))
    channels = channels_of(model, ["x/kernel", "c/kernel"])
    assert not channels.links and all(len(b) == 1 for b in channels.bundles)
    assert {*channels.axes["x/kernel"][-1]} <= channels.held
