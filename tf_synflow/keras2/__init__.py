"""Everything that is particular to Keras 2 (tf_keras) and tfmot."""
