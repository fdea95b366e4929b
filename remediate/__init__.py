"""What is done about a node that is stopped and outdated."""
