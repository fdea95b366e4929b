"""What a storage node is and how it is: observation only, nothing here changes the host."""

__version__ = "0.1.0"
