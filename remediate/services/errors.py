"""What all service managers have in common: that they may not do as they are told."""


class ServiceError(Exception):
    """A service could not be started or stopped; the text says why."""


class NoServiceError(ServiceError):
    """There is no such service, or starting it is forbidden: nothing can be put back."""
