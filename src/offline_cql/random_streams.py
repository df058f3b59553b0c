"""The random streams of the project: every use of a seed has a number of its own.

A generator is seeded with [seed, stream], so that two uses of one seed never see the same numbers.
Changing a value changes every result that depends on it.
"""

from enum import IntEnum


class RandomStream(IntEnum):
    """The second word of a generator's seed."""

    NOISE = 0x6E6F697365  # agents: sampled actions of the updates
    SAMPLING = 0x5A4D  # data: indices of the transitions per update
    SPLIT = 0x5B117  # data: training and validation episodes
    TARGET_STEPS = 0x1A3B  # data: steps of each transition's target with td_lambda
    VALIDATION_SAMPLE = 0x40  # data: validation steps, if there are more than needed
    VALIDATION_NOISE = 0x4E1D  # agents: sampled actions of the validation gap
    COLLECTION = 0x0FF  # simulation: collected episodes
    FITTED_Q = 0xF9E  # ope: fitted Q evaluation
    FITTED_BEHAVIOR = 0xBE  # ope: the behavior policy, fitted to the data
    IMPORTANCE_SAMPLING = 0x15  # ope: bootstrap of the weighted estimates
    LOGGED_RETURNS = 0xBE4A  # ope: bootstrap of the logged returns
