"""What ends a training command with one clear line."""


class TrainingError(Exception):
    """The data, the configuration or the run folder must change; the text says what and how."""
