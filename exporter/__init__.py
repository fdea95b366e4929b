"""What a storage node is and how it is: observation only, nothing here changes the host."""

__version__ = "0.1.0"
DEFAULT_CONFIG = "/etc/storagenode-keeper.yml"
"""Here, since the command line shows it in `--help`, which loads nothing else."""
