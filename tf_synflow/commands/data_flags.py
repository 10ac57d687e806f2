"""The flags for the images that several programs share."""

from absl import flags

DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of tensorflow_datasets; for tiny_imagenet also the official zip file or "
    "folder. Default: ~/tensorflow_datasets.",
)
DOWNLOAD = flags.DEFINE_bool(
    "download", True, "Download the data set if it is not in the folder."
)
TRAIN_IMAGES = flags.DEFINE_integer(
    "train_images",
    None,
    "Use only this number of training images, also for scoring. Default: all.",
)
