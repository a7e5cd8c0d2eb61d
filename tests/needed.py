"""Arguments that a class cannot be built without, with the values of its config."""

import inspect


def needed_arguments(part, described, given=0):
    """Return the arguments without a default that a class takes, as its config gives them.

    Args:
        part: The class.
        described: Entries of configs with a class path and arguments.
        given: Number of leading arguments that the caller gives.
    """
    parameters = list(inspect.signature(part).parameters.values())[given:]
    needed = {parameter.name for parameter in parameters if parameter.default is parameter.empty}
    if not needed:
        return {}
    (own,) = [entry for entry in described if entry["class_path"].rpartition(".")[2] == part.__name__]
    return {name: value for name, value in own["init_args"].items() if name in needed}
