"""The steps of a run that comes to its end, in their order, written down once more than in the code."""

STEPS = [
    "hold",
    "check",
    "fetch",
    "verify",
    "extract",
    "probe",
    "dress",
    "confirm",
    "swap",
    "start",
    "release",
    "prune",
]
